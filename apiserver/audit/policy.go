package audit

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
	auditv1 "k8s.io/apiserver/pkg/apis/audit/v1"
	"sigs.k8s.io/yaml"

	"github.com/sampan-dev/sampan/apiserver/request"
)

// ReadPolicy reads and checks the policy in a file. warning is set when the file
// says things nobody understands.
func ReadPolicy(path string) (p *auditv1.Policy, warning string, err error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, "", fmt.Errorf("failed to read file path %q: %w", path, err)
	}
	if p, warning, err = parsePolicy(text); err != nil {
		return nil, "", fmt.Errorf("%w: from file %v", err, path)
	}
	return p, warning, nil
}

func parsePolicy(text []byte) (*auditv1.Policy, string, error) {
	p, warning := &auditv1.Policy{}, ""
	if err := yaml.UnmarshalStrict(text, p); err != nil {
		warning = "Audit policy contains errors, falling back to lenient decoding: " + err.Error()
		p = &auditv1.Policy{}
		if err := yaml.Unmarshal(text, p); err != nil {
			return nil, "", fmt.Errorf("failed decoding: %w", err)
		}
	}
	if p.APIVersion != auditv1.SchemeGroupVersion.String() || p.Kind != "Policy" {
		return nil, "", fmt.Errorf("unknown group version field %s, Kind=%s in policy", p.APIVersion, p.Kind)
	}
	if errs := validatePolicy(p); len(errs) > 0 {
		return nil, "", errs.ToAggregate()
	}
	if len(p.Rules) == 0 {
		return nil, "", errors.New("loaded illegal policy with 0 rules")
	}
	return p, warning, nil
}

var (
	levels = []auditv1.Level{auditv1.LevelNone, auditv1.LevelMetadata, auditv1.LevelRequest, auditv1.LevelRequestResponse}
	stages = []auditv1.Stage{auditv1.StageRequestReceived, auditv1.StageResponseStarted, auditv1.StageResponseComplete, auditv1.StagePanic}
)

func validatePolicy(p *auditv1.Policy) field.ErrorList {
	errs := validateStages(p.OmitStages, field.NewPath("omitStages"))
	for i := range p.Rules {
		errs = append(errs, validateRule(&p.Rules[i], field.NewPath("rules").Index(i))...)
	}
	return errs
}

func validateStages(list []auditv1.Stage, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	for i, s := range list {
		if !slices.Contains(stages, s) {
			names := make([]string, len(stages))
			for k, s := range stages {
				names[k] = string(s)
			}
			errs = append(errs, field.Invalid(path.Index(i), string(s), "allowed stages are "+strings.Join(names, ",")))
		}
	}
	return errs
}

func validateRule(r *auditv1.PolicyRule, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	switch {
	case r.Level == "":
		errs = append(errs, field.Required(path.Child("level"), ""))
	case !slices.Contains(levels, r.Level):
		errs = append(errs, field.NotSupported(path.Child("level"), r.Level, levels))
	}
	for i, u := range r.NonResourceURLs {
		at := path.Child("nonResourceURLs").Index(i)
		if u != "*" && !strings.HasPrefix(u, "/") {
			errs = append(errs, field.Invalid(at, u, "non-resource URL rules must begin with a '/' character"))
		}
		if u != "" && strings.Contains(u[:len(u)-1], "*") {
			errs = append(errs, field.Invalid(at, u, "non-resource URL wildcards '*' must be the final character of the rule"))
		}
	}
	for _, g := range r.Resources {
		if g.Group != "" && g.Group != "*" {
			if text := apivalidation.NameIsDNSSubdomain(g.Group, false); len(text) > 0 {
				errs = append(errs, field.Invalid(path.Child("resources", "group"), g.Group, strings.Join(text, ",")))
			}
		}
		if len(g.ResourceNames) > 0 && len(g.Resources) == 0 {
			errs = append(errs, field.Invalid(path.Child("resources", "resourceNames"), g.ResourceNames, "using resourceNames requires at least one resource"))
		}
	}
	errs = append(errs, validateStages(r.OmitStages, path.Child("omitStages"))...)
	if len(r.NonResourceURLs) > 0 && len(r.Resources)+len(r.Namespaces) > 0 {
		errs = append(errs, field.Invalid(path.Child("nonResourceURLs"), r.NonResourceURLs, "rules cannot apply to both regular resources and non-resource URLs"))
	}
	return errs
}

// verdict is what the policy wants of a request.
type verdict struct {
	level       auditv1.Level
	omit        []auditv1.Stage
	omitManaged bool
}

func (v *verdict) atLeast(l auditv1.Level) bool {
	return slices.Index(levels, v.level) >= slices.Index(levels, l)
}

// judge finds the first rule that is about a request.
func judge(p *auditv1.Policy, u *request.User, i *request.Info) verdict {
	for k := range p.Rules {
		r := &p.Rules[k]
		if !matches(r, u, i) {
			continue
		}
		v := verdict{level: r.Level, omit: slices.Concat(p.OmitStages, r.OmitStages), omitManaged: p.OmitManagedFields}
		if r.OmitManagedFields != nil {
			v.omitManaged = *r.OmitManagedFields
		}
		return v
	}
	return verdict{level: auditv1.LevelNone}
}

func matches(r *auditv1.PolicyRule, u *request.User, i *request.Info) bool {
	if len(r.Users) > 0 && !slices.Contains(r.Users, u.Name) {
		return false
	}
	if len(r.UserGroups) > 0 && !slices.ContainsFunc(r.UserGroups, func(g string) bool { return slices.Contains(u.Groups, g) }) {
		return false
	}
	if len(r.Verbs) > 0 && !slices.Contains(r.Verbs, i.Verb) {
		return false
	}
	switch {
	case len(r.Namespaces) > 0 || len(r.Resources) > 0:
		return i.IsResource && matchResource(r, i)
	case len(r.NonResourceURLs) > 0:
		return !i.IsResource && slices.ContainsFunc(r.NonResourceURLs, func(u string) bool { return matchPath(u, i.Path) })
	}
	return true
}

func matchPath(spec, path string) bool {
	if prefix, ok := strings.CutSuffix(spec, "*"); ok {
		return strings.HasPrefix(path, prefix)
	}
	return spec == path
}

func matchResource(r *auditv1.PolicyRule, i *request.Info) bool {
	if len(r.Namespaces) > 0 && !slices.Contains(r.Namespaces, i.Namespace) {
		return false
	}
	if len(r.Resources) == 0 {
		return true
	}
	whole := i.Resource
	if i.Subresource != "" {
		whole += "/" + i.Subresource
	}
	for _, g := range r.Resources {
		if g.Group != i.Group && g.Group != "*" {
			continue
		}
		if len(g.Resources) == 0 {
			return true
		}
		if len(g.ResourceNames) > 0 && !slices.Contains(g.ResourceNames, i.Name) {
			continue
		}
		for _, res := range g.Resources {
			if res == "*" || res == whole || res == i.Resource+"/*" || i.Subresource != "" && res == "*/"+i.Subresource {
				return true
			}
		}
	}
	return false
}
