package scheduler

import (
	"context"
	"log/slog"
	"math/rand/v2"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	devicev1 "k8s.io/api/resource/v1"
	storagev1 "k8s.io/api/storage/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"

	"github.com/sampan-dev/sampan/client"
	"github.com/sampan-dev/sampan/kit/clock"
	"github.com/sampan-dev/sampan/kit/run"
	"github.com/sampan-dev/sampan/semantics/pod"
)

// Scheduler is the loop around place. Make one with New.
type Scheduler struct {
	cfg     Config
	c       client.Interface
	v       *views
	events  *client.EventRecorder
	metrics *metrics
	log     *slog.Logger
	rng     *rand.Rand
	writes  chan struct{} // one token per write under way

	mu        sync.Mutex
	cluster   *cluster
	line      *line
	nominated map[string]*nomination // by pod key
	wake      chan struct{}
}

// nomination keeps the room that eviction is making for a pod.
type nomination struct {
	info    *info
	node    string
	victims []types.UID // asked to leave; while one is there, no others are asked
}

// New returns a scheduler that does nothing yet. It runs once: who leads again
// makes a new one over new mirrors.
func New(cfg Config, d Deps) (*Scheduler, error) {
	if err := cfg.Check(); err != nil {
		return nil, err
	}
	if cfg.Seed == 0 {
		cfg.Seed = clock.Seed()
	}
	if d.Log == nil {
		d.Log = slog.Default()
	}
	s := &Scheduler{
		cfg: cfg, c: d.Client, v: newViews(d.Mirrors), log: d.Log.With("room", "scheduler"),
		events: client.Recorder(d.Client, cfg.Name, d.Host), rng: clock.Rand(cfg.Seed), writes: make(chan struct{}, cfg.Parallelism),
		cluster: newCluster(), line: newLine(cfg.InitialBackoff, cfg.MaxBackoff), nominated: map[string]*nomination{}, wake: make(chan struct{}, 1),
	}
	s.cluster.namespaces = s.v.namespaceLabels
	s.cluster.claims = s.v.needs
	s.cluster.profiles = map[string]*Profile{}
	for i := range cfg.Profiles {
		s.cluster.profiles[cfg.Profiles[i].Name] = &cfg.Profiles[i]
	}
	s.metrics = newMetrics(d.Metrics, cfg.Name, func(g stage) float64 {
		s.mu.Lock()
		defer s.mu.Unlock()
		return float64(s.line.count()[g])
	})
	return s, nil
}

// Run schedules until ctx ends. The mirrors must be running.
func (s *Scheduler) Run(ctx context.Context) error {
	for _, wait := range []func(context.Context) error{
		s.v.nodes.WaitSynced, s.v.pods.WaitSynced, s.v.namespaces.WaitSynced, s.v.services.WaitSynced, s.v.controllers.WaitSynced, s.v.sets.WaitSynced,
		s.v.stateful.WaitSynced, s.v.budgets.WaitSynced, s.v.claims.WaitSynced, s.v.volumes.WaitSynced, s.v.classes.WaitSynced, s.v.devicesOf.WaitSynced,
		s.v.slices.WaitSynced, s.v.deviceClasses.WaitSynced,
	} {
		if err := wait(ctx); err != nil {
			return nil
		}
	}
	s.listen()
	g := run.New(ctx)
	g.Go("scheduler flush", func(ctx context.Context) error {
		for clock.Sleep(ctx, 30*time.Second) == nil {
			s.locked(func() { s.line.flush(clock.Now()) })
		}
		return nil
	})
	g.Go("scheduler", s.loop)
	return g.Wait()
}

// locked runs fn on the scheduler's state and wakes the loop.
func (s *Scheduler) locked(fn func()) {
	s.mu.Lock()
	fn()
	s.mu.Unlock()
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

func (s *Scheduler) loop(ctx context.Context) error {
	for ctx.Err() == nil {
		s.mu.Lock()
		w, wait := s.line.pop(clock.Now())
		if w == nil {
			s.mu.Unlock()
			timer := clock.NewTimer(wait)
			select {
			case <-s.wake:
			case <-timer.C:
			case <-ctx.Done():
			}
			timer.Stop()
			continue
		}
		after := s.attempt(w)
		s.mu.Unlock()
		s.detach(ctx, after)
	}
	return nil
}

// detach runs a write on its own, so many at once.
func (s *Scheduler) detach(ctx context.Context, fn func(ctx context.Context)) {
	if fn == nil {
		return
	}
	select {
	case s.writes <- struct{}{}:
	case <-ctx.Done():
		return
	}
	run.Detach(ctx, "scheduler write", func(ctx context.Context) {
		defer func() { <-s.writes }()
		fn(ctx)
	})
}

// attempt places one pod and returns what is to be written. s.mu is held.
//
// What is written must not look at shared state: it takes copies along.
func (s *Scheduler) attempt(w *waiting) func(ctx context.Context) {
	began, p := clock.Now(), w.pod
	var spread labels.Selector
	if !s.cluster.profile(p.Spec.SchedulerName).NoSpread {
		spread = s.v.workload(w.pod)
	}
	restore, own := s.makeWay(w.pod)
	n, k := s.cluster.place(w.info, spread, s.rng)
	if s.metrics != nil {
		s.metrics.algorithm.Observe(clock.Since(began).Seconds())
	}
	if n != nil {
		restore()
		choices, grants, ok := s.v.confirm(p, n.obj)
		if !ok {
			// Claims changed since the class was judged; word of it is on its way.
			s.cluster.epoch++
			s.line.failed(w, causeVolume|causeNode, true, clock.Now())
			return nil
		}
		delete(s.nominated, podKey(w.pod))
		s.cluster.putPod(w.info, n.obj.Name)
		s.assume(choices, grants)
		t := trip{choices: choices, grants: grants, w: w, pod: p, node: n.obj.Name, began: began, since: w.since, attempts: w.attempts}
		return func(ctx context.Context) { s.bind(ctx, t) }
	}
	d := s.cluster.diagnose(k)
	text, v, waits := s.tryPreempt(w, k, &d, own)
	restore()
	var e *eviction
	switch {
	case v != nil:
		s.nominate(w, v)
		e = &eviction{node: v.node.obj.Name}
		for _, o := range v.pods {
			e.pods = append(e.pods, o.pod)
		}
	case own != nil && waits:
		own.info = w.info
		s.cluster.putPod(own.info, own.node)
	default:
		delete(s.nominated, podKey(p))
		if p.Status.NominatedNodeName != "" {
			e = &eviction{} // it no longer waits for a node
		}
	}
	s.line.failed(w, d.cause, false, clock.Now())
	s.metrics.tried("unschedulable", clock.Since(began))
	stranded, claims := s.afterDevices(p, &d)
	message := d.message(claims, text)
	return func(ctx context.Context) {
		if stranded != nil {
			s.giveBack(ctx, stranded)
		}
		s.tellFailure(ctx, p, message, e)
	}
}

// afterDevices says, in upstream's words, what of devices could help a pod that
// found no node: giving some back that it has elsewhere.
func (s *Scheduler) afterDevices(p *corev1.Pod, d *diagnosis) (stranded *devicev1.ResourceClaim, text string) {
	if len(p.Spec.ResourceClaims) == 0 {
		return nil, "no new claims to deallocate"
	}
	if d.counts[whyClaimNode] > 0 {
		stranded = s.v.stranded(p)
	}
	if stranded == nil {
		return nil, "still not schedulable"
	}
	return stranded, "deallocation of ResourceClaim completed"
}

// trip is a pod on its way to a node.
type trip struct {
	w            *waiting
	pod          *corev1.Pod
	node         string
	began, since time.Time
	attempts     int
	choices      []choice // of volumes
	grants       []grant  // of devices
}

// eviction is whom to delete to make room.
type eviction struct {
	node string
	pods []*corev1.Pod
}

// makeWay takes the room kept for pods of lower priority, and for p itself,
// out of the cluster; the returned function puts back the others'.
func (s *Scheduler) makeWay(p *corev1.Pod) (restore func(), own *nomination) {
	var out []*nomination
	for key, nom := range s.nominated {
		if key == podKey(p) {
			own = nom
		} else if priority(nom.info.pod) < priority(p) {
			out = append(out, nom)
		} else {
			continue
		}
		s.cluster.dropPod(nom.info.pod.UID)
	}
	return func() {
		for _, nom := range out {
			s.cluster.putPod(nom.info, nom.node)
		}
	}, own
}

// tryPreempt looks for pods to evict; waits says that it must not, for now.
func (s *Scheduler) tryPreempt(w *waiting, k *class, d *diagnosis, own *nomination) (text string, v *victims, waits bool) {
	if d.nodes == 0 {
		return "", nil, false
	}
	if ok, why := s.cluster.mayPreempt(w.pod, own); !ok {
		return why, nil, true
	}
	if s.metrics != nil {
		s.metrics.preempts.Inc()
	}
	v = s.cluster.makeRoom(w.info, k, d, s.v.budgets.List(""))
	if v == nil {
		return d.noRoomMade(), nil, false
	}
	if s.metrics != nil {
		s.metrics.victims.Observe(float64(len(v.pods)))
	}
	return "", v, false
}

// nominate keeps the room on v's node for w until w gets it.
func (s *Scheduler) nominate(w *waiting, v *victims) {
	name := v.node.obj.Name
	for key, nom := range s.nominated {
		if nom.node == name && priority(nom.info.pod) < priority(w.pod) {
			s.cluster.dropPod(nom.info.pod.UID)
			delete(s.nominated, key)
		}
	}
	nom := &nomination{info: w.info, node: name}
	for _, o := range v.pods {
		nom.victims = append(nom.victims, o.pod.UID)
	}
	s.nominated[podKey(w.pod)] = nom
	s.cluster.putPod(w.info, name)
}

func (s *Scheduler) unnominate(p *corev1.Pod) {
	if nom := s.nominated[podKey(p)]; nom != nil {
		s.cluster.dropPod(nom.info.pod.UID)
		delete(s.nominated, podKey(p))
	}
}

func podKey(p *corev1.Pod) string { return p.Namespace + "/" + p.Name }

// listen makes the mirrors' changes arrive.
func (s *Scheduler) listen() {
	s.v.nodes.OnChange(func(old, now *corev1.Node) {
		s.locked(func() {
			if now == nil {
				s.cluster.dropNode(old.Name)
				s.line.changed(causePods, clock.Now())
				return
			}
			s.cluster.setNode(now)
			if old == nil || nodeChanged(old, now) {
				s.line.changed(causeNode, clock.Now())
			}
		})
	})
	s.v.pods.OnChange(func(old, now *corev1.Pod) { s.locked(func() { s.podChanged(old, now) }) })
	s.v.namespaces.OnChange(func(old, now *corev1.Namespace) {
		if old != nil && now != nil && !equalLabels(old.Labels, now.Labels) {
			s.locked(func() { s.cluster.epoch++; s.line.changed(causePods, clock.Now()) })
		}
	})
	s.v.services.OnChange(func(old, now *corev1.Service) {
		if old == nil || now == nil || !equalLabels(old.Spec.Selector, now.Spec.Selector) {
			s.locked(func() { s.v.serviceRev++ })
		}
	})
	volumes := func() { s.locked(func() { s.cluster.epoch++; s.line.changed(causeVolume, clock.Now()) }) }
	s.v.claims.OnChange(func(_, _ *corev1.PersistentVolumeClaim) { volumes() })
	s.v.volumes.OnChange(func(old, now *corev1.PersistentVolume) {
		s.locked(func() { s.volumeSeen(old, now) })
		volumes()
	})
	s.v.devicesOf.OnChange(func(old, now *devicev1.ResourceClaim) {
		s.locked(func() { s.claimSeen(old, now) })
		volumes()
	})
	s.v.slices.OnChange(func(_, _ *devicev1.ResourceSlice) {
		s.locked(func() { s.v.inventory = nil })
		volumes()
	})
	s.v.deviceClasses.OnChange(func(_, _ *devicev1.DeviceClass) { volumes() })
	s.v.classes.OnChange(func(_, _ *storagev1.StorageClass) { volumes() })
}

func (s *Scheduler) podChanged(old, p *corev1.Pod) {
	at := clock.Now()
	if p == nil || pod.Finished(p) {
		if p == nil {
			p = old
		}
		s.unnominate(p)
		s.line.drop(p.UID)
		if _, counted := s.cluster.pods[p.UID]; counted {
			s.cluster.dropPod(p.UID)
			s.line.changed(causeRoom|causePods, at)
		}
		return
	}
	if p.Spec.NodeName != "" {
		s.unnominate(p)
		s.line.drop(p.UID)
		s.cluster.setPod(p)
		switch {
		case old == nil || old.Spec.NodeName == "" || !equalLabels(old.Labels, p.Labels):
			s.line.changed(causePods, at)
		case old.Generation != p.Generation || old.DeletionTimestamp == nil && p.DeletionTimestamp != nil:
			s.line.changed(causeRoom, at)
		}
		return
	}
	if s.cluster.profiles[p.Spec.SchedulerName] == nil || p.DeletionTimestamp != nil {
		s.unnominate(p)
		s.line.drop(p.UID)
		return
	}
	if _, assumed := s.cluster.pods[p.UID]; assumed && s.nominated[podKey(p)] == nil {
		return
	}
	s.line.set(p, at)
	if old != nil && len(old.Status.ResourceClaimStatuses) != len(p.Status.ResourceClaimStatuses) {
		s.cluster.epoch++ // its class was judged without them
		s.line.changed(causeVolume, at)
	}
	if old == nil {
		s.restoreNomination(p)
	}
}

// restoreNomination keeps the room that an earlier scheduler was making for p.
func (s *Scheduler) restoreNomination(p *corev1.Pod) {
	n, w := s.cluster.byName[p.Status.NominatedNodeName], s.line.all[p.UID]
	if p.Status.NominatedNodeName == "" || n == nil || n.gone || w == nil || s.nominated[podKey(p)] != nil {
		return
	}
	s.nominated[podKey(p)] = &nomination{info: w.info, node: p.Status.NominatedNodeName}
	s.cluster.putPod(w.info, p.Status.NominatedNodeName)
}
