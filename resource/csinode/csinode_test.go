package csinode

import (
	"strings"
	"testing"

	storagev1 "k8s.io/api/storage/v1"
)

func TestRules(t *testing.T) {
	type drivers = []storagev1.CSINodeDriver
	of := func(d ...storagev1.CSINodeDriver) *node { return &node{Spec: storagev1.CSINodeSpec{Drivers: d}} }
	for want, d := range map[string]drivers{
		"":                                       {{Name: "example.com", NodeID: "n", TopologyKeys: []string{"zone"}}},
		"spec.drivers[0].nodeID: Required value": {{Name: "a"}},
		`spec.drivers[1].name: Duplicate value: "a"`:            {{Name: "a", NodeID: "n"}, {Name: "a", NodeID: "n"}},
		`spec.drivers[0].topologyKeys: Duplicate value: "zone"`: {{Name: "a", NodeID: "n", TopologyKeys: []string{"zone", "zone"}}},
	} {
		got := ""
		if err := Kind().Validate(of(d...), nil).ToAggregate(); err != nil {
			got = err.Error()
		}
		if got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
	prev := of(storagev1.CSINodeDriver{Name: "a", NodeID: "n"})
	if err := Kind().Validate(of(storagev1.CSINodeDriver{Name: "a", NodeID: "m"}), prev).ToAggregate(); err == nil || !strings.Contains(err.Error(), "field is immutable") {
		t.Errorf("got %v", err)
	}
	if errs := Kind().Validate(of(storagev1.CSINodeDriver{Name: "a", NodeID: "n", Allocatable: &storagev1.VolumeNodeResources{Count: new(int32(5))}}), prev); len(errs) > 0 {
		t.Error(errs)
	}
}
