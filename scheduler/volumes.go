package scheduler

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/sampan-dev/sampan/client"
	"github.com/sampan-dev/sampan/semantics/pod"
	"github.com/sampan-dev/sampan/semantics/volume"
)

// need is what a volume asks of its node.
type need struct {
	match func(*corev1.Node) bool
	why   string                    // when it does not
	judge func(*corev1.Node) string // in place of both, where the reason depends on the node
}

// refuses says why a node does not do; "" is no objection.
func (x *need) refuses(n *corev1.Node) string {
	switch {
	case x.judge != nil:
		return x.judge(n)
	case x.match(n):
		return ""
	}
	return x.why
}

// Indexes of the mirrors.
const (
	byClass = "class" // volumes under their storage class
	byClaim = "claim" // pods under the claims they use
)

func claimsOf(p *corev1.Pod) []string {
	var out []string
	for i := range p.Spec.Volumes {
		if name, _, ok := volume.ClaimName(p, &p.Spec.Volumes[i]); ok {
			out = append(out, p.Namespace+"/"+name)
		}
	}
	return out
}

// needs returns what p's claims ask of its node, or why no node can do.
func (v *views) needs(p *corev1.Pod) ([]need, string) {
	var out []need
	var open []*corev1.PersistentVolumeClaim
	for i := range p.Spec.Volumes {
		name, ephemeral, ok := volume.ClaimName(p, &p.Spec.Volumes[i])
		if !ok {
			continue
		}
		pvc, ok := v.claims.Get(p.Namespace, name)
		switch {
		case !ok && ephemeral:
			return nil, fmt.Sprintf("waiting for ephemeral volume controller to create the persistentvolumeclaim %q", name)
		case !ok:
			return nil, fmt.Sprintf("persistentvolumeclaim %q not found", name)
		case ephemeral && volume.MadeFor(p, pvc) != nil:
			return nil, volume.MadeFor(p, pvc).Error()
		case pvc.DeletionTimestamp != nil:
			return nil, fmt.Sprintf("persistentvolumeclaim %q is being deleted", name)
		case pvc.Status.Phase == corev1.ClaimLost:
			return nil, fmt.Sprintf("persistentvolumeclaim %q bound to non-existent persistentvolume %q", name, pvc.Spec.VolumeName)
		case v.taken(p, pvc):
			return nil, whyExclusive
		}
		if !bound(pvc) {
			if pvc.Spec.VolumeName != "" || !volume.Delayed(v.class(pvc)) {
				return nil, "pod has unbound immediate PersistentVolumeClaims"
			}
			open = append(open, pvc)
			continue
		}
		pv, ok := v.volumes.Get("", pvc.Spec.VolumeName)
		if !ok {
			return nil, fmt.Sprintf("persistentvolume %q not found", pvc.Spec.VolumeName)
		}
		out = append(out, reach(pv)...)
	}
	devices, why := v.devices(p)
	if why != "" {
		return nil, why
	}
	out = append(out, devices...)
	if len(open) > 0 {
		out = append(out, need{match: func(n *corev1.Node) bool { _, ok := v.plan(open, n); return ok }, why: whyBind})
	}
	return out, ""
}

// bound says whether a claim and its volume have been brought together.
func bound(pvc *corev1.PersistentVolumeClaim) bool {
	_, done := pvc.Annotations[volume.BindCompleted]
	return done && pvc.Spec.VolumeName != ""
}

// reach is what a bound volume asks of nodes.
func reach(pv *corev1.PersistentVolume) []need {
	var out []need
	if pv.Spec.NodeAffinity != nil && pv.Spec.NodeAffinity.Required != nil {
		out = append(out, need{match: func(n *corev1.Node) bool { return volume.Reachable(pv, n.Labels) == nil }, why: whyVolumeNode})
	}
	for _, key := range []string{corev1.LabelTopologyZone, corev1.LabelTopologyRegion, corev1.LabelFailureDomainBetaZone, corev1.LabelFailureDomainBetaRegion} {
		if text, ok := pv.Labels[key]; ok {
			zones := strings.Split(text, "__")
			out = append(out, need{match: func(n *corev1.Node) bool {
				at, labelled := n.Labels[key]
				return !labelled && !zoned(n) || slices.Contains(zones, at)
			}, why: whyZone})
		}
	}
	return out
}

// zoned says whether a node is in any zone at all: a cluster without zones has
// nothing to keep apart.
func zoned(n *corev1.Node) bool {
	for _, key := range []string{corev1.LabelTopologyZone, corev1.LabelTopologyRegion, corev1.LabelFailureDomainBetaZone, corev1.LabelFailureDomainBetaRegion} {
		if _, ok := n.Labels[key]; ok {
			return true
		}
	}
	return false
}

// taken says whether a claim that one pod alone may use is used by another.
func (v *views) taken(p *corev1.Pod, pvc *corev1.PersistentVolumeClaim) bool {
	if !slices.Contains(pvc.Spec.AccessModes, corev1.ReadWriteOncePod) {
		return false
	}
	return slices.ContainsFunc(v.pods.By(byClaim, pvc.Namespace+"/"+pvc.Name), func(o *corev1.Pod) bool {
		return o.UID != p.UID && o.Spec.NodeName != "" && !pod.Finished(o)
	})
}

func (v *views) class(pvc *corev1.PersistentVolumeClaim) *storagev1.StorageClass {
	c, _ := v.classes.Get("", volume.ClassOf(pvc))
	return c
}

// choice is a claim with the volume it is to have, nil to have one made.
type choice struct {
	claim  *corev1.PersistentVolumeClaim
	volume *corev1.PersistentVolume
}

// plan chooses volumes that a node reaches for claims that wait for it.
func (v *views) plan(claims []*corev1.PersistentVolumeClaim, n *corev1.Node) ([]choice, bool) {
	claims = slices.Clone(claims)
	slices.SortFunc(claims, func(a, b *corev1.PersistentVolumeClaim) int {
		x, y := a.Spec.Resources.Requests[corev1.ResourceStorage], b.Spec.Resources.Requests[corev1.ResourceStorage]
		return x.Cmp(y)
	})
	taken := map[string]bool{}
	var out []choice
	for _, c := range claims {
		class := v.class(c)
		if at, placed := c.Annotations[volume.SelectedNode]; placed && class != nil && class.Provisioner != volume.NoProvisioner {
			if at != n.Name {
				return nil, false
			}
			out = append(out, choice{claim: c})
			continue
		}
		for name, by := range v.assumed {
			taken[name] = taken[name] || by != c.UID
		}
		if pv := volume.Find(c, v.volumes.By(byClass, volume.ClassOf(c)), volume.Search{Node: n.Labels, Taken: taken}); pv != nil {
			taken[pv.Name] = true
			out = append(out, choice{c, pv})
			continue
		}
		if class == nil || class.Provisioner == "" || class.Provisioner == volume.NoProvisioner || !allowed(class.AllowedTopologies, n.Labels) {
			return nil, false
		}
		out = append(out, choice{claim: c})
	}
	return out, true
}

// confirm chooses volumes and devices for p's open claims on the node that was found for
// it. ok is false when the claims, as they are now, do not let p go there: place
// looked at them earlier. What is bound between the two looks is seen by the second.
func (v *views) confirm(p *corev1.Pod, n *corev1.Node) (choices []choice, grants []grant, ok bool) {
	if len(claimsOf(p))+len(p.Spec.ResourceClaims) == 0 {
		return nil, nil, true
	}
	if choices, ok = v.plan(v.open(p), n); !ok {
		return nil, nil, false
	}
	if grants, ok = v.grants(p, n); !ok {
		return nil, nil, false
	}
	needs, why := v.needs(p)
	return choices, grants, why == "" && !slices.ContainsFunc(needs, func(x need) bool { return x.refuses(n) != "" })
}

// allowed says whether a class makes volumes for a node with these labels.
func allowed(terms []corev1.TopologySelectorTerm, labels map[string]string) bool {
	if len(terms) == 0 {
		return true
	}
	return slices.ContainsFunc(terms, func(t corev1.TopologySelectorTerm) bool {
		return !slices.ContainsFunc(t.MatchLabelExpressions, func(e corev1.TopologySelectorLabelRequirement) bool {
			at, ok := labels[e.Key]
			return !ok || !slices.Contains(e.Values, at)
		})
	})
}

// open returns p's claims that wait for p to have a node.
func (v *views) open(p *corev1.Pod) []*corev1.PersistentVolumeClaim {
	var out []*corev1.PersistentVolumeClaim
	for i := range p.Spec.Volumes {
		name, _, ok := volume.ClaimName(p, &p.Spec.Volumes[i])
		if !ok {
			continue
		}
		pvc, ok := v.claims.Get(p.Namespace, name)
		if !ok {
			continue
		}
		if !bound(pvc) {
			out = append(out, pvc)
		}
	}
	return out
}

// assume keeps the chosen volumes and devices from other pods until the mirror shows that
// they are taken. s.mu is held.
func (s *Scheduler) assume(choices []choice, grants []grant) {
	for _, g := range grants {
		if g.result != nil {
			s.v.allocating[g.claim.UID] = g.result
			s.cluster.epoch++ // for others there are devices less
		}
	}
	for _, c := range choices {
		if c.volume != nil {
			s.v.assumed[c.volume.Name] = c.claim.UID
			s.cluster.epoch++ // for others there is a volume less
		}
	}
}

// release gives chosen volumes and devices back.
func (s *Scheduler) release(choices []choice, grants []grant) {
	s.locked(func() {
		for _, g := range grants {
			delete(s.v.allocating, g.claim.UID)
		}
		for _, c := range choices {
			if c.volume != nil && s.v.assumed[c.volume.Name] == c.claim.UID {
				delete(s.v.assumed, c.volume.Name)
			}
		}
		s.cluster.epoch++
	})
}

// volumeSeen forgets an assumption that the mirror confirms or overrules.
func (s *Scheduler) volumeSeen(old, now *corev1.PersistentVolume) {
	if now == nil {
		delete(s.v.assumed, old.Name)
	} else if now.Spec.ClaimRef != nil {
		delete(s.v.assumed, now.Name)
	}
}

// take names claims in the volumes chosen for them, and the node in claims
// whose volume is to be made. Others bind them; the pod waits for that.
func (s *Scheduler) take(ctx context.Context, choices []choice, node string) error {
	for _, c := range choices {
		if c.volume != nil {
			next, fresh := volume.Bind(c.volume, c.claim)
			if !fresh {
				continue
			}
			if _, err := client.Of[corev1.PersistentVolume](s.c, "").Update(ctx, next); err != nil {
				return fmt.Errorf("persistentvolume %q: %w", next.Name, err)
			}
			continue
		}
		if c.claim.Annotations[volume.SelectedNode] == node {
			continue
		}
		data, err := json.Marshal(map[string]any{"metadata": metav1.ObjectMeta{Annotations: map[string]string{volume.SelectedNode: node}}})
		if err != nil {
			return err
		}
		if _, err := client.Of[corev1.PersistentVolumeClaim](s.c, c.claim.Namespace).Patch(ctx, c.claim.Name, "", types.MergePatchType, data); err != nil {
			return fmt.Errorf("persistentvolumeclaim %q: %w", c.claim.Name, err)
		}
	}
	return nil
}
