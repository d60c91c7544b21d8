package servicecidr

import (
	"strings"
	"testing"

	networkingv1 "k8s.io/api/networking/v1"

	"github.com/sampan-dev/sampan/api"
)

func TestRules(t *testing.T) {
	of := func(list ...string) *cidr { return &cidr{Spec: networkingv1.ServiceCIDRSpec{CIDRs: list}} }
	for _, c := range []struct {
		next, prev *cidr
		want       string
	}{
		{of("10.96.0.0/16"), nil, ""},
		{of("10.96.0.0/16", "fd00::/108"), nil, ""},
		{of(), nil, "spec.cidrs: Required value: at least one CIDR required"},
		{of("10.96.0.0/16", "10.97.0.0/16"), nil, "may specify no more than one IP for each IP family"},
		{of("10.96.0.1/16"), nil, `spec.cidrs[0]: Invalid value: "10.96.0.1/16"`},
		{of("10.96.0.0/16", "fd00::/108"), of("10.96.0.0/16"), ""},
		{of("10.97.0.0/16"), of("10.96.0.0/16"), "field is immutable"},
	} {
		var prev api.Object
		if c.prev != nil {
			prev = c.prev
		}
		err := Kind().Validate(c.next, prev).ToAggregate()
		if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("%v: got %v, want %q", c.next.Spec.CIDRs, err, c.want)
		}
	}
}
