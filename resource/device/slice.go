package device

import (
	"fmt"
	"regexp"
	"strings"

	corev1 "k8s.io/api/core/v1"
	devicev1 "k8s.io/api/resource/v1"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/sampan-dev/sampan/semantics/podspec"
)

func validateClass(next, prev *devicev1.DeviceClass) field.ErrorList {
	s, path, known := &next.Spec, field.NewPath("spec"), map[string]bool{}
	if prev != nil {
		for _, old := range prev.Spec.Selectors {
			if old.CEL != nil {
				known[old.CEL.Expression] = true
			}
		}
	}
	errs := selectorList(s.Selectors, path.Child("selectors"), known)
	errs = append(errs, list[devicev1.DeviceClassConfiguration, string](s.Config, devicev1.DeviceConfigMaxSize, path.Child("config"), nil,
		func(c devicev1.DeviceClassConfiguration, at *field.Path) field.ErrorList {
			return configuration(&c.DeviceConfiguration, at)
		})...)
	if n := s.ExtendedResourceName; n != nil && !extended(*n) {
		errs = append(errs, field.Invalid(path.Child("extendedResourceName"), *n, "must be a valid extended resource name"))
	}
	return errs
}

// extended says whether a resource's name has a domain that is not Kubernetes' own.
func extended(name string) bool {
	if !strings.Contains(name, "/") || strings.Contains(name, corev1.ResourceDefaultNamespacePrefix) || strings.HasPrefix(name, corev1.DefaultResourceRequestsPrefix) {
		return false
	}
	return len(validation.IsQualifiedName(corev1.DefaultResourceRequestsPrefix+name)) == 0
}

func validateRule(s *devicev1.DeviceTaintRuleSpec, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	if f, at := s.DeviceSelector, path.Child("deviceSelector"); f != nil {
		if f.Driver != nil {
			errs = append(errs, driver(*f.Driver, at.Child("driver"))...)
		}
		if f.Pool != nil {
			errs = append(errs, pool(*f.Pool, at.Child("pool"))...)
		}
		if f.Device != nil {
			errs = append(errs, label(*f.Device, at.Child("device"))...)
		}
	}
	return append(errs, taint(s.Taint, path.Child("taint"))...)
}

// advanced says whether a slice's devices have what makes them large.
func advanced(s *devicev1.ResourceSliceSpec) bool {
	for _, d := range s.Devices {
		if len(d.Taints) > 0 || len(d.ConsumesCounters) > 0 {
			return true
		}
		for _, a := range d.Attributes {
			if a.BoolValues != nil || a.IntValues != nil || a.StringValues != nil || a.VersionValues != nil {
				return true
			}
		}
	}
	return false
}

func validateSlice(next, prev *devicev1.ResourceSlice) field.ErrorList {
	s, path := &next.Spec, field.NewPath("spec")
	errs := driver(s.Driver, path.Child("driver"))
	at := path.Child("pool")
	errs = append(errs, pool(s.Pool.Name, at.Child("name"))...)
	if s.Pool.ResourceSliceCount <= 0 {
		errs = append(errs, field.Invalid(at.Child("resourceSliceCount"), s.Pool.ResourceSliceCount, "must be greater than zero"))
	}
	if s.Pool.Generation < 0 {
		errs = append(errs, field.Invalid(at.Child("generation"), s.Pool.Generation, "must be greater than or equal to zero"))
	}
	if prev != nil {
		errs = append(errs, apivalidation.ValidateImmutableField(s.Pool.Name, prev.Spec.Pool.Name, at.Child("name"))...)
		errs = append(errs, apivalidation.ValidateImmutableField(s.Driver, prev.Spec.Driver, path.Child("driver"))...)
		errs = append(errs, apivalidation.ValidateImmutableField(s.NodeName, prev.Spec.NodeName, path.Child("nodeName"))...)
	}
	set, more := reach(s.NodeName, s.NodeSelector, s.AllNodes, path)
	errs = append(errs, more...)
	if s.NodeSelector != nil && len(s.NodeSelector.NodeSelectorTerms) != 1 {
		errs = append(errs, field.Invalid(path.Child("nodeSelector", "nodeSelectorTerms"), s.NodeSelector.NodeSelectorTerms, "must have exactly one node selector term"))
	}
	perDevice := s.PerDeviceNodeSelection != nil && *s.PerDeviceNodeSelection
	if perDevice {
		set = append(set, "`perDeviceNodeSelection`")
	} else if s.PerDeviceNodeSelection != nil {
		errs = append(errs, field.Invalid(path.Child("perDeviceNodeSelection"), false, "must be either unset or set to true"))
	}
	const one = "exactly one of `nodeName`, `nodeSelector`, `allNodes`, `perDeviceNodeSelection` is required"
	switch len(set) {
	case 0:
		errs = append(errs, field.Required(path, one))
	case 1:
	default:
		errs = append(errs, field.Invalid(path, "{"+strings.Join(set, ", ")+"}", one+", but multiple fields are set"))
	}
	if s.SharedCounters != nil && s.Devices != nil {
		errs = append(errs, field.Invalid(path, "", "only one of `sharedCounters` or `devices` is allowed"))
	}
	most := devicev1.ResourceSliceMaxDevices
	if advanced(s) {
		most = devicev1.ResourceSliceMaxDevicesWithAdvancedFeatures
	}
	errs = append(errs, list(s.Devices, most, path.Child("devices"), func(d devicev1.Device) string { return d.Name },
		func(d devicev1.Device, at *field.Path) field.ErrorList { return oneDevice(&d, perDevice, at) })...)
	return append(errs, list(s.SharedCounters, devicev1.ResourceSliceMaxCounterSets, path.Child("sharedCounters"), func(c devicev1.CounterSet) string { return c.Name },
		func(c devicev1.CounterSet, at *field.Path) field.ErrorList {
			return counters(c.Name, c.Counters, devicev1.ResourceSliceMaxCountersPerCounterSet, at.Child("name"), at.Child("counters"))
		})...)
}

// reach judges which nodes reach something, and names the ways that are set.
func reach(name *string, selector *corev1.NodeSelector, all *bool, path *field.Path) (set []string, errs field.ErrorList) {
	if name != nil && *name == "" {
		errs = append(errs, field.Invalid(path.Child("nodeName"), "", "must be either unset or set to a non-empty string"))
	} else if name != nil {
		set = append(set, "`nodeName`")
		errs = append(errs, say(path.Child("nodeName"), *name, apivalidation.NameIsDNSSubdomain(*name, false))...)
	}
	if selector != nil {
		set = append(set, "`nodeSelector`")
		errs = append(errs, podspec.NodeSelector(selector, path.Child("nodeSelector"))...)
	}
	if all != nil && *all {
		set = append(set, "`allNodes`")
	} else if all != nil {
		errs = append(errs, field.Invalid(path.Child("allNodes"), false, "must be either unset or set to true"))
	}
	return set, errs
}

func counters(name string, m map[string]devicev1.Counter, most int, path, of *field.Path) field.ErrorList {
	var errs field.ErrorList
	if name == "" {
		errs = append(errs, field.Required(path, ""))
	} else {
		errs = append(errs, label(name, path)...)
	}
	if len(m) == 0 {
		return append(errs, field.Required(of, ""))
	}
	return append(errs, table(m, most, of, label, func(devicev1.Counter, *field.Path) field.ErrorList { return nil })...)
}

func oneDevice(d *devicev1.Device, perDevice bool, path *field.Path) field.ErrorList {
	errs := label(d.Name, path.Child("name"))
	if n := len(d.Attributes) + len(d.Capacity); n > devicev1.ResourceSliceMaxAttributesAndCapacitiesPerDevice {
		errs = append(errs, field.Invalid(path, n, fmt.Sprintf("the total number of attributes and capacities must not exceed %d", devicev1.ResourceSliceMaxAttributesAndCapacitiesPerDevice)))
	}
	values := 0
	for _, a := range d.Attributes {
		values += max(1, len(a.BoolValues)+len(a.IntValues)+len(a.StringValues)+len(a.VersionValues))
	}
	if values > devicev1.ResourceSliceMaxAttributeValuesPerDevice {
		errs = append(errs, field.Invalid(path, values, fmt.Sprintf("the total number of attribute values must not exceed %d", devicev1.ResourceSliceMaxAttributeValuesPerDevice)))
	}
	errs = append(errs, table(d.Attributes, -1, path.Child("attributes"), qualified, attribute)...)
	shared := d.AllowMultipleAllocations != nil && *d.AllowMultipleAllocations
	errs = append(errs, table(d.Capacity, -1, path.Child("capacity"), qualified, func(c devicev1.DeviceCapacity, at *field.Path) field.ErrorList {
		switch {
		case c.RequestPolicy == nil:
			return nil
		case !shared:
			return field.ErrorList{field.Forbidden(at.Child("requestPolicy"), "allowMultipleAllocations must be true")}
		}
		return policy(c.Value, c.RequestPolicy, at.Child("requestPolicy"))
	})...)
	errs = append(errs, list[devicev1.DeviceTaint, string](d.Taints, devicev1.DeviceTaintsMaxLength, path.Child("taints"), nil, taint)...)
	errs = append(errs, list(d.ConsumesCounters, devicev1.ResourceSliceMaxDeviceCounterConsumptionsPerDevice, path.Child("consumesCounters"),
		func(c devicev1.DeviceCounterConsumption) string { return c.CounterSet },
		func(c devicev1.DeviceCounterConsumption, at *field.Path) field.ErrorList {
			return counters(c.CounterSet, c.Counters, devicev1.ResourceSliceMaxCountersPerDeviceCounterConsumption, at.Child("counterSet"), at.Child("counters"))
		})...)
	const one = "exactly one of `nodeName`, `nodeSelector`, or `allNodes` is required when `perDeviceNodeSelection` is set to true in the ResourceSlice spec"
	switch {
	case perDevice:
		set, more := reach(d.NodeName, d.NodeSelector, d.AllNodes, path)
		errs = append(errs, more...)
		if len(set) == 0 {
			errs = append(errs, field.Required(path, one))
		} else if len(set) > 1 {
			errs = append(errs, field.Invalid(path, "{"+strings.Join(set, ", ")+"}", one))
		}
	case d.NodeName != nil || d.NodeSelector != nil || d.AllNodes != nil:
		errs = append(errs, field.Invalid(path, nil, "`nodeName`, `nodeSelector` and `allNodes` can only be set if `perDeviceNodeSelection` is set to true in the ResourceSlice spec"))
	}
	return append(errs, binding(d.BindingConditions, d.BindingFailureConditions, path)...)
}

var semver = regexp.MustCompile(`^(0|[1-9]\d*)\.(0|[1-9]\d*)\.(0|[1-9]\d*)` +
	`(-(0|[1-9]\d*|\d*[a-zA-Z-][0-9a-zA-Z-]*)(\.(0|[1-9]\d*|\d*[a-zA-Z-][0-9a-zA-Z-]*))*)?` +
	`(\+[0-9a-zA-Z-]+(\.[0-9a-zA-Z-]+)*)?$`)

func attribute(a devicev1.DeviceAttribute, path *field.Path) (errs field.ErrorList) {
	set := 0
	text := func(s string, at *field.Path, version bool) {
		if version && !semver.MatchString(s) {
			errs = append(errs, field.Invalid(at, s, "must be a string compatible with semver.org spec 2.0.0"))
		}
		if len(s) > devicev1.DeviceAttributeMaxValueLength {
			errs = append(errs, field.TooLong(at, "", devicev1.DeviceAttributeMaxValueLength))
		}
	}
	many := func(isSet bool, n int, name string, value any) {
		if !isSet {
			return
		}
		set++
		if n == 0 {
			errs = append(errs, field.Invalid(path.Child(name), value, "must not be empty if specified"))
		}
	}
	for _, is := range []bool{a.BoolValue != nil, a.IntValue != nil, a.StringValue != nil, a.VersionValue != nil} {
		if is {
			set++
		}
	}
	if a.StringValue != nil {
		text(*a.StringValue, path.Child("string"), false)
	}
	if a.VersionValue != nil {
		text(*a.VersionValue, path.Child("version"), true)
	}
	many(a.BoolValues != nil, len(a.BoolValues), "bools", a.BoolValues)
	many(a.IntValues != nil, len(a.IntValues), "ints", a.IntValues)
	many(a.StringValues != nil, len(a.StringValues), "strings", a.StringValues)
	many(a.VersionValues != nil, len(a.VersionValues), "versions", a.VersionValues)
	for i, s := range a.StringValues {
		text(s, path.Child("strings").Index(i), false)
	}
	for i, s := range a.VersionValues {
		text(s, path.Child("versions").Index(i), true)
	}
	switch set {
	case 0:
		errs = append(errs, field.Invalid(path, "", "exactly one value must be specified"))
	case 1:
	default:
		errs = append(errs, field.Invalid(path, a, "exactly one value must be specified"))
	}
	return errs
}
