package authz

import (
	"flag"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"

	rbacv1 "k8s.io/api/rbac/v1"

	"github.com/sampan-dev/sampan/apiserver/request"
)

var update = flag.Bool("update", false, "write testdata/policy.txt anew")

// TestPolicyIsUpstreams compares all roles and bindings with what upstream's
// v1.36 has, plus what v1.37 made ordinary: storage version migration, pod
// certificates, the publisher of the API servers' trust bundle, device taint rules.
// Each line is one right, so that how rules are grouped does not count.
func TestPolicyIsUpstreams(t *testing.T) {
	got := strings.Join(policyLines(), "\n") + "\n"
	const file = "testdata/policy.txt"
	if *update {
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	want := strings.Split(string(data), "\n")
	have := strings.Split(got, "\n")
	for _, l := range have {
		if !slices.Contains(want, l) {
			t.Errorf("too much: %s", l)
		}
	}
	for _, l := range want {
		if !slices.Contains(have, l) {
			t.Errorf("missing: %s", l)
		}
	}
}

func policyLines() (out []string) {
	rights := func(who string, rules []rbacv1.PolicyRule) {
		verbs := map[string][]string{}
		for i := range rules {
			for _, a := range atoms(&rules[i]) {
				what := strings.Join(a.NonResourceURLs, "")
				if what == "" {
					what = a.Resources[0] + "." + a.APIGroups[0]
				}
				if len(a.ResourceNames) > 0 {
					what += " " + a.ResourceNames[0]
				}
				if !slices.Contains(verbs[what], a.Verbs[0]) {
					verbs[what] = append(verbs[what], a.Verbs[0])
				}
			}
		}
		for _, what := range slices.Sorted(maps.Keys(verbs)) {
			out = append(out, fmt.Sprintf("%s: %s %s", who, what, strings.Join(slices.Sorted(slices.Values(verbs[what])), ",")))
		}
	}
	labels := func(who string, m map[string]string) {
		for _, k := range slices.Sorted(maps.Keys(m)) {
			out = append(out, fmt.Sprintf("%s: label %s=%s", who, k, m[k]))
		}
	}
	for _, r := range clusterRoles() {
		rights("clusterrole "+r.Name, r.Rules)
		labels("clusterrole "+r.Name, r.Labels)
		if r.AggregationRule != nil {
			out = append(out, fmt.Sprintf("clusterrole %s: aggregates %v", r.Name, r.AggregationRule.ClusterRoleSelectors[0].MatchLabels))
		}
	}
	for _, r := range roles() {
		rights("role "+r.Namespace+"/"+r.Name, r.Rules)
	}
	bound := func(who string, ref rbacv1.RoleRef, subjects []rbacv1.Subject) {
		out = append(out, fmt.Sprintf("%s: %s %s", who, ref.Kind, ref.Name))
		for _, s := range subjects {
			out = append(out, fmt.Sprintf("%s: to %s %s %s", who, s.Kind, s.Namespace, s.Name))
		}
	}
	for _, b := range clusterBindings() {
		bound("clusterrolebinding "+b.Name, b.RoleRef, b.Subjects)
	}
	for _, b := range roleBindings() {
		bound("rolebinding "+b.Namespace+"/"+b.Name, b.RoleRef, b.Subjects)
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// TestNobodyUnknownMayMuch: what those without credentials may do by the policy.
func TestNobodyUnknownMayMuch(t *testing.T) {
	for _, b := range clusterBindings() {
		for _, s := range b.Subjects {
			if (s.Name == request.Unauthenticated || s.Name == request.Anonymous) && b.Name != "system:public-info-viewer" {
				t.Errorf("%s is bound to %s", b.Name, s.Name)
			}
		}
	}
}
