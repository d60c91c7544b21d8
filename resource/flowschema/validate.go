package flowschema

import (
	"fmt"
	"slices"
	"strings"

	flowv1 "k8s.io/api/flowcontrol/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/sampan-dev/sampan/semantics/flow"
)

func validate(next, _ *flowSchema) field.ErrorList {
	path := field.NewPath("spec")
	errs := validateSpec(next.Name, &next.Spec, path)
	if must := flow.MandatorySchema(next.Name); must != nil && !equality.Semantic.DeepEqual(next.Spec, must.Spec) {
		errs = append(errs, field.Invalid(path, next.Spec, fmt.Sprintf("spec of '%s' must equal the fixed value", next.Name)))
	}
	return append(errs, validateStatus(next, nil)...)
}

func validateSpec(name string, s *flowv1.FlowSchemaSpec, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	order := path.Child("matchingPrecedence")
	if s.MatchingPrecedence <= 0 {
		errs = append(errs, field.Invalid(order, s.MatchingPrecedence, "must be a positive value"))
	}
	if s.MatchingPrecedence > flowv1.FlowSchemaMaxMatchingPrecedence {
		errs = append(errs, field.Invalid(order, s.MatchingPrecedence, fmt.Sprintf("must not be greater than %v", flowv1.FlowSchemaMaxMatchingPrecedence)))
	}
	if s.MatchingPrecedence == 1 && name != flowv1.PriorityLevelConfigurationNameExempt {
		errs = append(errs, field.Invalid(order, s.MatchingPrecedence, "only the schema named 'exempt' may have matchingPrecedence 1"))
	}
	methods := []string{string(flowv1.FlowDistinguisherMethodByNamespaceType), string(flowv1.FlowDistinguisherMethodByUserType)}
	if m := s.DistinguisherMethod; m != nil && !slices.Contains(methods, string(m.Type)) {
		errs = append(errs, field.NotSupported(path.Child("distinguisherMethod", "type"), m, methods))
	}
	level := path.Child("priorityLevelConfiguration", "name")
	if s.PriorityLevelConfiguration.Name == "" {
		errs = append(errs, field.Required(level, "must reference a priority level"))
	} else {
		for _, msg := range apivalidation.NameIsDNSSubdomain(s.PriorityLevelConfiguration.Name, false) {
			errs = append(errs, field.Invalid(level, s.PriorityLevelConfiguration.Name, msg))
		}
	}
	for i := range s.Rules {
		errs = append(errs, validateRule(&s.Rules[i], path.Child("rules").Index(i))...)
	}
	return errs
}

func validateRule(r *flowv1.PolicyRulesWithSubjects, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	if len(r.Subjects) == 0 {
		errs = append(errs, field.Required(path.Child("subjects"), "subjects must contain at least one value"))
	}
	for i := range r.Subjects {
		errs = append(errs, validateSubject(&r.Subjects[i], path.Child("subjects").Index(i))...)
	}
	if len(r.ResourceRules) == 0 && len(r.NonResourceRules) == 0 {
		errs = append(errs, field.Required(path, "at least one of resourceRules and nonResourceRules has to be non-empty"))
	}
	for i := range r.ResourceRules {
		errs = append(errs, validateResourceRule(&r.ResourceRules[i], path.Child("resourceRules").Index(i))...)
	}
	for i := range r.NonResourceRules {
		errs = append(errs, validateOtherRule(&r.NonResourceRules[i], path.Child("nonResourceRules").Index(i))...)
	}
	return errs
}

func validateSubject(s *flowv1.Subject, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	kinds := []string{string(flowv1.SubjectKindGroup), string(flowv1.SubjectKindServiceAccount), string(flowv1.SubjectKindUser)}
	if !slices.Contains(kinds, string(s.Kind)) {
		return field.ErrorList{field.NotSupported(path.Child("kind"), s.Kind, kinds)}
	}
	missing := func(is bool, name string, kind flowv1.SubjectKind) {
		if is {
			errs = append(errs, field.Required(path.Child(name), fmt.Sprintf("%s is required when subject kind is '%s'", name, kind)))
		}
	}
	named := func(name, value string) {
		if value == "" {
			errs = append(errs, field.Required(path.Child(name, "name"), ""))
		}
	}
	switch s.Kind {
	case flowv1.SubjectKindServiceAccount:
		missing(s.ServiceAccount == nil, "serviceAccount", s.Kind)
		if s.ServiceAccount != nil {
			errs = append(errs, validateAccount(s.ServiceAccount, path.Child("serviceAccount"))...)
		}
	case flowv1.SubjectKindUser:
		missing(s.User == nil, "user", s.Kind)
		if s.User != nil {
			named("user", s.User.Name)
		}
	case flowv1.SubjectKindGroup:
		missing(s.Group == nil, "group", s.Kind)
		if s.Group != nil {
			named("group", s.Group.Name)
		}
	}
	for _, other := range []struct {
		name string
		kind flowv1.SubjectKind
		set  bool
	}{
		{"serviceAccount", flowv1.SubjectKindServiceAccount, s.ServiceAccount != nil},
		{"user", flowv1.SubjectKindUser, s.User != nil}, {"group", flowv1.SubjectKindGroup, s.Group != nil},
	} {
		if other.set && other.kind != s.Kind {
			errs = append(errs, field.Forbidden(path.Child(other.name), fmt.Sprintf("%s is forbidden when subject kind is not '%s'", other.name, other.kind)))
		}
	}
	return errs
}

func validateAccount(a *flowv1.ServiceAccountSubject, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	switch a.Name {
	case "":
		errs = append(errs, field.Required(path.Child("name"), ""))
	case flowv1.NameAll:
	default:
		for _, msg := range apivalidation.ValidateServiceAccountName(a.Name, false) {
			errs = append(errs, field.Invalid(path.Child("name"), a.Name, msg))
		}
	}
	if a.Namespace == "" {
		return append(errs, field.Required(path.Child("namespace"), "must specify namespace for service account"))
	}
	for _, msg := range apivalidation.ValidateNamespaceName(a.Namespace, false) {
		errs = append(errs, field.Invalid(path.Child("namespace"), a.Namespace, msg))
	}
	return errs
}

func validateVerbs(verbs []string, path *field.Path) field.ErrorList {
	known := []string{"create", "delete", "deletecollection", "get", "list", "patch", "proxy", "update", "watch"}
	switch {
	case len(verbs) == 0:
		return field.ErrorList{field.Required(path, "verbs must contain at least one value")}
	case slices.Contains(verbs, "*"):
		return alone(verbs, path, "verbs")
	}
	for _, v := range verbs {
		if !slices.Contains(known, v) {
			return field.ErrorList{field.NotSupported(path, verbs, known)}
		}
	}
	return nil
}

// alone refuses a list in which the wildcard is not the only element.
func alone(list []string, path *field.Path, what string) field.ErrorList {
	if len(list) > 1 && slices.Contains(list, "*") {
		return field.ErrorList{field.Invalid(path, list, "if '*' is present, must not specify other "+what)}
	}
	return nil
}

func validateResourceRule(r *flowv1.ResourcePolicyRule, path *field.Path) field.ErrorList {
	errs := validateVerbs(r.Verbs, path.Child("verbs"))
	for _, l := range []struct {
		name, one, more string
		list            []string
	}{{"apiGroups", "api group", "api groups", r.APIGroups}, {"resources", "resource", "resources", r.Resources}} {
		if len(l.list) == 0 {
			errs = append(errs, field.Required(path.Child(l.name), "resource rules must supply at least one "+l.one))
		}
		errs = append(errs, alone(l.list, path.Child(l.name), l.more)...)
	}
	spaces := path.Child("namespaces")
	switch {
	case len(r.Namespaces) == 0 && !r.ClusterScope:
		errs = append(errs, field.Required(spaces, "resource rules that are not cluster scoped must supply at least one namespace"))
	case slices.Contains(r.Namespaces, "*"):
		errs = append(errs, alone(r.Namespaces, spaces, "namespaces")...)
	default:
		for i, ns := range r.Namespaces {
			for _, msg := range apivalidation.ValidateNamespaceName(ns, false) {
				errs = append(errs, field.Invalid(spaces.Index(i), ns, "each member of this list must be '*' or a DNS-1123 label; "+msg))
			}
		}
	}
	return errs
}

func validateOtherRule(r *flowv1.NonResourcePolicyRule, path *field.Path) field.ErrorList {
	errs := validateVerbs(r.Verbs, path.Child("verbs"))
	urls := path.Child("nonResourceURLs")
	switch {
	case len(r.NonResourceURLs) == 0:
		errs = append(errs, field.Required(urls, "nonResourceURLs must contain at least one value"))
	case slices.Contains(r.NonResourceURLs, "*"):
		errs = append(errs, alone(r.NonResourceURLs, urls, "non-resource URLs")...)
	default:
		for i, u := range r.NonResourceURLs {
			if text := badURL(u); text != "" {
				errs = append(errs, field.Invalid(urls.Index(i), u, text))
			}
		}
	}
	return errs
}

// badURL says what is wrong with a path that may end in a wildcard.
func badURL(u string) string {
	switch {
	case u == "":
		return "must not be empty"
	case u == "/":
		return ""
	case !strings.HasPrefix(u, "/"):
		return "must start with slash"
	case strings.Contains(u, " "):
		return "must not contain white-space"
	case strings.Contains(u, "//"):
		return "must not contain double slash"
	case strings.Count(u, "*") > 1, strings.Count(u, "*") == 1 && !strings.HasSuffix(u, "/*"):
		return "wildcard can only do suffix matching"
	}
	return ""
}

func validateStatus(next, _ *flowSchema) field.ErrorList {
	var errs field.ErrorList
	path := field.NewPath("status", "conditions")
	seen := map[flowv1.FlowSchemaConditionType]bool{}
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
