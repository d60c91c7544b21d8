package rbac

import (
	"fmt"
	"strings"
	"testing"
	"time"

	rbacv1 "k8s.io/api/rbac/v1"
	rbacv1alpha1 "k8s.io/api/rbac/v1alpha1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sampan-dev/sampan/api"
)

func TestRules(t *testing.T) {
	binding := func(change func(*rbacv1.RoleBinding)) *rbacv1.RoleBinding {
		b := &rbacv1.RoleBinding{RoleRef: rbacv1.RoleRef{Kind: "Role", Name: "r"}, Subjects: []rbacv1.Subject{{Kind: "User", Name: "u"}}}
		change(b)
		return b
	}
	cluster := func(change func(*rbacv1.ClusterRoleBinding)) *rbacv1.ClusterRoleBinding {
		b := &rbacv1.ClusterRoleBinding{RoleRef: rbacv1.RoleRef{Kind: "ClusterRole", Name: "system:r"}}
		change(b)
		return b
	}
	role := func(rule rbacv1.PolicyRule) *rbacv1.Role { return &rbacv1.Role{Rules: []rbacv1.PolicyRule{rule}} }
	for _, c := range []struct {
		obj  api.Object
		want string
	}{
		{role(rbacv1.PolicyRule{Verbs: []string{"get"}, APIGroups: []string{""}, Resources: []string{"pods"}}), ""},
		{role(rbacv1.PolicyRule{APIGroups: []string{""}, Resources: []string{"pods"}}), "rules[0].verbs: Required value: verbs must contain at least one value"},
		{role(rbacv1.PolicyRule{Verbs: []string{"get"}}), "[rules[0].apiGroups: Required value: resource rules must supply at least one api group, rules[0].resources: Required value: resource rules must supply at least one resource]"},
		{role(rbacv1.PolicyRule{Verbs: []string{"get"}, NonResourceURLs: []string{"/x"}}), `rules[0].nonResourceURLs: Invalid value: ["/x"]: namespaced rules cannot apply to non-resource URLs`},
		{&rbacv1.ClusterRole{Rules: []rbacv1.PolicyRule{{Verbs: []string{"get"}, NonResourceURLs: []string{"/x"}}}}, ""},
		{&rbacv1.ClusterRole{AggregationRule: &rbacv1.AggregationRule{}}, "aggregationRule.clusterRoleSelectors: Required value: at least one clusterRoleSelector required if aggregationRule is non-nil"},
		{binding(func(*rbacv1.RoleBinding) {}), ""},
		{binding(func(b *rbacv1.RoleBinding) { b.RoleRef.Kind = "X" }), `roleRef.kind: Unsupported value: "X": supported values: "Role", "ClusterRole"`},
		{binding(func(b *rbacv1.RoleBinding) { b.RoleRef.Name = "" }), "roleRef.name: Required value"},
		{binding(func(b *rbacv1.RoleBinding) { b.Subjects[0].Kind = "X" }), `subjects[0].kind: Unsupported value: "X": supported values: "Group", "ServiceAccount", "User"`},
		{cluster(func(*rbacv1.ClusterRoleBinding) {}), ""},
		{cluster(func(b *rbacv1.ClusterRoleBinding) { b.RoleRef.Kind = "Role" }), `roleRef.kind: Unsupported value: "Role": supported values: "ClusterRole"`},
		{cluster(func(b *rbacv1.ClusterRoleBinding) { b.Subjects = []rbacv1.Subject{{Kind: "ServiceAccount", Name: "a"}} }), "subjects[0].namespace: Required value"},
	} {
		for _, k := range Kinds() {
			if fmt.Sprintf("%T", k.New()) != fmt.Sprintf("%T", c.obj) {
				continue
			}
			k.Default(c.obj)
			got := ""
			if err := k.Validate(c.obj, nil).ToAggregate(); err != nil {
				got = err.Error()
			}
			if got != c.want {
				t.Errorf("got %q, want %q", got, c.want)
			}
		}
	}
}

func TestRoleRefStays(t *testing.T) {
	prev := &rbacv1.RoleBinding{RoleRef: rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "Role", Name: "a"}}
	next := prev.DeepCopy()
	next.RoleRef.Name = "b"
	want := `roleRef: Invalid value: {"apiGroup":"rbac.authorization.k8s.io","kind":"Role","name":"b"}: cannot change roleRef`
	if got := roleBinding().Validate(next, prev).ToAggregate().Error(); got != want {
		t.Errorf("got %s", got)
	}
}

func TestNamesAndColumns(t *testing.T) {
	if msgs := clusterRole().ValidateName("system:node/proxy", false); len(msgs) == 0 {
		t.Error("a slash fits into no path")
	}
	if msgs := clusterRole().ValidateName("system:node-proxier", false); len(msgs) != 0 {
		t.Error(msgs)
	}
	r := &rbacv1.Role{ObjectMeta: metav1.ObjectMeta{Name: "r", CreationTimestamp: metav1.Unix(0, 0)}}
	if got := strings.Trim(fmt.Sprint(role().Cells(r, time.Unix(60, 0))), "[]"); got != "r 1970-01-01T00:00:00Z" {
		t.Errorf("got %q", got)
	}
	b := &rbacv1.RoleBinding{
		ObjectMeta: metav1.ObjectMeta{Name: "b", CreationTimestamp: metav1.Unix(0, 0)}, RoleRef: rbacv1.RoleRef{Kind: "ClusterRole", Name: "edit"},
		Subjects: []rbacv1.Subject{{Kind: "User", Name: "u"}, {Kind: "Group", Name: "g"}, {Kind: "ServiceAccount", Namespace: "n", Name: "s"}},
	}
	if got := strings.Trim(fmt.Sprint(roleBinding().Cells(b, time.Unix(60, 0))), "[]"); got != "b ClusterRole/edit 60s u g n/s" {
		t.Errorf("got %q", got)
	}
}

func TestAlphaSubjects(t *testing.T) {
	alpha := roleBinding().Info().Also[1]
	out, err := alpha.Store(&rbacv1alpha1.RoleBinding{Subjects: []rbacv1alpha1.Subject{{Kind: "User", Name: "*"}}})
	if err != nil {
		t.Fatal(err)
	}
	want := rbacv1.Subject{Kind: "Group", APIGroup: rbacv1.GroupName, Name: "system:authenticated"}
	if got := out.(*rbacv1.RoleBinding).Subjects[0]; got != want {
		t.Errorf("got %+v", got)
	}
	if !alpha.Retired || alpha.Warning == "" {
		t.Errorf("got %+v", alpha)
	}
}
