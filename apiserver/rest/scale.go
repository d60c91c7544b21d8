package rest

import (
	"context"
	"net/http"

	autoscalingv1 "k8s.io/api/autoscaling/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	metavalidation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/sampan-dev/sampan/api"
	"github.com/sampan-dev/sampan/apiserver/request"
)

func scaleKind() schema.GroupVersionKind {
	return schema.GroupVersionKind{Group: "autoscaling", Version: "v1", Kind: "Scale"}
}

// scaleOf is the scale of an object.
func (o *Op) scaleOf(obj api.Object) *autoscalingv1.Scale {
	spec, status := o.Kind.Scale(obj)
	s := &autoscalingv1.Scale{ObjectMeta: metav1.ObjectMeta{
		Name: obj.GetName(), Namespace: obj.GetNamespace(), UID: obj.GetUID(),
		ResourceVersion: obj.GetResourceVersion(), CreationTimestamp: obj.GetCreationTimestamp(),
	}}
	if spec != nil {
		s.Spec = *spec
	}
	if status != nil {
		s.Status = *status
	}
	api.SetKind(s, scaleKind())
	return s
}

func (x *exchange) scale() error {
	switch x.op.Info.Verb {
	case "get":
		rec, err := x.e.Get(x.ctx, x.op, x.op.Info.Name, &metav1.GetOptions{})
		if err != nil {
			return err
		}
		obj, err := x.op.object(rec)
		if err != nil {
			return err
		}
		if x.op.custom != nil {
			if err := x.op.custom.Readable(obj); err != nil {
				return err
			}
		}
		return x.sendObject(http.StatusOK, x.op.scaleOf(obj))
	case "update":
		opts := &metav1.UpdateOptions{}
		if err := metav1.Convert_url_Values_To_v1_UpdateOptions(&x.q, opts, nil); err != nil {
			return apierrors.NewBadRequest(err.Error())
		}
		f, err := x.bodyFormat()
		if err != nil {
			return err
		}
		data, err := x.readBody()
		if err != nil {
			return err
		}
		s, err := x.op.decode(f, data, scaleKind(), opts.FieldValidation, x.warn)
		if err != nil {
			return err
		}
		return x.scaled(x.e.UpdateScale(x.ctx, x.op, s.(*autoscalingv1.Scale), opts))
	case "patch":
		opts := &metav1.PatchOptions{}
		if err := metav1.Convert_url_Values_To_v1_PatchOptions(&x.q, opts, nil); err != nil {
			return apierrors.NewBadRequest(err.Error())
		}
		data, err := x.readBody()
		if err != nil {
			return err
		}
		return x.scaled(x.e.PatchScale(x.ctx, x.op, types.PatchType(x.r.Header.Get("Content-Type")), data, opts))
	}
	return methodNotAllowed()
}

func (x *exchange) scaled(s *autoscalingv1.Scale, err error) error {
	if err != nil {
		return err
	}
	return x.sendObject(http.StatusOK, s)
}

// UpdateScale sets the replica count.
func (e *Engine) UpdateScale(ctx context.Context, o *Op, s *autoscalingv1.Scale, opts *metav1.UpdateOptions) (*autoscalingv1.Scale, error) {
	if err := o.checkName(s); err != nil {
		return nil, err
	}
	c := &change{name: o.Info.Name, manager: o.manager(opts.FieldManager), dryRun: isDryRun(opts.DryRun), opts: opts}
	c.make = func(_ context.Context, cur api.Object) (api.Object, error) { return o.rescale(cur, s) }
	return e.writeScale(ctx, o, c)
}

// PatchScale patches the scale as if it were an object.
func (e *Engine) PatchScale(ctx context.Context, o *Op, t types.PatchType, data []byte, opts *metav1.PatchOptions) (*autoscalingv1.Scale, error) {
	if err := invalidOptions("PatchOptions", metavalidation.ValidatePatchOptions(opts, t)); err != nil {
		return nil, err
	}
	if t == types.ApplyYAMLPatchType {
		c := &change{name: o.Info.Name, manager: opts.FieldManager, dryRun: isDryRun(opts.DryRun),
			opts: &metav1.UpdateOptions{DryRun: opts.DryRun, FieldManager: opts.FieldManager}}
		if err := e.applyChange(o, c, t, data, opts); err != nil {
			return nil, err
		}
		return e.writeScale(ctx, o, c)
	}
	if t == types.StrategicMergePatchType {
		t = types.MergePatchType // no lists inside: the two are the same
	}
	apply, err := o.patcher(t, data)
	if err != nil {
		return nil, err
	}
	c := &change{name: o.Info.Name, manager: o.manager(opts.FieldManager), dryRun: isDryRun(opts.DryRun), opts: &metav1.UpdateOptions{DryRun: opts.DryRun}}
	c.make = func(ctx context.Context, cur api.Object) (api.Object, error) {
		before, err := encode(api.FormatJSON, o.scaleOf(cur))
		if err != nil {
			return nil, err
		}
		after, err := apply(before)
		if err != nil {
			return nil, err
		}
		s, err := o.decode(api.FormatJSON, after, scaleKind(), opts.FieldValidation, func(s string) { request.Warn(ctx, s) })
		if err != nil {
			return nil, err
		}
		return o.rescale(cur, s.(*autoscalingv1.Scale))
	}
	return e.writeScale(ctx, o, c)
}

func (o *Op) rescale(cur api.Object, s *autoscalingv1.Scale) (api.Object, error) {
	if s.Spec.Replicas < 0 {
		return nil, apierrors.NewInvalid(scaleKind().GroupKind(), s.Name, field.ErrorList{
			field.Invalid(field.NewPath("spec", "replicas"), s.Spec.Replicas, "must be greater than or equal to 0"),
		})
	}
	next := cur.DeepCopyObject().(api.Object)
	o.Kind.SetScale(next, s.Spec.Replicas)
	if s.ResourceVersion != "" {
		next.SetResourceVersion(s.ResourceVersion)
	}
	if s.UID != "" {
		next.SetUID(s.UID)
	}
	return next, nil
}

func (e *Engine) writeScale(ctx context.Context, o *Op, c *change) (*autoscalingv1.Scale, error) {
	res, err := e.write(ctx, o, c)
	if err != nil {
		return nil, err
	}
	return o.scaleOf(res.Obj), nil
}
