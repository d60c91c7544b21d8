package devicetainteviction

import (
	"encoding/json"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	devicev1 "k8s.io/api/resource/v1"

	semantics "github.com/sampan-dev/sampan/semantics/device"
)

func reserved(c *devicev1.ResourceClaim, p *corev1.Pod) bool {
	return slices.ContainsFunc(c.Status.ReservedFor, func(r devicev1.ResourceClaimConsumerReference) bool { return r.UID == p.UID })
}

// chosen says whether a rule taints an allocated device.
func chosen(rule *devicev1.DeviceTaintRule, r *devicev1.DeviceRequestAllocationResult) bool {
	return semantics.Ruled(rule, semantics.ID{Driver: r.Driver, Pool: r.Pool, Device: r.Device})
}

// device finds a device in the slices of its pool, the newest generation's first.
func device(list []*devicev1.ResourceSlice, name string) *devicev1.Device {
	var found *devicev1.Device
	newest := int64(-1)
	for _, s := range list {
		for i := range s.Spec.Devices {
			if d := &s.Spec.Devices[i]; d.Name == name && s.Spec.Pool.Generation > newest {
				found, newest = d, s.Spec.Pool.Generation
			}
		}
	}
	return found
}

func executing(taints []devicev1.DeviceTaint) []devicev1.DeviceTaint {
	return slices.DeleteFunc(slices.Clone(taints), func(t devicev1.DeviceTaint) bool { return t.Effect != devicev1.DeviceTaintEffectNoExecute })
}

// patience is when a taint evicts whoever has these tolerations; ends is false
// when it never does.
func patience(t *devicev1.DeviceTaint, tolerations []devicev1.DeviceToleration) (at time.Time, ends bool) {
	if t.TimeAdded != nil {
		at = t.TimeAdded.Time
	}
	limit, limited := time.Duration(0), false
	for i := range tolerations {
		o := &tolerations[i]
		if !semantics.Covers(o, t) {
			continue
		}
		if o.TolerationSeconds == nil {
			return at, false
		}
		if d := max(time.Duration(*o.TolerationSeconds)*time.Second, 0); !limited || d < limit {
			limit, limited = d, true
		}
	}
	return at.Add(limit), true
}

// conditionPatch writes one condition of a pod, and of no other of its name.
func conditionPatch(p *corev1.Pod, c *corev1.PodCondition) ([]byte, error) {
	return json.Marshal(map[string]any{"metadata": map[string]any{"uid": p.UID}, "status": map[string]any{"conditions": []corev1.PodCondition{*c}}})
}
