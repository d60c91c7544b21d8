package ingressclass

import (
	"testing"

	networkingv1 "k8s.io/api/networking/v1"
)

func TestRules(t *testing.T) {
	for want, spec := range map[string]networkingv1.IngressClassSpec{
		"":                                {Controller: "example.com/c"},
		"spec.controller: Required value": {},
		"spec.parameters.kind: Required value: kind is required":                                  {Controller: "example.com/c", Parameters: &networkingv1.IngressClassParametersReference{Name: "n"}},
		"spec.parameters.namespace: Forbidden: `parameters.scope` is set to 'Cluster'":            {Controller: "example.com/c", Parameters: &networkingv1.IngressClassParametersReference{Kind: "K", Name: "n", Namespace: new("x")}},
		"spec.parameters.namespace: Required value: `parameters.scope` is set to 'Namespace'":     {Controller: "example.com/c", Parameters: &networkingv1.IngressClassParametersReference{Kind: "K", Name: "n", Scope: new("Namespace")}},
		`spec.parameters.scope: Unsupported value: "X": supported values: "Cluster", "Namespace"`: {Controller: "example.com/c", Parameters: &networkingv1.IngressClassParametersReference{Kind: "K", Name: "n", Scope: new("X")}},
	} {
		c := &class{Spec: spec}
		Kind().Default(c)
		got := ""
		if err := Kind().Validate(c, nil).ToAggregate(); err != nil {
			got = err.Error()
		}
		if got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
	prev, next := &class{Spec: networkingv1.IngressClassSpec{Controller: "example.com/a"}}, &class{Spec: networkingv1.IngressClassSpec{Controller: "example.com/b"}}
	if got := Kind().Validate(next, prev).ToAggregate().Error(); got != `spec.controller: Invalid value: "example.com/b": field is immutable` {
		t.Errorf("got %s", got)
	}
}
