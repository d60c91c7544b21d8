package admissionregistration

import (
	"fmt"
	"slices"
	"strings"

	admissionv1 "k8s.io/api/admissionregistration/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metavalidation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/sampan-dev/sampan/resource"
	"github.com/sampan-dev/sampan/semantics/expression"
)

// leniency is what an update may keep because it was so before.
type leniency struct {
	conditionsSame, anySideEffects, anyReviewVersions, sameNames, anyLabels bool
	expressions                                                             sets.Set[string]
}

// hook is either sort of webhook.
type hook = admissionv1.MutatingWebhook

func asHooks(list []admissionv1.ValidatingWebhook) []hook {
	out := make([]hook, len(list))
	for i := range list {
		v := &list[i]
		out[i] = hook{
			Name: v.Name, ClientConfig: v.ClientConfig, Rules: v.Rules, FailurePolicy: v.FailurePolicy, MatchPolicy: v.MatchPolicy,
			NamespaceSelector: v.NamespaceSelector, ObjectSelector: v.ObjectSelector, SideEffects: v.SideEffects, TimeoutSeconds: v.TimeoutSeconds,
			AdmissionReviewVersions: v.AdmissionReviewVersions, MatchConditions: v.MatchConditions,
		}
	}
	return out
}

func validateMutating(r *resource.Request, next, prev *mutating) field.ErrorList {
	if prev == nil {
		return validateHooks(next.Webhooks, newcomer(r))
	}
	return validateHooks(next.Webhooks, lenient(next.Webhooks, prev.Webhooks))
}

func validateValidating(r *resource.Request, next, prev *validating) field.ErrorList {
	hooks := asHooks(next.Webhooks)
	if prev == nil {
		return validateHooks(hooks, newcomer(r))
	}
	return validateHooks(hooks, lenient(hooks, asHooks(prev.Webhooks)))
}

// newcomer is what a new configuration is let off: the first version of the API
// neither asked about side effects nor minded two hooks of one name.
func newcomer(r *resource.Request) leniency {
	old := r != nil && r.Version.Version == "v1beta1"
	return leniency{anySideEffects: old, sameNames: old}
}

func lenient(next, prev []hook) leniency {
	l := leniency{conditionsSame: len(next) == len(prev), expressions: sets.New[string]()}
	names := sets.New[string]()
	for i := range prev {
		p := &prev[i]
		l.conditionsSame = l.conditionsSame && equality.Semantic.DeepEqual(next[i].MatchConditions, p.MatchConditions)
		l.anySideEffects = l.anySideEffects || p.SideEffects == nil || !slices.Contains(harmless, *p.SideEffects)
		l.anyReviewVersions = l.anyReviewVersions || len(p.AdmissionReviewVersions) > 0 && !knowsReview(p.AdmissionReviewVersions)
		l.sameNames = l.sameNames || names.Has(p.Name)
		names.Insert(p.Name)
		for _, m := range p.MatchConditions {
			l.expressions.Insert(m.Expression)
		}
		l.anyLabels = l.anyLabels || len(validateSelectors(p, leniency{}, nil)) > 0
	}
	return l
}

func knowsReview(versions []string) bool {
	return slices.ContainsFunc(versions, func(v string) bool { return slices.Contains(reviewVersions, v) })
}

func validateHooks(hooks []hook, l leniency) (errs field.ErrorList) {
	names := sets.New[string]()
	for i := range hooks {
		h, path := &hooks[i], field.NewPath("webhooks").Index(i)
		errs = append(errs, validateHook(h, l, path)...)
		errs = append(errs, validateReviewVersions(h.AdmissionReviewVersions, l, path.Child("admissionReviewVersions"))...)
		if h.Name != "" && names.Has(h.Name) && !l.sameNames {
			errs = append(errs, field.Duplicate(path.Child("name"), h.Name))
		}
		names.Insert(h.Name)
	}
	return errs
}

func validateHook(h *hook, l leniency, path *field.Path) field.ErrorList {
	errs := validation.IsFullyQualifiedName(path.Child("name"), h.Name)
	for i := range h.Rules {
		errs = append(errs, validateRule(&h.Rules[i], path.Child("rules").Index(i))...)
	}
	errs = append(errs, oneOf(path.Child("failurePolicy"), h.FailurePolicy, failurePolicies)...)
	errs = append(errs, oneOf(path.Child("matchPolicy"), h.MatchPolicy, matchPolicies)...)
	classes := harmless
	if l.anySideEffects {
		classes = sideEffects
	}
	if h.SideEffects == nil {
		errs = append(errs, field.Required(path.Child("sideEffects"), fmt.Sprintf("must specify one of %s", joined(classes))))
	}
	errs = append(errs, oneOf(path.Child("sideEffects"), h.SideEffects, classes)...)
	if t := h.TimeoutSeconds; t != nil && (*t > 30 || *t < 1) {
		errs = append(errs, field.Invalid(path.Child("timeoutSeconds"), *t, "the timeout value must be between 1 and 30 seconds"))
	}
	errs = append(errs, validateSelectors(h, l, path)...)
	errs = append(errs, oneOf(path.Child("reinvocationPolicy"), h.ReinvocationPolicy, reinvocations)...)
	errs = append(errs, validateClient(&h.ClientConfig, path.Child("clientConfig"))...)
	if !l.conditionsSame {
		errs = append(errs, validateConditions(h.MatchConditions, false, l.expressions, path.Child("matchConditions"))...)
	}
	return errs
}

func validateSelectors(h *hook, l leniency, path *field.Path) (errs field.ErrorList) {
	opts := metavalidation.LabelSelectorValidationOptions{AllowInvalidLabelValueInSelector: l.anyLabels}
	if h.NamespaceSelector != nil {
		errs = append(errs, metavalidation.ValidateLabelSelector(h.NamespaceSelector, opts, path.Child("namespaceSelector"))...)
	}
	if h.ObjectSelector != nil {
		errs = append(errs, metavalidation.ValidateLabelSelector(h.ObjectSelector, opts, path.Child("objectSelector"))...)
	}
	return errs
}

func joined[T ~string](list []T) string {
	out := make([]string, len(list))
	for i, s := range list {
		out[i] = string(s)
	}
	return strings.Join(out, ", ")
}

func validateClient(c *admissionv1.WebhookClientConfig, path *field.Path) field.ErrorList {
	switch {
	case (c.URL == nil) == (c.Service == nil):
		return field.ErrorList{field.Required(path, "exactly one of url or service is required")}
	case c.URL != nil:
		return validateURL(*c.URL, path.Child("url"))
	}
	return validateService(c.Service, path.Child("service"))
}

func validateReviewVersions(versions []string, l leniency, path *field.Path) (errs field.ErrorList) {
	if len(versions) == 0 {
		return field.ErrorList{field.Required(path, fmt.Sprintf("must specify one of %v", joined(reviewVersions)))}
	}
	seen := sets.New[string]()
	for i, v := range versions {
		if seen.Has(v) {
			errs = append(errs, field.Invalid(path.Index(i), v, "duplicate version"))
			continue
		}
		seen.Insert(v)
		for _, msg := range validation.IsDNS1035Label(v) {
			errs = append(errs, field.Invalid(path.Index(i), v, msg))
		}
	}
	if !l.anyReviewVersions && !knowsReview(versions) {
		errs = append(errs, field.Invalid(path, versions, fmt.Sprintf("must include at least one of %v", joined(reviewVersions))))
	}
	return errs
}

// maxConditions is how many match conditions one webhook or policy may have.
const maxConditions = 64

func validateConditions(list []admissionv1.MatchCondition, params bool, stored sets.Set[string], path *field.Path) (errs field.ErrorList) {
	if len(list) > maxConditions {
		errs = append(errs, field.TooMany(path, len(list), maxConditions))
	}
	names := sets.New[string]()
	var checker *expression.Checker
	for i := range list {
		m, at := &list[i], path.Index(i)
		if text := strings.TrimSpace(m.Expression); text == "" {
			errs = append(errs, field.Required(at.Child("expression"), ""))
		} else {
			if checker == nil {
				checker = expression.NewChecker(false)
			}
			scope := expression.Scope{Params: params, Authorizer: true, Stored: stored.Has(text)}
			errs = append(errs, checker.Check(at.Child("expression"), expression.Condition(m.Name, text), scope, text)...)
		}
		if m.Name == "" {
			errs = append(errs, field.Required(at.Child("name"), ""))
			continue
		}
		errs = append(errs, qualified(m.Name, at.Child("name"))...)
		if names.Has(m.Name) {
			errs = append(errs, field.Duplicate(at.Child("name"), m.Name))
		}
		names.Insert(m.Name)
	}
	return errs
}

func qualified(name string, path *field.Path) (errs field.ErrorList) {
	for _, msg := range validation.IsQualifiedName(name) {
		errs = append(errs, field.Invalid(path, name, msg))
	}
	return errs
}
