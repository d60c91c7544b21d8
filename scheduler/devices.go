package scheduler

import (
	"fmt"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/component-helpers/scheduling/corev1/nodeaffinity"
)

// devices returns what p's claims for devices ask of its node, or why no node
// can do. Claims that are not allocated keep the pod waiting: whoever allocates
// them says where their devices are.
func (v *views) devices(p *corev1.Pod) ([]need, string) {
	var out []need
	for i := range p.Spec.ResourceClaims {
		name, none := claimNamed(p, &p.Spec.ResourceClaims[i])
		if none {
			continue
		}
		if name == "" {
			return nil, fmt.Sprintf("pod \"%s/%s\": ResourceClaim not created yet", p.Namespace, p.Name)
		}
		c, ok := v.devicesOf.Get(p.Namespace, name)
		switch {
		case !ok:
			return nil, fmt.Sprintf("could not find ResourceClaim \"%s/%s\"", p.Namespace, name)
		case c.DeletionTimestamp != nil:
			return nil, fmt.Sprintf("resourceclaim %q is being deleted", name)
		case c.Status.Allocation == nil:
			return nil, whyDevices
		case c.Status.Allocation.NodeSelector == nil:
			continue
		}
		sel, err := nodeaffinity.NewNodeSelector(c.Status.Allocation.NodeSelector)
		if err != nil {
			return nil, fmt.Sprintf("resourceclaim %q: %v", name, err)
		}
		out = append(out, need{sel.Match, "resourceclaim not available on the node"})
	}
	return out, ""
}

// claimNamed returns the name of the claim behind a pod's entry, "" while there
// is none; none says that the entry needs no claim.
func claimNamed(p *corev1.Pod, entry *corev1.PodResourceClaim) (name string, none bool) {
	if entry.ResourceClaimName != nil {
		return *entry.ResourceClaimName, false
	}
	for _, s := range p.Status.ResourceClaimStatuses {
		if s.Name == entry.Name {
			if s.ResourceClaimName == nil {
				return "", true
			}
			return *s.ResourceClaimName, false
		}
	}
	return "", false
}
