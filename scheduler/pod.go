package scheduler

import (
	"encoding/json"
	"maps"
	"slices"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/util/sets"

	"github.com/sampan-dev/sampan/semantics/pod"
)

// Pods that ask for nothing are scored as if they asked for this much.
const (
	unaskedCPU    = 100
	unaskedMemory = 200 << 20
)

// resources is an amount of what nodes have. others is nil when there is none.
type resources struct {
	cpu, memory, ephemeral int64 // milli-CPU, bytes, bytes
	others                 map[corev1.ResourceName]int64
}

func amounts(l corev1.ResourceList) resources {
	var r resources
	for name, q := range l {
		switch name {
		case corev1.ResourceCPU:
			r.cpu = q.MilliValue()
		case corev1.ResourceMemory:
			r.memory = q.Value()
		case corev1.ResourceEphemeralStorage:
			r.ephemeral = q.Value()
		case corev1.ResourcePods:
		default:
			if r.others == nil {
				r.others = map[corev1.ResourceName]int64{}
			}
			r.others[name] = q.Value()
		}
	}
	return r
}

func (r *resources) add(o *resources, sign int64) {
	r.cpu += sign * o.cpu
	r.memory += sign * o.memory
	r.ephemeral += sign * o.ephemeral
	for name, n := range o.others {
		if r.others == nil {
			r.others = map[corev1.ResourceName]int64{}
		}
		r.others[name] += sign * n
	}
}

// port is a host port that a pod takes.
type port struct {
	ip       string
	protocol corev1.Protocol
	number   int32
}

func (p port) clashes(o port) bool {
	return p.number == o.number && p.protocol == o.protocol && (p.ip == o.ip || p.ip == anyIP || o.ip == anyIP)
}

const anyIP = "0.0.0.0"

// term is a pod affinity term, ready to be matched.
type term struct {
	namespaces sets.Set[string]
	nsSelector labels.Selector
	selector   labels.Selector
	topology   string
	weight     int32
}

func (t *term) matches(p *corev1.Pod, nsLabels func(string) labels.Set) bool {
	if !t.namespaces.Has(p.Namespace) && !(t.nsSelector != nil && !nothing(t.nsSelector) && t.nsSelector.Matches(nsLabels(p.Namespace))) {
		return false
	}
	return t.selector.Matches(labels.Set(p.Labels))
}

func nothing(s labels.Selector) bool {
	_, selectable := s.Requirements()
	return !selectable
}

// info is what placing needs to know of a pod, computed once.
type info struct {
	pod      *corev1.Pod
	requests resources
	scored   resources // with stand-ins for what was not asked
	ports    []port
	ending   bool // being deleted: spreading no longer counts it

	affinity, antiAffinity             []term
	preferAffinity, preferAntiAffinity []term
}

func newInfo(p *corev1.Pod) *info {
	i := &info{pod: p, requests: amounts(pod.Reserved(p)), ending: p.DeletionTimestamp != nil}
	i.scored = resources{cpu: i.requests.cpu, memory: i.requests.memory}
	if i.scored.cpu == 0 || i.scored.memory == 0 {
		var cpu, memory int64
		for c := range slices.Values(p.Spec.Containers) {
			if q, ok := c.Resources.Requests[corev1.ResourceCPU]; ok {
				cpu += q.MilliValue()
			} else {
				cpu += unaskedCPU
			}
			if q, ok := c.Resources.Requests[corev1.ResourceMemory]; ok {
				memory += q.Value()
			} else {
				memory += unaskedMemory
			}
		}
		i.scored.cpu, i.scored.memory = max(i.scored.cpu, cpu), max(i.scored.memory, memory)
	}
	for _, list := range [][]corev1.Container{p.Spec.InitContainers, p.Spec.Containers} {
		for n := range list {
			if c := &list[n]; len(c.Ports) > 0 {
				i.ports = append(i.ports, hostPorts(c)...)
			}
		}
	}
	if a := p.Spec.Affinity; a != nil {
		if pa := a.PodAffinity; pa != nil {
			i.affinity = required(p, pa.RequiredDuringSchedulingIgnoredDuringExecution)
			i.preferAffinity = preferred(p, pa.PreferredDuringSchedulingIgnoredDuringExecution)
		}
		if pa := a.PodAntiAffinity; pa != nil {
			i.antiAffinity = required(p, pa.RequiredDuringSchedulingIgnoredDuringExecution)
			i.preferAntiAffinity = preferred(p, pa.PreferredDuringSchedulingIgnoredDuringExecution)
		}
	}
	return i
}

func hostPorts(c *corev1.Container) []port {
	var out []port
	for _, cp := range c.Ports {
		if cp.HostPort <= 0 {
			continue
		}
		p := port{cp.HostIP, cp.Protocol, cp.HostPort}
		if p.ip == "" {
			p.ip = anyIP
		}
		if p.protocol == "" {
			p.protocol = corev1.ProtocolTCP
		}
		out = append(out, p)
	}
	return out
}

func required(p *corev1.Pod, terms []corev1.PodAffinityTerm) []term {
	var out []term
	for i := range terms {
		out = append(out, newTerm(p, &terms[i], 0))
	}
	return out
}

func preferred(p *corev1.Pod, terms []corev1.WeightedPodAffinityTerm) []term {
	var out []term
	for i := range terms {
		out = append(out, newTerm(p, &terms[i].PodAffinityTerm, terms[i].Weight))
	}
	return out
}

func newTerm(p *corev1.Pod, t *corev1.PodAffinityTerm, weight int32) term {
	out := term{topology: t.TopologyKey, weight: weight, namespaces: sets.New(t.Namespaces...)}
	out.selector, out.nsSelector = selectorOf(t.LabelSelector), selectorOf(t.NamespaceSelector)
	if len(t.Namespaces) == 0 && t.NamespaceSelector == nil {
		out.namespaces.Insert(p.Namespace)
	}
	out.selector = withLabelKeys(out.selector, p.Labels, t.MatchLabelKeys, t.MismatchLabelKeys)
	return out
}

// selectorOf parses a selector; one that does not parse, which validation does
// not let in, chooses nothing.
func selectorOf(s *metav1.LabelSelector) labels.Selector {
	sel, err := metav1.LabelSelectorAsSelector(s)
	if err != nil {
		return labels.Nothing()
	}
	return sel
}

func withLabelKeys(s labels.Selector, l map[string]string, match, mismatch []string) labels.Selector {
	in := labels.Set{}
	for _, k := range match {
		if v, ok := l[k]; ok {
			in[k] = v
		}
	}
	if len(in) > 0 {
		reqs, _ := in.AsSelectorPreValidated().Requirements()
		s = s.Add(reqs...)
	}
	for _, k := range mismatch {
		if v, ok := l[k]; ok {
			if r, err := labels.NewRequirement(k, "notin", []string{v}); err == nil {
				s = s.Add(*r)
			}
		}
	}
	return s
}

// signature is equal for pods that every placing decision treats alike.
func signature(i *info, spread string) string {
	p := i.pod
	var b strings.Builder
	b.WriteString(p.Spec.SchedulerName + "/" + p.Namespace)
	writeMap(&b, p.Labels)
	writeMap(&b, p.Spec.NodeSelector)
	num := func(n int64) { b.WriteByte('|'); b.WriteString(strconv.FormatInt(n, 36)) }
	num(i.requests.cpu)
	num(i.requests.memory)
	num(i.requests.ephemeral)
	num(i.scored.cpu)
	num(i.scored.memory)
	for _, name := range slices.Sorted(maps.Keys(i.requests.others)) {
		b.WriteString(string(name))
		num(i.requests.others[name])
	}
	for _, hp := range i.ports {
		b.WriteString(hp.ip)
		b.WriteString(string(hp.protocol))
		num(int64(hp.number))
	}
	for c := range p.Spec.Containers {
		b.WriteString(p.Spec.Containers[c].Image)
		b.WriteByte(';')
	}
	for _, t := range p.Spec.Tolerations {
		b.WriteString("\x00" + t.Key + "\x01" + string(t.Operator) + "\x01" + t.Value + "\x01" + string(t.Effect))
	}
	if len(claimsOf(p))+len(p.Spec.ResourceClaims) > 0 {
		// Whose a claim is depends on the very pod.
		b.WriteString("\x02" + string(p.UID))
	}
	if p.Spec.Affinity != nil || len(p.Spec.TopologySpreadConstraints) > 0 {
		// Rare enough to pay for: the exact spelling of what is left.
		if data, err := json.Marshal([]any{p.Spec.Affinity, p.Spec.TopologySpreadConstraints}); err == nil {
			b.Write(data)
		}
	}
	b.WriteString(spread)
	return b.String()
}

func writeMap(b *strings.Builder, m map[string]string) {
	b.WriteByte('{')
	if len(m) == 1 {
		for k, v := range m {
			b.WriteString(k + "\x01" + v)
		}
		return
	}
	for _, k := range slices.Sorted(maps.Keys(m)) {
		b.WriteString(k + "\x01" + m[k] + "\x01")
	}
}

func priority(p *corev1.Pod) int32 {
	if p.Spec.Priority == nil {
		return 0
	}
	return *p.Spec.Priority
}
