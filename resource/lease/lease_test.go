package lease

import (
	"testing"

	coordinationv1 "k8s.io/api/coordination/v1"
)

func TestRules(t *testing.T) {
	for want, spec := range map[string]coordinationv1.LeaseSpec{
		"": {LeaseDurationSeconds: new(int32(15)), LeaseTransitions: new(int32(0))},
		"spec.leaseDurationSeconds: Invalid value: 0: must be greater than 0":               {LeaseDurationSeconds: new(int32(0))},
		"spec.leaseTransitions: Invalid value: -1: must be greater than or equal to 0":      {LeaseTransitions: new(int32(-1))},
		"spec.preferredHolder: Forbidden: may only be specified when `strategy` is defined": {PreferredHolder: new("me")},
	} {
		got := ""
		if err := Kind().Validate(&coordinationv1.Lease{Spec: spec}, nil).ToAggregate(); err != nil {
			got = err.Error()
		}
		if got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}

func TestRetiredVersionWarns(t *testing.T) {
	want := "coordination.k8s.io/v1beta1 Lease is deprecated in v1.19+, unavailable in v1.22+; use coordination.k8s.io/v1 Lease"
	if got := Kind().Info().Also[0].Warning; got != want {
		t.Errorf("got %q", got)
	}
}
