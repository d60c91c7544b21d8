package fairness

import (
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/sampan-dev/sampan/kit/clock"
)

// mix follows how many reads and writes wait and are served, over time.
type mix struct {
	mu    sync.Mutex
	at    time.Time
	parts [4]part
}

// part is one phase of one kind of request.
type part struct {
	phase, kind string
	n           int
	limit       float64 // what n is a fraction of
	over        ratio
}

const (
	phaseExecuting = "executing"
	phaseWaiting   = "waiting"
)

func newMix(seats int) *mix {
	m := &mix{at: clock.Now()}
	i := 0
	for _, phase := range []string{phaseExecuting, phaseWaiting} {
		for _, kind := range []string{"mutating", "readOnly"} {
			m.parts[i] = part{phase: phase, kind: kind, limit: float64(max(seats, 1)),
				over: newRatio([]float64{0, 0.001, 0.003, 0.01, 0.03, 0.1, 0.25, 0.5, 0.75, 1})}
			i++
		}
	}
	return m
}

// shift counts a request into a phase or out of it.
func (m *mix) shift(phase string, mutating bool, delta int) {
	i := 0
	if phase == phaseWaiting {
		i = 2
	}
	if !mutating {
		i++
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.advance()
	m.parts[i].n += delta
}

func (m *mix) advance() {
	now := clock.Now()
	dt := now.Sub(m.at)
	m.at = now
	if dt <= 0 {
		return
	}
	for i := range m.parts {
		p := &m.parts[i]
		p.over.add(dt, float64(p.n)/p.limit)
	}
}

func (m *mix) collect(d *prometheus.Desc, ch chan<- prometheus.Metric) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.advance()
	for i := range m.parts {
		p := &m.parts[i]
		ch <- p.over.metric(d, p.phase, p.kind)
	}
}
