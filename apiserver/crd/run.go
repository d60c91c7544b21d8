package crd

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"k8s.io/apiextensions-apiserver/pkg/apihelpers"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"

	"github.com/sampan-dev/sampan/api"
	"github.com/sampan-dev/sampan/apiserver/request"
	"github.com/sampan-dev/sampan/kit/clock"
	"github.com/sampan-dev/sampan/kit/run"
	"github.com/sampan-dev/sampan/resource"
)

// definitions names the kind of definitions.
var definitions = schema.GroupResource{Group: "apiextensions.k8s.io", Resource: "customresourcedefinitions"}

// Deps are what custom resources are served with.
type Deps struct {
	Back request.Backend
	// Serve replaces the kinds that are served besides the built-in ones.
	Serve func([]resource.Kind)
	// Keep and Drop tell a cache of prefixes that come and go; they may be nil.
	Keep, Drop func(prefix string)
	// Forget is told of kinds that were replaced; it may be nil.
	Forget func(*resource.Info)
	// Dialer connects to the services of conversion webhooks.
	Dialer Dialer
	// Schemas finds the OpenAPI schemas of built-in types, with all they refer
	// to; nil lets server-side apply guess.
	Schemas func(names ...string) (map[string]json.RawMessage, error)
	Builtin func(schema.GroupResource) bool // says what is built in; may be nil
	Metrics prometheus.Registerer
	Log     *slog.Logger
}

// Server makes kinds of definitions.
type Server struct {
	d      Deps
	shared *shared

	mu       sync.Mutex
	known    map[string]*definition // as last seen or written
	families map[string]*family
	removing map[string]bool
	verdicts map[types.UID]verdict
	wake     chan struct{}
}

// New returns a Server that serves nothing yet.
func New(d Deps) *Server {
	if d.Log == nil {
		d.Log = slog.New(slog.DiscardHandler)
	}
	return &Server{
		d: d, shared: &shared{dialer: d.Dialer, met: newMetrics(d.Metrics), definitions: d.Schemas},
		known: map[string]*definition{}, families: map[string]*family{}, removing: map[string]bool{}, verdicts: map[types.UID]verdict{}, wake: make(chan struct{}, 1),
	}
}

// Fill serves the definitions there are, before anybody asks.
func (s *Server) Fill(ctx context.Context) error {
	list, err := s.d.Back.List(ctx, definitions, "")
	if err != nil {
		return fmt.Errorf("custom resources: %w", err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, obj := range list {
		s.known[obj.GetName()] = obj.(*definition)
	}
	s.serve()
	return nil
}

// Run follows the definitions until ctx ends.
func (s *Server) Run(ctx context.Context) error {
	g := run.New(ctx)
	g.Go("definitions", func(ctx context.Context) error { return s.d.Back.Changes(ctx, definitions, s.saw) })
	g.Go("names", func(ctx context.Context) error {
		for {
			select {
			case <-ctx.Done():
				return nil
			case <-s.wake:
			}
			for wait := 20 * time.Millisecond; !s.settle(ctx, g); wait = min(2*wait, 5*time.Second) {
				if clock.Sleep(ctx, wait) != nil {
					return nil
				}
			}
		}
	})
	return g.Wait()
}

// saw takes note of a change.
func (s *Server) saw(old, next api.Object) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if next == nil {
		if have := s.known[old.GetName()]; have != nil && have.UID == old.GetUID() {
			delete(s.known, old.GetName())
			delete(s.verdicts, old.GetUID())
		}
	} else {
		s.known[next.GetName()] = next.(*definition)
	}
	s.ring()
}

func (s *Server) ring() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// settle brings statuses and the served kinds up to date. It says whether all
// went well.
func (s *Server) settle(ctx context.Context, g *run.Group) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	changed := map[*definition]*definition{} // as decided: as it was
	now := metav1.NewTime(clock.Now().Truncate(time.Second))
	for _, name := range s.inOrder() {
		crd := s.known[name]
		next := decide(crd, facts{
			taken:     func() taken { return takenIn(crd.Spec.Group, name, s.known) },
			structure: s.structure(crd), now: now,
		})
		if !equality.Semantic.DeepEqual(&next.Status, &crd.Status) {
			s.known[name] = next
			changed[next] = crd
		}
	}
	// The kinds come before the word that they are there.
	s.serve()
	ok := true
	for next, was := range changed {
		if err := s.write(ctx, next); err != nil {
			s.d.Log.Warn("status of a definition", "name", next.Name, "err", err)
			s.known[next.Name], ok = was, false
		}
	}
	s.finalize(g)
	return ok
}

// verdict is what decideStructure said of one state of a definition.
type verdict struct {
	generation int64
	condition  *condition
}

// structure is decideStructure, done once for each state of a definition.
func (s *Server) structure(crd *definition) *condition {
	v, ok := s.verdicts[crd.UID]
	if !ok || v.generation != crd.Generation {
		v = verdict{crd.Generation, decideStructure(crd)}
		s.verdicts[crd.UID] = v
	}
	return v.condition
}

// inOrder lists the definitions, the older first: they have the better claim to
// a name.
func (s *Server) inOrder() []string {
	return slices.SortedFunc(maps.Keys(s.known), func(a, b string) int {
		x, y := s.known[a], s.known[b]
		if c := x.CreationTimestamp.Compare(y.CreationTimestamp.Time); c != 0 {
			return c
		}
		if a < b {
			return -1
		}
		return 1
	})
}

// write stores a decided status, if it is still of the definition there is.
func (s *Server) write(ctx context.Context, next *definition) error {
	_, err := s.d.Back.Modify(ctx, definitions, "", next.Name, "status", func(obj api.Object) error {
		crd := obj.(*definition)
		if crd.UID != next.UID || crd.Generation != next.Generation {
			return errMoved
		}
		crd.Status.AcceptedNames = next.Status.AcceptedNames
		for _, c := range next.Status.Conditions {
			if c.Type != apiextensionsv1.Terminating {
				setCondition(crd, c)
			}
		}
		if apihelpers.FindCRDCondition(next, apiextensionsv1.NonStructuralSchema) == nil {
			apihelpers.RemoveCRDCondition(crd, apiextensionsv1.NonStructuralSchema)
		}
		return nil
	})
	if err == errMoved || apierrors.IsNotFound(err) {
		return nil // a change of it is on its way
	}
	return err
}

var errMoved = fmt.Errorf("the definition changed")

// serve makes the kinds of all definitions, keeping those that did not change.
func (s *Server) serve() {
	next := map[string]*family{}
	var gone []*family
	changed := false
	for name, crd := range s.known {
		old := s.families[name]
		if !served(crd) || s.d.Builtin != nil && s.d.Builtin(schema.GroupResource{Group: crd.Spec.Group, Resource: crd.Status.AcceptedNames.Plural}) {
			continue
		}
		if old != nil && old.sameAs(crd, &crd.Status.AcceptedNames) {
			next[name] = old
			continue
		}
		f, err := newFamily(context.Background(), s.shared, crd, crd.Status.AcceptedNames)
		if err != nil {
			s.d.Log.Error("definition cannot be served", "name", name, "err", err)
			continue
		}
		next[name], changed = f, true
	}
	for name, old := range s.families {
		if next[name] != old {
			gone, changed = append(gone, old), true
		}
	}
	if !changed {
		return
	}
	s.publish(next, gone)
}

// publish puts the new kinds in the old ones' place.
func (s *Server) publish(next map[string]*family, gone []*family) {
	var kinds []resource.Kind
	for _, name := range slices.Sorted(maps.Keys(next)) {
		f := next[name]
		if s.d.Keep != nil && (s.families[name] == nil || s.families[name].prefix() != f.prefix()) {
			s.d.Keep(f.prefix())
		}
		kinds = append(kinds, f.all()...)
		switch old := s.families[name]; {
		case old == nil:
			s.shared.met.published(f, "add")
		case old != f:
			s.shared.met.published(f, "update")
		}
	}
	for name := range s.families {
		if next[name] == nil {
			s.shared.met.forget(name)
		}
	}
	s.families = next
	s.d.Serve(kinds)
	for _, f := range gone {
		clock.AfterFunc(linger, func() { s.retire(f) })
	}
}

// linger is how long watches of kinds that were replaced or went live on, as
// upstream's do: the last changes are still on their way to them.
const linger = time.Second

// retire ends what still uses a family that is served no more.
func (s *Server) retire(f *family) {
	f.end()
	if s.d.Forget != nil {
		for _, k := range f.kinds {
			s.d.Forget(&k.info)
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, other := range s.families {
		if other.prefix() == f.prefix() {
			return // it was replaced, or is there again
		}
	}
	if s.d.Drop != nil {
		s.d.Drop(f.prefix())
	}
}
