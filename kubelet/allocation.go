package kubelet

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/sampan-dev/sampan/kit/clock"
	"github.com/sampan-dev/sampan/kubelet/evict"
	semantics "github.com/sampan-dev/sampan/semantics/pod"
)

// grant is what a pod has of the node's resources, by container and as a whole.
type grant struct {
	Pod        *corev1.ResourceRequirements           `json:"pod,omitempty"`
	Containers map[string]corev1.ResourceRequirements `json:"containers,omitempty"`
}

// book keeps a pod's grants. Granted is what the node has promised, Actual what
// the runtime was told; the API's specification is what the user wishes.
type book struct {
	Granted *grant `json:"granted,omitempty"`
	Actual  *grant `json:"actual,omitempty"`
}

func grantOf(pod *corev1.Pod) *grant {
	g := &grant{Pod: pod.Spec.Resources.DeepCopy(), Containers: map[string]corev1.ResourceRequirements{}}
	for _, list := range [][]corev1.Container{pod.Spec.InitContainers, pod.Spec.Containers} {
		for i := range list {
			g.Containers[list[i].Name] = *list[i].Resources.DeepCopy()
		}
	}
	return g
}

// on returns pod as if it asked for what g grants it; the same pod if it does.
func (g *grant) on(pod *corev1.Pod) *corev1.Pod {
	if g == nil || equality.Semantic.DeepEqual(g, grantOf(pod)) {
		return pod
	}
	pod = pod.DeepCopy()
	pod.Spec.Resources = g.Pod.DeepCopy()
	for _, list := range [][]corev1.Container{pod.Spec.InitContainers, pod.Spec.Containers} {
		for i := range list {
			if r, ok := g.Containers[list[i].Name]; ok {
				list[i].Resources = *r.DeepCopy()
			}
		}
	}
	return pod
}

// all returns what each container has; nil of no grant.
func (g *grant) all() map[string]corev1.ResourceRequirements {
	if g == nil {
		return nil
	}
	return maps.Clone(g.Containers)
}

func (k *Kubelet) bookFile(uid types.UID) string {
	return filepath.Join(k.volumes.PodDir(uid), "resources.json")
}

// readBook finds what an earlier run of the agent had granted.
func (k *Kubelet) readBook(uid types.UID) book {
	var b book
	data, err := os.ReadFile(k.bookFile(uid))
	if err == nil {
		err = json.Unmarshal(data, &b)
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		k.log.Warn("a pod's granted resources cannot be read", "pod", uid, "err", err)
		return book{}
	}
	return b
}

// writeBook remembers w's grants over a restart of the agent. w.mu is not held.
func (k *Kubelet) writeBook(w *worker) {
	w.mu.Lock()
	data, err := json.Marshal(w.book)
	w.mu.Unlock()
	file := k.bookFile(w.uid)
	if err == nil {
		err = os.MkdirAll(filepath.Dir(file), 0o750)
	}
	if err == nil {
		err = os.WriteFile(file+".new", data, 0o600)
	}
	if err == nil {
		err = os.Rename(file+".new", file)
	}
	if err != nil {
		k.log.Warn("a pod's granted resources cannot be written", "pod", w.uid, "err", err)
	}
}

// actual notes what the runtime was told of a container's resources.
func (k *Kubelet) actual(w *worker, name string, r corev1.ResourceRequirements, whole *corev1.ResourceRequirements) {
	w.mu.Lock()
	if w.book.Actual == nil {
		w.book.Actual = &grant{Containers: map[string]corev1.ResourceRequirements{}}
	}
	old, had := w.book.Actual.Containers[name]
	same := had && equality.Semantic.DeepEqual(old, r) && equality.Semantic.DeepEqual(w.book.Actual.Pod, whole)
	w.book.Actual.Containers[name], w.book.Actual.Pod = *r.DeepCopy(), whole.DeepCopy()
	w.mu.Unlock()
	if !same {
		k.writeBook(w)
	}
}

// granted returns pod with what the node has granted it. The first time that is
// what it asks for; later changes are granted when they fit.
func (k *Kubelet) granted(w *worker, pod *corev1.Pod) *corev1.Pod {
	w.mu.Lock()
	have := w.book.Granted
	if have == nil {
		w.book.Granted = grantOf(pod)
	}
	w.mu.Unlock()
	if have == nil {
		k.writeBook(w)
		return pod
	}
	now := have.on(pod)
	if now == pod {
		w.clearPending()
		return pod
	}
	reason, message := k.mayResize(w, pod)
	if reason == "" {
		w.mu.Lock()
		w.book.Granted = grantOf(pod)
		w.pending = nil
		w.progress = &corev1.PodCondition{Type: corev1.PodResizeInProgress, Status: corev1.ConditionTrue, ObservedGeneration: pod.Generation}
		w.mu.Unlock()
		k.writeBook(w)
		k.containerEvent(pod, "", corev1.EventTypeNormal, "ResizeStarted", resizeText("Pod resize started", pod, pod.Generation, ""))
		return pod
	}
	if w.setPending(reason, message, pod.Generation) {
		k.containerEvent(pod, "", corev1.EventTypeWarning, "Resize"+reason, resizeText("Pod resize "+reason, pod, pod.Generation, message))
	}
	if reason == corev1.PodReasonDeferred {
		k.work.AddAfter(w.uid, resizeRetry)
	}
	return now
}

// resizeRetry is how often a deferred resize is looked at again without a sign
// that there is room.
const resizeRetry = 3 * time.Minute

// mayResize says why pod cannot have what it asks for now; "" when it can.
func (k *Kubelet) mayResize(w *worker, pod *corev1.Pod) (reason, message string) {
	if w.static {
		return corev1.PodReasonInfeasible, "In-place resize of static-pods is not supported"
	}
	want := semantics.Requests(pod)
	for _, name := range []corev1.ResourceName{corev1.ResourceCPU, corev1.ResourceMemory} {
		q, all := want[name], k.node.Allocatable[name]
		a, b := q.Value(), all.Value()
		if name == corev1.ResourceCPU {
			a, b = q.MilliValue(), all.MilliValue()
		}
		if a > b {
			return corev1.PodReasonInfeasible, fmt.Sprintf("Node didn't have enough capacity: %s, requested: %d, capacity: %d", name, a, b)
		}
	}
	if r, m := Fits(pod, k.others(w), k.node.Allocatable); r != "" {
		return corev1.PodReasonDeferred, m
	}
	return "", ""
}

// others returns the pods that are let in beside w, with what they were granted.
//
// An agent that just started has not looked at all of them yet: what ran before
// it counts from the first moment.
func (k *Kubelet) others(w *worker) []*corev1.Pod {
	var out []*corev1.Pod
	seen := map[types.UID]bool{w.uid: true}
	for _, o := range k.workers() {
		seen[o.uid] = true
		o.mu.Lock()
		if o != w && (o.admitted || ran(o.pod) && !o.ending) && !o.over && !o.unknown {
			out = append(out, o.book.Granted.on(o.pod))
		}
		o.mu.Unlock()
	}
	for _, p := range k.mirror.List("") {
		if !seen[p.UID] && ran(p) && !semantics.IsMirror(p) {
			b := k.readBook(p.UID)
			out = append(out, b.Granted.on(p))
		}
	}
	return out
}

// ran says whether a pod was let in by an agent that is not told apart from this one.
func ran(p *corev1.Pod) bool {
	return len(p.Status.ContainerStatuses) > 0 && !semantics.Finished(p)
}

// retryResizes looks again at the resizes that were deferred: something gave way.
func (k *Kubelet) retryResizes() {
	type waiting struct {
		uid      types.UID
		priority int32
		since    metav1.Time
	}
	var all []waiting
	for _, w := range k.workers() {
		w.mu.Lock()
		if w.pending != nil && w.pending.Reason == corev1.PodReasonDeferred {
			all = append(all, waiting{w.uid, evict.Priority(w.pod), w.pending.LastTransitionTime})
		}
		w.mu.Unlock()
	}
	slices.SortFunc(all, func(a, b waiting) int {
		return cmp.Or(cmp.Compare(b.priority, a.priority), a.since.Compare(b.since.Time))
	})
	for _, w := range all {
		k.work.Add(w.uid)
	}
}

func (w *worker) clearPending() {
	w.mu.Lock()
	w.pending = nil
	w.mu.Unlock()
}

// setPending says why a resize waits, and whether that is news.
func (w *worker) setPending(reason, message string, generation int64) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	old := w.pending
	if old != nil && old.Reason == reason && old.Message == message && old.ObservedGeneration == generation {
		return false
	}
	w.pending = &corev1.PodCondition{
		Type: corev1.PodResizePending, Status: corev1.ConditionTrue, Reason: reason, Message: message,
		ObservedGeneration: generation, LastTransitionTime: metav1.Time{Time: clock.Now().Truncate(time.Second)},
	}
	return old == nil || old.Reason != reason || old.ObservedGeneration != generation
}

// conditions returns those that tell of a resize; the lock is held.
func (w *worker) resizeConditions() []corev1.PodCondition {
	var out []corev1.PodCondition
	for _, c := range []*corev1.PodCondition{w.pending, w.progress} {
		if c != nil {
			out = append(out, *c)
		}
	}
	return out
}

// resizeText is the message of events that tell of a resize.
func resizeText(prefix string, pod *corev1.Pod, generation int64, problem string) string {
	type one struct {
		Name      string                      `json:"name"`
		Resources corev1.ResourceRequirements `json:"resources,omitempty"`
	}
	s := struct {
		InitContainers []one  `json:"initContainers,omitempty"`
		Containers     []one  `json:"containers,omitempty"`
		Generation     int64  `json:"generation,omitempty"`
		Error          string `json:"error,omitempty"`
	}{Generation: generation, Error: problem}
	for i := range pod.Spec.InitContainers {
		s.InitContainers = append(s.InitContainers, one{pod.Spec.InitContainers[i].Name, pod.Spec.InitContainers[i].Resources})
	}
	for i := range pod.Spec.Containers {
		s.Containers = append(s.Containers, one{pod.Spec.Containers[i].Name, pod.Spec.Containers[i].Resources})
	}
	b, err := json.Marshal(s)
	if err != nil {
		return prefix
	}
	return prefix + ": " + string(b)
}
