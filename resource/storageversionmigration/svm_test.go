package storageversionmigration

import (
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func TestRules(t *testing.T) {
	m := &migration{}
	m.Spec.Resource = metav1.GroupResource{Group: "apps", Resource: "deployments"}
	if errs := validate(m, nil); len(errs) != 0 {
		t.Error(errs)
	}
	other := m.DeepCopy()
	other.Spec.Resource.Resource = "Deployment"
	if errs := validate(other, m); len(errs) != 2 {
		t.Error(errs)
	}
	done := m.DeepCopy()
	done.Status.ResourceVersion = "7"
	done.Status.Conditions = []metav1.Condition{{Type: "Succeeded", Status: metav1.ConditionTrue, Reason: "r", LastTransitionTime: metav1.Now()}}
	if errs := validateStatus(done, m); len(errs) != 0 || state(done) != "Succeeded" || state(m) != "Unknown" {
		t.Errorf("%v %s", errs, state(done))
	}
	undone := done.DeepCopy()
	undone.Status.Conditions[0].Status, undone.Status.ResourceVersion = metav1.ConditionFalse, "8"
	if errs := validateStatus(undone, done); len(errs) != 2 {
		t.Error(errs)
	}
}
