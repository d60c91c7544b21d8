package rest

import (
	"context"
	"io"

	autoscalingv1 "k8s.io/api/autoscaling/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"

	"github.com/sampan-dev/sampan/api"
	"github.com/sampan-dev/sampan/apiserver/request"
)

// Calls is the engine as function calls, for the client in process: what HTTP
// does with bytes, without the bytes. Identity, authorization and warnings are
// the caller's, in ctx. Info comes ready made.
type Calls struct{ e *Engine }

// Calls returns the engine's calls.
func (e *Engine) Calls() Calls { return Calls{e} }

// Op finds what an Info asks for.
func (c Calls) op(i *request.Info, agent string) (*Op, error) {
	s, ok := c.e.Registry.Find(i.GroupVersion().WithResource(i.Resource))
	if !ok {
		return nil, apierrors.NewGenericServerResponse(404, i.Verb, schema.GroupResource{Group: i.Group, Resource: i.Resource}, i.Name, "404 page not found", 0, true)
	}
	return &Op{Served: s, Info: i, Agent: agent}, nil
}

// show gives a result in the served version.
func (o *Op) result(res *Result, err error) (api.Object, error) {
	if err != nil {
		return nil, err
	}
	if res.Rec != nil {
		return o.show(res.Rec)
	}
	return o.showObject(res.Obj)
}

// Get reads one object, or its scale.
func (c Calls) Get(ctx context.Context, i *request.Info, agent string, opts *metav1.GetOptions) (api.Object, error) {
	o, err := c.op(i, agent)
	if err != nil {
		return nil, err
	}
	if o.Served.Info.Virtual {
		if g, ok := c.e.Virtuals[o.Served.Info.GroupResource().String()].(request.VirtualGetter); ok {
			out, err := g.Get(ctx, i)
			return asObject(out, err)
		}
		return nil, methodNotAllowed()
	}
	rec, err := c.e.Get(ctx, o, i.Name, opts)
	if err != nil {
		return nil, err
	}
	if i.Subresource == "scale" {
		obj, err := o.object(rec)
		if err != nil {
			return nil, err
		}
		return o.scaleOf(obj), nil
	}
	return o.show(rec)
}

// asObject narrows what a plug returned.
func asObject(out runtime.Object, err error) (api.Object, error) {
	if err != nil {
		return nil, err
	}
	if obj, ok := out.(api.Object); ok {
		return obj, nil
	}
	return nil, nil // a Status: success without an object
}

// List reads a collection.
func (c Calls) List(ctx context.Context, i *request.Info, agent string, opts *metav1.ListOptions) (*api.Listed, error) {
	o, err := c.op(i, agent)
	if err != nil {
		return nil, err
	}
	l, err := c.e.List(ctx, o, opts)
	if err != nil {
		return nil, err
	}
	items, err := o.objects(l.Records)
	if err != nil {
		return nil, err
	}
	return &api.Listed{Items: items, ResourceVersion: l.Version(), Continue: l.Continue, Remaining: l.Remaining}, nil
}

// Watch follows a collection.
func (c Calls) Watch(ctx context.Context, i *request.Info, agent string, opts *metav1.ListOptions) (api.Events, error) {
	o, err := c.op(i, agent)
	if err != nil {
		return nil, err
	}
	w, err := c.e.Watch(ctx, o, opts)
	if err != nil {
		return nil, err
	}
	return &events{w: w}, nil
}

// events hands out a Watch one event at a time.
type events struct {
	w    *Watch
	left []Seen
}

func (v *events) Next(ctx context.Context) (watch.Event, error) {
	for len(v.left) == 0 {
		var err error
		if v.left, err = v.w.Next(ctx); err != nil {
			if err == io.EOF && ctx.Err() != nil {
				err = ctx.Err()
			}
			return watch.Event{}, err
		}
	}
	s := v.left[0]
	v.left = v.left[1:]
	if s.Rec == nil {
		return watch.Event{Type: s.Type, Object: v.w.op.bookmark(s)}, nil
	}
	obj, err := v.w.op.show(s.Rec)
	return watch.Event{Type: s.Type, Object: obj}, err
}

func (v *events) Stop() { v.w.Stop() }

// Create makes an object, or posts to a subresource. obj stays the caller's.
func (c Calls) Create(ctx context.Context, i *request.Info, agent string, obj api.Object, opts *metav1.CreateOptions) (api.Object, error) {
	o, err := c.op(i, agent)
	if err != nil {
		return nil, err
	}
	obj = obj.DeepCopyObject().(api.Object)
	switch {
	case i.Subresource != "":
		p, ok := c.e.Posters[o.plugName()]
		if !ok {
			return nil, methodNotAllowed()
		}
		return asObject(c.e.Post(ctx, o, p, obj, opts))
	case o.Served.Info.Virtual:
		v, ok := c.e.Virtuals[o.Served.Info.GroupResource().String()].(request.VirtualCreator)
		if !ok {
			return nil, methodNotAllowed()
		}
		if err := o.matchNamespace(obj); err != nil {
			return nil, err
		}
		return asObject(c.e.postVirtual(ctx, o, v, obj, opts))
	}
	return o.result(c.e.Create(ctx, o, obj, opts))
}

// Update replaces an object, a part of it, or its scale. obj stays the caller's.
func (c Calls) Update(ctx context.Context, i *request.Info, agent string, obj api.Object, opts *metav1.UpdateOptions) (api.Object, error) {
	o, err := c.op(i, agent)
	if err != nil {
		return nil, err
	}
	if s, ok := obj.(*autoscalingv1.Scale); ok && i.Subresource == "scale" {
		return scaleObject(c.e.UpdateScale(ctx, o, s, opts))
	}
	if _, ok := o.Kind.Sub(i.Subresource); !ok && i.Subresource != "" {
		return nil, methodNotAllowed()
	}
	return o.result(c.e.Update(ctx, o, obj.DeepCopyObject().(api.Object), opts))
}

func scaleObject(s *autoscalingv1.Scale, err error) (api.Object, error) {
	if err != nil {
		return nil, err
	}
	return s, nil
}

// Patch patches an object, a part of it, or its scale.
func (c Calls) Patch(ctx context.Context, i *request.Info, agent string, t types.PatchType, data []byte, opts *metav1.PatchOptions) (api.Object, error) {
	o, err := c.op(i, agent)
	if err != nil {
		return nil, err
	}
	if i.Subresource == "scale" && o.Served.Info.HasScale {
		return scaleObject(c.e.PatchScale(ctx, o, t, data, opts))
	}
	if _, ok := o.Kind.Sub(i.Subresource); !ok && i.Subresource != "" {
		return nil, methodNotAllowed()
	}
	return o.result(c.e.Patch(ctx, o, t, data, opts))
}

// Delete deletes an object, or without a name a collection.
func (c Calls) Delete(ctx context.Context, i *request.Info, agent string, opts *metav1.DeleteOptions) error {
	o, err := c.op(i, agent)
	if err != nil {
		return err
	}
	if i.Name == "" {
		_, _, err = c.e.DeleteCollection(ctx, o, opts, &metav1.ListOptions{})
		return err
	}
	_, err = c.e.Delete(ctx, o, opts)
	return err
}
