package kubelet

import (
	"fmt"
	"runtime"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/component-helpers/scheduling/corev1/nodeaffinity"

	"github.com/sampan-dev/sampan/kubelet/evict"
	semantics "github.com/sampan-dev/sampan/semantics/pod"
)

// Refusal is why a node does not run a pod.
type Refusal struct{ Reason, Message string }

// Host is what a pod meets on a node.
type Host struct {
	Allocatable corev1.ResourceList
	Node        *corev1.Node  // nil when it is not known yet
	Others      []*corev1.Pod // let in before
	Pressure    []corev1.NodeConditionType
	Sysctls     []string // unsafe ones that are allowed
	AppArmor    bool
	StrictGroup bool // the runtime knows supplementalGroupsPolicy
}

// admit refuses a new pod that the node cannot hold. A pod that was let in, or
// runs already, stays.
func (k *Kubelet) admit(w *worker, pod *corev1.Pod) bool {
	w.mu.Lock()
	done := w.admitted
	w.mu.Unlock()
	if done || !k.cfg.EnforceAdmission || len(pod.Status.ContainerStatuses) > 0 {
		w.mu.Lock()
		w.admitted = true
		w.mu.Unlock()
		return true
	}
	h := Host{
		Allocatable: k.node.Allocatable, Node: k.nodes.Node(), Others: k.others(w), Pressure: k.pressed(),
		Sysctls: k.cfg.UnsafeSysctls, AppArmor: k.cfg.AppArmor, StrictGroup: k.nodes.StrictGroups(),
	}
	critical := w.static || evict.Critical(pod)
	refused := Refuse(pod, h, critical)
	if refused.Reason == "NodeAffinity" { // a label may have come a moment ago
		if h.Node = k.nodes.Fetch(); h.Node == nil {
			refused = Refusal{}
		} else {
			refused = Refuse(pod, h, critical)
		}
	}
	if refused.Reason == "" {
		refused.Reason, refused.Message = Fits(pod, h.Others, h.Allocatable)
		if refused.Reason != "" && critical && k.preempt(pod, h) {
			refused = Refusal{}
		}
	}
	if refused.Reason != "" {
		message := "Pod was rejected: " + refused.Message
		k.containerEvent(pod, "", corev1.EventTypeWarning, refused.Reason, refused.Message)
		w.fail(verdict{corev1.PodFailed, refused.Reason, message, ""}, 0)
		return false
	}
	w.mu.Lock()
	w.admitted = true
	w.mu.Unlock()
	return true
}

// Refuse says what speaks against a pod besides its size. critical pods come in
// whatever the node is short of.
func Refuse(pod *corev1.Pod, h Host, critical bool) Refusal {
	if len(h.Pressure) > 0 && !critical && !bears(pod, h.Pressure) {
		return Refusal{"Evicted", fmt.Sprintf("The node had condition: %v. ", h.Pressure)}
	}
	if err := CheckSysctls(pod, h.Sysctls); err != nil {
		return Refusal{"SysctlForbidden", err.Error()}
	}
	if !h.AppArmor && wantsAppArmor(pod) {
		return Refusal{"AppArmor", "Cannot enforce AppArmor: AppArmor is not enabled on the host"}
	}
	if os, ok := pod.Labels[corev1.LabelOSStable]; ok && os != runtime.GOOS {
		return Refusal{"PodOSSelectorNodeLabelDoesNotMatch", "Failed to admit pod as the `kubernetes.io/os` label doesn't match node label"}
	}
	if pod.Spec.OS != nil && string(pod.Spec.OS.Name) != runtime.GOOS {
		return Refusal{"PodOSNotSupported", "Failed to admit pod as the OS field doesn't match node OS"}
	}
	if s := pod.Spec.SecurityContext; s != nil && s.SupplementalGroupsPolicy != nil && *s.SupplementalGroupsPolicy == corev1.SupplementalGroupsPolicyStrict && !h.StrictGroup {
		return Refusal{"SupplementalGroupsPolicyNotSupported", "SupplementalGroupsPolicy=Strict is not supported in this node"}
	}
	if h.Node != nil {
		if ok, err := nodeaffinity.GetRequiredNodeAffinity(pod).Match(h.Node); err != nil || !ok {
			return Refusal{"NodeAffinity", "Predicate NodeAffinity failed: node(s) didn't match Pod's node affinity/selector"}
		}
	}
	if portTaken(pod, h.Others) {
		return Refusal{"NodePorts", "Predicate NodePorts failed: node(s) didn't have free ports for the requested pod ports"}
	}
	return Refusal{}
}

// bears says whether a pod may come to a node under pressure: of memory alone,
// those that asked for some or tolerate it.
func bears(pod *corev1.Pod, pressure []corev1.NodeConditionType) bool {
	if len(pressure) != 1 || pressure[0] != corev1.NodeMemoryPressure {
		return false
	}
	taint := corev1.Taint{Key: corev1.TaintNodeMemoryPressure, Effect: corev1.TaintEffectNoSchedule}
	return semantics.QoS(pod) != corev1.PodQOSBestEffort ||
		slices.ContainsFunc(pod.Spec.Tolerations, func(t corev1.Toleration) bool { return tolerates(&t, &taint) })
}

func tolerates(t *corev1.Toleration, taint *corev1.Taint) bool {
	return (t.Effect == "" || t.Effect == taint.Effect) && (t.Key == "" || t.Key == taint.Key) &&
		(t.Operator == corev1.TolerationOpExists || t.Value == taint.Value)
}

func wantsAppArmor(pod *corev1.Pod) bool {
	set := func(p *corev1.AppArmorProfile) bool {
		return p != nil && p.Type != corev1.AppArmorProfileTypeUnconfined
	}
	if s := pod.Spec.SecurityContext; s != nil && set(s.AppArmorProfile) {
		return true
	}
	for _, list := range [][]corev1.Container{pod.Spec.InitContainers, pod.Spec.Containers} {
		for i := range list {
			if s := list[i].SecurityContext; s != nil && set(s.AppArmorProfile) {
				return true
			}
		}
	}
	return false
}

// portTaken says whether a port of the host that pod wants is another's.
func portTaken(pod *corev1.Pod, others []*corev1.Pod) bool {
	type port struct {
		ip, protocol string
		number       int32
	}
	ports := func(p *corev1.Pod) (out []port) {
		for i := range p.Spec.Containers {
			for _, c := range p.Spec.Containers[i].Ports {
				if c.HostPort > 0 {
					ip := c.HostIP
					if ip == "0.0.0.0" || ip == "::" {
						ip = ""
					}
					protocol := string(c.Protocol)
					if protocol == "" {
						protocol = "TCP"
					}
					out = append(out, port{ip, protocol, c.HostPort})
				}
			}
		}
		return out
	}
	want := ports(pod)
	if len(want) == 0 {
		return false
	}
	for _, o := range others {
		for _, have := range ports(o) {
			for _, w := range want {
				if w.number == have.number && w.protocol == have.protocol && (w.ip == have.ip || w.ip == "" || have.ip == "") {
					return true
				}
			}
		}
	}
	return false
}

// preempt makes room for a critical pod, the least important first, and says
// whether there will be enough.
func (k *Kubelet) preempt(pod *corev1.Pod, h Host) bool {
	victims := Victims(pod, h.Others, h.Allocatable)
	if victims == nil {
		return false
	}
	for _, v := range victims {
		const message = "Preempted in order to admit critical pod"
		k.containerEvent(v, "", corev1.EventTypeWarning, "Preempting", message)
		if w := k.worker(v.UID); w != nil {
			w.fail(verdict{corev1.PodFailed, "Preempting", message, "Pod was preempted by Kubelet to accommodate a critical pod."}, gracePeriod(v))
			k.work.Add(v.UID)
		}
	}
	return true
}

// Victims chooses the pods that must go so that pod fits; nil when none would help.
func Victims(pod *corev1.Pod, others []*corev1.Pod, allocatable corev1.ResourceList) []*corev1.Pod {
	rank := map[corev1.PodQOSClass]int{corev1.PodQOSBestEffort: 0, corev1.PodQOSBurstable: 1, corev1.PodQOSGuaranteed: 2}
	may := slices.DeleteFunc(slices.Clone(others), func(o *corev1.Pod) bool {
		return evict.Critical(o) || o.Annotations[sourceAnnotation] == "file" || evict.Priority(o) >= evict.Priority(pod) && evict.Priority(pod) != 0
	})
	slices.SortStableFunc(may, func(a, b *corev1.Pod) int {
		if d := int(evict.Priority(a)) - int(evict.Priority(b)); d != 0 {
			return d
		}
		return rank[semantics.QoS(a)] - rank[semantics.QoS(b)]
	})
	left := slices.Clone(others)
	var out []*corev1.Pod
	for _, v := range may {
		left = slices.DeleteFunc(left, func(o *corev1.Pod) bool { return o == v })
		out = append(out, v)
		if reason, _ := Fits(pod, left, allocatable); reason == "" {
			return out
		}
	}
	return nil
}

// Fits says why pod cannot run beside others on a node with allocatable
// resources; reason is "" when it can.
func Fits(pod *corev1.Pod, others []*corev1.Pod, allocatable corev1.ResourceList) (reason, message string) {
	used := corev1.ResourceList{}
	for _, o := range others {
		for name, q := range semantics.Requests(o) {
			sum := used[name]
			sum.Add(q)
			used[name] = sum
		}
	}
	if pods, ok := allocatable[corev1.ResourcePods]; ok && int64(len(others))+1 > pods.Value() {
		return "OutOfpods", fmt.Sprintf("Node didn't have enough resource: pods, requested: 1, used: %d, capacity: %d", len(others), pods.Value())
	}
	want := semantics.Requests(pod)
	names := []corev1.ResourceName{corev1.ResourceCPU, corev1.ResourceMemory, corev1.ResourceEphemeralStorage}
	for name := range want {
		// What the node does not have at all somebody else may provide.
		if _, known := allocatable[name]; known && strings.Contains(string(name), "/") {
			names = append(names, name)
		}
	}
	for _, name := range names {
		q, ok := want[name]
		if !ok || q.IsZero() {
			continue
		}
		all, have := allocatable[name], used[name]
		a, b, c := q.Value(), have.Value(), all.Value()
		if name == corev1.ResourceCPU {
			a, b, c = q.MilliValue(), have.MilliValue(), all.MilliValue()
		}
		if a+b > c {
			return "OutOf" + string(name), fmt.Sprintf("Node didn't have enough resource: %s, requested: %d, used: %d, capacity: %d", name, a, b, c)
		}
	}
	return "", ""
}
