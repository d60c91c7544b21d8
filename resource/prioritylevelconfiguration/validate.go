package prioritylevelconfiguration

import (
	"fmt"

	flowv1 "k8s.io/api/flowcontrol/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/utils/ptr"

	"github.com/sampan-dev/sampan/resource"
	"github.com/sampan-dev/sampan/semantics/flow"
)

const exempt = flowv1.PriorityLevelConfigurationNameExempt

func validate(r *resource.Request, next, _ *level) field.ErrorList {
	var errs field.ErrorList
	if _, ok := next.Annotations[zeroKey]; ok {
		errs = append(errs, field.Forbidden(field.NewPath("metadata", "annotations"), fmt.Sprintf("annotation '%s' is forbidden", zeroKey)))
	}
	shares := "nominalConcurrencyShares"
	if r != nil && (r.Version.Version == "v1beta1" || r.Version.Version == "v1beta2") {
		shares = "assuredConcurrencyShares"
	}
	path := field.NewPath("spec")
	errs = append(errs, validateSpec(next, shares, path)...)
	errs = append(errs, validateMandatory(next, path)...)
	return append(errs, validateStatus(next, nil)...)
}

func validateMandatory(l *level, path *field.Path) field.ErrorList {
	must := flow.MandatoryLevel(l.Name)
	if must == nil {
		return nil
	}
	text := fmt.Sprintf("spec of '%s' must equal the fixed value", l.Name)
	if l.Name == exempt {
		must.Spec.Exempt = l.Spec.Exempt
		text = fmt.Sprintf("spec of '%s' except the 'spec.exempt' field must equal the fixed value", l.Name)
	}
	if equality.Semantic.DeepEqual(l.Spec, must.Spec) {
		return nil
	}
	return field.ErrorList{field.Invalid(path, l.Spec, text)}
}

func validateSpec(l *level, shares string, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	s := &l.Spec
	if (l.Name == exempt) != (s.Type == flowv1.PriorityLevelEnablementExempt) {
		errs = append(errs, field.Invalid(path.Child("type"), s.Type, "must be 'Exempt' if and only if `name` is 'exempt'"))
	}
	switch s.Type {
	case flowv1.PriorityLevelEnablementExempt:
		if s.Limited != nil {
			errs = append(errs, field.Forbidden(path.Child("limited"), "must be nil if the type is not Limited"))
		}
		if e := s.Exempt; e != nil {
			errs = append(errs, validateShares(e.NominalConcurrencyShares, e.LendablePercent, "nominalConcurrencyShares", path.Child("exempt"))...)
		}
	case flowv1.PriorityLevelEnablementLimited:
		if s.Exempt != nil {
			errs = append(errs, field.Forbidden(path.Child("exempt"), "must be nil if the type is Limited"))
		}
		if s.Limited == nil {
			return append(errs, field.Required(path.Child("limited"), "must not be empty when type is Limited"))
		}
		errs = append(errs, validateLimited(s.Limited, shares, path.Child("limited"))...)
	case "":
		errs = append(errs, field.Required(path.Child("type"), ""))
	default:
		errs = append(errs, field.NotSupported(path.Child("type"), s.Type, []string{string(flowv1.PriorityLevelEnablementExempt), string(flowv1.PriorityLevelEnablementLimited)}))
	}
	return errs
}

func validateShares(shares, lendable *int32, name string, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	if ptr.Deref(shares, 0) < 0 {
		errs = append(errs, field.Invalid(path.Child(name), *shares, "must be a non-negative integer"))
	}
	if n := ptr.Deref(lendable, 0); n < 0 || n > 100 {
		errs = append(errs, field.Invalid(path.Child("lendablePercent"), n, "must be between 0 and 100, inclusive"))
	}
	return errs
}

func validateLimited(l *flowv1.LimitedPriorityLevelConfiguration, shares string, path *field.Path) field.ErrorList {
	errs := validateShares(l.NominalConcurrencyShares, nil, shares, path)
	errs = append(errs, validateResponse(&l.LimitResponse, path.Child("limitResponse"))...)
	errs = append(errs, validateShares(nil, l.LendablePercent, shares, path)...)
	if n := ptr.Deref(l.BorrowingLimitPercent, 0); n < 0 {
		errs = append(errs, field.Invalid(path.Child("borrowingLimitPercent"), n, "if specified, must be a non-negative integer"))
	}
	return errs
}

func validateResponse(r *flowv1.LimitResponse, path *field.Path) field.ErrorList {
	switch r.Type {
	case flowv1.LimitResponseTypeReject:
		if r.Queuing != nil {
			return field.ErrorList{field.Forbidden(path.Child("queuing"), "must be nil if limited.limitResponse.type is not Limited")}
		}
		return nil
	case flowv1.LimitResponseTypeQueue:
		if r.Queuing == nil {
			return field.ErrorList{field.Required(path.Child("queuing"), "must not be empty if limited.limitResponse.type is Limited")}
		}
		return validateQueuing(r.Queuing, path.Child("queuing"))
	case "":
		return field.ErrorList{field.Required(path.Child("type"), "")}
	}
	return field.ErrorList{field.NotSupported(path.Child("type"), r.Type, []string{string(flowv1.LimitResponseTypeQueue), string(flowv1.LimitResponseTypeReject)})}
}

// maxQueues keeps a level from being asked for more memory than there is.
const maxQueues = 10 * 1000 * 1000

func validateQueuing(q *flowv1.QueuingConfiguration, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	if q.QueueLengthLimit <= 0 {
		errs = append(errs, field.Invalid(path.Child("queueLengthLimit"), q.QueueLengthLimit, "must be positive"))
	}
	if q.Queues <= 0 {
		errs = append(errs, field.Invalid(path.Child("queues"), q.Queues, "must be positive"))
	} else if q.Queues > maxQueues {
		errs = append(errs, field.Invalid(path.Child("queues"), q.Queues, fmt.Sprintf("must not be greater than %d", maxQueues)))
	}
	switch {
	case q.HandSize <= 0:
		errs = append(errs, field.Invalid(path.Child("handSize"), q.HandSize, "must be positive"))
	case q.HandSize > q.Queues:
		errs = append(errs, field.Invalid(path.Child("handSize"), q.HandSize, fmt.Sprintf("should not be greater than queues (%d)", q.Queues)))
	case flow.EntropyBits(q.Queues, q.HandSize) > flow.MaxHashBits:
		errs = append(errs, field.Invalid(path.Child("handSize"), q.HandSize,
			fmt.Sprintf("required entropy bits of deckSize %d and handSize %d should not be greater than %d", q.Queues, q.HandSize, flow.MaxHashBits)))
	}
	return errs
}

func validateStatus(next, _ *level) field.ErrorList {
	var errs field.ErrorList
	path := field.NewPath("status", "conditions")
	seen := map[flowv1.PriorityLevelConfigurationConditionType]bool{}
	for i, c := range next.Status.Conditions {
		at := path.Index(i).Child("type")
		if seen[c.Type] {
			errs = append(errs, field.Duplicate(at, c.Type))
		}
		seen[c.Type] = true
		if c.Type == "" {
			errs = append(errs, field.Required(at, ""))
		}
	}
	return errs
}
