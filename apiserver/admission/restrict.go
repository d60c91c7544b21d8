package admission

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/labels"

	"github.com/sampan-dev/sampan/apiserver/request"
	podsem "github.com/sampan-dev/sampan/semantics/pod"
)

// podNodeSelector keeps pods on the nodes that their namespace is for.
type podNodeSelector struct {
	onCreate
	back request.Backend
	// selectors are by namespace; clusterDefaultNodeSelector is everybody's.
	selectors map[string]string
}

const nodeSelectorKey = "scheduler.alpha.kubernetes.io/node-selector"

func newPodNodeSelector(d Deps) (request.Plugin, error) {
	var c struct {
		Selectors map[string]string `json:"podNodeSelectorPluginConfig"`
	}
	err := d.Config.read("PodNodeSelector", &c)
	return &podNodeSelector{back: d.Back, selectors: c.Selectors}, err
}

func (*podNodeSelector) Name() string { return "PodNodeSelector" }

// wanted is the selector of a namespace.
func (p *podNodeSelector) wanted(ctx context.Context, namespace string) (labels.Set, error) {
	ns, err := namespaceOf(ctx, p.back, namespace)
	if err != nil {
		return nil, err
	}
	text, ok := ns.Annotations[nodeSelectorKey]
	if !ok {
		text = p.selectors["clusterDefaultNodeSelector"]
	}
	return labels.ConvertSelectorToLabelsMap(text)
}

func (p *podNodeSelector) Mutate(ctx context.Context, a *request.Attributes) error {
	pod, ok := of[*corev1.Pod](a)
	if !ok {
		return nil
	}
	want, err := p.wanted(ctx, a.Namespace)
	if err != nil {
		return err
	}
	if labels.Conflicts(want, pod.Spec.NodeSelector) {
		return forbidf(a, "pod node label selector conflicts with its namespace node label selector")
	}
	if len(want) > 0 {
		merged := maps.Clone(want)
		maps.Copy(merged, pod.Spec.NodeSelector)
		pod.Spec.NodeSelector = merged
	}
	return nil
}

func (p *podNodeSelector) Validate(ctx context.Context, a *request.Attributes) error {
	pod, ok := of[*corev1.Pod](a)
	if !ok {
		return nil
	}
	want, err := p.wanted(ctx, a.Namespace)
	if err != nil {
		return err
	}
	if labels.Conflicts(want, pod.Spec.NodeSelector) {
		return forbidf(a, "pod node label selector conflicts with its namespace node label selector")
	}
	allowed, err := labels.ConvertSelectorToLabelsMap(p.selectors[a.Namespace])
	if err != nil || len(allowed) == 0 {
		return err
	}
	for k, v := range pod.Spec.NodeSelector {
		if have, ok := allowed[k]; !ok || have != v {
			return forbidf(a, "pod node label selector labels conflict with its namespace whitelist")
		}
	}
	return nil
}

func namespaceOf(ctx context.Context, back request.Backend, name string) (*corev1.Namespace, error) {
	obj, err := back.Get(ctx, core("namespaces"), "", name)
	if err != nil {
		return nil, err
	}
	ns, ok := obj.(*corev1.Namespace)
	if !ok {
		return nil, fmt.Errorf("unexpected type %T", obj)
	}
	return ns, nil
}

// podTolerations gives pods their namespace's tolerations and refuses others.
type podTolerations struct {
	onCreateUpdate
	back               request.Backend
	Default, Whitelist []corev1.Toleration
}

const (
	defaultTolerationsKey = "scheduler.alpha.kubernetes.io/defaultTolerations"
	allowedTolerationsKey = "scheduler.alpha.kubernetes.io/tolerationsWhitelist"
)

func newPodTolerations(d Deps) (request.Plugin, error) {
	var c struct{ Default, Whitelist []corev1.Toleration }
	err := d.Config.read("PodTolerationRestriction", &c)
	return &podTolerations{back: d.Back, Default: c.Default, Whitelist: c.Whitelist}, err
}

func (*podTolerations) Name() string { return "PodTolerationRestriction" }

// said reads tolerations from a namespace's annotation; nil says nothing.
func (p *podTolerations) said(ctx context.Context, namespace, key string) ([]corev1.Toleration, error) {
	ns, err := namespaceOf(ctx, p.back, namespace)
	if err != nil {
		return nil, err
	}
	text, ok := ns.Annotations[key]
	switch {
	case !ok:
		return nil, nil
	case text == "":
		return []corev1.Toleration{}, nil
	}
	var out []corev1.Toleration
	return out, json.Unmarshal([]byte(text), &out)
}

func (p *podTolerations) Mutate(ctx context.Context, a *request.Attributes) error {
	pod, ok := of[*corev1.Pod](a)
	if !ok {
		return nil
	}
	var more []corev1.Toleration
	if a.Operation == request.Create {
		said, err := p.said(ctx, a.Namespace, defaultTolerationsKey)
		if err != nil {
			return err
		}
		if more = said; said == nil {
			more = p.Default
		}
	}
	more = append([]corev1.Toleration(nil), more...)
	if podsem.QoS(pod) != corev1.PodQOSBestEffort {
		more = append(more, corev1.Toleration{Key: corev1.TaintNodeMemoryPressure, Operator: corev1.TolerationOpExists, Effect: corev1.TaintEffectNoSchedule})
	}
	if len(more) > 0 {
		pod.Spec.Tolerations = mergeTolerations(append(append([]corev1.Toleration(nil), pod.Spec.Tolerations...), more...))
	}
	return nil
}

func (p *podTolerations) Validate(ctx context.Context, a *request.Attributes) error {
	pod, ok := of[*corev1.Pod](a)
	if !ok || len(pod.Spec.Tolerations) == 0 {
		return nil
	}
	allowed, err := p.said(ctx, a.Namespace, allowedTolerationsKey)
	if err != nil {
		return err
	}
	whose := "namespace"
	if allowed == nil {
		allowed, whose = p.Whitelist, "cluster"
	}
	for i := range pod.Spec.Tolerations {
		if len(allowed) > 0 && !covered(&pod.Spec.Tolerations[i], allowed) {
			return forbid(a, fmt.Errorf("pod tolerations (possibly merged with namespace default tolerations) conflict with its %s whitelist", whose))
		}
	}
	return nil
}

func covered(t *corev1.Toleration, by []corev1.Toleration) bool {
	for i := range by {
		if covers(&by[i], t) {
			return true
		}
	}
	return false
}

// covers says whether what t tolerates, wide tolerates too.
func covers(wide, t *corev1.Toleration) bool {
	if equality.Semantic.DeepEqual(wide, t) {
		return true
	}
	if t.Key != wide.Key && (wide.Key != "" || wide.Operator != corev1.TolerationOpExists) || t.Effect != wide.Effect && wide.Effect != "" {
		return false
	}
	if wide.Effect == corev1.TaintEffectNoExecute && wide.TolerationSeconds != nil &&
		(t.TolerationSeconds == nil || *t.TolerationSeconds > *wide.TolerationSeconds) {
		return false
	}
	switch wide.Operator {
	case corev1.TolerationOpEqual, "":
		return t.Operator == corev1.TolerationOpEqual && t.Value == wide.Value
	case corev1.TolerationOpExists:
		return true
	}
	return false
}

// mergeTolerations drops those that others cover.
func mergeTolerations(all []corev1.Toleration) []corev1.Toleration {
	var out []corev1.Toleration
next:
	for i := range all {
		if covered(&all[i], out) {
			continue
		}
		for j := i + 1; j < len(all); j++ {
			if !equality.Semantic.DeepEqual(all[i], all[j]) && covers(&all[j], &all[i]) {
				continue next
			}
		}
		out = append(out, all[i])
	}
	return out
}

// alwaysDeny refuses everything.
type alwaysDeny struct{}

func (alwaysDeny) Name() string                   { return "AlwaysDeny" }
func (alwaysDeny) Handles(request.Operation) bool { return true }

func (alwaysDeny) Mutate(_ context.Context, a *request.Attributes) error {
	return forbid(a, errors.New("admission control is denying all modifications"))
}

func (alwaysDeny) Validate(_ context.Context, a *request.Attributes) error {
	return forbid(a, errors.New("admission control is denying all modifications"))
}

// namespaceExists refuses requests in namespaces that do not exist.
type namespaceExists struct{ back request.Backend }

func (*namespaceExists) Name() string                      { return "NamespaceExists" }
func (*namespaceExists) Handles(op request.Operation) bool { return op != request.Connect }

func (p *namespaceExists) Validate(ctx context.Context, a *request.Attributes) error {
	if a.Namespace == "" || a.Resource.GroupResource() == core("namespaces") {
		return nil
	}
	_, err := namespaceOf(ctx, p.back, a.Namespace)
	return err
}

// namespaceProvision makes the namespaces that requests name.
type namespaceProvision struct {
	onCreate
	back request.Backend
}

func (*namespaceProvision) Name() string { return "NamespaceAutoProvision" }

func (p *namespaceProvision) Mutate(ctx context.Context, a *request.Attributes) error {
	if a.DryRun || a.Namespace == "" || a.Resource.GroupResource() == core("namespaces") {
		return nil
	}
	if _, err := namespaceOf(ctx, p.back, a.Namespace); !apierrors.IsNotFound(err) {
		return err
	}
	ns := &corev1.Namespace{}
	ns.Name = a.Namespace
	if _, err := p.back.Create(asServer(ctx), core("namespaces"), ns, nil); err != nil && !apierrors.IsAlreadyExists(err) {
		return forbid(a, err)
	}
	return nil
}

// antiAffinity lets pods insist on being apart only from pods of the same node.
type antiAffinity struct{ onCreateUpdate }

func (antiAffinity) Name() string { return "LimitPodHardAntiAffinityTopology" }

func (antiAffinity) Validate(_ context.Context, a *request.Attributes) error {
	pod, ok := of[*corev1.Pod](a)
	if !ok || pod.Spec.Affinity == nil || pod.Spec.Affinity.PodAntiAffinity == nil {
		return nil
	}
	for _, t := range pod.Spec.Affinity.PodAntiAffinity.RequiredDuringSchedulingIgnoredDuringExecution {
		if t.TopologyKey != corev1.LabelHostname {
			return forbidf(a, "affinity.PodAntiAffinity.RequiredDuringScheduling has TopologyKey %v but only key %v is allowed", t.TopologyKey, corev1.LabelHostname)
		}
	}
	return nil
}
