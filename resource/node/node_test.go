package node

import (
	"fmt"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func TestRules(t *testing.T) {
	with := func(change func(*corev1.NodeSpec)) *corev1.Node {
		n := &corev1.Node{Spec: corev1.NodeSpec{PodCIDR: "10.0.0.0/24", PodCIDRs: []string{"10.0.0.0/24"}, ProviderID: "p"}}
		change(&n.Spec)
		return n
	}
	for name, c := range map[string]struct {
		next *corev1.Node
		want string
	}{
		"same":      {with(func(*corev1.NodeSpec) {}), ""},
		"cordon":    {with(func(s *corev1.NodeSpec) { s.Unschedulable = true }), ""},
		"taint":     {with(func(s *corev1.NodeSpec) { s.Taints = []corev1.Taint{{Key: "a", Effect: "NoExecute"}} }), ""},
		"effect":    {with(func(s *corev1.NodeSpec) { s.Taints = []corev1.Taint{{Key: "a", Effect: "X"}} }), `spec.taints[0].effect: Unsupported value: "X": supported values: "NoSchedule", "PreferNoSchedule", "NoExecute"`},
		"no effect": {with(func(s *corev1.NodeSpec) { s.Taints = []corev1.Taint{{Key: "a"}} }), "spec.taints[0].effect: Required value"},
		"taint twice": {with(func(s *corev1.NodeSpec) {
			s.Taints = []corev1.Taint{{Key: "a", Effect: "NoExecute"}, {Key: "a", Value: "2", Effect: "NoExecute"}}
		}), "taints must be unique by key and effect pair"},
		"cidr":     {with(func(s *corev1.NodeSpec) { s.PodCIDR, s.PodCIDRs = "10.1.0.0/24", []string{"10.1.0.0/24"} }), `spec.podCIDRs: Forbidden: node updates may not change podCIDR except from "" to valid`},
		"provider": {with(func(s *corev1.NodeSpec) { s.ProviderID = "q" }), `spec.providerID: Forbidden: node updates may not change providerID except from "" to valid`},
	} {
		prev := with(func(*corev1.NodeSpec) {})
		err := Kind().Validate(c.next, prev).ToAggregate()
		if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("%s: got %v, want %q", name, err, c.want)
		}
	}
}

func TestColumns(t *testing.T) {
	n := &corev1.Node{
		ObjectMeta: metav1.ObjectMeta{Name: "n", CreationTimestamp: metav1.Unix(0, 0), Labels: map[string]string{"node-role.kubernetes.io/control-plane": "", "kubernetes.io/role": "edge"}},
		Spec:       corev1.NodeSpec{Unschedulable: true},
		Status: corev1.NodeStatus{
			Conditions: []corev1.NodeCondition{{Type: "Ready", Status: "True"}},
			Addresses:  []corev1.NodeAddress{{Type: "InternalIP", Address: "192.0.2.1"}},
			NodeInfo:   corev1.NodeSystemInfo{KubeletVersion: "v1.37.2", OSImage: "Linux"},
		},
	}
	want := "n|Ready,SchedulingDisabled|control-plane,edge|60s|v1.37.2|192.0.2.1|<none>|Linux|<unknown>|<unknown>"
	var got []string
	for _, c := range Kind().Cells(n, time.Unix(60, 0)) {
		got = append(got, fmt.Sprint(c))
	}
	if g := strings.Join(got, "|"); g != want {
		t.Errorf("got %s", g)
	}
}
