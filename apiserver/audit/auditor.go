package audit

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"

	"github.com/prometheus/client_golang/prometheus"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	auditv1 "k8s.io/apiserver/pkg/apis/audit/v1"

	"github.com/sampan-dev/sampan/kit/clock"
	"github.com/sampan-dev/sampan/kit/run"
)

// Auditor puts requests on record.
type Auditor struct {
	policy *auditv1.Policy
	sinks  []sink
	log    *slog.Logger

	events, rejected prometheus.Counter
	levels, errors   *prometheus.CounterVec
}

// sink takes events; what it is given is not changed afterwards.
type sink interface {
	name() string
	// put takes events, perhaps for later; an error means that they are lost.
	put(events []*auditv1.Event) error
	// run works until ctx ends and then gives away what it holds.
	run(ctx context.Context) error
	// strict says whether a request may not be served unless it is on record.
	strict() bool
}

// New reads the policy and opens the backends. It is nil when nothing is to be
// put on record.
func New(c Config, d Deps) (*Auditor, error) {
	if err := c.Check(); err != nil {
		return nil, fmt.Errorf("audit: config: %w", err)
	}
	if d.Log == nil {
		d.Log = slog.New(slog.DiscardHandler)
	}
	if !c.Enabled() {
		if c.PolicyFile == "" && (c.Log.Path != "" || c.Webhook.ConfigFile != "") {
			d.Log.Info("No audit policy file provided, no events will be recorded")
		}
		return nil, nil
	}
	policy, warning, err := ReadPolicy(c.PolicyFile)
	if err != nil {
		return nil, fmt.Errorf("loading audit policy file: %w", err)
	}
	if warning != "" {
		d.Log.Warn(warning)
	}
	a := newAuditor(policy, d)
	if c.Log.Path != "" {
		l, err := newLog(c.Log)
		if err != nil {
			return nil, err
		}
		a.add(l, c.Log.Delivery)
	}
	if c.Webhook.Client != nil {
		a.add(newWebhook(c.Webhook), c.Webhook.Delivery)
	}
	return a, nil
}

func newAuditor(policy *auditv1.Policy, d Deps) *Auditor {
	counter := func(name, help string) prometheus.CounterOpts {
		return prometheus.CounterOpts{Name: "apiserver_audit_" + name, Help: help}
	}
	a := &Auditor{
		policy: policy, log: d.Log,
		events:   prometheus.NewCounter(counter("event_total", "Counter of audit events generated and sent to the audit backend.")),
		rejected: prometheus.NewCounter(counter("requests_rejected_total", "Counter of apiserver requests rejected due to an error in audit logging backend.")),
		levels:   prometheus.NewCounterVec(counter("level_total", "Counter of policy levels for audit events (1 per request)."), []string{"level"}),
		errors: prometheus.NewCounterVec(counter("error_total", "Counter of audit events that failed to be audited properly. "+
			"Plugin identifies the plugin affected by the error."), []string{"plugin"}),
	}
	if d.Metrics != nil {
		d.Metrics.MustRegister(a.events, a.rejected, a.levels, a.errors)
	}
	return a
}

// add puts before a backend what its delivery asks for.
func (a *Auditor) add(b backend, d Delivery) {
	if d.Truncate {
		b = &truncating{backend: b, d: d, lost: a.lost(b.name())}
	}
	if d.Mode == ModeBatch {
		a.sinks = append(a.sinks, newBatches(b, d, a.lost(b.name())))
		return
	}
	a.sinks = append(a.sinks, &direct{backend: b, isStrict: d.Mode == ModeBlockingStrict})
}

// lost returns what counts and reports lost events.
func (a *Auditor) lost(plugin string) func(n int, err error) {
	return func(n int, err error) {
		a.errors.WithLabelValues(plugin).Add(float64(n))
		a.log.Error("audit events lost", "plugin", plugin, "events", n, "err", err)
	}
}

// Run delivers until ctx ends, and then what is left.
func (a *Auditor) Run(ctx context.Context) error {
	g := run.New(ctx)
	for _, s := range a.sinks {
		g.Go("audit "+s.name(), s.run)
	}
	// A blocking sink has nothing to run, but is there until the end.
	g.Go("audit", func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() })
	return g.Wait()
}

var errNotStored = errors.New("failed to store audit event")

// stage gives the sinks an event's next stage, unless the policy leaves it out.
func (a *Auditor) stage(ev *auditv1.Event, v *verdict, stage auditv1.Stage) error {
	if slices.Contains(v.omit, stage) {
		return nil
	}
	ev.Stage = stage
	ev.StageTimestamp = metav1.NewMicroTime(clock.Now())
	if stage == auditv1.StageRequestReceived {
		ev.StageTimestamp = ev.RequestReceivedTimestamp
	}
	a.events.Inc()
	var failed error
	shot := []*auditv1.Event{ev.DeepCopy()}
	for _, s := range a.sinks {
		if err := s.put(shot); err != nil {
			a.lost(s.name())(1, err)
			if s.strict() && stage == auditv1.StageRequestReceived {
				failed = errNotStored
			}
		}
	}
	if failed != nil {
		a.rejected.Inc()
	}
	return failed
}
