package ipaddress

import (
	"testing"

	networkingv1 "k8s.io/api/networking/v1"
)

func TestRules(t *testing.T) {
	for name, ok := range map[string]bool{"10.0.0.1": true, "2001:db8::1": true, "2001:DB8::1": false, "x": false, "010.0.0.1": false} {
		if msgs := Kind().ValidateName(name, false); (len(msgs) == 0) != ok {
			t.Errorf("%s: %q", name, msgs)
		}
	}
	for want, r := range map[string]*networkingv1.ParentReference{
		"":                               {Resource: "services", Namespace: "default", Name: "s"},
		"spec.parentRef: Required value": nil,
		"[spec.parentRef.resource: Required value, spec.parentRef.name: Required value]": {},
	} {
		got := ""
		if err := Kind().Validate(&addr{Spec: networkingv1.IPAddressSpec{ParentRef: r}}, nil).ToAggregate(); err != nil {
			got = err.Error()
		}
		if got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
	if got := parent(&networkingv1.ParentReference{Resource: "services", Namespace: "default", Name: "s"}); got != "services/default/s" {
		t.Errorf("got %q", got)
	}
}
