package attachdetach

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/json"

	"github.com/sampan-dev/sampan/client"
	"github.com/sampan-dev/sampan/controller"
	"github.com/sampan-dev/sampan/kit/clock"
	"github.com/sampan-dev/sampan/semantics/volume"
)

// Indexes: pods by their node and by the claims they use, claims by their
// volume, attachments by their node and by their volume.
const (
	byNode   = "attach node"
	byClaim  = "attach claim"
	byVolume = "attach volume"
)

// loop works on nodes: keys are their names. It has one worker, so that no two
// nodes are given a volume at once that only one may have.
type loop struct {
	*controller.Loop
	nodes       *client.Mirror[corev1.Node]
	pods        *client.Mirror[corev1.Pod]
	claims      *client.Mirror[corev1.PersistentVolumeClaim]
	volumes     *client.Mirror[pv]
	attachments *client.Mirror[attachment]
	drivers     *client.Mirror[storagev1.CSIDriver]
	forced      *prometheus.CounterVec
	totals      *totals

	mu   sync.Mutex
	left map[string]map[corev1.UniqueVolumeName]bool // what nodes that are gone used at last

	// What only the worker touches.
	since  map[string]time.Time       // when attachments were first seen unwanted
	fresh  map[string]*attachment     // made here, and not in the mirror yet
	begun  map[string]time.Time       // when an attachment was made, until it is told that it takes too long
	failed map[string]metav1.Time     // the driver's last failure that was told of
	told   map[string]map[string]bool // refused volumes by node, once told of
}

// New returns the attachdetach loop.
func New(d controller.Deps) controller.Controller {
	l := &loop{
		left: map[string]map[corev1.UniqueVolumeName]bool{}, since: map[string]time.Time{}, fresh: map[string]*attachment{},
		begun: map[string]time.Time{}, failed: map[string]metav1.Time{}, told: map[string]map[string]bool{}, totals: newTotals(d.Metrics),
		forced: d.Metrics.Counters(prometheus.CounterOpts{Name: "attach_detach_controller_attachdetach_controller_forced_detaches", Help: "Number of times the A/D Controller performed a forced detach"}, "reason"),
	}
	l.Loop = controller.NewLoop(d, "attachdetach", 1, l.reconcile).As(d, "attachdetach-controller")
	l.nodes = controller.Input(l.Loop, l.ofNode)
	l.pods = controller.Input(l.Loop, ofPod)
	l.claims = controller.Input(l.Loop, l.ofClaim)
	l.volumes = controller.Input(l.Loop, l.ofVolume)
	l.attachments = controller.Input(l.Loop, l.ofAttachment)
	l.drivers = controller.Input(l.Loop, func(old, new *storagev1.CSIDriver) []controller.Key {
		if old != nil && new != nil {
			return nil // whether volumes are attached never changes
		}
		var keys []controller.Key
		for _, n := range l.nodes.List("") {
			keys = append(keys, client.KeyOf(n))
		}
		return keys
	})
	l.pods.Index(byNode, func(p *corev1.Pod) []string {
		if p.Spec.NodeName == "" {
			return nil
		}
		return []string{p.Spec.NodeName}
	})
	l.pods.Index(byClaim, func(p *corev1.Pod) []string {
		var out []string
		for i := range p.Spec.Volumes {
			if name, _, ok := volume.ClaimName(p, &p.Spec.Volumes[i]); ok {
				out = append(out, p.Namespace+"/"+name)
			}
		}
		return out
	})
	l.claims.Index(byVolume, func(c *corev1.PersistentVolumeClaim) []string { return []string{c.Spec.VolumeName} })
	l.attachments.Index(byNode, func(a *attachment) []string { return []string{a.Spec.NodeName} })
	l.attachments.Index(byVolume, func(a *attachment) []string { return []string{volumeOf(a)} })
	return l
}

func volumeOf(a *attachment) string {
	if a.Spec.Source.PersistentVolumeName == nil {
		return ""
	}
	return *a.Spec.Source.PersistentVolumeName
}

func inUse(n *corev1.Node) map[corev1.UniqueVolumeName]bool {
	out := map[corev1.UniqueVolumeName]bool{}
	for _, name := range n.Status.VolumesInUse {
		out[name] = true
	}
	return out
}

// ofNode looks at nodes whose volumes, health or marks changed.
func (l *loop) ofNode(old, new *corev1.Node) []controller.Key {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case new == nil:
		l.left[old.Name] = inUse(old)
	case old != nil && isManaged(old) == isManaged(new) && ready(old) == ready(new) && outOfService(old) == outOfService(new) &&
		slices.Equal(old.Status.VolumesInUse, new.Status.VolumesInUse) && equality.Semantic.DeepEqual(old.Status.VolumesAttached, new.Status.VolumesAttached):
		return nil
	default:
		delete(l.left, new.Name)
	}
	return controller.Self(old, new)
}

// ofPod looks at the node of a pod with claims.
func ofPod(old, new *corev1.Pod) []controller.Key {
	p := new
	if p == nil {
		p = old
	}
	if p.Spec.NodeName == "" || !slices.ContainsFunc(p.Spec.Volumes, func(v corev1.Volume) bool { _, _, ok := volume.ClaimName(p, &v); return ok }) {
		return nil
	}
	return []controller.Key{{Name: p.Spec.NodeName}}
}

func (l *loop) ofClaim(old, new *corev1.PersistentVolumeClaim) []controller.Key {
	if old != nil && new != nil && old.Spec.VolumeName == new.Spec.VolumeName && old.Status.Phase == new.Status.Phase {
		return nil
	}
	return l.users(controller.Self(old, new)[0])
}

// users are the nodes of the pods that use a claim.
func (l *loop) users(claim controller.Key) []controller.Key {
	var keys []controller.Key
	for _, p := range l.pods.By(byClaim, claim.String()) {
		if p.Spec.NodeName != "" {
			keys = append(keys, controller.Key{Name: p.Spec.NodeName})
		}
	}
	return keys
}

func (l *loop) wanting(volume string) []controller.Key {
	var keys []controller.Key
	for _, c := range l.claims.By(byVolume, volume) {
		keys = append(keys, l.users(client.KeyOf(c))...)
	}
	return keys
}

func (l *loop) ofVolume(old, new *pv) []controller.Key {
	if old != nil && new != nil {
		return nil // what is mounted of it, and where, never changes
	}
	return l.wanting(controller.Self(old, new)[0].Name)
}

// ofAttachment looks at its node, and when it is gone at those that wait for it.
func (l *loop) ofAttachment(old, new *attachment) []controller.Key {
	a := new
	if a == nil {
		a = old
	}
	keys := []controller.Key{{Name: a.Spec.NodeName}}
	if new == nil {
		keys = append(keys, l.wanting(volumeOf(a))...)
	}
	return keys
}

func (l *loop) reconcile(ctx context.Context, k controller.Key) error {
	v := l.look(k.Name)
	p := decide(v)
	l.totals.set(k.Name, v)
	if err := l.report(ctx, v, p.report); err != nil {
		return err // nothing is taken from a node that was not told
	}
	for _, r := range p.detach {
		if err := l.detach(ctx, v, r); err != nil {
			return err
		}
	}
	for _, w := range p.attach {
		if err := l.attach(ctx, v, w); err != nil {
			return err
		}
	}
	l.refuse(v, p.refused)
	l.tell(v)
	if p.wait > 0 {
		l.After(k, p.wait)
	}
	return nil
}

// look gathers what is known of a node.
func (l *loop) look(name string) *view {
	v := &view{name: name, wants: map[corev1.UniqueVolumeName]*wanted{}, has: map[corev1.UniqueVolumeName]*attachment{}, since: l.since, now: clock.Now()}
	v.node, _ = l.nodes.Get("", name)
	v.uses = l.using(name, v.node)
	v.others = func(volume *pv) []*attachment {
		var out []*attachment
		for _, a := range l.all(byVolume, volume.Name) {
			if a.Spec.NodeName != name {
				out = append(out, a)
			}
		}
		return out
	}
	if isManaged(v.node) {
		for _, p := range l.pods.By(byNode, name) {
			l.want(v, p)
		}
	}
	for _, w := range v.wants {
		slices.SortFunc(w.pods, byName)
	}
	for _, a := range l.all(byNode, name) {
		unique, ok := l.uniqueName(a, v.node)
		if !ok {
			continue // somebody else's
		}
		v.has[unique] = a
		if v.wants[unique] != nil {
			delete(l.since, a.Name)
		} else if l.since[a.Name].IsZero() {
			l.since[a.Name] = v.now
		}
	}
	return v
}

// using tells which volumes a node uses. Of a node that went away before this
// loop began nothing is known, so it may use all.
func (l *loop) using(name string, n *corev1.Node) func(corev1.UniqueVolumeName) bool {
	if n != nil {
		uses := inUse(n)
		return func(v corev1.UniqueVolumeName) bool { return uses[v] }
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	uses, known := l.left[name]
	return func(v corev1.UniqueVolumeName) bool { return !known || uses[v] }
}

// all are the attachments of a node or a volume, with those made just now.
func (l *loop) all(index, value string) []*attachment {
	list := l.attachments.By(index, value)
	for name, a := range l.fresh {
		if l.attachments.Seen(a.ResourceVersion) {
			delete(l.fresh, name)
			continue
		}
		of := a.Spec.NodeName
		if index == byVolume {
			of = volumeOf(a)
		}
		if of == value && !slices.ContainsFunc(list, func(o *attachment) bool { return o.Name == name }) {
			list = append(list, a)
		}
	}
	return list
}

// uniqueName finds the volume of an attachment; ok is false for one that this
// loop did not make.
func (l *loop) uniqueName(a *attachment, n *corev1.Node) (corev1.UniqueVolumeName, bool) {
	if v, ok := l.volumes.Get("", volumeOf(a)); ok && v.Spec.CSI != nil {
		name := volume.UniqueName(v.Spec.CSI.Driver, v.Spec.CSI.VolumeHandle)
		return name, a.Name == volume.AttachmentName(v.Spec.CSI.VolumeHandle, v.Spec.CSI.Driver, a.Spec.NodeName)
	}
	if n == nil {
		return "", false
	}
	// The volume is gone: what the node says is still a way to its name.
	names := slices.Clone(n.Status.VolumesInUse)
	for _, at := range n.Status.VolumesAttached {
		names = append(names, at.Name)
	}
	i := slices.IndexFunc(names, func(name corev1.UniqueVolumeName) bool {
		at, ok := volume.AttachmentOf(name, n.Name)
		return ok && at == a.Name
	})
	if i < 0 {
		return "", false
	}
	return names[i], true
}

// want adds the volumes of a pod that are to be attached.
func (l *loop) want(v *view, p *corev1.Pod) {
	if done(p, v.node) {
		return
	}
	for i := range p.Spec.Volumes {
		name, ephemeral, ok := volume.ClaimName(p, &p.Spec.Volumes[i])
		if !ok {
			continue
		}
		c, ok := l.claims.Get(p.Namespace, name)
		if !ok || c.Status.Phase != corev1.ClaimBound || c.Spec.VolumeName == "" || ephemeral && volume.MadeFor(p, c) != nil {
			continue
		}
		vol, ok := l.volumes.Get("", c.Spec.VolumeName)
		if !ok || vol.Spec.CSI == nil || vol.Spec.ClaimRef == nil || vol.Spec.ClaimRef.UID != c.UID {
			continue
		}
		if d, ok := l.drivers.Get("", vol.Spec.CSI.Driver); ok && d.Spec.AttachRequired != nil && !*d.Spec.AttachRequired {
			continue
		}
		unique := volume.UniqueName(vol.Spec.CSI.Driver, vol.Spec.CSI.VolumeHandle)
		if v.wants[unique] == nil {
			v.wants[unique] = &wanted{volume: vol}
		}
		w := v.wants[unique]
		if !slices.Contains(w.pods, p) {
			w.pods = append(w.pods, p)
		}
	}
}

// report writes what is attached into the node's status.
func (l *loop) report(ctx context.Context, v *view, list []corev1.AttachedVolume) error {
	if v.node == nil || equality.Semantic.DeepEqual(v.node.Status.VolumesAttached, list) || len(v.node.Status.VolumesAttached)+len(list) == 0 {
		return nil
	}
	if list == nil {
		list = []corev1.AttachedVolume{}
	}
	patch, err := json.Marshal(map[string]any{"status": map[string]any{"volumesAttached": list}})
	if err != nil {
		return err
	}
	_, err = client.Of[corev1.Node](l.Client, "").Patch(ctx, v.name, "status", types.StrategicMergePatchType, patch)
	if err != nil {
		return controller.Ignore(fmt.Errorf("node %s: tell what is attached: %w", v.name, err), apierrors.IsNotFound)
	}
	for _, at := range list {
		w := v.wants[at.Name]
		was := slices.ContainsFunc(v.node.Status.VolumesAttached, func(o corev1.AttachedVolume) bool { return o.Name == at.Name })
		if w == nil || was {
			continue
		}
		for _, p := range w.pods {
			l.Events.Event(p, corev1.EventTypeNormal, "SuccessfulAttachVolume", "%s", message("AttachVolume.Attach succeeded", w.volume.Name, ""))
		}
	}
	return nil
}

// detach deletes an attachment. The node was told; it may have begun to use the
// volume before it read that, so it is asked what it uses now.
func (l *loop) detach(ctx context.Context, v *view, r removal) error {
	if r.forced == "" {
		n, err := client.Of[corev1.Node](l.Client, "").Get(ctx, v.name)
		switch {
		case apierrors.IsNotFound(err):
		case err != nil:
			return fmt.Errorf("volume %s: is it in use on node %s: %w", r.name, v.name, err)
		case inUse(n)[r.name]:
			return fmt.Errorf("volume %s: still in use on node %s", r.name, v.name)
		}
	}
	err := client.Of[attachment](l.Client, "").Delete(ctx, r.at.Name, &metav1.DeleteOptions{Preconditions: metav1.NewUIDPreconditions(string(r.at.UID))})
	if controller.Ignore(err, apierrors.IsNotFound) != nil {
		return fmt.Errorf("volume %s: detach from node %s: %w", r.name, v.name, err)
	}
	controller.Removed(&l.Unseen, controller.Key{Name: v.name}, l.attachments, r.at)
	if r.forced != "" {
		l.forced.WithLabelValues(r.forced).Inc()
		l.Log.Info("detached by force", "node", v.name, "volume", r.name, "reason", r.forced)
	}
	delete(l.since, r.at.Name)
	delete(l.begun, r.at.Name)
	delete(l.failed, r.at.Name)
	return nil
}

// attach makes a volume's attachment.
func (l *loop) attach(ctx context.Context, v *view, w *wanted) error {
	source := w.volume.Spec.CSI
	name := w.volume.Name
	a := &attachment{
		ObjectMeta: metav1.ObjectMeta{Name: volume.AttachmentName(source.VolumeHandle, source.Driver, v.name)},
		Spec:       storagev1.VolumeAttachmentSpec{Attacher: source.Driver, NodeName: v.name, Source: storagev1.VolumeAttachmentSource{PersistentVolumeName: &name}},
	}
	a.APIVersion, a.Kind = "storage.k8s.io/v1", "VolumeAttachment"
	made, err := client.Of[attachment](l.Client, "").Create(ctx, a)
	if apierrors.IsAlreadyExists(err) {
		return nil // the mirror will show it
	}
	if err != nil {
		l.warn(w, err)
		return fmt.Errorf("volume %s: attach to node %s: %w", name, v.name, err)
	}
	l.fresh[made.Name], l.begun[made.Name] = made, v.now
	l.After(controller.Key{Name: v.name}, attachWithin+time.Second)
	return nil
}

func (l *loop) warn(w *wanted, err error) {
	for _, p := range w.pods {
		l.Events.Event(p, corev1.EventTypeWarning, "FailedAttachVolume", "%s", message("AttachVolume.Attach failed", w.volume.Name, ": "+err.Error()))
	}
}

// refuse tells pods, once, that another node has their volumes.
func (l *loop) refuse(v *view, list []*wanted) {
	was := l.told[v.name]
	delete(l.told, v.name)
	for _, w := range list {
		if l.told[v.name] == nil {
			l.told[v.name] = map[string]bool{}
		}
		l.told[v.name][w.volume.Name] = true
		if was[w.volume.Name] {
			continue
		}
		users := l.usersElsewhere(v.name, w.volume)
		for _, p := range w.pods {
			l.Events.Event(p, corev1.EventTypeWarning, "FailedAttachVolume", "%s", multiAttach(w.volume.Name, p, users))
		}
	}
}

// usersElsewhere are the pods on other nodes that want a volume.
func (l *loop) usersElsewhere(node string, v *pv) []*corev1.Pod {
	var out []*corev1.Pod
	for _, c := range l.claims.By(byVolume, v.Name) {
		for _, p := range l.pods.By(byClaim, client.KeyOf(c).String()) {
			n, ok := l.nodes.Get("", p.Spec.NodeName)
			if ok && p.Spec.NodeName != node && !done(p, n) {
				out = append(out, p)
			}
		}
	}
	return out
}

// attachWithin is how long a driver may take before pods are told.
const attachWithin = 2 * time.Minute

// tell tells pods of drivers that fail or are slow.
func (l *loop) tell(v *view) {
	for name, a := range v.has {
		w := v.wants[name]
		if a.Status.Attached || a.DeletionTimestamp != nil || w == nil {
			delete(l.begun, a.Name)
			delete(l.failed, a.Name)
			continue
		}
		if e := a.Status.AttachError; e != nil {
			if at, told := l.failed[a.Name]; !told || !at.Equal(&e.Time) {
				l.failed[a.Name] = e.Time
				l.warn(w, fmt.Errorf("%s", e.Message))
			}
			continue
		}
		if at, ok := l.begun[a.Name]; ok && v.now.Sub(at) >= attachWithin {
			l.begun[a.Name] = v.now
			csi := w.volume.Spec.CSI
			l.warn(w, fmt.Errorf("timed out waiting for external-attacher of %v CSI driver to attach volume %v", csi.Driver, csi.VolumeHandle))
			l.After(controller.Key{Name: v.name}, attachWithin+time.Second)
		}
	}
}
