package aggregate

import (
	"context"
	"fmt"
	"log/slog"
	"reflect"
	"sync"
	"sync/atomic"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime/schema"
	apiregistrationv1 "k8s.io/kube-aggregator/pkg/apis/apiregistration/v1"

	"github.com/sampan-dev/sampan/api"
	"github.com/sampan-dev/sampan/apiserver/request"
	"github.com/sampan-dev/sampan/kit/backoff"
	"github.com/sampan-dev/sampan/kit/clock"
	"github.com/sampan-dev/sampan/kit/queue"
	"github.com/sampan-dev/sampan/kit/run"
)

// Aggregator makes other servers part of this one.
type Aggregator struct {
	c       Config
	d       Deps
	log     *slog.Logger
	metrics *metrics
	queue   *queue.Queue[string]
	table   atomic.Pointer[table]
	merged  merges
	touched chan struct{} // an automatic APIService was changed by somebody; capacity 1
	some    chan struct{} // closed when there is a remote for the first time
	once    sync.Once

	mu       sync.Mutex
	services map[string]*apiregistrationv1.APIService
	remotes  map[string]*remote // by APIService
}

// table is what requests are looked up in. It is replaced, never changed.
type table struct {
	remotes  map[schema.GroupVersion]*remote
	groups   map[string]bool  // that a remote serves a version of
	priority map[string]int32 // of groups, by all APIServices
	version  map[schema.GroupVersion]int32
}

// New returns an aggregator that knows of no server yet.
func New(c Config, d Deps) (*Aggregator, error) {
	if err := c.Check(); err != nil {
		return nil, err
	}
	if d.Log == nil {
		d.Log = slog.New(slog.DiscardHandler)
	}
	a := &Aggregator{
		c: c, d: d, log: d.Log, metrics: newMetrics(d.Metrics), touched: make(chan struct{}, 1), some: make(chan struct{}),
		queue:    queue.New[string](backoff.Policy{First: 200 * time.Millisecond, Max: 30 * time.Second}),
		services: map[string]*apiregistrationv1.APIService{}, remotes: map[string]*remote{},
	}
	a.table.Store(&table{})
	return a, nil
}

// checkers is how many servers are asked at once: a silent one holds one of them
// for some seconds.
const checkers = 5

// Run follows APIServices and keeps their conditions until ctx ends. ctx acts as
// a privileged user.
func (a *Aggregator) Run(ctx context.Context) error {
	g := run.New(ctx)
	back := a.d.Back
	g.Go("apiservices", func(ctx context.Context) error { return back.Changes(ctx, apiServices(), a.observe) })
	for _, gr := range []schema.GroupResource{{Resource: "services"}, {Group: discoveryv1.GroupName, Resource: "endpointslices"}} {
		g.Go("apiservices: "+gr.Resource, func(ctx context.Context) error {
			select {
			case <-a.some: // most clusters never need to know
				return back.Changes(ctx, gr, a.serviceChanged)
			case <-ctx.Done():
				return nil
			}
		})
	}
	g.Go("apiservices: register", a.follow)
	for range checkers {
		g.Go("apiservices: check", a.work)
	}
	return g.Wait()
}

func (a *Aggregator) work(ctx context.Context) error {
	for {
		name, err := a.queue.Get(ctx)
		if err != nil {
			return nil //nolint:nilerr // the end was asked for
		}
		again, err := a.sync(ctx, name)
		switch {
		case ctx.Err() != nil:
			return nil
		case err != nil:
			a.log.Debug("apiservice is not available", "name", name, "err", err)
			a.queue.Retry(name)
		default:
			a.queue.Forget(name)
			if again {
				a.queue.AddAfter(name, a.c.Recheck)
			}
		}
		a.queue.Done(name)
	}
}

// observe takes a change of an APIService.
func (a *Aggregator) observe(old, now api.Object) {
	obj := now
	if obj == nil {
		obj = old
	}
	s, ok := obj.(*apiregistrationv1.APIService)
	if !ok {
		return
	}
	a.mu.Lock()
	if now == nil {
		delete(a.services, s.Name)
	} else {
		a.services[s.Name] = s
	}
	a.place(s, now != nil)
	a.rebuild()
	a.mu.Unlock()
	if old != nil && s.Labels[managedLabel] == always {
		select {
		case a.touched <- struct{}{}:
		default:
		}
	}
	if o, _ := old.(*apiregistrationv1.APIService); o == nil || now == nil || !reflect.DeepEqual(o.Spec, s.Spec) {
		a.queue.Forget(s.Name)
		a.queue.Add(s.Name)
	}
}

// place makes, replaces or forgets the remote of s; hold a.mu.
func (a *Aggregator) place(s *apiregistrationv1.APIService, exists bool) {
	r := a.remotes[s.Name]
	if !exists || s.Spec.Service == nil {
		if r != nil {
			r.close()
			delete(a.remotes, s.Name)
		}
		return
	}
	if r == nil || !reflect.DeepEqual(r.spec, s.Spec) {
		next := newRemote(a, s)
		if r != nil {
			next.adopt(r)
			r.close()
		}
		r = next
		a.remotes[s.Name] = r
		a.once.Do(func() { close(a.some) })
	}
	r.say(s)
}

// rebuild makes the table of what is known; hold a.mu.
func (a *Aggregator) rebuild() {
	t := &table{
		remotes: map[schema.GroupVersion]*remote{}, groups: map[string]bool{},
		priority: map[string]int32{apiregistrationv1.GroupName: 20000}, version: map[schema.GroupVersion]int32{},
	}
	for name, s := range a.services {
		gv := schema.GroupVersion{Group: s.Spec.Group, Version: s.Spec.Version}
		t.priority[gv.Group] = max(t.priority[gv.Group], s.Spec.GroupPriorityMinimum)
		t.version[gv] = s.Spec.VersionPriority
		if r := a.remotes[name]; r != nil {
			t.remotes[gv], t.groups[gv.Group] = r, true
		}
	}
	a.table.Store(t)
}

// serviceChanged checks the APIServices behind a Service or EndpointSlice.
func (a *Aggregator) serviceChanged(old, now api.Object) {
	obj := now
	if obj == nil {
		obj = old
	}
	name := obj.GetName()
	if _, ok := obj.(*discoveryv1.EndpointSlice); ok {
		name = obj.GetLabels()[discoveryv1.LabelServiceName]
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	for key, r := range a.remotes {
		if r.spec.Service.Name == name && r.spec.Service.Namespace == obj.GetNamespace() {
			r.idle()
			a.queue.Forget(key)
			a.queue.Add(key)
		}
	}
}

// sync judges one APIService and writes what it found. again asks for another
// look after a while.
func (a *Aggregator) sync(ctx context.Context, name string) (again bool, err error) {
	a.mu.Lock()
	s, r := a.services[name], a.remotes[name]
	a.mu.Unlock()
	if s == nil {
		a.metrics.forget(name)
		return false, nil
	}
	if r == nil {
		return false, a.write(ctx, s, localCondition())
	}
	c, failed := r.check(ctx)
	if ctx.Err() != nil {
		return false, ctx.Err()
	}
	r.found(c, failed)
	if err := a.write(ctx, s, c); err != nil {
		return false, err
	}
	return true, failed
}

// write puts a condition into an APIService unless it says the same already.
func (a *Aggregator) write(ctx context.Context, s *apiregistrationv1.APIService, c apiregistrationv1.APIServiceCondition) error {
	a.metrics.set(s.Name, c)
	if old := conditionOf(s); old != nil && old.Status == c.Status && old.Reason == c.Reason && old.Message == c.Message {
		return nil
	}
	wrote := false
	_, err := a.d.Back.Modify(ctx, apiServices(), "", s.Name, "status", func(o api.Object) error {
		next := o.(*apiregistrationv1.APIService)
		wrote = false
		if next.UID == s.UID && reflect.DeepEqual(next.Spec, s.Spec) { // else the finding is of another
			setCondition(next, c)
			wrote = true
		}
		return nil
	})
	if apierrors.IsNotFound(err) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("apiservice: %s: %w", s.Name, err)
	}
	if old := conditionOf(s); wrote && (old == nil || old.Status != c.Status) {
		a.log.Info("apiservice availability changed", "name", s.Name, "available", c.Status, "reason", c.Reason, "message", c.Message)
		a.metrics.changed(s.Name, c)
	}
	return nil
}

func localCondition() apiregistrationv1.APIServiceCondition {
	return condition(apiregistrationv1.ConditionTrue, "Local", "Local APIServices are always available", clock.Now())
}

func conditionOf(s *apiregistrationv1.APIService) *apiregistrationv1.APIServiceCondition {
	for i := range s.Status.Conditions {
		if s.Status.Conditions[i].Type == apiregistrationv1.Available {
			return &s.Status.Conditions[i]
		}
	}
	return nil
}

func setCondition(s *apiregistrationv1.APIService, c apiregistrationv1.APIServiceCondition) {
	old := conditionOf(s)
	if old == nil {
		s.Status.Conditions = append(s.Status.Conditions, c)
		return
	}
	if old.Status == c.Status {
		c.LastTransitionTime = old.LastTransitionTime
	}
	*old = c
}

// lookUp finds the service behind a reference; svc is nil when there is none.
func (a *Aggregator) lookUp(ctx context.Context, ref *apiregistrationv1.ServiceReference) (svc *corev1.Service, list []*discoveryv1.EndpointSlice, err error) {
	o, err := a.d.Back.Get(ctx, schema.GroupResource{Resource: "services"}, ref.Namespace, ref.Name)
	if apierrors.IsNotFound(err) {
		return nil, nil, nil
	}
	if err != nil {
		return nil, nil, err
	}
	svc, _ = o.(*corev1.Service)
	all, err := a.d.Back.List(ctx, schema.GroupResource{Group: discoveryv1.GroupName, Resource: "endpointslices"}, ref.Namespace)
	if err != nil {
		return nil, nil, err
	}
	for _, o := range all {
		if es, ok := o.(*discoveryv1.EndpointSlice); ok && es.Labels[discoveryv1.LabelServiceName] == ref.Name {
			list = append(list, es)
		}
	}
	return svc, list, nil
}

// privileged is ctx on behalf of the server itself: requests of users look up
// services that they themselves may not see.
func privileged(ctx context.Context) context.Context {
	return request.WithUser(ctx, &request.User{Name: request.LoopbackUser, Groups: []string{request.Masters}})
}
