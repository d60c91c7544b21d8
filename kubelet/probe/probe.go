// Package probe asks running containers how they are.
//
// Job: one loop per probe of a running container, thresholds, the verdict.
//
// Not its job: what follows from a verdict (kubelet).
//
// Invariants: a container's readiness starts false and its liveness true; no
// probe but the startup probe runs before the container has started; a loop
// ends with its container.
package probe

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/sampan-dev/sampan/kit/clock"
	"github.com/sampan-dev/sampan/kit/run"
)

// Result of asking once.
type Result int

// The results.
const (
	Success Result = iota
	Failure
	Warning // success with something to tell, such as a redirect elsewhere
	Unknown // could not ask
)

// Target is one running container.
type Target struct {
	Pod       *corev1.Pod
	Container *corev1.Container
	ID        string
	IP        string
	Started   time.Time
}

// Asker runs one probe.
type Asker interface {
	Ask(ctx context.Context, t *Target, p *corev1.Probe) (Result, string)
}

// Deps is what the manager needs.
type Deps struct {
	Ask     Asker
	Changed func(uid types.UID) // some verdict changed
	Count   func(t *Target, kind string, r Result)
	Event   func(t *Target, kind, reason, message string)
	Log     *slog.Logger
}

// Manager runs the probes of all containers. Make one with New.
type Manager struct {
	d Deps

	mu    sync.Mutex
	known map[string]*watched // by container id
}

type watched struct {
	target  Target
	cancel  context.CancelFunc
	started bool
	ready   bool
	dead    bool
	failed  bool // the startup probe
	paused  bool // the pod is ending: only readiness is still asked
}

// New returns a manager without containers.
func New(d Deps) *Manager { return &Manager{d: d, known: map[string]*watched{}} }

// Verdict is what is known of a container.
type Verdict struct{ Started, Ready, Dead, StartFailed bool }

// Verdict returns what is known of a running container, and whether it is known at all.
func (m *Manager) Verdict(id string) (Verdict, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	w := m.known[id]
	if w == nil {
		return Verdict{}, false
	}
	return Verdict{w.started, w.ready && w.started, w.dead, w.failed}, true
}

// Watch begins to ask a running container; doing so again has no effect.
// wasStarted and wasReady are what the API last said of this same run of the
// container: the agent's own restart must not make it unready.
func (m *Manager) Watch(ctx context.Context, t Target, wasStarted, wasReady bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if w := m.known[t.ID]; w != nil {
		w.target.Pod = t.Pod
		if t.IP != "" {
			w.target.IP = t.IP
		}
		return
	}
	ctx, cancel := context.WithCancel(ctx)
	w := &watched{target: t, cancel: cancel}
	c := t.Container
	w.started = c.StartupProbe == nil || wasStarted
	w.ready = c.ReadinessProbe == nil || wasReady
	m.known[t.ID] = w
	for kind, p := range map[string]*corev1.Probe{"Startup": c.StartupProbe, "Readiness": c.ReadinessProbe, "Liveness": c.LivenessProbe} {
		if p != nil {
			run.Detach(ctx, "probe", func(ctx context.Context) { m.loop(ctx, w, kind, p) })
		}
	}
}

// Forget ends the probes of a container.
func (m *Manager) Forget(id string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if w := m.known[id]; w != nil {
		w.cancel()
		delete(m.known, id)
	}
}

// Ending stops liveness and startup probes of a pod that is being stopped.
func (m *Manager) Ending(uid types.UID) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, w := range m.known {
		if w.target.Pod.UID == uid {
			w.paused = true
		}
	}
}

// Keep ends the probes of the pod's containers that keep does not name.
func (m *Manager) Keep(uid types.UID, keep map[string]bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for id, w := range m.known {
		if w.target.Pod.UID == uid && !keep[id] {
			w.cancel()
			delete(m.known, id)
		}
	}
}

// turn is one probe's row of equal results.
type turn struct {
	last   Result
	row    int32
	passed bool // at least once, or the container was ready before
}

// wait is how long until a probe is asked again. Upstream asks after readiness
// whenever it looks at a pod that is not ready, so that a program which needs a
// moment to start does not miss a whole period; here it is soon, then less soon.
func (t *turn) wait(kind string, period time.Duration) time.Duration {
	if kind != "Readiness" || t.passed || t.row > 6 {
		return period
	}
	return min(period, time.Second<<max(t.row-1, 0))
}

// loop asks at every period until the container is gone.
func (m *Manager) loop(ctx context.Context, w *watched, kind string, p *corev1.Probe) {
	first := w.target.Started.Add(time.Duration(p.InitialDelaySeconds) * time.Second)
	if clock.Sleep(ctx, clock.Until(first)) != nil {
		return
	}
	period := time.Duration(max(p.PeriodSeconds, 1)) * time.Second
	m.mu.Lock()
	t := turn{last: Unknown, passed: w.ready}
	m.mu.Unlock()
	for {
		m.once(ctx, w, kind, p, &t)
		wait := t.wait(kind, period)
		m.mu.Lock()
		if kind != "Startup" && !w.started {
			wait = min(period, time.Second)
		}
		over := kind == "Startup" && w.started
		m.mu.Unlock()
		if over || clock.Sleep(ctx, wait) != nil {
			return
		}
	}
}

// once asks and counts.
func (m *Manager) once(ctx context.Context, w *watched, kind string, p *corev1.Probe, t *turn) {
	m.mu.Lock()
	skip := kind == "Startup" && w.started || kind != "Startup" && !w.started || w.paused && kind != "Readiness" || w.dead || w.failed
	target := w.target
	m.mu.Unlock()
	if skip {
		return
	}
	r, msg := m.ask(ctx, &target, p)
	if m.d.Count != nil && ctx.Err() == nil {
		m.d.Count(&target, kind, r)
	}
	if ctx.Err() != nil || r == Unknown {
		if r == Unknown && ctx.Err() == nil {
			m.d.Event(&target, corev1.EventTypeWarning, "Unhealthy", fmt.Sprintf("%s probe errored: %s", kind, msg))
		}
		return
	}
	switch r {
	case Failure:
		m.d.Event(&target, corev1.EventTypeWarning, "Unhealthy", fmt.Sprintf("%s probe failed: %s", kind, msg))
	case Warning:
		m.d.Event(&target, corev1.EventTypeWarning, "ProbeWarning", fmt.Sprintf("%s probe warning: %s", kind, msg))
		r = Success
	}
	if r == t.last {
		t.row++
	} else {
		t.last, t.row = r, 1
	}
	t.passed = t.passed || r == Success
	need := max(p.SuccessThreshold, 1)
	if r == Failure {
		need = max(p.FailureThreshold, 1)
	}
	if t.row >= need {
		m.conclude(w, kind, r == Success)
	}
}

// ask tries up to three times when asking itself fails.
func (m *Manager) ask(ctx context.Context, t *Target, p *corev1.Probe) (r Result, msg string) {
	for range 3 {
		c, cancel := context.WithTimeout(ctx, time.Duration(max(p.TimeoutSeconds, 1))*time.Second)
		r, msg = m.d.Ask.Ask(c, t, p)
		cancel()
		if r != Unknown || ctx.Err() != nil {
			break
		}
	}
	return r, msg
}

// conclude records a verdict and tells of a change.
func (m *Manager) conclude(w *watched, kind string, ok bool) {
	m.mu.Lock()
	before := *w
	switch {
	case kind == "Readiness":
		w.ready = ok
	case kind == "Startup" && ok:
		w.started = true
	case kind == "Startup":
		w.failed = true
	case !ok:
		w.dead = true
	}
	changed := before.ready != w.ready || before.started != w.started || before.dead != w.dead || before.failed != w.failed
	uid := w.target.Pod.UID
	m.mu.Unlock()
	if changed {
		m.d.Changed(uid)
	}
}
