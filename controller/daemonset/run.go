package daemonset

import (
	"context"
	"errors"
	"reflect"
	"sync"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"

	"github.com/sampan-dev/sampan/client"
	"github.com/sampan-dev/sampan/controller"
	"github.com/sampan-dev/sampan/kit/backoff"
	"github.com/sampan-dev/sampan/kit/clock"
)

var kind = appsv1.SchemeGroupVersion.WithKind("DaemonSet")

// burst is how many pods one pass creates or deletes at most.
const burst = 250

// again is upstream's wait before a failed pod on the same node is replaced.
var again = backoff.Policy{First: time.Second, Max: 15 * time.Minute}

type loop struct {
	*controller.Loop
	sets      *client.Mirror[appsv1.DaemonSet]
	pods      *client.Mirror[corev1.Pod]
	nodes     *client.Mirror[corev1.Node]
	revisions *client.Mirror[appsv1.ControllerRevision]

	mu    sync.Mutex
	fails map[failing]streak
}

// failing names a set on a node where its pods fail.
type failing struct {
	set  controller.Key
	node string
}

type streak struct {
	n    int
	last time.Time
}

// New returns the daemonset loop.
func New(d controller.Deps) controller.Controller {
	l := &loop{fails: map[failing]streak{}}
	l.Loop = controller.NewLoop(d, "daemonset", 2, l.reconcile)
	l.As(d, "daemon-set-controller")
	l.Events = client.Recorder(l.Client, "daemonset-controller", "")
	l.sets = controller.Input(l.Loop, controller.Self[appsv1.DaemonSet])
	l.pods = controller.Input(l.Loop, l.ofPod)
	l.nodes = controller.Input(l.Loop, l.ofNode)
	l.revisions = controller.Input[appsv1.ControllerRevision](l.Loop, nil)
	controller.IndexByOwner(l.pods)
	controller.IndexByOwner(l.revisions)
	return l
}

func (l *loop) ofPod(old, new *corev1.Pod) []controller.Key {
	return controller.Concerned(controller.Family[appsv1.DaemonSet]{Kind: kind, Owners: l.sets, Selector: func(o *appsv1.DaemonSet) *metav1.LabelSelector { return o.Spec.Selector }}, old, new)
}

func (l *loop) ofNode(old, new *corev1.Node) []controller.Key {
	if old != nil && new != nil && reflect.DeepEqual(old.Labels, new.Labels) && reflect.DeepEqual(old.Spec.Taints, new.Spec.Taints) {
		return nil
	}
	var keys []controller.Key
	for _, ds := range l.sets.List("") {
		keys = append(keys, client.KeyOf(ds))
	}
	return keys
}

func (l *loop) reconcile(ctx context.Context, k controller.Key) error {
	ds, ok := l.sets.Get(k.Namespace, k.Name)
	if !ok || ds.DeletionTimestamp != nil {
		return nil
	}
	sel, err := metav1.LabelSelectorAsSelector(ds.Spec.Selector)
	if err != nil {
		return err
	}
	if sel.Empty() {
		l.Events.Event(ds, corev1.EventTypeWarning, "SelectingAll", "This daemon set is selecting all pods. A non-empty selector is required.")
		return nil
	}
	history := l.history(ds)
	now, old, err := history.Current(ctx)
	if apierrors.IsAlreadyExists(err) {
		err = errors.Join(err, l.collided(ctx, ds))
	}
	if err != nil {
		return err
	}
	pods, err := l.claim(ctx, ds, sel)
	if err != nil {
		return err
	}
	v := &view{ds: ds, hash: now.Labels[controller.RevisionLabel], now: clock.Now()}
	var lost []*corev1.Pod
	v.places, lost = places(ds, l.nodes.List(""), pods)
	p := v.manage()
	p.remove = append(l.calm(k, p), lost...)
	if len(p.create)+len(p.remove) == 0 && len(p.ended) == 0 {
		p = v.update()
	}
	failure := l.apply(ctx, v, p)
	if err := history.Forget(ctx, old, inUse(pods)); err != nil {
		return err
	}
	if err := l.report(ctx, v); err != nil {
		return err
	}
	if ds.Spec.MinReadySeconds > 0 && v.ds.Status.NumberReady != v.ds.Status.NumberAvailable {
		l.After(k, time.Duration(ds.Spec.MinReadySeconds)*time.Second)
	}
	return failure
}

func (l *loop) claim(ctx context.Context, ds *appsv1.DaemonSet, sel labels.Selector) ([]*corev1.Pod, error) {
	k := client.KeyOf(ds)
	c := controller.Claim[corev1.Pod]{
		Owner: ds, Kind: kind, Selector: sel, Objects: client.Of[corev1.Pod](l.Client, ds.Namespace),
		Fresh: func(ctx context.Context) (metav1.Object, error) {
			return client.Of[appsv1.DaemonSet](l.Client, ds.Namespace).Get(ctx, ds.Name)
		},
		Adopted: func(p *corev1.Pod) { controller.Wrote(&l.Unseen, k, l.pods, p) },
	}
	return c.Sort(ctx, append(l.pods.By(controller.ByOwner, string(ds.UID)), l.pods.By(controller.ByOwner, controller.Orphans(ds.Namespace))...))
}

// calm leaves out ended pods whose successors would come too soon, and tells of the others.
func (l *loop) calm(k controller.Key, p plan) []*corev1.Pod {
	l.mu.Lock()
	defer l.mu.Unlock()
	ended := map[*corev1.Pod]bool{}
	for _, x := range p.ended {
		ended[x] = true
	}
	var out []*corev1.Pod
	for _, x := range p.remove {
		if ended[x] && x.Status.Phase == corev1.PodFailed {
			f := failing{k, nodeOf(x)}
			s := l.fails[f]
			if clock.Since(s.last) > 2*again.Max {
				s = streak{}
			}
			if left := again.After(s.n) - clock.Since(s.last); s.n > 0 && left > 0 {
				l.After(k, left)
				continue
			}
			l.fails[f] = streak{s.n + 1, clock.Now()}
		}
		out = append(out, x)
	}
	return out
}

func (l *loop) apply(ctx context.Context, v *view, p plan) error {
	k := client.KeyOf(v.ds)
	pods := client.Of[corev1.Pod](l.Client, v.ds.Namespace)
	p.create, p.remove = p.create[:min(len(p.create), burst)], p.remove[:min(len(p.remove), burst)]
	_, createErr := controller.SlowStart(ctx, len(p.create), func(ctx context.Context, i int) error {
		made, err := pods.Create(ctx, v.podFor(p.create[i]))
		if apierrors.HasStatusCause(err, corev1.NamespaceTerminatingCause) {
			return nil
		}
		if err != nil {
			l.Events.Event(v.ds, corev1.EventTypeWarning, "FailedCreate", "Error creating: %v", err)
			return err
		}
		controller.Wrote(&l.Unseen, k, l.pods, made)
		l.Events.Event(v.ds, corev1.EventTypeNormal, "SuccessfulCreate", "Created pod: %v", made.Name)
		return nil
	})
	_, removeErr := controller.All(ctx, len(p.remove), func(ctx context.Context, i int) error {
		x := p.remove[i]
		switch x.Status.Phase {
		case corev1.PodFailed:
			l.Events.Event(v.ds, corev1.EventTypeWarning, "FailedDaemonPod", "Found failed daemon pod %s/%s on node %s, will try to kill it", x.Namespace, x.Name, x.Spec.NodeName)
		case corev1.PodSucceeded:
			l.Events.Event(v.ds, corev1.EventTypeNormal, "SucceededDaemonPod", "Found succeeded daemon pod %s/%s on node %s, will try to delete it", x.Namespace, x.Name, x.Spec.NodeName)
		}
		err := pods.Delete(ctx, x.Name, &metav1.DeleteOptions{Preconditions: metav1.NewUIDPreconditions(string(x.UID))})
		if apierrors.IsNotFound(err) {
			return nil
		}
		if err != nil {
			l.Events.Event(v.ds, corev1.EventTypeWarning, "FailedDelete", "Error deleting: %v", err)
			return err
		}
		controller.Removed(&l.Unseen, k, l.pods, x)
		l.Events.Event(v.ds, corev1.EventTypeNormal, "SuccessfulDelete", "Deleted pod: %v", x.Name)
		return nil
	})
	if createErr != nil {
		return createErr
	}
	return removeErr
}

// podFor makes the set's pod for one node.
func (v *view) podFor(node string) *corev1.Pod {
	p := controller.PodFor(&v.ds.Spec.Template, v.ds, kind)
	p.Labels = controller.WithRevision(p.Labels, v.hash)
	p.Spec.Tolerations = tolerations(&p.Spec)
	pin(p, node)
	return p
}

func (l *loop) report(ctx context.Context, v *view) error {
	s := v.status()
	if equality.Semantic.DeepEqual(s, v.ds.Status) {
		return nil
	}
	c := v.ds.DeepCopy()
	c.Status = s
	updated, err := client.Of[appsv1.DaemonSet](l.Client, c.Namespace).UpdateStatus(ctx, c)
	if err != nil {
		return controller.Ignore(err, apierrors.IsNotFound)
	}
	controller.Wrote(&l.Unseen, client.KeyOf(c), l.sets, updated)
	v.ds = updated
	return nil
}
