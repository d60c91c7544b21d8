package policy

import (
	"fmt"
	"slices"
	"strings"

	"github.com/google/cel-go/cel"
	admissionv1 "k8s.io/api/admissionregistration/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/apimachinery/pkg/util/version"
	plugincel "k8s.io/apiserver/pkg/admission/plugin/cel"
	celtypes "k8s.io/apiserver/pkg/cel"
	"k8s.io/apiserver/pkg/cel/common"
	"k8s.io/apiserver/pkg/cel/environment"
	"k8s.io/apiserver/pkg/cel/library"
	"k8s.io/apiserver/pkg/cel/openapi"

	"github.com/sampan-dev/sampan/semantics/expression"
)

// maxTypes is how many kinds a rule's expressions are checked against.
const maxTypes = 10

// kindType pairs a kind with what its objects look like to expressions.
type kindType struct {
	kind schema.GroupVersionKind
	decl *celtypes.DeclType
}

// warnings type-check a policy's expressions against the kinds it names.
func (p *Policies) warnings(policy *admissionv1.ValidatingAdmissionPolicy) []admissionv1.ExpressionWarning {
	var kinds []kindType
	for _, k := range p.kindsOf(policy) {
		if decl := p.declare(k); decl != nil {
			kinds = append(kinds, kindType{k, decl})
		}
	}
	var param *celtypes.DeclType
	if k := policy.Spec.ParamKind; k != nil {
		if gv, err := schema.ParseGroupVersion(k.APIVersion); err == nil {
			param = p.declare(gv.WithKind(k.Kind))
		}
	}
	var out []admissionv1.ExpressionWarning
	check := func(at *field.Path, text string) {
		if w := typeErrors(policy, kinds, param, text); w != "" {
			out = append(out, admissionv1.ExpressionWarning{FieldRef: at.String(), Warning: w})
		}
	}
	path := field.NewPath("spec", "validations")
	for i, v := range policy.Spec.Validations {
		check(path.Index(i).Child("expression"), v.Expression)
		if v.MessageExpression != "" {
			check(path.Index(i).Child("messageExpression"), v.MessageExpression)
		}
	}
	return out
}

// declare is what objects of a kind look like, nil when nobody knows.
func (p *Policies) declare(kind schema.GroupVersionKind) *celtypes.DeclType {
	s, err := p.types.Schema(kind)
	if err != nil || s == nil {
		return nil
	}
	decl := common.SchemaDeclType(&openapi.Schema{Schema: s}, true)
	if decl == nil {
		return nil
	}
	return decl.MaybeAssignTypeName("checked." + kind.Kind)
}

// kindsOf are the kinds that a policy's rules name without wildcards.
func (p *Policies) kindsOf(policy *admissionv1.ValidatingAdmissionPolicy) []schema.GroupVersionKind {
	var out []schema.GroupVersionKind
	if policy.Spec.MatchConstraints == nil {
		return nil
	}
	wild := func(s string) bool { return strings.Contains(s, "*") }
	for _, r := range policy.Spec.MatchConstraints.ResourceRules {
		if slices.ContainsFunc(r.APIGroups, wild) || slices.ContainsFunc(r.APIVersions, wild) {
			continue
		}
		for _, g := range r.APIGroups {
			for _, v := range r.APIVersions {
				for _, res := range r.Resources {
					if kind, ok := p.kindOf(schema.GroupVersionResource{Group: g, Version: v, Resource: res}); ok && !slices.Contains(out, kind) && len(out) < maxTypes {
						out = append(out, kind)
					}
				}
			}
		}
	}
	slices.SortFunc(out, func(a, b schema.GroupVersionKind) int { return strings.Compare(a.String(), b.String()) })
	return out
}

func (p *Policies) kindOf(gvr schema.GroupVersionResource) (schema.GroupVersionKind, bool) {
	for _, w := range p.deps.Catalog.Spellings(gvr, "") {
		if w.Resource == gvr {
			return w.Kind, true
		}
	}
	return schema.GroupVersionKind{}, false
}

// typeErrors compiles an expression once per kind and says where its types do
// not fit.
func typeErrors(policy *admissionv1.ValidatingAdmissionPolicy, kinds []kindType, param *celtypes.DeclType, text string) string {
	var out []string
	for _, k := range kinds {
		env, err := typedEnvironment(k.decl, param, policy.Spec.ParamKind != nil)
		if err != nil {
			continue
		}
		c, err := plugincel.NewCompositedCompilerForTypeChecking(env)
		if err != nil {
			continue
		}
		c.Compiler = &typeChecker{c}
		scope := expression.Scope{Params: policy.Spec.ParamKind != nil, Authorizer: true, Stored: true}
		declare(c, policy.Spec.Variables, scope)
		result := c.CompileCELExpression(expression.Variable("", text), scope.Declarations(), scope.Mode())
		if e := result.Error; e != nil && e.Type == celtypes.ErrorTypeInvalid {
			out = append(out, fmt.Sprintf("%v: %s\n", k.kind, e))
		} else if e != nil {
			out = append(out, fmt.Sprintf("%v: type checking error: %v\n", k.kind, e))
		}
	}
	return strings.Join(out, "\n")
}

// typedEnvironment is the environment of a policy whose object has a type.
func typedEnvironment(object, param *celtypes.DeclType, params bool) (*environment.EnvSet, error) {
	ns, rq := plugincel.BuildNamespaceType(), plugincel.BuildRequestType()
	decls := []*celtypes.DeclType{ns, rq, object}
	vars := []cel.EnvOption{
		cel.Variable(plugincel.NamespaceVarName, ns.CelType()), cel.Variable(plugincel.RequestVarName, rq.CelType()),
		cel.Variable(plugincel.ObjectVarName, object.CelType()), cel.Variable(plugincel.OldObjectVarName, object.CelType()),
		cel.Variable(plugincel.AuthorizerVarName, library.AuthorizerType),
	}
	switch {
	case params && param != nil:
		decls = append(decls, param)
		vars = append(vars, cel.Variable(plugincel.ParamsVarName, param.CelType()))
	case params:
		vars = append(vars, cel.Variable(plugincel.ParamsVarName, cel.DynType))
	}
	return expression.Base().Extend(environment.VersionedOptions{IntroducedVersion: version.MajorMinor(1, 0), EnvOptions: vars, DeclTypes: decls})
}

// typeChecker compiles as far as types are known and no further.
type typeChecker struct{ c *plugincel.CompositedCompiler }

func (t *typeChecker) CompileCELExpression(a plugincel.ExpressionAccessor, _ plugincel.OptionalVariableDeclarations, mode environment.Type) plugincel.CompilationResult {
	failed := func(text string, sort celtypes.ErrorType) plugincel.CompilationResult {
		return plugincel.CompilationResult{Error: &celtypes.Error{Type: sort, Detail: text}, ExpressionAccessor: a}
	}
	env, err := t.c.Env(mode)
	if err != nil {
		return failed("fail to build env: "+err.Error(), celtypes.ErrorTypeInternal)
	}
	ast, issues := env.Compile(a.GetExpression())
	if issues != nil {
		return failed(issues.String(), celtypes.ErrorTypeInvalid)
	}
	return plugincel.CompilationResult{OutputType: ast.OutputType()}
}
