package job

import (
	"testing"

	batchv1 "k8s.io/api/batch/v1"
)

func TestReplacementFollowsTheFailurePolicy(t *testing.T) {
	plain, judged := &job{}, &job{Spec: batchv1.JobSpec{PodFailurePolicy: &batchv1.PodFailurePolicy{}}}
	setDefaults(plain)
	setDefaults(judged)
	if got := *plain.Spec.PodReplacementPolicy; got != batchv1.TerminatingOrFailed {
		t.Errorf("without a failure policy: %s", got)
	}
	if got := *judged.Spec.PodReplacementPolicy; got != batchv1.Failed {
		t.Errorf("with one: %s", got)
	}
}
