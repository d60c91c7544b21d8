package dynamic

import (
	"context"
	"fmt"
	"testing"

	admissionv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/sampan-dev/sampan/api"
	"github.com/sampan-dev/sampan/apiserver/request"
	"github.com/sampan-dev/sampan/apiserver/request/requesttest"
	"github.com/sampan-dev/sampan/semantics/expression"
)

// two serves everything as v1 and as v2.
type two struct{}

func (two) Spellings(of schema.GroupVersionResource, _ string) []request.Spelling {
	same := func(obj api.Object) (api.Object, error) { return obj, nil }
	v2 := of
	v2.Version = "v2"
	return []request.Spelling{
		{Kind: schema.GroupVersionKind{Group: of.Group, Version: "v1", Kind: "Pod"}, Resource: of, Show: same},
		{Kind: schema.GroupVersionKind{Group: of.Group, Version: "v2", Kind: "Pod"}, Resource: v2, Show: same},
	}
}

func (two) Resource(schema.GroupVersionKind) (request.Spelling, schema.GroupResource, bool, bool) {
	return request.Spelling{}, schema.GroupResource{}, false, false
}

func deps() *Deps {
	return &Deps{Catalog: two{}, Back: requesttest.New().With(schema.GroupResource{Resource: "namespaces"},
		&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "n", Labels: map[string]string{"team": "a"}}})}
}

func pod(change func(*request.Attributes)) *request.Attributes {
	obj := &corev1.Pod{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Pod"}, ObjectMeta: metav1.ObjectMeta{Namespace: "n", Name: "p", Labels: map[string]string{"app": "x"}}}
	a := &request.Attributes{
		Operation: request.Create, Kind: schema.GroupVersionKind{Version: "v1", Kind: "Pod"}, Resource: schema.GroupVersionResource{Version: "v1", Resource: "pods"},
		Namespace: "n", Name: "p", Object: obj, User: &request.User{Name: "jane"}, Options: &metav1.CreateOptions{},
	}
	if change != nil {
		change(a)
	}
	return a
}

func rule(ops, groups, versions, resources string, scope admissionv1.ScopeType) *admissionv1.MatchResources {
	return &admissionv1.MatchResources{ResourceRules: []admissionv1.NamedRuleWithOperations{{RuleWithOperations: admissionv1.RuleWithOperations{
		Operations: []admissionv1.OperationType{admissionv1.OperationType(ops)},
		Rule:       admissionv1.Rule{APIGroups: []string{groups}, APIVersions: []string{versions}, Resources: []string{resources}, Scope: &scope},
	}}}}
}

func TestMatch(t *testing.T) {
	sub := func(name string) func(*request.Attributes) {
		return func(a *request.Attributes) { a.Subresource = name }
	}
	with := func(m *admissionv1.MatchResources, change func(*admissionv1.MatchResources)) *admissionv1.MatchResources {
		change(m)
		return m
	}
	exact := admissionv1.Exact
	all := func() *admissionv1.MatchResources { return rule("*", "*", "*", "*", "*") }
	for name, c := range map[string]struct {
		m    *admissionv1.MatchResources
		a    *request.Attributes
		want string
	}{
		"nothing said":             {nil, pod(nil), "/v1, Kind=Pod"},
		"everything":               {all(), pod(nil), "/v1, Kind=Pod"},
		"another operation":        {rule("DELETE", "*", "*", "*", "*"), pod(nil), ""},
		"another group":            {rule("*", "apps", "*", "*", "*"), pod(nil), ""},
		"another version":          {rule("*", "", "v2", "pods", "*"), pod(nil), "/v2, Kind=Pod"},
		"another version, exactly": {with(rule("*", "", "v2", "pods", "*"), func(m *admissionv1.MatchResources) { m.MatchPolicy = &exact }), pod(nil), ""},
		"a star means no subs":     {all(), pod(sub("status")), ""},
		"a sub":                    {rule("*", "", "v1", "pods/status", "*"), pod(sub("status")), "/v1, Kind=Pod"},
		"all subs":                 {rule("*", "", "v1", "pods/*", "*"), pod(sub("status")), "/v1, Kind=Pod"},
		"all subs and itself":      {rule("*", "", "v1", "pods/*", "*"), pod(nil), "/v1, Kind=Pod"},
		"a sub of anything":        {rule("*", "", "v1", "*/status", "*"), pod(sub("status")), "/v1, Kind=Pod"},
		"cluster things only":      {rule("*", "*", "*", "*", admissionv1.ClusterScope), pod(nil), ""},
		"namespaced things only":   {rule("*", "*", "*", "*", admissionv1.NamespacedScope), pod(nil), "/v1, Kind=Pod"},
		"by name":                  {with(all(), func(m *admissionv1.MatchResources) { m.ResourceRules[0].ResourceNames = []string{"q"} }), pod(nil), ""},
		"excluded": {with(all(), func(m *admissionv1.MatchResources) {
			m.ExcludeResourceRules = rule("*", "", "v2", "pods", "*").ResourceRules
		}), pod(nil), ""},
		"labels": {with(all(), func(m *admissionv1.MatchResources) {
			m.ObjectSelector = &metav1.LabelSelector{MatchLabels: map[string]string{"app": "y"}}
		}), pod(nil), ""},
		"old labels count": {with(all(), func(m *admissionv1.MatchResources) {
			m.ObjectSelector = &metav1.LabelSelector{MatchLabels: map[string]string{"app": "x"}}
		}), pod(func(a *request.Attributes) { a.Operation, a.Old, a.Object = request.Delete, a.Object, nil }), "/v1, Kind=Pod"},
		"the namespace's labels": {with(all(), func(m *admissionv1.MatchResources) {
			m.NamespaceSelector = &metav1.LabelSelector{MatchLabels: map[string]string{"team": "b"}}
		}), pod(nil), ""},
		"no namespace, no selector": {with(all(), func(m *admissionv1.MatchResources) {
			m.NamespaceSelector = &metav1.LabelSelector{MatchLabels: map[string]string{"team": "b"}}
		}), pod(func(a *request.Attributes) { a.Namespace = "" }), "/v1, Kind=Pod"},
	} {
		r := deps().Of(c.a)
		hit, ok, err := r.Match(t.Context(), MatchResources(c.m))
		got := ""
		if ok {
			got = hit.Kind.String()
		}
		if err != nil || got != c.want {
			t.Errorf("%s: got %q %v, want %q", name, got, err, c.want)
		}
	}
	// An error about a namespace that is not there concerns only what the rules match.
	m := with(rule("*", "apps", "*", "*", "*"), func(m *admissionv1.MatchResources) {
		m.NamespaceSelector = &metav1.LabelSelector{MatchLabels: map[string]string{"team": "b"}}
	})
	lost := pod(func(a *request.Attributes) { a.Namespace = "lost" })
	if _, ok, err := deps().Of(lost).Match(t.Context(), MatchResources(m)); ok || err != nil {
		t.Errorf("%v %v", ok, err)
	}
	m.ResourceRules[0].APIGroups = []string{""}
	if _, _, err := deps().Of(lost).Match(t.Context(), MatchResources(m)); err == nil || err.Error() != `namespaces "lost" not found` {
		t.Errorf("got %v", err)
	}
}

// A namespace is in itself: its own labels decide, the new ones when they change.
func TestNamespacesAreInThemselves(t *testing.T) {
	a := pod(func(a *request.Attributes) {
		a.Kind.Kind, a.Resource.Resource, a.Namespace, a.Name = "Namespace", "namespaces", "", "n"
		a.Object = &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "n", Labels: map[string]string{"team": "new"}}}
	})
	m := rule("*", "*", "*", "*", admissionv1.ClusterScope)
	m.NamespaceSelector = &metav1.LabelSelector{MatchLabels: map[string]string{"team": "new"}}
	r := deps().Of(a)
	if _, ok, err := r.Match(t.Context(), MatchResources(m)); !ok || err != nil || r.Space != "n" {
		t.Errorf("%v %v %q", ok, err, r.Space)
	}
}

// allowed lets jane do one thing.
type allowed struct{ asked int }

func (z *allowed) Authorize(_ context.Context, u *request.User, i *request.Info) (request.Decision, string, error) {
	z.asked++
	if u.Name == "jane" && i.Verb == "create" && i.Resource == "pods" {
		return request.Allow, "", nil
	}
	return request.NoOpinion, "", nil
}

func TestConditions(t *testing.T) {
	fail, ignore := admissionv1.Fail, admissionv1.Ignore
	for _, c := range []struct {
		failure *admissionv1.FailurePolicyType
		texts   []string
		want    string
	}{
		{&fail, []string{"object.metadata.name == 'p'", "request.userInfo.username == 'jane'", "request.kind.kind == 'Pod' && oldObject == null"}, "true <nil>"},
		{&fail, []string{"true", "object.metadata.name == 'q'"}, "false <nil>"},
		{&fail, []string{"object.spec.nothing == 1", "false"}, "false <nil>"}, // one that is false ends it
		{&fail, []string{"object.spec.nothing == 1", "true"}, "false expression 'object.spec.nothing == 1' resulted in error: no such key: nothing"},
		{&ignore, []string{"object.spec.nothing == 1", "true"}, "false <nil>"},
		{&fail, []string{"authorizer.group('').resource('pods').namespace('n').check('create').allowed()", "authorizer.group('').resource('pods').namespace('n').check('create').allowed()"}, "true <nil>"},
		{&fail, []string{"authorizer.group('').resource('secrets').check('get').allowed()"}, "false <nil>"},
	} {
		var list []admissionv1.MatchCondition
		for i, text := range c.texts {
			list = append(list, admissionv1.MatchCondition{Name: fmt.Sprint(i), Expression: text})
		}
		z := &allowed{}
		d := deps()
		d.Authorizer = z
		r := d.Of(pod(nil))
		v, err := r.View(r.Spoken())
		if err != nil {
			t.Fatal(err)
		}
		ok, err := NewConditions(list, c.failure, nil, expression.Scope{Authorizer: true}).Match(t.Context(), v, Hit{r.Asked(), r.Spoken()}, nil)
		if got := fmt.Sprint(ok, " ", err); got != c.want {
			t.Errorf("%v: got %s, want %s", c.texts, got, c.want)
		}
		if z.asked > 1 {
			t.Errorf("one question was asked %d times", z.asked)
		}
	}
}
