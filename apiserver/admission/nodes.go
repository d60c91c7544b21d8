package admission

import (
	"context"
	"errors"
	"fmt"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/version"
	features "k8s.io/component-helpers/nodedeclaredfeatures"

	"github.com/sampan-dev/sampan/apiserver/request"
	podsem "github.com/sampan-dev/sampan/semantics/pod"
)

// topologyLabels tells pods where in the world they run: the zone and region of
// their node become labels of theirs.
type topologyLabels struct {
	onCreate
	back request.Backend
}

func (*topologyLabels) Name() string { return "PodTopologyLabels" }

func (p *topologyLabels) Mutate(ctx context.Context, a *request.Attributes) error {
	if a.Resource.GroupResource() != core("pods") {
		return nil
	}
	node := ""
	switch o := a.Object.(type) {
	case *corev1.Pod:
		if a.Subresource == "" {
			node = o.Spec.NodeName
		}
	case *corev1.Binding:
		if o.Target.Kind == "Node" {
			node = o.Target.Name
		}
	}
	if node == "" {
		return nil
	}
	obj, err := p.back.Get(ctx, core("nodes"), "", node)
	if apierrors.IsNotFound(err) {
		return nil
	}
	if err != nil {
		return err
	}
	for _, key := range []string{corev1.LabelTopologyZone, corev1.LabelTopologyRegion} {
		value, ok := obj.GetLabels()[key]
		if !ok {
			continue
		}
		set := map[string]string{}
		for k, v := range a.Object.GetLabels() {
			set[k] = v
		}
		set[key] = value
		a.Object.SetLabels(set)
	}
	return nil
}

// podResize refuses changes of size that the pod's node could never grant.
type podResize struct{ back request.Backend }

func (*podResize) Name() string { return "PodResizeValidator" }

func (*podResize) Handles(op request.Operation) bool { return op == request.Update }

func (p *podResize) Validate(ctx context.Context, a *request.Attributes) error {
	pod, ok := a.Object.(*corev1.Pod)
	was, had := old[*corev1.Pod](a)
	if !ok || !had || a.Subresource != "resize" || pod.Spec.NodeName == "" || pod.Generation == was.Generation {
		return nil
	}
	obj, err := p.back.Get(ctx, core("nodes"), "", pod.Spec.NodeName)
	if apierrors.IsNotFound(err) {
		return forbidf(a, "node %q not found", pod.Spec.NodeName)
	}
	if err != nil {
		return forbidf(a, "failed to get node %q: %w", pod.Spec.NodeName, err)
	}
	node, ok := obj.(*corev1.Node)
	if !ok {
		return fmt.Errorf("unexpected type %T", obj)
	}
	if system, ok := node.Labels[corev1.LabelOSStable]; ok && system != "linux" {
		return because(forbidf(a, "pod resize is only supported on linux nodes, node %q is %q", node.Name, system), "UnsupportedPlatform")
	}
	want, have := podsem.Requests(pod), node.Status.Allocatable
	var short []string
	if cpu, most := want.Cpu(), have.Cpu(); cpu.Cmp(*most) > 0 {
		short = append(short, fmt.Sprintf("cpu, requested: %d, allocatable: %d", cpu.MilliValue(), most.MilliValue()))
	}
	if memory, most := want.Memory(), have.Memory(); memory.Cmp(*most) > 0 {
		short = append(short, fmt.Sprintf("memory, requested: %d, allocatable: %d", memory.Value(), most.Value()))
	}
	if len(short) == 0 {
		return nil
	}
	return because(forbidf(a, "node didn't have enough allocatable resources: %s", strings.Join(short, "; ")), "NodeCapacity")
}

// declaredFeatures refuses changes of a pod that its node does not say it can follow.
type declaredFeatures struct{ back request.Backend }

func (*declaredFeatures) Name() string { return "NodeDeclaredFeatureValidator" }

func (*declaredFeatures) Handles(op request.Operation) bool { return op == request.Update }

func (p *declaredFeatures) Validate(ctx context.Context, a *request.Attributes) error {
	pod, ok := of[*corev1.Pod](a, "resize")
	was, had := old[*corev1.Pod](a)
	if !ok || !had || pod.Spec.NodeName == "" || pod.Generation == was.Generation {
		return nil
	}
	need, err := features.DefaultFramework.InferForPodUpdate(
		&features.PodInfo{Spec: &was.Spec, Status: &was.Status}, &features.PodInfo{Spec: &pod.Spec, Status: &pod.Status}, version.MajorMinor(1, served))
	if err != nil {
		return forbidf(a, "failed to infer pod capability requirements: %w", err)
	}
	if need.IsEmpty() {
		return nil
	}
	obj, err := p.back.Get(ctx, core("nodes"), "", pod.Spec.NodeName)
	if apierrors.IsNotFound(err) {
		return forbidf(a, "node %q not found", pod.Spec.NodeName)
	}
	if err != nil {
		return forbidf(a, "failed to get node %q: %w", pod.Spec.NodeName, err)
	}
	node, ok := obj.(*corev1.Node)
	if !ok {
		return fmt.Errorf("unexpected type %T", obj)
	}
	result, err := features.DefaultFramework.MatchNode(need, node)
	if err != nil {
		return forbidf(a, "failed to match pod requirements against node %q: %w", node.Name, err)
	}
	if !result.IsMatch {
		return forbidf(a, "pod update requires features %s which are not available on node %q", strings.Join(result.UnsatisfiedRequirements, ", "), node.Name)
	}
	return nil
}

// served is the minor version of the API served.
const served = 37

// because adds the cause of a refusal for programs.
func because(err error, cause metav1.CauseType) error {
	if se, ok := errors.AsType[*apierrors.StatusError](err); ok {
		se.ErrStatus.Details.Causes = append(se.ErrStatus.Details.Causes, metav1.StatusCause{Type: cause})
	}
	return err
}
