// Package attachdetach has drivers' volumes attached to the nodes that need them.
//
// Job: create the VolumeAttachments of volumes that pods on a node use, delete
// those that none uses, and tell each node in its status what is attached.
//
// Not its job: attaching itself (the drivers' own programs answer
// VolumeAttachments); mounting (kubelet); where pods run (scheduler).
//
// Invariants: a volume that a node says it uses is not detached, unless the
// node was not ready for six minutes or is marked out of service; a node is told
// that a volume is no longer its own before the volume is detached, and asked
// once more after; a volume that only one node may have is attached to one.
package attachdetach

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"

	"github.com/sampan-dev/sampan/semantics/pod"
	"github.com/sampan-dev/sampan/semantics/volume"
)

type (
	attachment = storagev1.VolumeAttachment
	pv         = corev1.PersistentVolume
)

// unmountWithin is how long a node that is not ready may keep a volume that no pod wants.
const unmountWithin = 6 * time.Minute

// Annotations of nodes and of pods.
const (
	managed  = "volumes.kubernetes.io/controller-managed-attach-detach"
	keptHere = "volumes.kubernetes.io/keep-terminated-pod-volumes"
)

// wanted is a volume that pods want on a node.
type wanted struct {
	volume *pv
	pods   []*corev1.Pod // in order of their names
}

// view is what is known of one node.
type view struct {
	name   string
	node   *corev1.Node // nil when there is none
	wants  map[corev1.UniqueVolumeName]*wanted
	has    map[corev1.UniqueVolumeName]*attachment
	since  map[string]time.Time // when attachments were first seen unwanted
	uses   func(corev1.UniqueVolumeName) bool
	others func(v *pv) []*attachment // of a volume, on other nodes
	now    time.Time
}

// removal is an attachment to delete.
type removal struct {
	name   corev1.UniqueVolumeName
	at     *attachment
	forced string // why the node is not asked; "" asks it
}

// plan is what to do for one node.
type plan struct {
	detach  []removal
	attach  []*wanted
	refused []*wanted // by another node's attachment
	report  []corev1.AttachedVolume
	wait    time.Duration // look again after; 0 is not
}

// Why a node is not asked before its volume is taken, as metrics say it.
const (
	byTimeout = "timeout"
	byTaint   = "out-of-service"
)

func decide(v *view) plan {
	var p plan
	for _, name := range slices.Sorted(maps.Keys(v.has)) {
		a := v.has[name]
		if a.DeletionTimestamp != nil {
			continue
		}
		if v.wants[name] == nil {
			forced, left, ok := v.removable(name, a)
			if ok {
				p.detach = append(p.detach, removal{name, a, forced})
				continue
			}
			if left > 0 && (p.wait == 0 || left < p.wait) {
				p.wait = left
			}
		}
		if a.Status.Attached {
			p.report = append(p.report, corev1.AttachedVolume{Name: name})
		}
	}
	for _, name := range slices.Sorted(maps.Keys(v.wants)) {
		w := v.wants[name]
		switch {
		case v.has[name] != nil:
		case !volume.Shared(w.volume) && len(v.others(w.volume)) > 0:
			p.refused = append(p.refused, w)
		default:
			p.attach = append(p.attach, w)
		}
	}
	return p
}

// removable says whether an unwanted attachment may go now, and if not, when to
// look again at the latest.
func (v *view) removable(name corev1.UniqueVolumeName, a *attachment) (forced string, left time.Duration, ok bool) {
	left = v.since[a.Name].Add(unmountWithin).Sub(v.now)
	switch {
	case left < 0 && !ready(v.node):
		return byTimeout, 0, true
	case outOfService(v.node):
		return byTaint, 0, true
	case !v.uses(name):
		return "", 0, true
	case ready(v.node):
		return "", 0, false // its status brings us back
	}
	return "", max(left, 0) + time.Second, false
}

func ready(n *corev1.Node) bool {
	return n != nil && slices.ContainsFunc(n.Status.Conditions, func(c corev1.NodeCondition) bool {
		return c.Type == corev1.NodeReady && c.Status == corev1.ConditionTrue
	})
}

func outOfService(n *corev1.Node) bool {
	return n != nil && slices.ContainsFunc(n.Spec.Taints, func(t corev1.Taint) bool { return t.Key == corev1.TaintNodeOutOfService })
}

// isManaged says whether a node leaves attaching to this loop.
func isManaged(n *corev1.Node) bool {
	if n == nil {
		return false
	}
	_, ok := n.Annotations[managed]
	return ok
}

// done says whether a pod needs its volumes no more.
func done(p *corev1.Pod, n *corev1.Node) bool {
	over := pod.Finished(p)
	if !over && p.DeletionTimestamp != nil {
		over = !slices.ContainsFunc(p.Status.ContainerStatuses, func(c corev1.ContainerStatus) bool {
			return c.State.Terminated == nil && c.State.Waiting == nil
		})
	}
	return over && n.Annotations[keptHere] != "true"
}

// multiAttach tells a pod why its volume stays on another node, without naming
// pods of other namespaces.
func multiAttach(name string, p *corev1.Pod, users []*corev1.Pod) string {
	why := "Volume is already exclusively attached to one node and can't be attached to another"
	var own []string
	for _, u := range users {
		if u.Namespace == p.Namespace {
			own = append(own, u.Name)
		}
	}
	slices.Sort(own)
	switch others := len(users) - len(own); {
	case len(own) > 0 && others > 0:
		why = fmt.Sprintf("Volume is already used by pod(s) %s and %d pod(s) in different namespaces", strings.Join(own, ", "), others)
	case len(own) > 0:
		why = "Volume is already used by pod(s) " + strings.Join(own, ", ")
	case others > 0:
		why = fmt.Sprintf("Volume is already used by %d pod(s) in different namespaces", others)
	}
	return message("Multi-Attach error", name, why)
}

// message is upstream's: what, for which volume, and what more there is to say.
func message(what, volume, more string) string {
	return fmt.Sprintf("%s for volume %q %s", what, volume, more)
}

func byName(a, b *corev1.Pod) int {
	return cmp.Or(cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Name, b.Name))
}
