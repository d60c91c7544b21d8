package rest

import (
	"context"
	"errors"
	"fmt"
	"io"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/watch"

	"github.com/sampan-dev/sampan/api"
	"github.com/sampan-dev/sampan/apiserver/request"
	"github.com/sampan-dev/sampan/kit/clock"
	"github.com/sampan-dev/sampan/storage"
)

// Backend is the engine as the server's own parts use it.
type Backend struct{ e *Engine }

var _ request.Backend = Backend{}

// Backend returns the engine as a request.Backend.
func (e *Engine) Backend() Backend { return Backend{e} }

func (b Backend) op(gr schema.GroupResource, verb, namespace, name, sub string) (*Op, error) {
	s, ok := b.e.Registry.Stored(gr)
	if !ok {
		return nil, apierrors.NewNotFound(gr, name)
	}
	return NewOp(s, verb, namespace, name, sub, request.LoopbackUser), nil
}

// NewOp is an operation that does not come from HTTP.
func NewOp(s *Served, verb, namespace, name, sub, agent string) *Op {
	prefix := "apis"
	if s.GVK.Group == "" {
		prefix = "api"
	}
	return &Op{Served: s, Agent: agent, Info: &request.Info{
		IsResource: true, Verb: verb, Prefix: prefix, Group: s.GVK.Group, Version: s.GVK.Version,
		Resource: s.Plural, Subresource: sub, Namespace: namespace, Name: name,
	}}
}

// Get implements request.Backend.
func (b Backend) Get(ctx context.Context, gr schema.GroupResource, namespace, name string) (api.Object, error) {
	o, err := b.op(gr, "get", namespace, name, "")
	if err != nil {
		return nil, err
	}
	rec, err := b.e.current(ctx, o.key(name), false)
	if err != nil {
		return nil, storeError(err, o.GR(), name)
	}
	return o.object(rec)
}

// List implements request.Backend.
func (b Backend) List(ctx context.Context, gr schema.GroupResource, namespace string) ([]api.Object, error) {
	o, err := b.op(gr, "list", namespace, "", "")
	if err != nil {
		return nil, err
	}
	p, err := b.e.Store.List(ctx, o.prefix(), storage.ListOptions{Match: storage.AtLeast})
	if err != nil {
		return nil, apierrors.NewInternalError(err)
	}
	return o.objects(p.Records)
}

func (o *Op) objects(recs []*storage.Record) ([]api.Object, error) {
	if err := o.warm(recs); err != nil {
		return nil, apierrors.NewInternalError(err)
	}
	out := make([]api.Object, len(recs))
	for i, rec := range recs {
		var err error
		if out[i], err = o.show(rec); err != nil {
			return nil, apierrors.NewInternalError(err)
		}
	}
	return out, nil
}

// Create implements request.Backend.
func (b Backend) Create(ctx context.Context, gr schema.GroupResource, obj api.Object, opts *metav1.CreateOptions) (api.Object, error) {
	o, err := b.op(gr, "create", obj.GetNamespace(), obj.GetName(), "")
	if err != nil {
		return nil, err
	}
	if opts == nil {
		opts = &metav1.CreateOptions{}
	}
	res, err := b.e.Create(ctx, o, obj.DeepCopyObject().(api.Object), opts)
	if err != nil {
		return nil, err
	}
	return res.Obj, nil
}

// Modify implements request.Backend.
func (b Backend) Modify(ctx context.Context, gr schema.GroupResource, namespace, name, sub string, edit func(api.Object) error) (api.Object, error) {
	o, err := b.op(gr, "update", namespace, name, sub)
	if err != nil {
		return nil, err
	}
	c := &change{name: name, manager: request.LoopbackUser, opts: &metav1.UpdateOptions{}}
	if _, isSub := o.Kind.Sub(sub); sub != "" && !isSub {
		c.raw, c.tracked = true, true
	}
	c.make = func(_ context.Context, cur api.Object) (api.Object, error) {
		next := cur.DeepCopyObject().(api.Object)
		return next, edit(next)
	}
	res, err := b.e.write(ctx, o, c)
	if err != nil {
		return nil, err
	}
	return res.Obj, nil
}

// Delete implements request.Backend.
func (b Backend) Delete(ctx context.Context, gr schema.GroupResource, namespace, name string, opts *metav1.DeleteOptions) error {
	o, err := b.op(gr, "delete", namespace, name, "")
	if err != nil {
		return err
	}
	if opts == nil {
		opts = &metav1.DeleteOptions{}
	}
	_, err = b.e.Delete(ctx, o, opts)
	return err
}

// Changes implements request.Backend. A history that was lost is made up for
// by a fresh list, told as changes.
func (b Backend) Changes(ctx context.Context, gr schema.GroupResource, fn func(old, new api.Object)) error {
	known := map[string]api.Object{}
	for {
		// Anew each time: a custom kind's definition may have changed.
		o, err := b.op(gr, "watch", "", "", "")
		if err != nil {
			return err
		}
		err = b.follow(ctx, o, known, fn)
		if ctx.Err() != nil {
			return nil
		}
		if err != nil && !errors.Is(err, io.EOF) && !apierrors.IsResourceExpired(err) {
			b.e.Log.Warn("changes interrupted", "kind", gr.String(), "err", err)
		}
		if clock.Sleep(ctx, clock.Jitter(followAgain, 1)) != nil {
			return nil
		}
	}
}

// followAgain is how long Changes waits before it lists again.
const followAgain = 100e6

func (b Backend) follow(ctx context.Context, o *Op, known map[string]api.Object, fn func(old, new api.Object)) error {
	l, err := b.e.List(ctx, o, &metav1.ListOptions{ResourceVersion: "0"})
	if err != nil {
		return err
	}
	seen := make(map[string]bool, len(l.Records))
	for _, rec := range l.Records {
		obj, err := o.object(rec)
		if err != nil {
			return err
		}
		seen[rec.Key] = true
		if old := known[rec.Key]; old == nil || old.GetResourceVersion() != obj.GetResourceVersion() {
			known[rec.Key] = obj
			fn(old, obj)
		}
	}
	for key, old := range known {
		if !seen[key] {
			delete(known, key)
			fn(old, nil)
		}
	}
	w, err := b.e.Watch(ctx, o, &metav1.ListOptions{ResourceVersion: l.Version()})
	if err != nil {
		return err
	}
	defer w.Stop()
	for {
		events, err := w.Next(ctx)
		if err != nil {
			return err
		}
		for i := range events {
			ev := &events[i]
			if ev.Rec == nil {
				continue
			}
			old := known[ev.Rec.Key]
			if ev.Type == watch.Deleted {
				delete(known, ev.Rec.Key)
				if old != nil {
					fn(old, nil)
				}
				continue
			}
			obj, err := o.object(ev.Rec)
			if err != nil {
				return fmt.Errorf("changes: %w", err)
			}
			known[ev.Rec.Key] = obj
			fn(old, obj)
		}
	}
}
