// Package pod defines the Pod.
//
// Job: what the API server knows of pods: defaults, what an update may change,
// columns, and the subresources status, ephemeralcontainers and resize.
//
// Not its job: the specification as such (semantics/podspec), serving logs or
// binding to nodes.
//
// Invariants: status changes only through its subresource, and the
// specification only where upstream lets it.
package pod

import (
	"slices"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/sampan-dev/sampan/resource"
	judge "github.com/sampan-dev/sampan/semantics/pod"
	"github.com/sampan-dev/sampan/semantics/podspec"
)

// Kind is the Pod.
func Kind() resource.Kind {
	return resource.Erase(&resource.Def[corev1.Pod]{
		Version: "v1", Kind: "Pod", Plural: "pods",
		Short: []string{"po"}, Categories: []string{"all"},
		Default:    setDefaults,
		Prepare:    prepare,
		Generation: func(p *corev1.Pod) any { return &p.Spec },
		Validate:   validate,
		Warnings:   warnings,
		Subs:       subs(),
		Connects:   connects(),
		Columns:    columns(),
		Selectable: map[string]func(*corev1.Pod) string{
			"spec.nodeName":            func(p *corev1.Pod) string { return p.Spec.NodeName },
			"spec.restartPolicy":       func(p *corev1.Pod) string { return string(p.Spec.RestartPolicy) },
			"spec.schedulerName":       func(p *corev1.Pod) string { return p.Spec.SchedulerName },
			"spec.serviceAccountName":  func(p *corev1.Pod) string { return p.Spec.ServiceAccountName },
			"spec.hostNetwork":         func(p *corev1.Pod) string { return strconv.FormatBool(p.Spec.HostNetwork) },
			"status.phase":             func(p *corev1.Pod) string { return string(p.Status.Phase) },
			"status.podIP":             func(p *corev1.Pod) string { return p.Status.PodIP },
			"status.nominatedNodeName": func(p *corev1.Pod) string { return p.Status.NominatedNodeName },
		},
		Indexes:       []string{"spec.nodeName"},
		Unconditional: true,
		Grace:         grace,
		ResetFields:   []string{"status"},
	})
}

func connects() []resource.Connect {
	core := func(kind string) schema.GroupVersionKind { return schema.GroupVersionKind{Version: "v1", Kind: kind} }
	stream := []string{"create", "get"}
	return []resource.Connect{
		{Name: "attach", Kind: core("PodAttachOptions"), Verbs: stream},
		{Name: "binding", Kind: core("Binding"), Verbs: []string{"create"}},
		{Name: "eviction", Kind: schema.GroupVersionKind{Group: "policy", Version: "v1", Kind: "Eviction"}, Verbs: []string{"create"}},
		{Name: "exec", Kind: core("PodExecOptions"), Verbs: stream},
		{Name: "log", Kind: core("Pod"), Verbs: []string{"get"}},
		{Name: "portforward", Kind: core("PodPortForwardOptions"), Verbs: stream},
		{Name: "proxy", Kind: core("PodProxyOptions"), Verbs: []string{"create", "delete", "get", "patch", "update"}},
	}
}

func setDefaults(p *corev1.Pod) {
	podspec.DefaultPod(p)
	s := &p.Status
	// Two spellings of one address; the older field wins, for old kubelets.
	if s.PodIP != "" && (len(s.PodIPs) == 0 || s.PodIPs[0].IP != s.PodIP) {
		s.PodIPs = []corev1.PodIP{{IP: s.PodIP}}
	} else if s.PodIP == "" && len(s.PodIPs) > 0 {
		s.PodIP = s.PodIPs[0].IP
	}
	if s.HostIP != "" && len(s.HostIPs) == 0 {
		s.HostIPs = []corev1.HostIP{{IP: s.HostIP}}
	}
}

func prepare(r *resource.Request, next, prev *corev1.Pod) {
	if prev != nil {
		next.Status = *prev.Status.DeepCopy()
		return
	}
	next.Status = corev1.PodStatus{Phase: corev1.PodPending, QOSClass: judge.QoS(next)}
	if len(next.Spec.SchedulingGates) > 0 {
		judge.SetCondition(&next.Status, corev1.PodCondition{
			Type: corev1.PodScheduled, Status: corev1.ConditionFalse, Reason: corev1.PodReasonSchedulingGated,
			Message: "Scheduling is blocked due to non-empty scheduling gates",
		}, r.Now)
	}
	mergeLabelKeys(next)
	appArmorFields(next)
}

// mergeLabelKeys spells matchLabelKeys out as expressions of the selectors they
// belong to, with the values this pod has, so that schedulers see selectors only.
func mergeLabelKeys(p *corev1.Pod) {
	merge := func(s *metav1.LabelSelector, keys []string, op metav1.LabelSelectorOperator) {
		for _, k := range keys {
			v, ok := p.Labels[k]
			e := metav1.LabelSelectorRequirement{Key: k, Operator: op, Values: []string{v}}
			if s == nil || !ok || slices.ContainsFunc(s.MatchExpressions, func(o metav1.LabelSelectorRequirement) bool {
				return o.Key == k && o.Operator == op && slices.Equal(o.Values, e.Values)
			}) {
				continue
			}
			s.MatchExpressions = append(s.MatchExpressions, e)
		}
	}
	term := func(t *corev1.PodAffinityTerm) {
		merge(t.LabelSelector, t.MatchLabelKeys, metav1.LabelSelectorOpIn)
		merge(t.LabelSelector, t.MismatchLabelKeys, metav1.LabelSelectorOpNotIn)
	}
	terms := func(required []corev1.PodAffinityTerm, preferred []corev1.WeightedPodAffinityTerm) {
		for i := range required {
			term(&required[i])
		}
		for i := range preferred {
			term(&preferred[i].PodAffinityTerm)
		}
	}
	if a := p.Spec.Affinity; a != nil {
		if a.PodAffinity != nil {
			terms(a.PodAffinity.RequiredDuringSchedulingIgnoredDuringExecution, a.PodAffinity.PreferredDuringSchedulingIgnoredDuringExecution)
		}
		if a.PodAntiAffinity != nil {
			terms(a.PodAntiAffinity.RequiredDuringSchedulingIgnoredDuringExecution, a.PodAntiAffinity.PreferredDuringSchedulingIgnoredDuringExecution)
		}
	}
	for i := range p.Spec.TopologySpreadConstraints {
		c := &p.Spec.TopologySpreadConstraints[i]
		merge(c.LabelSelector, c.MatchLabelKeys, metav1.LabelSelectorOpIn)
	}
}

// grace is how long a pod has to end: not at all when no node runs it.
func grace(p *corev1.Pod, asked *int64) int64 {
	seconds := int64(0)
	switch {
	case asked != nil:
		seconds = *asked
	case p.Spec.TerminationGracePeriodSeconds != nil:
		seconds = *p.Spec.TerminationGracePeriodSeconds
	}
	if p.Spec.NodeName == "" || judge.Finished(p) {
		return 0
	}
	if seconds < 0 {
		return 1
	}
	return seconds
}

func warnings(next, prev *corev1.Pod) []string {
	// Nobody reads what an update would say: programs make them.
	if prev != nil {
		return nil
	}
	var out []string
	if m := validation.IsDNS1123Label(next.Name); next.Name != "" && len(m) > 0 {
		out = append(out, field.NewPath("metadata", "name").String()+": this is used in the Pod's hostname, which can result in surprising behavior; a DNS label is recommended: ["+strings.Join(m, " ")+"]")
	}
	return append(out, podspec.Warnings(&next.Spec, &next.ObjectMeta, nil)...)
}
