package device

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	devicev1 "k8s.io/api/resource/v1"
	metavalidation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// say makes an error of each message.
func say(path *field.Path, value any, messages []string) (errs field.ErrorList) {
	for _, m := range messages {
		errs = append(errs, field.Invalid(path, value, m))
	}
	return errs
}

func driver(name string, path *field.Path) field.ErrorList {
	if name == "" {
		return field.ErrorList{field.Required(path, "")}
	}
	var errs field.ErrorList
	if len(name) > devicev1.DriverNameMaxLength {
		errs = append(errs, field.TooLong(path, "", devicev1.DriverNameMaxLength))
	}
	return append(errs, say(path, name, validation.IsDNS1123Subdomain(strings.ToLower(name)))...)
}

func pool(name string, path *field.Path) field.ErrorList {
	if name == "" {
		return field.ErrorList{field.Required(path, "")}
	}
	var errs field.ErrorList
	if len(name) > devicev1.PoolNameMaxLength {
		errs = append(errs, field.TooLong(path, "", devicev1.PoolNameMaxLength))
	}
	for part := range strings.SplitSeq(name, "/") {
		errs = append(errs, say(path, part, validation.IsDNS1123Subdomain(part))...)
	}
	return errs
}

func label(name string, path *field.Path) field.ErrorList {
	return say(path, name, validation.IsDNS1123Label(name))
}

func identifier(id string, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	if len(id) > devicev1.DeviceMaxIDLength {
		errs = append(errs, field.TooLong(path, "", devicev1.DeviceMaxIDLength))
	}
	return append(errs, say(path, id, validation.IsCIdentifier(id))...)
}

// qualified judges a name with or without a domain.
func qualified(name string, path *field.Path) field.ErrorList {
	domain, id, ok := strings.Cut(name, "/")
	if !ok {
		return identifier(name, path)
	}
	var errs field.ErrorList
	if domain == "" {
		errs = append(errs, field.Invalid(path, "", "the domain must not be empty"))
	} else {
		errs = append(errs, driver(domain, path)...)
	}
	if id == "" {
		return append(errs, field.Invalid(path, "", "the name must not be empty"))
	}
	return append(errs, identifier(id, path)...)
}

func fullyQualified(name string, path *field.Path) field.ErrorList {
	errs := qualified(name, path)
	if !strings.Contains(name, "/") {
		errs = append(errs, field.Invalid(path, name, "a fully qualified name must be a domain and a name separated by a slash"))
	}
	return errs
}

// list judges each of at most so many items; with a key none may occur twice.
func list[T any, K comparable](items []T, most int, path *field.Path, key func(T) K, judge func(T, *field.Path) field.ErrorList) field.ErrorList {
	if most >= 0 && len(items) > most {
		return field.ErrorList{field.TooMany(path, len(items), most)}
	}
	var errs field.ErrorList
	for i, item := range items {
		errs = append(errs, judge(item, path.Index(i))...)
	}
	if key == nil {
		return errs
	}
	seen := sets.New[K]()
	for i, item := range items {
		k := key(item)
		if seen.Has(k) {
			errs = append(errs, field.Duplicate(path.Index(i), k))
		}
		seen.Insert(k)
	}
	return errs
}

func same(s string) string { return s }

// table judges each entry, in the order of keys.
func table[K ~string, T any](m map[K]T, most int, path *field.Path, key func(string, *field.Path) field.ErrorList, judge func(T, *field.Path) field.ErrorList) field.ErrorList {
	if most >= 0 && len(m) > most {
		return field.ErrorList{field.TooMany(path, len(m), most)}
	}
	var keys []string
	for k := range m {
		keys = append(keys, string(k))
	}
	slices.Sort(keys)
	var errs field.ErrorList
	for _, k := range keys {
		errs = append(errs, key(k, path)...)
		errs = append(errs, judge(m[K(k)], path.Key(k))...)
	}
	return errs
}

func raw(r runtime.RawExtension, path *field.Path, most int) field.ErrorList {
	var v any
	switch {
	case len(r.Raw) == 0:
		return field.ErrorList{field.Required(path, "")}
	case len(r.Raw) > most:
		return field.ErrorList{field.TooLong(path, "", most)}
	}
	if err := json.Unmarshal(r.Raw, &v); err != nil {
		return field.ErrorList{field.Invalid(path, "<value omitted>", fmt.Sprintf("error parsing data as JSON: %v", err))}
	}
	if v == nil {
		return field.ErrorList{field.Required(path, "")}
	}
	if _, ok := v.(map[string]any); !ok {
		return field.ErrorList{field.Invalid(path, "<value omitted>", "must be a valid JSON object")}
	}
	return nil
}

func configuration(c *devicev1.DeviceConfiguration, path *field.Path) field.ErrorList {
	if c.Opaque == nil {
		return field.ErrorList{field.Required(path.Child("opaque"), "")}
	}
	errs := driver(c.Opaque.Driver, path.Child("opaque", "driver"))
	return append(errs, raw(c.Opaque.Parameters, path.Child("opaque", "parameters"), devicev1.OpaqueParametersMaxLength)...)
}

var effects = []devicev1.DeviceTaintEffect{devicev1.DeviceTaintEffectNoExecute, devicev1.DeviceTaintEffectNoSchedule, devicev1.DeviceTaintEffectNone}

func taint(t devicev1.DeviceTaint, path *field.Path) field.ErrorList {
	errs := metavalidation.ValidateLabelName(t.Key, path.Child("key"))
	if t.Value != "" {
		errs = append(errs, say(path.Child("value"), t.Value, validation.IsValidLabelValue(t.Value))...)
	}
	switch {
	case t.Effect == "":
		errs = append(errs, field.Required(path.Child("effect"), ""))
	case !slices.Contains(effects, t.Effect):
		errs = append(errs, field.NotSupported(path.Child("effect"), t.Effect, effects))
	}
	return errs
}

func toleration(t devicev1.DeviceToleration, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	if t.Key != "" {
		errs = append(errs, metavalidation.ValidateLabelName(t.Key, path.Child("key"))...)
	}
	switch t.Operator {
	case devicev1.DeviceTolerationOpExists:
		if t.Value != "" {
			errs = append(errs, field.Invalid(path.Child("value"), t.Value, "must be empty for operator `Exists`"))
		}
	case devicev1.DeviceTolerationOpEqual:
		errs = append(errs, say(path.Child("value"), t.Value, validation.IsValidLabelValue(t.Value))...)
	case "":
		errs = append(errs, field.Required(path.Child("operator"), ""))
	default:
		errs = append(errs, field.NotSupported(path.Child("operator"), t.Operator, []devicev1.DeviceTolerationOperator{devicev1.DeviceTolerationOpEqual, devicev1.DeviceTolerationOpExists}))
	}
	if t.Effect != "" && !slices.Contains(effects, t.Effect) {
		errs = append(errs, field.NotSupported(path.Child("effect"), t.Effect, effects))
	}
	return errs
}

// binding judges the conditions that must, or must not, come before a pod is bound.
func binding(want, fail []string, path *field.Path) field.ErrorList {
	errs := list(want, devicev1.BindingConditionsMaxSize, path.Child("bindingConditions"), same, metavalidation.ValidateLabelName)
	at := path.Child("bindingFailureConditions")
	errs = append(errs, list(fail, devicev1.BindingFailureConditionsMaxSize, at, same, metavalidation.ValidateLabelName)...)
	for i, c := range fail {
		if slices.Contains(want, c) {
			errs = append(errs, field.Invalid(at.Index(i), c, "bindingFailureConditions must not overlap with bindingConditions"))
		}
	}
	switch {
	case len(want) == 0 && len(fail) > 0:
		errs = append(errs, field.Invalid(path.Child("bindingConditions"), want, "bindingConditions are required to use bindingFailureConditions"))
	case len(fail) == 0 && len(want) > 0:
		errs = append(errs, field.Invalid(at, fail, "bindingFailureConditions are required to use bindingConditions"))
	}
	return errs
}
