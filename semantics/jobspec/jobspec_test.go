package jobspec

import (
	"strings"
	"testing"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/utils/ptr"
)

func TestCountIndexes(t *testing.T) {
	for text, want := range map[string]int32{"": 0, "1": 1, "0,2-4": 4, "0-9": 10} {
		if got, err := CountIndexes(text, 10); err != nil || got != want {
			t.Errorf("%q: %d, %v, want %d", text, got, err, want)
		}
	}
	for text, want := range map[string]string{
		"10":    `too large index: "10"`,
		"a":     `cannot convert string to integer for index: "a"`,
		"3,1":   "non-increasing order, previous: 3, current: 1",
		"4-2":   "non-increasing order, previous: 4, current: 2",
		"1-2-3": `the fragment "1-2-3" violates the requirement`,
	} {
		if _, err := CountIndexes(text, 10); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %s", text, err, want)
		}
	}
}

func TestFailurePolicy(t *testing.T) {
	rule := func(change func(r *batchv1.PodFailurePolicyRule)) *batchv1.JobSpec {
		r := batchv1.PodFailurePolicyRule{Action: batchv1.PodFailurePolicyActionFailJob,
			OnExitCodes: &batchv1.PodFailurePolicyOnExitCodesRequirement{Operator: batchv1.PodFailurePolicyOnExitCodesOpIn, Values: []int32{1, 2}}}
		change(&r)
		return &batchv1.JobSpec{
			PodReplacementPolicy: ptr.To(batchv1.Failed),
			PodFailurePolicy:     &batchv1.PodFailurePolicy{Rules: []batchv1.PodFailurePolicyRule{r}},
			Template:             corev1.PodTemplateSpec{Spec: corev1.PodSpec{RestartPolicy: corev1.RestartPolicyNever}},
		}
	}
	for _, c := range []struct {
		spec *batchv1.JobSpec
		want string
	}{
		{rule(func(*batchv1.PodFailurePolicyRule) {}), ""},
		{rule(func(r *batchv1.PodFailurePolicyRule) { r.Action = "" }), "spec.podFailurePolicy.rules[0].action: Required value"},
		{rule(func(r *batchv1.PodFailurePolicyRule) { r.OnExitCodes.Values = []int32{0} }), "must not be 0 for the In operator"},
		{rule(func(r *batchv1.PodFailurePolicyRule) { r.OnExitCodes.Values = []int32{2, 1} }), "must be ordered"},
		{rule(func(r *batchv1.PodFailurePolicyRule) { r.OnExitCodes.ContainerName = ptr.To("x") }), "must be one of the container or initContainer names in the pod template"},
		{rule(func(r *batchv1.PodFailurePolicyRule) { r.OnExitCodes = nil }), "specifying one of OnExitCodes and OnPodConditions is required"},
	} {
		errs := Validate(c.spec, field.NewPath("spec"))
		if c.want == "" && len(errs) > 0 || c.want != "" && (len(errs) != 1 || !strings.Contains(errs[0].Error(), c.want)) {
			t.Errorf("%v, want %q", errs, c.want)
		}
	}
}
