package kubelet

import (
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
)

func TestGrowth(t *testing.T) {
	size := func(q string) corev1.ResourceList {
		if q == "" {
			return nil
		}
		return corev1.ResourceList{corev1.ResourceStorage: resource.MustParse(q)}
	}
	for name, c := range map[string]struct {
		allocated string
		status    corev1.ClaimResourceStatus
		pending   corev1.ConditionStatus
		have, pv  string
		want      string // "" is no expansion
	}{
		"as it was":                    {have: "1Gi", pv: "1Gi"},
		"the controller is at it":      {allocated: "2Gi", status: corev1.PersistentVolumeClaimControllerResizeInProgress, have: "1Gi", pv: "1Gi"},
		"the node's turn":              {allocated: "2Gi", status: corev1.PersistentVolumeClaimNodeResizePending, have: "1Gi", pv: "2Gi", want: "2Gi"},
		"begun by an earlier agent":    {allocated: "2Gi", status: corev1.PersistentVolumeClaimNodeResizeInProgress, have: "1Gi", pv: "2Gi", want: "2Gi"},
		"infeasible":                   {allocated: "2Gi", status: corev1.PersistentVolumeClaimNodeResizeInfeasible, have: "1Gi", pv: "2Gi"},
		"done":                         {allocated: "2Gi", have: "2Gi", pv: "2Gi"},
		"an old resizer":               {pending: corev1.ConditionTrue, have: "1Gi", pv: "2Gi", want: "2Gi"},
		"an old resizer, not yet":      {pending: corev1.ConditionFalse, have: "1Gi", pv: "2Gi"},
		"a volume larger than claimed": {have: "1Gi", pv: "2Gi"},
	} {
		pvc := &corev1.PersistentVolumeClaim{Status: corev1.PersistentVolumeClaimStatus{Capacity: size(c.have), AllocatedResources: size(c.allocated)}}
		if c.status != "" {
			pvc.Status.AllocatedResourceStatuses = map[corev1.ResourceName]corev1.ClaimResourceStatus{corev1.ResourceStorage: c.status}
		}
		if c.pending != "" {
			pvc.Status.Conditions = []corev1.PersistentVolumeClaimCondition{{Type: corev1.PersistentVolumeClaimFileSystemResizePending, Status: c.pending}}
		}
		got, ok := growth(pvc, &corev1.PersistentVolume{Spec: corev1.PersistentVolumeSpec{Capacity: size(c.pv)}})
		if ok != (c.want != "") || ok && got.String() != c.want {
			t.Errorf("%s: %v %s, want %q", name, ok, got.String(), c.want)
		}
	}
}
