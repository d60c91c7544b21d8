package taint

import (
	"testing"

	corev1 "k8s.io/api/core/v1"
)

func TestCovers(t *testing.T) {
	taint := &corev1.Taint{Key: "k", Value: "5", Effect: corev1.TaintEffectNoExecute}
	for name, c := range map[string]struct {
		t    corev1.Toleration
		want bool
	}{
		"equal":        {corev1.Toleration{Key: "k", Value: "5"}, true},
		"other value":  {corev1.Toleration{Key: "k", Value: "6", Operator: corev1.TolerationOpEqual}, false},
		"exists":       {corev1.Toleration{Key: "k", Operator: corev1.TolerationOpExists}, true},
		"everything":   {corev1.Toleration{Operator: corev1.TolerationOpExists}, true},
		"other effect": {corev1.Toleration{Operator: corev1.TolerationOpExists, Effect: corev1.TaintEffectNoSchedule}, false},
		"other key":    {corev1.Toleration{Key: "l", Operator: corev1.TolerationOpExists}, false},
		"less":         {corev1.Toleration{Key: "k", Value: "6", Operator: corev1.TolerationOpLt}, true},
		"not more":     {corev1.Toleration{Key: "k", Value: "5", Operator: corev1.TolerationOpGt}, false},
		"no number":    {corev1.Toleration{Key: "k", Value: "04", Operator: corev1.TolerationOpGt}, false},
		"unknown":      {corev1.Toleration{Key: "k", Operator: "Like"}, false},
	} {
		if Covers(&c.t, taint) != c.want || Tolerated([]corev1.Toleration{{Key: "x"}, c.t}, taint) != c.want {
			t.Errorf("%s: not %v", name, c.want)
		}
	}
}
