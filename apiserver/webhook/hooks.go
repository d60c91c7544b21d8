package webhook

import (
	"cmp"
	"context"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	admissionv1 "k8s.io/api/admissionregistration/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/sampan-dev/sampan/api"
	"github.com/sampan-dev/sampan/apiserver/dynamic"
	"github.com/sampan-dev/sampan/apiserver/request"
	"github.com/sampan-dev/sampan/kit/run"
	"github.com/sampan-dev/sampan/semantics/expression"
)

// hook is one webhook of a configuration, ready to be called.
type hook struct {
	kind, config, name string
	uid                string // of the hook: configuration, name and which of that name
	index              int    // among the hooks of its sort

	client     admissionv1.WebhookClientConfig
	match      *dynamic.Match
	conditions *dynamic.Conditions
	open       bool // failurePolicy Ignore
	harmless   bool // may be asked about dry runs
	noEffects  bool // says nothing of side effects
	timeout    time.Duration
	reviews    []string
	reinvoke   bool

	breaker *breaker
}

// hooks are all hooks there are, renewed as their configurations change.
type hooks struct {
	cfg Config

	mu       sync.Mutex
	configs  map[string]api.Object // by kind/name
	compiled map[string][]*hook
	breakers map[string]*breaker

	mutating, validating atomic.Pointer[[]*hook]
}

func newHooks(cfg Config) *hooks {
	h := &hooks{cfg: cfg, configs: map[string]api.Object{}, compiled: map[string][]*hook{}, breakers: map[string]*breaker{}}
	h.mutating.Store(&[]*hook{})
	h.validating.Store(&[]*hook{})
	return h
}

const (
	mutatingKind   = "MutatingWebhookConfiguration"
	validatingKind = "ValidatingWebhookConfiguration"
)

func resources() map[string]schema.GroupResource {
	return map[string]schema.GroupResource{
		mutatingKind:   {Group: admissionv1.GroupName, Resource: "mutatingwebhookconfigurations"},
		validatingKind: {Group: admissionv1.GroupName, Resource: "validatingwebhookconfigurations"},
	}
}

// Fill reads the configurations there are, so that no request is judged without them.
func (w *Webhooks) Fill(ctx context.Context) error {
	for kind, gr := range resources() {
		list, err := w.deps.Back.List(ctx, gr, "")
		if err != nil {
			return err
		}
		for _, obj := range list {
			w.hooks.set(kind, obj.GetName(), obj)
		}
	}
	return nil
}

// Run follows the configurations until ctx ends.
func (w *Webhooks) Run(ctx context.Context) error {
	g := run.New(ctx)
	for kind, gr := range resources() {
		g.Go(gr.Resource, func(ctx context.Context) error {
			return w.deps.Back.Changes(ctx, gr, func(old, next api.Object) {
				if next == nil {
					w.hooks.set(kind, old.GetName(), nil)
					return
				}
				w.hooks.set(kind, next.GetName(), next)
			})
		})
	}
	err := g.Wait()
	w.caller.close()
	return err
}

// set takes note of a configuration; nil is one that is gone.
func (h *hooks) set(kind, name string, obj api.Object) {
	h.mu.Lock()
	defer h.mu.Unlock()
	key := kind + "/" + name
	if was := h.configs[key]; was != nil && obj != nil && was.GetUID() == obj.GetUID() && was.GetGeneration() == obj.GetGeneration() {
		return // only metadata changed
	}
	delete(h.configs, key)
	delete(h.compiled, key)
	if obj != nil {
		h.configs[key] = obj
		h.compiled[key] = h.compile(kind, obj)
	}
	h.publish(kind)
}

// publish puts the hooks of a kind into the order they are asked: by the names
// of their configurations.
func (h *hooks) publish(kind string) {
	var all []*hook
	for _, list := range h.compiled {
		if len(list) > 0 && list[0].kind == kind {
			all = append(all, list...)
		}
	}
	slices.SortStableFunc(all, func(a, b *hook) int { return cmp.Compare(a.config, b.config) })
	for i, one := range all {
		if one.index != i {
			next := *one
			next.index, all[i] = i, &next
		}
	}
	alive := map[string]bool{}
	for _, list := range h.compiled {
		for _, one := range list {
			alive[one.uid] = true
		}
	}
	for uid := range h.breakers {
		if !alive[uid] {
			delete(h.breakers, uid)
		}
	}
	into := &h.validating
	if kind == mutatingKind {
		into = &h.mutating
	}
	into.Store(&all)
}

func (h *hooks) compile(kind string, obj api.Object) []*hook {
	var out []*hook
	seen := map[string]int{}
	add := func(m *admissionv1.MutatingWebhook) {
		uid := string(obj.GetUID()) + "/" + obj.GetName() + "/" + m.Name + "/" + strconv.Itoa(seen[m.Name])
		seen[m.Name]++
		out = append(out, h.hook(kind, obj.GetName(), uid, m))
	}
	switch c := obj.(type) {
	case *admissionv1.MutatingWebhookConfiguration:
		for i := range c.Webhooks {
			add(&c.Webhooks[i])
		}
	case *admissionv1.ValidatingWebhookConfiguration:
		for i := range c.Webhooks {
			v := &c.Webhooks[i]
			add(&admissionv1.MutatingWebhook{
				Name: v.Name, ClientConfig: v.ClientConfig, Rules: v.Rules, FailurePolicy: v.FailurePolicy, MatchPolicy: v.MatchPolicy,
				NamespaceSelector: v.NamespaceSelector, ObjectSelector: v.ObjectSelector, SideEffects: v.SideEffects,
				TimeoutSeconds: v.TimeoutSeconds, AdmissionReviewVersions: v.AdmissionReviewVersions, MatchConditions: v.MatchConditions,
			})
		}
	}
	return out
}

func (h *hooks) hook(kind, config, uid string, m *admissionv1.MutatingWebhook) *hook {
	one := &hook{
		kind: kind, config: config, name: m.Name, uid: uid, client: m.ClientConfig,
		match:      dynamic.NewMatch(m.Rules, m.MatchPolicy, m.NamespaceSelector, m.ObjectSelector),
		conditions: dynamic.NewConditions(m.MatchConditions, m.FailurePolicy, nil, expression.Scope{Authorizer: true}),
		open:       m.FailurePolicy != nil && *m.FailurePolicy == admissionv1.Ignore,
		reviews:    m.AdmissionReviewVersions,
		reinvoke:   m.ReinvocationPolicy != nil && *m.ReinvocationPolicy == admissionv1.IfNeededReinvocationPolicy,
	}
	if m.SideEffects == nil {
		one.noEffects = true
	} else {
		one.harmless = *m.SideEffects == admissionv1.SideEffectClassNone || *m.SideEffects == admissionv1.SideEffectClassNoneOnDryRun
	}
	if m.TimeoutSeconds != nil {
		one.timeout = time.Duration(*m.TimeoutSeconds) * time.Second
	}
	b, ok := h.breakers[uid]
	if !ok || b.client != clientKey(&m.ClientConfig) {
		b = &breaker{cfg: h.cfg, client: clientKey(&m.ClientConfig)}
		h.breakers[uid] = b
	}
	one.breaker = b
	return one
}

// Names of the plugins.
const (
	MutatingName   = "MutatingAdmissionWebhook"
	ValidatingName = "ValidatingAdmissionWebhook"
)

var (
	_ request.Mutator   = Mutating{}
	_ request.Validator = Validating{}
)
