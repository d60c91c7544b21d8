package admissionregistration

import (
	"fmt"
	"regexp"
	"slices"
	"strings"

	admissionv1 "k8s.io/api/admissionregistration/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	pathvalidation "k8s.io/apimachinery/pkg/api/validation/path"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	metavalidation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/sampan-dev/sampan/semantics/expression"
)

// kept are the expressions of the object there was: they may stay even if new
// ones like them may not come.
type kept struct {
	conditionsSame                                        bool
	conditions, validations, messages, annotations, other sets.Set[string]
}

// scoped is the part of both sorts of policy that says when they apply.
type scoped struct {
	failure    *admissionv1.FailurePolicyType
	param      *admissionv1.ParamKind
	match      *admissionv1.MatchResources
	conditions []admissionv1.MatchCondition
}

func validatePolicy(next, prev *policy) field.ErrorList {
	k := kept{}
	if prev != nil {
		k = keptOf(prev)
		k.conditionsSame = equality.Semantic.DeepEqual(next.Spec.ParamKind, prev.Spec.ParamKind) &&
			equality.Semantic.DeepEqual(next.Spec.MatchConditions, prev.Spec.MatchConditions)
	}
	return validatePolicySpec(&next.ObjectMeta, &next.Spec, k, field.NewPath("spec"))
}

func keptOf(p *policy) kept {
	k := kept{conditions: sets.New[string](), validations: sets.New[string](), messages: sets.New[string](), annotations: sets.New[string]()}
	for _, m := range p.Spec.MatchConditions {
		k.conditions.Insert(m.Expression)
	}
	for _, v := range p.Spec.Validations {
		k.validations.Insert(v.Expression)
		k.messages.Insert(v.MessageExpression)
	}
	for _, a := range p.Spec.AuditAnnotations {
		k.annotations.Insert(a.ValueExpression)
	}
	return k
}

const needOne = "validations or auditAnnotations must contain at least one item"

// maxAnnotations and maxAnnotationText bound a policy's audit annotations.
const (
	maxAnnotations    = 20
	maxAnnotationText = 5 * 1024
)

func validatePolicySpec(meta *metav1.ObjectMeta, s *admissionv1.ValidatingAdmissionPolicySpec, k kept, path *field.Path) field.ErrorList {
	errs := validateScope(scoped{s.FailurePolicy, s.ParamKind, s.MatchConstraints, s.MatchConditions}, k, path)
	checker := expression.NewChecker(len(s.Variables) > 0)
	scope := expression.Scope{Params: s.ParamKind != nil, Authorizer: true}
	errs = append(errs, validateVariables(checker, s.Variables, scope, k, path.Child("variables"))...)
	if len(s.Validations) == 0 && len(s.AuditAnnotations) == 0 {
		return append(errs, field.Required(path.Child("validations"), needOne), field.Required(path.Child("auditAnnotations"), needOne))
	}
	for i := range s.Validations {
		errs = append(errs, validateValidation(checker, &s.Validations[i], scope, k, path.Child("validations").Index(i))...)
	}
	annotations := path.Child("auditAnnotations")
	if len(s.AuditAnnotations) > maxAnnotations {
		errs = append(errs, field.Invalid(annotations, s.AuditAnnotations, fmt.Sprintf("must not have more than %d auditAnnotations", maxAnnotations)))
	}
	keys := sets.New[string]()
	for i := range s.AuditAnnotations {
		a := &s.AuditAnnotations[i]
		errs = append(errs, validateAnnotation(checker, meta.Name, a, scope, k, annotations.Index(i))...)
		if keys.Has(a.Key) {
			errs = append(errs, field.Duplicate(annotations.Index(i).Child("key"), a.Key))
		}
		keys.Insert(a.Key)
	}
	return errs
}

func validateScope(s scoped, k kept, path *field.Path) (errs field.ErrorList) {
	if s.failure == nil {
		errs = append(errs, field.Required(path.Child("failurePolicy"), ""))
	}
	errs = append(errs, oneOf(path.Child("failurePolicy"), s.failure, failurePolicies)...)
	if s.param != nil {
		errs = append(errs, validateParamKind(s.param, path.Child("paramKind"))...)
	}
	match := path.Child("matchConstraints")
	if s.match == nil {
		errs = append(errs, field.Required(match, ""))
	} else {
		errs = append(errs, validateMatch(s.match, match)...)
		if len(s.match.ResourceRules) == 0 { // they say of what types the expressions are
			errs = append(errs, field.Required(match.Child("resourceRules"), ""))
		}
	}
	if !k.conditionsSame {
		errs = append(errs, validateConditions(s.conditions, s.param != nil, k.conditions, path.Child("matchConditions"))...)
	}
	return errs
}

func validateParamKind(p *admissionv1.ParamKind, path *field.Path) (errs field.ErrorList) {
	version := path.Child("apiVersion")
	gv, err := schema.ParseGroupVersion(p.APIVersion)
	switch {
	case p.APIVersion == "":
		errs = append(errs, field.Required(version, ""))
	case err != nil:
		errs = append(errs, field.Invalid(version, p.APIVersion, err.Error()))
	default:
		if gv.Group != "" {
			if msgs := validation.IsDNS1123Subdomain(gv.Group); len(msgs) > 0 {
				errs = append(errs, field.Invalid(version, gv.Group, strings.Join(msgs, ",")))
			}
		}
		if gv.Version == "" {
			errs = append(errs, field.Invalid(version, p.APIVersion, "version must be specified"))
		} else if msgs := validation.IsDNS1035Label(gv.Version); len(msgs) > 0 {
			errs = append(errs, field.Invalid(version, gv.Version, strings.Join(msgs, ",")))
		}
	}
	if p.Kind == "" {
		return append(errs, field.Required(path.Child("kind"), ""))
	}
	if msgs := validation.IsDNS1035Label(strings.ToLower(p.Kind)); len(msgs) > 0 {
		errs = append(errs, field.Invalid(path.Child("kind"), p.Kind, "may have mixed case, but should otherwise match: "+strings.Join(msgs, ",")))
	}
	return errs
}

func validateMatch(m *admissionv1.MatchResources, path *field.Path) (errs field.ErrorList) {
	if m == nil {
		return nil
	}
	if m.MatchPolicy == nil {
		errs = append(errs, field.Required(path.Child("matchPolicy"), ""))
	}
	errs = append(errs, oneOf(path.Child("matchPolicy"), m.MatchPolicy, matchPolicies)...)
	for _, s := range []struct {
		name     string
		selector *metav1.LabelSelector
	}{{"namespaceSelector", m.NamespaceSelector}, {"objectSelector", m.ObjectSelector}} {
		if s.selector == nil {
			errs = append(errs, field.Required(path.Child(s.name), ""))
			continue
		}
		errs = append(errs, metavalidation.ValidateLabelSelector(s.selector, metavalidation.LabelSelectorValidationOptions{}, path.Child(s.name))...)
	}
	for i := range m.ResourceRules {
		errs = append(errs, validateNamedRule(&m.ResourceRules[i], path.Child("resourceRules").Index(i))...)
	}
	for i := range m.ExcludeResourceRules {
		errs = append(errs, validateNamedRule(&m.ExcludeResourceRules[i], path.Child("excludeResourceRules").Index(i))...)
	}
	return errs
}

func validateNamedRule(r *admissionv1.NamedRuleWithOperations, path *field.Path) (errs field.ErrorList) {
	names := sets.New[string]()
	for i, n := range r.ResourceNames {
		at := path.Child("resourceNames").Index(i)
		for _, msg := range pathvalidation.IsValidPathSegmentName(n) {
			errs = append(errs, field.Invalid(at, n, msg))
		}
		if names.Has(n) {
			errs = append(errs, field.Duplicate(at, n))
		}
		names.Insert(n)
	}
	return append(errs, validateRule(&r.RuleWithOperations, path)...)
}

var identifier = regexp.MustCompile("^[_a-zA-Z][_a-zA-Z0-9]*$")

// reserved are words that CEL keeps for itself.
var reserved = sets.New("true", "false", "null", "in", "as", "break", "const", "continue", "else", "for", "function", "if",
	"import", "let", "loop", "package", "namespace", "return", "var", "void", "while")

func validateVariables(c *expression.Checker, list []admissionv1.Variable, scope expression.Scope, k kept, path *field.Path) (errs field.ErrorList) {
	for i := range list {
		v, at := &list[i], path.Index(i)
		if strings.TrimSpace(v.Name) == "" {
			errs = append(errs, field.Required(at.Child("name"), "name is not specified"))
		} else if !identifier.MatchString(v.Name) || reserved.Has(v.Name) {
			errs = append(errs, field.Invalid(at.Child("name"), v.Name, "must be a valid CEL identifier"))
		}
		if strings.TrimSpace(v.Expression) == "" {
			errs = append(errs, field.Required(at.Child("expression"), "expression is not specified"))
			continue
		}
		s := scope
		s.Stored = k.validations.Has(v.Expression)
		errs = append(errs, c.Declare(at.Child("expression"), expression.Variable(v.Name, v.Expression), s)...)
	}
	return errs
}

func validateValidation(c *expression.Checker, v *admissionv1.Validation, scope expression.Scope, k kept, path *field.Path) (errs field.ErrorList) {
	if strings.TrimSpace(v.Expression) == "" {
		errs = append(errs, field.Required(path.Child("expression"), "expression is not specified"))
	} else {
		s := scope
		s.Stored = k.validations.Has(v.Expression)
		errs = append(errs, c.Check(path.Child("expression"), expression.Condition("", v.Expression), s, v.Expression)...)
	}
	if v.MessageExpression != "" {
		at := path.Child("messageExpression")
		if strings.TrimSpace(v.MessageExpression) == "" {
			errs = append(errs, field.Invalid(at, v.MessageExpression, "must be non-empty if specified"))
		} else {
			s := expression.Scope{Params: scope.Params, Stored: k.messages.Has(v.MessageExpression)}
			errs = append(errs, c.Check(at, expression.Message(v.MessageExpression), s, v.MessageExpression)...)
		}
	}
	switch text := strings.TrimSpace(v.Message); {
	case v.Message != "" && text == "":
		errs = append(errs, field.Invalid(path.Child("message"), v.Message, "must be non-empty if specified"))
	case strings.ContainsAny(text, "\n\r"):
		errs = append(errs, field.Invalid(path.Child("message"), v.Message, "must not contain line breaks"))
	}
	reasons := []metav1.StatusReason{metav1.StatusReasonForbidden, metav1.StatusReasonInvalid, metav1.StatusReasonRequestEntityTooLarge}
	return append(errs, oneOf(path.Child("reason"), v.Reason, reasons)...)
}

func validateAnnotation(c *expression.Checker, policy string, a *admissionv1.AuditAnnotation, scope expression.Scope, k kept, path *field.Path) (errs field.ErrorList) {
	if policy == "" {
		errs = append(errs, field.Invalid(path.Child("key"), a.Key, "requires metadata.name be non-empty"))
	} else {
		errs = append(errs, qualified(policy+"/"+a.Key, path.Child("key"))...)
	}
	at := path.Child("valueExpression")
	text := strings.TrimSpace(a.ValueExpression)
	switch {
	case text == "":
		return append(errs, field.Required(at, "valueExpression is not specified"))
	case len(text) > maxAnnotationText:
		return append(errs, field.Required(at, fmt.Sprintf("must not exceed %d bytes in length", maxAnnotationText)))
	}
	scope.Stored = k.annotations.Has(a.ValueExpression)
	return append(errs, c.Check(at, expression.Annotation(a.Key, text), scope, a.ValueExpression)...)
}

func validatePolicyStatus(next, _ *policy) (errs field.ErrorList) {
	path := field.NewPath("status")
	if t := next.Status.TypeChecking; t != nil {
		for i, w := range t.ExpressionWarnings {
			at := path.Child("typeChecking", "expressionWarnings").Index(i)
			if w.Warning == "" {
				errs = append(errs, field.Required(at.Child("warning"), ""))
			}
			if strings.TrimSpace(w.FieldRef) == "" {
				errs = append(errs, field.Required(at.Child("fieldRef"), ""))
			}
		}
	}
	return append(errs, metavalidation.ValidateConditions(next.Status.Conditions, path.Child("conditions"))...)
}

func validateBinding(next, _ *binding) field.ErrorList {
	path := field.NewPath("spec")
	errs := validateBound(next.Spec.PolicyName, next.Spec.ParamRef, next.Spec.MatchResources, path)
	return append(errs, validateActions(next.Spec.ValidationActions, path.Child("validationActions"))...)
}

func validateBound(policy string, ref *admissionv1.ParamRef, match *admissionv1.MatchResources, path *field.Path) (errs field.ErrorList) {
	if policy == "" {
		errs = append(errs, field.Required(path.Child("policyName"), ""))
	} else {
		for _, msg := range apivalidation.NameIsDNSSubdomain(policy, false) {
			errs = append(errs, field.Invalid(path.Child("policyName"), policy, msg))
		}
	}
	errs = append(errs, validateParamRef(ref, path.Child("paramRef"))...)
	return append(errs, validateMatch(match, path.Child("matchResources"))...)
}

const exclusive = "name and selector are mutually exclusive"

func validateParamRef(r *admissionv1.ParamRef, path *field.Path) (errs field.ErrorList) {
	if r == nil {
		return nil
	}
	if r.Name != "" {
		for _, msg := range pathvalidation.IsValidPathSegmentName(r.Name) {
			errs = append(errs, field.Invalid(path.Child("name"), r.Name, msg))
		}
		if r.Selector != nil {
			errs = append(errs, field.Forbidden(path.Child("name"), exclusive))
		}
	}
	if r.Selector != nil {
		errs = append(errs, metavalidation.ValidateLabelSelector(r.Selector, metavalidation.LabelSelectorValidationOptions{}, path.Child("selector"))...)
		if r.Name != "" {
			errs = append(errs, field.Forbidden(path.Child("selector"), exclusive))
		}
	}
	if r.Name == "" && r.Selector == nil {
		errs = append(errs, field.Required(path, "one of name or selector must be specified"))
	}
	if a := r.ParameterNotFoundAction; a == nil || *a == "" {
		return append(errs, field.Required(path.Child("parameterNotFoundAction"), ""))
	}
	return append(errs, oneOf(path.Child("parameterNotFoundAction"), r.ParameterNotFoundAction,
		[]admissionv1.ParameterNotFoundActionType{admissionv1.DenyAction, admissionv1.AllowAction})...)
}

func validateActions(list []admissionv1.ValidationAction, path *field.Path) (errs field.ErrorList) {
	if len(list) == 0 {
		return field.ErrorList{field.Required(path, "at least one validation action is required")}
	}
	for i, a := range list {
		errs = append(errs, oneOf(path.Index(i), &a, validationAction)...)
		if slices.Contains(list[:i], a) {
			errs = append(errs, field.Duplicate(path.Index(i), a))
		}
	}
	if slices.Contains(list, admissionv1.Deny) && slices.Contains(list, admissionv1.Warn) {
		errs = append(errs, field.Invalid(path, list, "must not contain both Deny and Warn (repeating the same validation failure information in the API response and headers serves no purpose)"))
	}
	return errs
}
