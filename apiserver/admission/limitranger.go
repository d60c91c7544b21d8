package admission

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apimachinery/pkg/runtime/schema"
	utilerrors "k8s.io/apimachinery/pkg/util/errors"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/sampan-dev/sampan/apiserver/request"
	podsem "github.com/sampan-dev/sampan/semantics/pod"
)

func invalidError(gk schema.GroupKind, name string, errs field.ErrorList) error {
	return apierrors.NewInvalid(gk, name, errs)
}

const limitRangerAnnotation = "kubernetes.io/limit-ranger"

// limitRanger gives containers the default limits of their namespace and holds
// containers, pods and claims to its bounds.
type limitRanger struct{ back request.Backend }

func (*limitRanger) Name() string { return "LimitRanger" }

func (*limitRanger) Handles(op request.Operation) bool { return onCreateUpdate{}.Handles(op) }

func (p *limitRanger) ranges(ctx context.Context, namespace string) (out []*corev1.LimitRange, err error) {
	list, err := p.back.List(ctx, core("limitranges"), namespace)
	if err != nil {
		return nil, fmt.Errorf("list limit ranges: %w", err)
	}
	for _, obj := range list {
		if l, ok := obj.(*corev1.LimitRange); ok {
			out = append(out, l)
		}
	}
	return out, nil
}

func (p *limitRanger) Mutate(ctx context.Context, a *request.Attributes) error {
	pod, ok := of[*corev1.Pod](a)
	if !ok || a.Operation != request.Create {
		return nil
	}
	ranges, err := p.ranges(ctx, a.Namespace)
	if err != nil {
		return err
	}
	for _, r := range ranges {
		applyDefaults(pod, r)
	}
	return nil
}

// applyDefaults fills in what containers leave out and notes it in an annotation.
func applyDefaults(pod *corev1.Pod, r *corev1.LimitRange) {
	limits, requests := corev1.ResourceList{}, corev1.ResourceList{}
	for _, item := range r.Spec.Limits {
		if item.Type == corev1.LimitTypeContainer {
			maps.Copy(limits, item.Default)
			maps.Copy(requests, item.DefaultRequest)
		}
	}
	var notes []string
	fill := func(list []corev1.Container, kind string) {
		for i := range list {
			c := &list[i]
			set := func(into *corev1.ResourceList, from corev1.ResourceList, what string) {
				var names []string
				for name, q := range from {
					if _, has := (*into)[name]; has {
						continue
					}
					if *into == nil {
						*into = corev1.ResourceList{}
					}
					(*into)[name] = q.DeepCopy()
					names = append(names, string(name))
				}
				if len(names) > 0 {
					slices.Sort(names)
					notes = append(notes, fmt.Sprintf("%s %s for %s %s", strings.Join(names, ", "), what, kind, c.Name))
				}
			}
			set(&c.Resources.Requests, requests, "request")
			set(&c.Resources.Limits, limits, "limit")
		}
	}
	fill(pod.Spec.Containers, "container")
	fill(pod.Spec.InitContainers, "init container")
	if len(notes) == 0 {
		return
	}
	if pod.Annotations == nil {
		pod.Annotations = map[string]string{}
	}
	pod.Annotations[limitRangerAnnotation] = "LimitRanger plugin set: " + strings.Join(notes, "; ")
}

func (p *limitRanger) Validate(ctx context.Context, a *request.Attributes) error {
	pod, isPod := of[*corev1.Pod](a, "resize")
	claim, isClaim := of[*corev1.PersistentVolumeClaim](a)
	if !isPod && !isClaim || isPod && a.Operation == request.Update && a.Subresource != "resize" {
		return nil
	}
	ranges, err := p.ranges(ctx, a.Namespace)
	if err != nil {
		return err
	}
	for _, r := range ranges {
		var errs []error
		for i := range r.Spec.Limits {
			l := &r.Spec.Limits[i]
			if isPod {
				errs = append(errs, podBounds(pod, l)...)
			} else if l.Type == corev1.LimitTypePersistentVolumeClaim {
				errs = append(errs, claimBounds(claim, l)...)
			}
		}
		if err := utilerrors.NewAggregate(errs); err != nil {
			return forbid(a, err)
		}
	}
	return nil
}

func podBounds(pod *corev1.Pod, l *corev1.LimitRangeItem) (errs []error) {
	switch l.Type {
	case corev1.LimitTypeContainer:
		for _, c := range slices.Concat(pod.Spec.Containers, pod.Spec.InitContainers) {
			errs = append(errs, bounds(l, c.Resources.Requests, c.Resources.Limits)...)
		}
	case corev1.LimitTypePod:
		errs = bounds(l, podsem.Requests(pod), podsem.Limits(pod))
	}
	return errs
}

// bounds checks one subject against an item, resources in order of name.
func bounds(l *corev1.LimitRangeItem, requests, limits corev1.ResourceList) (errs []error) {
	for _, n := range slices.Sorted(maps.Keys(l.Min)) {
		least := l.Min[n]
		req, hasReq := requests[n]
		lim, hasLim := limits[n]
		switch {
		case !hasReq:
			errs = append(errs, fmt.Errorf("minimum %s usage per %s is %s.  No request is specified", n, l.Type, least.String()))
		case req.Cmp(least) < 0:
			errs = append(errs, fmt.Errorf("minimum %s usage per %s is %s, but request is %s", n, l.Type, least.String(), req.String()))
		case hasLim && lim.Cmp(least) < 0:
			errs = append(errs, fmt.Errorf("minimum %s usage per %s is %s, but limit is %s", n, l.Type, least.String(), lim.String()))
		}
	}
	for _, n := range slices.Sorted(maps.Keys(l.Max)) {
		most := l.Max[n]
		req, hasReq := requests[n]
		lim, hasLim := limits[n]
		switch {
		case !hasLim:
			errs = append(errs, fmt.Errorf("maximum %s usage per %s is %s.  No limit is specified", n, l.Type, most.String()))
		case lim.Cmp(most) > 0:
			errs = append(errs, fmt.Errorf("maximum %s usage per %s is %s, but limit is %s", n, l.Type, most.String(), lim.String()))
		case hasReq && req.Cmp(most) > 0:
			errs = append(errs, fmt.Errorf("maximum %s usage per %s is %s, but request is %s", n, l.Type, most.String(), req.String()))
		}
	}
	for _, n := range slices.Sorted(maps.Keys(l.MaxLimitRequestRatio)) {
		ratio := l.MaxLimitRequestRatio[n]
		if err := ratioBound(l.Type, n, ratio, requests, limits); err != nil {
			errs = append(errs, err)
		}
	}
	return errs
}

func ratioBound(kind corev1.LimitType, n corev1.ResourceName, most resource.Quantity, requests, limits corev1.ResourceList) error {
	req, hasReq := requests[n]
	lim, hasLim := limits[n]
	if !hasReq || req.IsZero() {
		return fmt.Errorf("%s max limit to request ratio per %s is %s, but no request is specified or request is 0", n, kind, most.String())
	}
	if !hasLim || lim.IsZero() {
		return fmt.Errorf("%s max limit to request ratio per %s is %s, but no limit is specified or limit is 0", n, kind, most.String())
	}
	got := lim.AsApproximateFloat64() / req.AsApproximateFloat64()
	if got > most.AsApproximateFloat64() {
		return fmt.Errorf("%s max limit to request ratio per %s is %s, but provided ratio is %f", n, kind, most.String(), got)
	}
	return nil
}

func claimBounds(claim *corev1.PersistentVolumeClaim, l *corev1.LimitRangeItem) (errs []error) {
	requests := claim.Spec.Resources.Requests
	if least, ok := l.Min[corev1.ResourceStorage]; ok {
		if req, has := requests[corev1.ResourceStorage]; !has {
			errs = append(errs, errors.New("minimum storage usage per PersistentVolumeClaim is "+least.String()+".  No request is specified"))
		} else if req.Cmp(least) < 0 {
			errs = append(errs, fmt.Errorf("minimum storage usage per PersistentVolumeClaim is %s, but request is %s", least.String(), req.String()))
		}
	}
	if most, ok := l.Max[corev1.ResourceStorage]; ok {
		if req, has := requests[corev1.ResourceStorage]; !has {
			errs = append(errs, fmt.Errorf("maximum storage usage per PersistentVolumeClaim is %s.  No request is specified", most.String()))
		} else if req.Cmp(most) > 0 {
			errs = append(errs, fmt.Errorf("maximum storage usage per PersistentVolumeClaim is %s, but request is %s", most.String(), req.String()))
		}
	}
	return errs
}
