package clusterrole

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sampan-dev/sampan/client"
	"github.com/sampan-dev/sampan/client/fake"
	"github.com/sampan-dev/sampan/controller"
	"github.com/sampan-dev/sampan/kit/clock"
	"github.com/sampan-dev/sampan/kit/run"
)

func role(name, verb string, labels map[string]string) *rbacv1.ClusterRole {
	return &rbacv1.ClusterRole{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: labels}, Rules: []rbacv1.PolicyRule{{Verbs: []string{verb}, Resources: []string{"pods"}, APIGroups: []string{""}}}}
}

// TestAggregates: edit takes in two roles and admin takes in edit; a rule that
// was written by hand into an aggregated role does not last.
func TestAggregates(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		to := func(who string) map[string]string { return map[string]string{"to-" + who: "true"} }
		by := func(who string) *rbacv1.AggregationRule {
			return &rbacv1.AggregationRule{ClusterRoleSelectors: []metav1.LabelSelector{{MatchLabels: to(who)}}}
		}
		edit, admin := role("edit", "wrong", to("admin")), role("admin", "wrong", nil)
		edit.AggregationRule, admin.AggregationRule = by("edit"), by("admin")
		srv := fake.New(edit, admin, role("b", "get", to("edit")), role("a", "list", to("edit")), role("twice", "list", to("edit")), role("x", "delete", nil))
		d := controller.WithClient(srv)
		c := New(d)
		g := run.New(t.Context())
		g.Go("mirrors", d.Mirrors.Run)
		g.Go("loop", c.Run)
		defer func() { g.Stop(); g.Wait() }()
		clock.Sleep(t.Context(), 10*time.Second)
		for _, name := range []string{"edit", "admin"} {
			r, err := client.Of[rbacv1.ClusterRole](srv, "").Get(t.Context(), name)
			if err != nil {
				t.Fatal(err)
			}
			verbs := ""
			for _, rule := range r.Rules {
				verbs += fmt.Sprint(rule.Verbs)
			}
			if verbs != "[list][get]" {
				t.Errorf("%s may %s, want [list][get]", name, verbs)
			}
		}
	})
}
