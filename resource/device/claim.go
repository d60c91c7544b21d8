package device

import (
	"regexp"
	"strings"

	devicev1 "k8s.io/api/resource/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	metavalidation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/utils/ptr"

	"github.com/sampan-dev/sampan/semantics/expression"
	"github.com/sampan-dev/sampan/semantics/podspec"
)

// names are a claim's requests with their alternatives.
type names map[string]sets.Set[string]

func namesOf(c *devicev1.DeviceClaim) names {
	out := names{}
	for _, r := range c.Requests {
		out[r.Name] = sets.New[string]()
		for _, s := range r.FirstAvailable {
			out[r.Name].Insert(s.Name)
		}
	}
	return out
}

func (n names) ref(name string, path *field.Path) field.ErrorList {
	main, sub, two := strings.Cut(name, "/")
	switch {
	case strings.Contains(sub, "/"):
		return field.ErrorList{field.Invalid(path, name, "must be the name of a request in the claim or the name of a request and a subrequest separated by '/'")}
	case n[main] == nil, two && !n[main].Has(sub):
		return field.ErrorList{field.Invalid(path, name, "must be the name of a request in the claim or the name of a request and a subrequest separated by '/'")}
	}
	return nil
}

func validateClaim(s *devicev1.ResourceClaimSpec, spec *field.Path) field.ErrorList {
	c, path := &s.Devices, spec.Child("devices")
	known := namesOf(c)
	errs := list(c.Requests, devicev1.DeviceRequestsMaxSize, path.Child("requests"), func(r devicev1.DeviceRequest) string { return r.Name }, request)
	errs = append(errs, list[devicev1.DeviceConstraint, string](c.Constraints, devicev1.DeviceConstraintsMaxSize, path.Child("constraints"), nil,
		func(k devicev1.DeviceConstraint, at *field.Path) field.ErrorList {
			errs := list(k.Requests, devicev1.DeviceRequestsMaxSize, at.Child("requests"), same, known.ref)
			switch {
			case k.MatchAttribute != nil:
				errs = append(errs, fullyQualified(string(*k.MatchAttribute), at.Child("matchAttribute"))...)
			case k.DistinctAttribute != nil:
				errs = append(errs, fullyQualified(string(*k.DistinctAttribute), at.Child("distinctAttribute"))...)
			default:
				errs = append(errs, field.Required(at, `exactly one of "matchAttribute" or "distinctAttribute" is required, but multiple fields are set`))
			}
			return errs
		})...)
	return append(errs, list[devicev1.DeviceClaimConfiguration, string](c.Config, devicev1.DeviceConfigMaxSize, path.Child("config"), nil,
		func(k devicev1.DeviceClaimConfiguration, at *field.Path) field.ErrorList {
			errs := list(k.Requests, devicev1.DeviceRequestsMaxSize, at.Child("requests"), same, known.ref)
			return append(errs, configuration(&k.DeviceConfiguration, at)...)
		})...)
}

func request(r devicev1.DeviceRequest, path *field.Path) field.ErrorList {
	errs := label(r.Name, path.Child("name"))
	switch {
	case r.Exactly == nil && len(r.FirstAvailable) == 0:
		errs = append(errs, field.Required(path, "exactly one of `exactly` or `firstAvailable` is required"))
	case r.Exactly != nil && len(r.FirstAvailable) > 0:
		errs = append(errs, field.Invalid(path, nil, "exactly one of `exactly` or `firstAvailable` is required, but multiple fields are set"))
	case r.Exactly != nil:
		e, at := r.Exactly, path.Child("exactly")
		errs = append(errs, wish(e.DeviceClassName, e.Selectors, at)...)
		errs = append(errs, mode(e.AllocationMode, e.Count, at)...)
		errs = append(errs, list[devicev1.DeviceToleration, string](e.Tolerations, devicev1.DeviceTolerationsMaxLength, at.Child("tolerations"), nil, toleration)...)
	default:
		errs = append(errs, list(r.FirstAvailable, devicev1.FirstAvailableDeviceRequestMaxSize, path.Child("firstAvailable"), func(s devicev1.DeviceSubRequest) string { return s.Name },
			func(s devicev1.DeviceSubRequest, at *field.Path) field.ErrorList {
				errs := label(s.Name, at.Child("name"))
				errs = append(errs, wish(s.DeviceClassName, s.Selectors, at)...)
				errs = append(errs, mode(s.AllocationMode, s.Count, at)...)
				return append(errs, list[devicev1.DeviceToleration, string](s.Tolerations, devicev1.DeviceTolerationsMaxLength, at.Child("tolerations"), nil, toleration)...)
			})...)
	}
	return errs
}

func wish(class string, selectors []devicev1.DeviceSelector, path *field.Path) field.ErrorList {
	at := path.Child("deviceClassName")
	var errs field.ErrorList
	if class == "" {
		errs = append(errs, field.Required(at, ""))
	} else {
		errs = append(errs, say(at, class, validation.IsDNS1123Subdomain(class))...)
	}
	return append(errs, selectorList(selectors, path.Child("selectors"), nil)...)
}

// selectorList judges expressions, but not again those that were known before.
func selectorList(selectors []devicev1.DeviceSelector, path *field.Path, known map[string]bool) field.ErrorList {
	return list[devicev1.DeviceSelector, string](selectors, devicev1.DeviceSelectorsMaxSize, path, nil, func(s devicev1.DeviceSelector, at *field.Path) field.ErrorList {
		if s.CEL == nil {
			return field.ErrorList{field.Required(at.Child("cel"), "")}
		}
		if known[s.CEL.Expression] {
			return nil
		}
		return expression.CheckSelector(at.Child("cel", "expression"), s.CEL.Expression)
	})
}

func mode(m devicev1.DeviceAllocationMode, count int64, path *field.Path) field.ErrorList {
	switch m {
	case devicev1.DeviceAllocationModeAll:
		if count != 0 {
			return field.ErrorList{field.Invalid(path.Child("count"), count, "must not be specified when allocationMode is 'All'")}
		}
	case devicev1.DeviceAllocationModeExactCount:
		if count <= 0 {
			return field.ErrorList{field.Invalid(path.Child("count"), count, "must be greater than zero")}
		}
	default:
		return field.ErrorList{field.NotSupported(path.Child("allocationMode"), m, []devicev1.DeviceAllocationMode{devicev1.DeviceAllocationModeAll, devicev1.DeviceAllocationModeExactCount})}
	}
	return nil
}

// place is a device, or one share of it.
type place struct {
	Driver, Pool, Device string
	Share                string
}

func validateStatus(next, prev *devicev1.ResourceClaim) field.ErrorList {
	s, was, path := &next.Status, &prev.Status, field.NewPath("status")
	at := path.Child("reservedFor")
	errs := list(s.ReservedFor, devicev1.ResourceClaimReservedForMaxSize, at, func(r devicev1.ResourceClaimConsumerReference) types.UID { return r.UID }, consumer)
	allocated := sets.New[place]()
	if s.Allocation != nil {
		for _, r := range s.Allocation.Devices.Results {
			allocated.Insert(place{r.Driver, r.Pool, r.Device, string(ptr.Deref(r.ShareID, ""))})
		}
	}
	errs = append(errs, list(s.Devices, -1, path.Child("devices"),
		func(d devicev1.AllocatedDeviceStatus) place {
			return place{d.Driver, d.Pool, d.Device, ptr.Deref(d.ShareID, "")}
		},
		func(d devicev1.AllocatedDeviceStatus, at *field.Path) field.ErrorList {
			return deviceStatus(d, at, allocated)
		})...)
	switch {
	case len(s.ReservedFor) == 0:
	case s.Allocation == nil:
		errs = append(errs, field.Forbidden(at, "may not be specified when `allocated` is not set"))
	case next.DeletionTimestamp != nil && sets.New(s.ReservedFor...).Difference(sets.New(was.ReservedFor...)).Len() > 0:
		errs = append(errs, field.Forbidden(at, "new entries may not be added while `deallocationRequested` or `deletionTimestamp` are set"))
	}
	switch {
	case s.Allocation != nil && was.Allocation != nil:
		if !equality.Semantic.DeepEqual(s.Allocation, was.Allocation) {
			errs = append(errs, field.Invalid(path.Child("allocation"), s.Allocation, apivalidation.FieldImmutableErrorMsg))
		}
	case s.Allocation != nil:
		errs = append(errs, allocation(s.Allocation, namesOf(&next.Spec.Devices), path.Child("allocation"))...)
	}
	return errs
}

func consumer(r devicev1.ResourceClaimConsumerReference, path *field.Path) (errs field.ErrorList) {
	for name, value := range map[string]string{"resource": r.Resource, "name": r.Name, "uid": string(r.UID)} {
		if value == "" {
			errs = append(errs, field.Required(path.Child(name), ""))
		}
	}
	return errs
}

func allocation(a *devicev1.AllocationResult, known names, path *field.Path) field.ErrorList {
	devices := path.Child("devices")
	errs := list[devicev1.DeviceRequestAllocationResult, string](a.Devices.Results, devicev1.AllocationResultsMaxSize, devices.Child("results"), nil,
		func(r devicev1.DeviceRequestAllocationResult, at *field.Path) field.ErrorList {
			errs := known.ref(r.Request, at.Child("request"))
			errs = append(errs, driver(r.Driver, at.Child("driver"))...)
			errs = append(errs, pool(r.Pool, at.Child("pool"))...)
			errs = append(errs, label(r.Device, at.Child("device"))...)
			errs = append(errs, binding(r.BindingConditions, r.BindingFailureConditions, at)...)
			if r.ShareID != nil {
				errs = append(errs, uid(string(*r.ShareID), at.Child("shareID"))...)
			}
			return errs
		})
	errs = append(errs, list[devicev1.DeviceAllocationConfiguration, string](a.Devices.Config, 2*devicev1.DeviceConfigMaxSize, devices.Child("config"), nil,
		func(c devicev1.DeviceAllocationConfiguration, at *field.Path) field.ErrorList {
			var errs field.ErrorList
			switch c.Source {
			case devicev1.AllocationConfigSourceClaim, devicev1.AllocationConfigSourceClass:
			case "":
				errs = append(errs, field.Required(at.Child("source"), ""))
			default:
				errs = append(errs, field.NotSupported(at.Child("source"), c.Source, []devicev1.AllocationConfigSource{devicev1.AllocationConfigSourceClaim, devicev1.AllocationConfigSourceClass}))
			}
			errs = append(errs, list(c.Requests, devicev1.DeviceRequestsMaxSize, at.Child("requests"), same, known.ref)...)
			return append(errs, configuration(&c.DeviceConfiguration, at)...)
		})...)
	if a.NodeSelector != nil {
		errs = append(errs, podspec.NodeSelector(a.NodeSelector, path.Child("nodeSelector"))...)
	}
	return errs
}

var uuid = regexp.MustCompile(`^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$`)

func uid(id string, path *field.Path) field.ErrorList {
	if uuid.MatchString(id) {
		return nil
	}
	return field.ErrorList{field.Invalid(path, id, "uid must be in RFC 4122 normalized form, `xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx` with lowercase hexadecimal characters")}
}

func deviceStatus(d devicev1.AllocatedDeviceStatus, path *field.Path, allocated sets.Set[place]) field.ErrorList {
	errs := driver(d.Driver, path.Child("driver"))
	errs = append(errs, pool(d.Pool, path.Child("pool"))...)
	errs = append(errs, label(d.Device, path.Child("device"))...)
	if d.ShareID != nil {
		errs = append(errs, uid(*d.ShareID, path.Child("shareID"))...)
	}
	if at := (place{d.Driver, d.Pool, d.Device, ptr.Deref(d.ShareID, "")}); !allocated.Has(at) {
		errs = append(errs, field.Invalid(path, at, "must be an allocated device in the claim"))
	}
	if n := len(d.Conditions); n > devicev1.AllocatedDeviceStatusMaxConditions {
		errs = append(errs, field.TooMany(path.Child("conditions"), n, devicev1.AllocatedDeviceStatusMaxConditions))
	}
	errs = append(errs, metavalidation.ValidateConditions(d.Conditions, path.Child("conditions"))...)
	if d.Data != nil && len(d.Data.Raw) > 0 {
		errs = append(errs, raw(*d.Data, path.Child("data"), devicev1.AllocatedDeviceStatusDataMaxLength)...)
	}
	n := d.NetworkData
	if n == nil {
		return errs
	}
	at := path.Child("networkData")
	if len(n.InterfaceName) > devicev1.NetworkDeviceDataInterfaceNameMaxLength {
		errs = append(errs, field.TooLong(at.Child("interfaceName"), "", devicev1.NetworkDeviceDataInterfaceNameMaxLength))
	}
	if len(n.HardwareAddress) > devicev1.NetworkDeviceDataHardwareAddressMaxLength {
		errs = append(errs, field.TooLong(at.Child("hardwareAddress"), "", devicev1.NetworkDeviceDataHardwareAddressMaxLength))
	}
	return append(errs, list(n.IPs, devicev1.NetworkDeviceDataMaxIPs, at.Child("ips"), same,
		func(ip string, at *field.Path) field.ErrorList { return validation.IsValidInterfaceAddress(at, ip) })...)
}
