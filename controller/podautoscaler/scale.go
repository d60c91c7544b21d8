package podautoscaler

import (
	"context"
	"fmt"

	autoscalingv1 "k8s.io/api/autoscaling/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// resourceOf finds the resource of a kind.
func (l *loop) resourceOf(ctx context.Context, apiVersion, kind string) (schema.GroupVersionResource, error) {
	return l.kinds.Resource(ctx, l.Client, apiVersion, kind)
}

func (l *loop) scale(ctx context.Context, h *autoscaler) (*autoscalingv1.Scale, schema.GroupVersionResource, error) {
	ref := h.Spec.ScaleTargetRef
	r, err := l.resourceOf(ctx, ref.APIVersion, ref.Kind)
	if err != nil {
		return nil, r, err
	}
	obj, err := l.Client.Get(ctx, r, h.Namespace, ref.Name, "scale", nil)
	if err != nil {
		return nil, r, err
	}
	s, ok := obj.(*autoscalingv1.Scale)
	if !ok {
		return nil, r, fmt.Errorf("scale of %s %s is a %T", ref.Kind, ref.Name, obj)
	}
	return s, r, nil
}

// rescale writes the new size; when the target changed meanwhile, once more.
func (l *loop) rescale(ctx context.Context, h *autoscaler, s *autoscalingv1.Scale, r schema.GroupVersionResource, n int32) error {
	for try := 0; ; try++ {
		s = s.DeepCopy()
		s.Spec.Replicas = n
		_, err := l.Client.Update(ctx, r, h.Namespace, "scale", s, nil)
		if !apierrors.IsConflict(err) || try == 4 {
			return err
		}
		if s, _, err = l.scale(ctx, h); err != nil {
			return err
		}
	}
}
