package admission

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	nodev1 "k8s.io/api/node/v1"
	schedulingv1 "k8s.io/api/scheduling/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/utils/ptr"

	"github.com/sampan-dev/sampan/apiserver/request"
)

// taintNodes makes new nodes unschedulable until their conditions are known.
type taintNodes struct{ onCreate }

func (taintNodes) Name() string { return "TaintNodesByCondition" }

func (taintNodes) Mutate(_ context.Context, a *request.Attributes) error {
	node, ok := of[*corev1.Node](a)
	if !ok {
		return nil
	}
	t := corev1.Taint{Key: corev1.TaintNodeNotReady, Effect: corev1.TaintEffectNoSchedule}
	if !slices.ContainsFunc(node.Spec.Taints, func(o corev1.Taint) bool { return o.MatchTaint(&t) }) {
		node.Spec.Taints = append(node.Spec.Taints, t)
	}
	return nil
}

// alwaysPull makes containers ask the registry whether they may use an image.
type alwaysPull struct{ onCreateUpdate }

func (alwaysPull) Name() string { return "AlwaysPullImages" }

func (alwaysPull) Mutate(_ context.Context, a *request.Attributes) error {
	pod, ok := of[*corev1.Pod](a, "ephemeralcontainers")
	if !ok {
		return nil
	}
	for i := range pod.Spec.InitContainers {
		pod.Spec.InitContainers[i].ImagePullPolicy = corev1.PullAlways
	}
	for i := range pod.Spec.Containers {
		pod.Spec.Containers[i].ImagePullPolicy = corev1.PullAlways
	}
	for i := range pod.Spec.EphemeralContainers {
		pod.Spec.EphemeralContainers[i].ImagePullPolicy = corev1.PullAlways
	}
	return nil
}

// tolerationSeconds lets pods stay a while on a node that fails.
type tolerationSeconds struct {
	onCreateUpdate
	notReady, unreachable int64
}

func newTolerationSeconds(d Deps) request.Plugin {
	const life = 5 * time.Minute
	return tolerationSeconds{notReady: int64(cmp.Or(d.NotReady, life) / time.Second), unreachable: int64(cmp.Or(d.Unreachable, life) / time.Second)}
}

func (tolerationSeconds) Name() string { return "DefaultTolerationSeconds" }

func (p tolerationSeconds) Mutate(_ context.Context, a *request.Attributes) error {
	pod, ok := of[*corev1.Pod](a)
	if !ok { // updates too: one that leaves them out does not take them away
		return nil
	}
	for _, key := range []string{corev1.TaintNodeNotReady, corev1.TaintNodeUnreachable} {
		life := p.notReady
		if key == corev1.TaintNodeUnreachable {
			life = p.unreachable
		}
		tolerated := slices.ContainsFunc(pod.Spec.Tolerations, func(t corev1.Toleration) bool {
			return (t.Key == key || t.Key == "") && (t.Effect == corev1.TaintEffectNoExecute || t.Effect == "")
		})
		if !tolerated {
			pod.Spec.Tolerations = append(pod.Spec.Tolerations, corev1.Toleration{
				Key: key, Operator: corev1.TolerationOpExists, Effect: corev1.TaintEffectNoExecute, TolerationSeconds: ptr.To(life),
			})
		}
	}
	return nil
}

// extendedToleration tolerates the taints named like the extended resources a pod asks for.
type extendedToleration struct{ onCreateUpdate }

func (extendedToleration) Name() string { return "ExtendedResourceToleration" }

func (extendedToleration) Mutate(_ context.Context, a *request.Attributes) error {
	pod, ok := of[*corev1.Pod](a)
	if !ok {
		return nil
	}
	var names []string
	for _, c := range slices.Concat(pod.Spec.InitContainers, pod.Spec.Containers) {
		for r := range c.Resources.Requests {
			s := string(r)
			if strings.Contains(s, "/") && !strings.Contains(s, corev1.ResourceDefaultNamespacePrefix) && !strings.HasPrefix(s, "requests.") && !slices.Contains(names, s) {
				names = append(names, s)
			}
		}
	}
	slices.Sort(names)
	for _, n := range names {
		t := corev1.Toleration{Key: n, Operator: corev1.TolerationOpExists}
		if !slices.ContainsFunc(pod.Spec.Tolerations, func(o corev1.Toleration) bool { return equality.Semantic.DeepEqual(o, t) }) {
			pod.Spec.Tolerations = append(pod.Spec.Tolerations, t)
		}
	}
	return nil
}

// priority turns a pod's priority class into a number.
type priority struct{ back request.Backend }

func (*priority) Name() string { return "Priority" }

func (*priority) Handles(op request.Operation) bool { return op != request.Connect }

func classes() schema.GroupResource {
	return schema.GroupResource{Group: schedulingv1.GroupName, Resource: "priorityclasses"}
}

func (p *priority) Mutate(ctx context.Context, a *request.Attributes) error {
	pod, ok := of[*corev1.Pod](a)
	if !ok {
		return nil
	}
	if a.Operation == request.Update {
		if was, ok := old[*corev1.Pod](a); ok { // set once, at creation
			if pod.Spec.Priority == nil {
				pod.Spec.Priority = was.Spec.Priority
			}
			if pod.Spec.PreemptionPolicy == nil {
				pod.Spec.PreemptionPolicy = was.Spec.PreemptionPolicy
			}
		}
		return nil
	}
	if a.Operation != request.Create {
		return nil
	}
	name, value, policy, err := p.resolve(ctx, pod.Spec.PriorityClassName)
	if err != nil {
		return forbid(a, err)
	}
	pod.Spec.PriorityClassName = name
	if pod.Spec.Priority != nil && *pod.Spec.Priority != value {
		return forbidf(a, "the integer value of priority (%d) must not be provided in pod spec; priority admission controller computed %d from the given PriorityClass name", *pod.Spec.Priority, value)
	}
	pod.Spec.Priority = &value
	if pod.Spec.PreemptionPolicy != nil && *pod.Spec.PreemptionPolicy != policy {
		return forbidf(a, "the string value of PreemptionPolicy (%s) must not be provided in pod spec; priority admission controller computed %s from the given PriorityClass name", *pod.Spec.PreemptionPolicy, policy)
	}
	pod.Spec.PreemptionPolicy = &policy
	return nil
}

// resolve finds the class of a name; "" is the default class or priority 0.
func (p *priority) resolve(ctx context.Context, name string) (string, int32, corev1.PreemptionPolicy, error) {
	policy := corev1.PreemptLowerPriority
	if name == "" {
		best, err := p.global(ctx)
		if err != nil || best == nil {
			return "", 0, policy, err
		}
		if best.PreemptionPolicy != nil {
			policy = *best.PreemptionPolicy
		}
		return best.Name, best.Value, policy, nil
	}
	obj, err := p.back.Get(ctx, classes(), "", name)
	if apierrors.IsNotFound(err) {
		return name, 0, policy, fmt.Errorf("no PriorityClass with name %v was found", name)
	}
	if err != nil {
		return name, 0, policy, err
	}
	c, ok := obj.(*schedulingv1.PriorityClass)
	if !ok {
		return name, 0, policy, fmt.Errorf("unexpected type %T", obj)
	}
	if c.PreemptionPolicy != nil {
		policy = *c.PreemptionPolicy
	}
	return name, c.Value, policy, nil
}

// global returns the default class; of several the lowest counts.
func (p *priority) global(ctx context.Context) (best *schedulingv1.PriorityClass, err error) {
	list, err := p.back.List(ctx, classes(), "")
	if err != nil {
		return nil, fmt.Errorf("failed to get default priority class: %w", err)
	}
	for _, obj := range list {
		if c, ok := obj.(*schedulingv1.PriorityClass); ok && c.GlobalDefault && (best == nil || c.Value < best.Value) {
			best = c
		}
	}
	return best, nil
}

func (p *priority) Validate(ctx context.Context, a *request.Attributes) error {
	c, ok := of[*schedulingv1.PriorityClass](a)
	if !ok || !c.GlobalDefault || a.Operation != request.Create && a.Operation != request.Update {
		return nil
	}
	best, err := p.global(ctx)
	if err != nil {
		return err
	}
	if best != nil && best.Name != c.Name {
		return forbidf(a, "PriorityClass %v is already marked as default. Only one default can exist", best.Name)
	}
	return nil
}

// runtimeClass applies a runtime class's overhead and node selection to its pods.
type runtimeClass struct{ back request.Backend }

func (*runtimeClass) Name() string { return "RuntimeClass" }

func (*runtimeClass) Handles(op request.Operation) bool { return op == request.Create }

func (p *runtimeClass) class(ctx context.Context, a *request.Attributes) (*corev1.Pod, *nodev1.RuntimeClass, error) {
	pod, ok := of[*corev1.Pod](a)
	if !ok || pod.Spec.RuntimeClassName == nil {
		return pod, nil, nil
	}
	obj, err := p.back.Get(ctx, schema.GroupResource{Group: nodev1.GroupName, Resource: "runtimeclasses"}, "", *pod.Spec.RuntimeClassName)
	if apierrors.IsNotFound(err) {
		return pod, nil, forbidf(a, "pod rejected: RuntimeClass %q not found", *pod.Spec.RuntimeClassName)
	}
	if err != nil {
		return pod, nil, err
	}
	c, _ := obj.(*nodev1.RuntimeClass)
	return pod, c, nil
}

func (p *runtimeClass) Mutate(ctx context.Context, a *request.Attributes) error {
	pod, c, err := p.class(ctx, a)
	if err != nil || c == nil {
		return err
	}
	if c.Overhead != nil {
		if len(pod.Spec.Overhead) > 0 && !equality.Semantic.DeepEqual(c.Overhead.PodFixed, pod.Spec.Overhead) {
			return forbid(a, errors.New("pod rejected: Pod's Overhead doesn't match RuntimeClass's defined Overhead"))
		}
		pod.Spec.Overhead = c.Overhead.PodFixed.DeepCopy()
	}
	if c.Scheduling == nil {
		return nil
	}
	for k, v := range c.Scheduling.NodeSelector {
		if had, ok := pod.Spec.NodeSelector[k]; ok && had != v {
			return forbidf(a, "conflict: runtimeClass.scheduling.nodeSelector[%s] = %s; pod.spec.nodeSelector[%s] = %s", k, v, k, had)
		}
		if pod.Spec.NodeSelector == nil {
			pod.Spec.NodeSelector = map[string]string{}
		}
		pod.Spec.NodeSelector[k] = v
	}
	for _, t := range c.Scheduling.Tolerations {
		if !slices.ContainsFunc(pod.Spec.Tolerations, func(o corev1.Toleration) bool { return equality.Semantic.DeepEqual(o, t) }) {
			pod.Spec.Tolerations = append(pod.Spec.Tolerations, t)
		}
	}
	return nil
}

func (p *runtimeClass) Validate(ctx context.Context, a *request.Attributes) error {
	pod, c, err := p.class(ctx, a)
	if err != nil || pod == nil {
		return err
	}
	switch {
	case c == nil && len(pod.Spec.Overhead) > 0:
		return forbid(a, errors.New("pod rejected: Pod Overhead set without corresponding RuntimeClass defined Overhead"))
	case c != nil && c.Overhead == nil && len(pod.Spec.Overhead) > 0:
		return forbid(a, errors.New("pod rejected: Pod Overhead set without corresponding RuntimeClass defined Overhead"))
	case c != nil && c.Overhead != nil && !equality.Semantic.DeepEqual(c.Overhead.PodFixed, pod.Spec.Overhead):
		return forbid(a, errors.New("pod rejected: Pod's Overhead doesn't match RuntimeClass's defined Overhead"))
	}
	return nil
}
