package csidriver

import (
	"fmt"
	"strings"
	"testing"
	"time"

	storagev1 "k8s.io/api/storage/v1"
)

func TestRules(t *testing.T) {
	for want, spec := range map[string]storagev1.CSIDriverSpec{
		"": {},
		`spec.fsGroupPolicy: Unsupported value: "X": supported values: "File", "None", "ReadWriteOnceWithFSType"`:    {FSGroupPolicy: new(storagev1.FSGroupPolicy("X"))},
		`spec.volumeLifecycleModes: Unsupported value: "X": supported values: "Ephemeral", "Persistent"`:             {VolumeLifecycleModes: []storagev1.VolumeLifecycleMode{"X"}},
		`spec.tokenRequests[1].audience: Duplicate value: "a"`:                                                       {TokenRequests: []storagev1.TokenRequest{{Audience: "a"}, {Audience: "a"}}},
		`spec.tokenRequests[0].expirationSeconds: Invalid value: 1: may not specify a duration less than 10 minutes`: {TokenRequests: []storagev1.TokenRequest{{ExpirationSeconds: new(int64(1))}}},
	} {
		d := &driver{Spec: spec}
		d.Name = "example.com"
		Kind().Default(d)
		got := ""
		if err := Kind().Validate(d, nil).ToAggregate(); err != nil {
			got = err.Error()
		}
		if got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}

func TestColumns(t *testing.T) {
	d := &driver{}
	d.Name = "d"
	Kind().Default(d)
	if got := strings.Trim(fmt.Sprint(Kind().Cells(d, time.Unix(0, 0))), "[]"); got != "d true false false <unset> false Persistent <unknown>" {
		t.Errorf("got %q", got)
	}
}
