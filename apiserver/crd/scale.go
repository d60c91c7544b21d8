package crd

import (
	"fmt"

	autoscalingv1 "k8s.io/api/autoscaling/v1"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
)

// scale is where a kind keeps its replica counts.
type scale struct {
	text         string // the spec's path as the definition has it
	spec, status []string
	selector     []string
}

func newScale(s *apiextensionsv1.CustomResourceSubresourceScale) *scale {
	out := &scale{text: s.SpecReplicasPath, spec: dotted(s.SpecReplicasPath), status: dotted(s.StatusReplicasPath)}
	if s.LabelSelectorPath != nil && *s.LabelSelectorPath != "" {
		out.selector = dotted(*s.LabelSelectorPath)
	}
	return out
}

func (s *scale) get(obj map[string]any) (*autoscalingv1.ScaleSpec, *autoscalingv1.ScaleStatus) {
	want, _, _ := unstructured.NestedInt64(obj, s.spec...)
	have, _, _ := unstructured.NestedInt64(obj, s.status...)
	status := &autoscalingv1.ScaleStatus{Replicas: int32(have)}
	if s.selector != nil {
		status.Selector, _, _ = unstructured.NestedString(obj, s.selector...)
	}
	return &autoscalingv1.ScaleSpec{Replicas: int32(want)}, status
}

// set writes the count; parents that are not there are made.
func (s *scale) set(obj map[string]any, replicas int32) {
	if err := unstructured.SetNestedField(obj, int64(replicas), s.spec...); err != nil {
		return // something else than an object is in the way: validation says so
	}
}

// check refuses to show the scale of an object without counts.
func (s *scale) check(obj map[string]any) error {
	_, found, err := unstructured.NestedInt64(obj, s.spec...)
	if err == nil {
		_, _, err = unstructured.NestedInt64(obj, s.status...)
	}
	switch {
	case err != nil:
		return apierrors.NewInternalError(err)
	case !found:
		return apierrors.NewInternalError(fmt.Errorf("the spec replicas field %q does not exist", s.text))
	}
	return nil
}
