package device

import (
	"fmt"

	devicev1 "k8s.io/api/resource/v1"
	apiresource "k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// maxValues is how many amounts a policy may list.
const maxValues = 10

// policy judges in what amounts a shared device's capacity may be asked for.
func policy(capacity apiresource.Quantity, p *devicev1.CapacityRequestPolicy, path *field.Path) field.ErrorList {
	switch {
	case len(p.ValidValues) > 0 && p.ValidRange != nil:
		return field.ErrorList{field.Forbidden(path, `exactly one policy can be specified, cannot specify "validValues" and "validRange" at the same time`)}
	case len(p.ValidValues) > 0 && p.Default == nil:
		return field.ErrorList{field.Required(path.Child("default"), "required when validValues is defined")}
	case len(p.ValidValues) > 0:
		return validValues(*p.Default, capacity, p.ValidValues, path.Child("validValues"))
	case p.ValidRange != nil && p.Default == nil:
		return field.ErrorList{field.Required(path.Child("default"), "required when validRange is defined")}
	case p.ValidRange != nil:
		return validRange(*p.Default, capacity, p.ValidRange, path.Child("validRange"))
	}
	return nil
}

func validValues(usual, capacity apiresource.Quantity, values []apiresource.Quantity, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	for i := 1; i < len(values); i++ {
		if values[i-1].Cmp(values[i]) > 0 {
			errs = append(errs, field.Invalid(path.Index(i), values[i].String(), "values must be sorted in ascending order"))
		}
	}
	known := false
	errs = append(errs, list(values, maxValues, path, func(q apiresource.Quantity) string { return fmt.Sprint(q.Value()) },
		func(q apiresource.Quantity, at *field.Path) field.ErrorList {
			known = known || q.Cmp(usual) == 0
			if q.Cmp(capacity) > 0 {
				return field.ErrorList{field.Invalid(at, q.String(), "option is larger than capacity value: "+capacity.String())}
			}
			return nil
		})...)
	if !known {
		errs = append(errs, field.Invalid(path, usual.String(), "default value is not valid according to the requestPolicy"))
	}
	return errs
}

func validRange(usual, capacity apiresource.Quantity, r *devicev1.CapacityRequestPolicyRange, path *field.Path) field.ErrorList {
	if r.Min == nil {
		return field.ErrorList{field.Required(path.Child("min"), "required when validRange is defined")}
	}
	var errs field.ErrorList
	bad := func(name string, q apiresource.Quantity, format string, limit apiresource.Quantity) {
		errs = append(errs, field.Invalid(path.Child(name), q.String(), fmt.Sprintf(format, limit.String())))
	}
	if r.Min.Cmp(capacity) > 0 {
		bad("min", *r.Min, "min is larger than capacity value: %s", capacity)
	}
	if usual.Cmp(*r.Min) < 0 {
		bad("min", usual, "default is less than min: %s", *r.Min)
	}
	if r.Max != nil {
		if r.Min.Cmp(*r.Max) > 0 {
			bad("max", *r.Min, "min is larger than max: %s", *r.Max)
		}
		if r.Max.Cmp(capacity) > 0 {
			bad("max", *r.Max, "max is larger than capacity value: %s", capacity)
		}
		if usual.Cmp(*r.Max) > 0 {
			bad("max", usual, "default is more than max: %s", *r.Max)
		}
	}
	if r.Step == nil || r.Step.Value() == 0 {
		return errs
	}
	sum := r.Min.DeepCopy()
	sum.Add(*r.Step)
	if sum.Cmp(capacity) > 0 {
		errs = append(errs, field.Invalid(path.Child("step"), r.Step.String(), fmt.Sprintf("one step %s is larger than capacity value: %s", sum.String(), capacity.String())))
	}
	multiple := func(q apiresource.Quantity) {
		if (q.Value()-r.Min.Value())%r.Step.Value() != 0 {
			errs = append(errs, field.Invalid(path.Child("step"), q.String(), fmt.Sprintf("value is not a multiple of a given step (%s) from (%s)", r.Step.String(), r.Min.String())))
		}
	}
	multiple(usual)
	if r.Max != nil {
		multiple(*r.Max)
	}
	return errs
}
