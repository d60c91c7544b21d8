package policy

import (
	"context"
	"strings"
	"testing"

	admissionv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/sampan-dev/sampan/api"
	"github.com/sampan-dev/sampan/apiserver/dynamic"
	"github.com/sampan-dev/sampan/apiserver/request"
	"github.com/sampan-dev/sampan/apiserver/request/requesttest"
)

// served knows config maps, in namespaces, and nodes, in none.
type served struct{}

func way(of schema.GroupVersionResource, kind string) request.Spelling {
	same := func(obj api.Object) (api.Object, error) { return obj, nil }
	return request.Spelling{Kind: of.GroupVersion().WithKind(kind), Resource: of, Show: same,
		Store: func(shown, _ api.Object) (api.Object, error) { return shown, nil }}
}

func (served) Spellings(of schema.GroupVersionResource, _ string) []request.Spelling {
	return []request.Spelling{way(of, "ConfigMap")}
}

func (served) Resource(kind schema.GroupVersionKind) (request.Spelling, schema.GroupResource, bool, bool) {
	for _, r := range []struct {
		kind, resource string
		namespaced     bool
	}{{"ConfigMap", "configmaps", true}, {"Node", "nodes", false}} {
		if gvr := (schema.GroupVersionResource{Version: "v1", Resource: r.resource}); kind == gvr.GroupVersion().WithKind(r.kind) {
			return way(gvr, r.kind), gvr.GroupResource(), r.namespaced, true
		}
	}
	return request.Spelling{}, schema.GroupResource{}, false, false
}

func params(name, value string) *corev1.ConfigMap {
	return &corev1.ConfigMap{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "ConfigMap"},
		ObjectMeta: metav1.ObjectMeta{Namespace: "n", Name: name, Labels: map[string]string{"for": "policy"}}, Data: map[string]string{"max": value}}
}

func backend() *requesttest.Backend {
	return requesttest.New().
		With(schema.GroupResource{Resource: "configmaps"}, params("a", "1"), params("b", "2")).
		With(schema.GroupResource{Resource: "namespaces"}, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "n"}})
}

func TestParams(t *testing.T) {
	p := New(dynamic.Deps{Back: backend(), Catalog: served{}}, Types{}, nil)
	deny := admissionv1.DenyAction
	for _, c := range []struct {
		kind      string
		ref       *admissionv1.ParamRef
		namespace string
		want      int
		err       string
	}{
		{"", &admissionv1.ParamRef{Name: "a"}, "n", 1, ""},
		{"ConfigMap", nil, "n", 1, ""},
		{"ConfigMap", &admissionv1.ParamRef{Name: "a"}, "n", 1, ""},
		{"ConfigMap", &admissionv1.ParamRef{Name: "a", Namespace: "n"}, "", 1, ""},
		{"ConfigMap", &admissionv1.ParamRef{Selector: &metav1.LabelSelector{MatchLabels: map[string]string{"for": "policy"}}}, "n", 2, ""},
		{"ConfigMap", &admissionv1.ParamRef{Name: "none"}, "n", 0, ""},
		{"ConfigMap", &admissionv1.ParamRef{Name: "none", ParameterNotFoundAction: &deny}, "n", 0, "no params found for policy binding with `Deny` parameterNotFoundAction"},
		{"ConfigMap", &admissionv1.ParamRef{Name: "a"}, "", 0, "cannot use namespaced paramRef in policy binding that matches cluster-scoped resources"},
		{"Node", &admissionv1.ParamRef{Name: "a", Namespace: "n"}, "n", 0, "paramRef.namespace must not be provided for a cluster-scoped `paramKind`"},
		{"Unknown", &admissionv1.ParamRef{Name: "a"}, "n", 0, "paramKind kind `&ParamKind{APIVersion:v1,Kind:Unknown,}` not known"},
	} {
		var kind *admissionv1.ParamKind
		if c.kind != "" {
			kind = &admissionv1.ParamKind{APIVersion: "v1", Kind: c.kind}
		}
		got, err := p.params(t.Context(), kind, c.ref, c.namespace)
		if text := textOf(err); len(got) != c.want || text != c.err {
			t.Errorf("%s %v: %d, %s", c.kind, c.ref, len(got), text)
		}
	}
}

func textOf(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

type nobody struct{}

func (nobody) Authorize(context.Context, *request.User, *request.Info) (request.Decision, string, error) {
	return request.NoOpinion, "", nil
}

// TestParametersMustBeReadable: what a policy says about refusals could tell
// its author what they may not read.
func TestParametersMustBeReadable(t *testing.T) {
	p := New(dynamic.Deps{Back: backend(), Catalog: served{}, Authorizer: nobody{}}, Types{}, nil)
	jane := &request.User{Name: "jane", Groups: []string{"devs"}}
	policy := &admissionv1.ValidatingAdmissionPolicy{Spec: admissionv1.ValidatingAdmissionPolicySpec{ParamKind: &admissionv1.ParamKind{APIVersion: "v1", Kind: "ConfigMap"}}}
	binding := &admissionv1.ValidatingAdmissionPolicyBinding{Spec: admissionv1.ValidatingAdmissionPolicyBindingSpec{PolicyName: "p", ParamRef: &admissionv1.ParamRef{Name: "a"}}}
	for _, c := range []struct {
		user      *request.User
		obj, old  api.Object
		kind, res string
		want      string
	}{
		{jane, policy, nil, "ValidatingAdmissionPolicy", "validatingadmissionpolicies",
			`ValidatingAdmissionPolicy.admissionregistration.k8s.io "x" is invalid: spec.paramKind: Forbidden: user &{jane  [devs] map[]} must have "get" permission on all objects of the referenced paramKind (kind=ConfigMap, apiVersion=v1)`},
		{jane, policy, policy, "ValidatingAdmissionPolicy", "validatingadmissionpolicies", ""},
		{&request.User{Name: "root", Groups: []string{request.Masters}}, policy, nil, "ValidatingAdmissionPolicy", "validatingadmissionpolicies", ""},
		{jane, binding, nil, "ValidatingAdmissionPolicyBinding", "validatingadmissionpolicybindings",
			`ValidatingAdmissionPolicyBinding.admissionregistration.k8s.io "x" is invalid: spec.paramRef: Forbidden: unable to get policy p to determine minimum required permissions and user &{jane  [devs] map[]} does not have "get" permission for all groups, versions and resources`},
	} {
		a := &request.Attributes{Operation: request.Create, Object: c.obj, Old: c.old, Name: "x", User: c.user,
			Kind:     schema.GroupVersionKind{Group: admissionv1.GroupName, Version: "v1", Kind: c.kind},
			Resource: schema.GroupVersionResource{Group: admissionv1.GroupName, Version: "v1", Resource: c.res}}
		if got := textOf(Validating{p}.Validate(t.Context(), a)); got != c.want {
			t.Errorf("got  %s\nwant %s", got, c.want)
		}
	}
}

// ruled has one policy and binding in force.
func ruled(spec admissionv1.ValidatingAdmissionPolicySpec, actions ...admissionv1.ValidationAction) *Policies {
	p := New(dynamic.Deps{Back: backend(), Catalog: served{}}, Types{}, nil)
	spec.MatchConstraints = &admissionv1.MatchResources{}
	p.source.set(validatingSort, validatingSort.policies, "p", &admissionv1.ValidatingAdmissionPolicy{ObjectMeta: metav1.ObjectMeta{Name: "p"}, Spec: spec})
	p.source.set(validatingSort, validatingSort.bindings, "b", &admissionv1.ValidatingAdmissionPolicyBinding{ObjectMeta: metav1.ObjectMeta{Name: "b"},
		Spec: admissionv1.ValidatingAdmissionPolicyBindingSpec{PolicyName: "p", ValidationActions: actions}})
	return p
}

func configMap() *request.Attributes {
	return &request.Attributes{Operation: request.Create, Object: params("x", "9"), Namespace: "n", Name: "x", User: &request.User{Name: "jane"},
		Kind: schema.GroupVersionKind{Version: "v1", Kind: "ConfigMap"}, Resource: schema.GroupVersionResource{Version: "v1", Resource: "configmaps"}, Options: &metav1.CreateOptions{}}
}

func TestFailurePolicyAndCost(t *testing.T) {
	fail, ignore := admissionv1.Fail, admissionv1.Ignore
	spec := func(f *admissionv1.FailurePolicyType, text string) admissionv1.ValidatingAdmissionPolicySpec {
		return admissionv1.ValidatingAdmissionPolicySpec{FailurePolicy: f, Validations: []admissionv1.Validation{{Expression: text}}}
	}
	const many = "['a','b','c','d','e','f','g','h','i','j']"
	costly := many + ".all(a, " + many + ".all(b, " + many + ".all(c, " + many + ".all(d, " + many + ".all(e, " + many + ".all(f, " + many + ".all(g, (a+b+c+d+e+f+g).size() > 0)))))))"
	for _, c := range []struct {
		spec admissionv1.ValidatingAdmissionPolicySpec
		want string
	}{
		{spec(&fail, "object.data.max == '9'"), ""},
		{spec(&fail, "object.data.none == '9'"), `configmaps "x" is forbidden: ValidatingAdmissionPolicy 'p' with binding 'b' denied request: expression 'object.data.none == '9'' resulted in error: no such key: none`},
		{spec(&ignore, "object.data.none == '9'"), ""},
		{spec(&ignore, "object.data.max == '1'"), `configmaps "x" is forbidden: ValidatingAdmissionPolicy 'p' with binding 'b' denied request: failed expression: object.data.max == '1'`},
		{spec(&fail, "not cel"), `configmaps "x" is forbidden: ValidatingAdmissionPolicy 'p' with binding 'b' denied request: compilation error: compilation failed: ERROR: <input>:1:5: Syntax error`},
	} {
		got := textOf(Validating{ruled(c.spec, admissionv1.Deny)}.Validate(t.Context(), configMap()))
		if !strings.HasPrefix(got, c.want) || (c.want == "") != (got == "") {
			t.Errorf("%s: got %s", c.spec.Validations[0].Expression, got)
		}
	}
	got := textOf(Validating{ruled(spec(&fail, costly), admissionv1.Deny)}.Validate(t.Context(), configMap()))
	if !strings.Contains(got, "cost") {
		t.Errorf("a costly expression was not cut short: %s", got)
	}
}

func TestAuditAnnotations(t *testing.T) {
	spec := admissionv1.ValidatingAdmissionPolicySpec{
		Validations:      []admissionv1.Validation{{Expression: "false", Message: "never"}},
		AuditAnnotations: []admissionv1.AuditAnnotation{{Key: "max", ValueExpression: "'max is ' + object.data.max"}, {Key: "none", ValueExpression: "null"}},
	}
	ctx, notes := request.WithAnnotations(t.Context())
	if err := (Validating{ruled(spec, admissionv1.Audit)}).Validate(ctx, configMap()); err != nil {
		t.Error(err)
	}
	got := notes.Map()
	want := `[{"message":"never","policy":"p","binding":"b","expressionIndex":0,"validationActions":["Audit"]}]`
	if got["p/max"] != "max is 9" || got["validation.policy.admission.k8s.io/validation_failure"] != want || len(got) != 2 {
		t.Errorf("got %v", got)
	}
}
