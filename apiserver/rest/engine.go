package rest

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"strings"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/sampan-dev/sampan/api"
	"github.com/sampan-dev/sampan/apiserver/request"
	"github.com/sampan-dev/sampan/kit/clock"
	"github.com/sampan-dev/sampan/resource"
	"github.com/sampan-dev/sampan/storage"
)

// Fields keeps metadata.managedFields. Objects are of the stored version; v is
// the version the user spoke, nil for the stored one.
type Fields interface {
	// Update writes into obj who owns what after manager made it of live.
	Update(k resource.Kind, v *resource.Version, sub string, live, obj api.Object, manager string) error
	// Apply merges a configuration into live and returns the whole new object.
	Apply(k resource.Kind, v *resource.Version, sub string, live api.Object, patch map[string]any, manager string, force bool) (api.Object, error)
}

// Transaction is a Ledger whose takings last only if they are committed.
type Transaction interface {
	resource.Ledger
	Commit(ctx context.Context) error
	Rollback(ctx context.Context) error
}

// Deps are what the engine works with. Fields, Begin and Authorizer may be nil.
type Deps struct {
	Store      storage.Store
	Registry   *Registry
	Admission  []request.Plugin
	Fields     Fields
	Begin      func() Transaction
	Authorizer request.Authorizer
	Connectors map[string]request.Connector
	Posters    map[string]request.Poster
	Virtuals   map[string]request.Virtual // by "tokenreviews.authentication.k8s.io"
	Log        *slog.Logger
}

// Engine does the verbs.
type Engine struct {
	Deps
	names nameSource
}

// New returns an engine.
func New(d Deps) *Engine {
	boundCopies()
	if d.Log == nil {
		d.Log = slog.New(slog.DiscardHandler)
	}
	return &Engine{Deps: d, names: newNames(clock.Seed())}
}

// Op is one request to one kind, free of HTTP.
type Op struct {
	*Served
	Info  *request.Info
	Agent string // who manages the fields when the options do not say
}

// Result is the outcome of a write.
type Result struct {
	Obj     api.Object      // stored version; immutable when Rec is set
	Rec     *storage.Record // nil for dry runs and objects that are gone
	Created bool
	Gone    bool // a delete that removed the object at once
}

// Key is where the object of a name lives.
func (o *Op) key(name string) string {
	if o.Served.Info.ClusterScoped {
		return o.Prefix() + name
	}
	return o.Prefix() + o.Info.Namespace + "/" + name
}

// prefix is where the objects of the request's scope live.
func (o *Op) prefix() string {
	if o.Served.Info.ClusterScoped || o.Info.Namespace == "" {
		return o.Prefix()
	}
	return o.Prefix() + o.Info.Namespace + "/"
}

// request describes who asks to the kind's rules.
func (o *Op) request(ctx context.Context, dryRun bool) *resource.Request {
	u := request.UserFrom(ctx)
	return &resource.Request{
		User: u.Name, UID: u.UID, Groups: u.Groups, Extra: u.Extra,
		// Objects keep whole seconds: what was just stamped must equal what is read again.
		Now: clock.Now().Truncate(time.Second), DryRun: dryRun, Version: o.GVK.GroupVersion(),
	}
}

func (o *Op) manager(asked string) string {
	if asked != "" {
		return asked
	}
	name, _, _ := strings.Cut(o.Agent, "/")
	if len(name) > 128 {
		name = name[:128]
	}
	return name
}

// toStored converts a decoded object of the served version to what is stored,
// with defaults. The object belongs to the engine from here on.
func (s *Served) toStored(obj api.Object) (api.Object, error) {
	if s.Version != nil {
		if s.Version.Default != nil {
			s.Version.Default(obj)
		}
		stored, err := s.Version.Store(obj)
		if err != nil {
			return nil, apierrors.NewBadRequest(err.Error())
		}
		obj = stored
	}
	s.Kind.Default(obj)
	api.SetKind(obj, s.Info.GroupVersionKind)
	return obj, nil
}

func isDryRun(flags []string) bool { return slices.Contains(flags, metav1.DryRunAll) }

// attributes is what admission is told.
func (o *Op) attributes(ctx context.Context, op request.Operation, obj, old api.Object, opts runtime.Object) *request.Attributes {
	a := &request.Attributes{
		Operation: op, Kind: o.Served.Info.GroupVersionKind, Resource: o.StoredGVR(),
		Subresource: o.Info.Subresource, Namespace: o.Info.Namespace, Name: o.Info.Name,
		Object: obj, Old: old, Options: opts, User: request.UserFrom(ctx),
		RequestKind: o.spoken(o.Info.Subresource), RequestResource: o.GVR(),
	}
	if obj != nil && a.Name == "" {
		a.Name = obj.GetName()
	}
	return a
}

// mutate asks the mutating plugins in order, and once more when one of them
// changed what others had seen.
func (e *Engine) mutate(ctx context.Context, a *request.Attributes) error {
	if err := e.mutateOnce(ctx, a); err != nil || !a.Again {
		return err
	}
	a.Round++
	return e.mutateOnce(ctx, a)
}

func (e *Engine) mutateOnce(ctx context.Context, a *request.Attributes) error {
	for _, p := range e.Admission {
		m, ok := p.(request.Mutator)
		if !ok || !p.Handles(a.Operation) {
			continue
		}
		if err := m.Mutate(ctx, a); err != nil {
			return refused(a, err)
		}
	}
	return nil
}

// validate asks the validating plugins in order. settle must be called with
// the outcome, whether or not there was an error.
func (e *Engine) validate(ctx context.Context, a *request.Attributes) (settle func(stored bool), err error) {
	var held []request.Settler
	settle = func(stored bool) {
		for _, s := range held {
			s.Settle(ctx, a, stored)
		}
	}
	for _, p := range e.Admission {
		v, ok := p.(request.Validator)
		if !ok || !p.Handles(a.Operation) {
			continue
		}
		if err := v.Validate(ctx, a); err != nil {
			return settle, refused(a, err)
		}
		if s, ok := p.(request.Settler); ok {
			held = append(held, s)
		}
	}
	return settle, nil
}

// refused makes an error of a plugin one for the user.
func refused(a *request.Attributes, err error) error {
	var se apierrors.APIStatus
	if errors.As(err, &se) {
		return err
	}
	return apierrors.NewForbidden(a.Resource.GroupResource(), a.Name, err)
}

// current returns the record at key. A first look may be at the store's recent
// memory; fresh asks for the truth.
func (e *Engine) current(ctx context.Context, key string, fresh bool) (*storage.Record, error) {
	if !fresh {
		if rec, err := e.Store.Get(ctx, key, 1); err == nil {
			return rec, nil
		}
	}
	return e.Store.Get(ctx, key, 0)
}

// adopt gives the record of a write its decoded form, so that nobody need
// decode what was just encoded.
func (s *Served) adopt(ctx context.Context, obj api.Object) context.Context {
	return storage.WithForms(ctx, func(rec *storage.Record) { s.settle(rec, obj) })
}

// stored finishes a write: the record's object is what everyone shares now.
func (o *Op) stored(rec *storage.Record, obj api.Object) (*Result, error) {
	if obj.GetResourceVersion() == "" {
		o.settle(rec, obj) // the store does not know of forms
	}
	shared, err := o.object(rec)
	if err != nil {
		return nil, err
	}
	return &Result{Obj: shared, Rec: rec}, nil
}
