package kubelet

import (
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func TestRefuse(t *testing.T) {
	strict := corev1.SupplementalGroupsPolicyStrict
	port := func(ip string) func(*corev1.Pod) {
		return func(p *corev1.Pod) {
			p.Spec.Containers[0].Ports = []corev1.ContainerPort{{ContainerPort: 80, HostPort: 8080, HostIP: ip, Protocol: corev1.ProtocolTCP}}
		}
	}
	sysctl := func(name string) func(*corev1.Pod) {
		return func(p *corev1.Pod) {
			p.Spec.SecurityContext = &corev1.PodSecurityContext{Sysctls: []corev1.Sysctl{{Name: name, Value: "1"}}}
		}
	}
	memory := []corev1.NodeConditionType{corev1.NodeMemoryPressure}
	for _, tt := range []struct {
		name     string
		pod      func(*corev1.Pod)
		host     Host
		critical bool
		want     string // reason: message
	}{
		{"an ordinary pod", func(*corev1.Pod) {}, Host{}, false, ": "},
		{"best effort under memory pressure", func(*corev1.Pod) {}, Host{Pressure: memory}, false, "Evicted: The node had condition: [MemoryPressure]. "},
		{"one that asked for memory", asking("1", "1Gi"), Host{Pressure: memory}, false, ": "},
		{"nobody under disk pressure", asking("1", "1Gi"), Host{Pressure: []corev1.NodeConditionType{corev1.NodeDiskPressure}}, false, "Evicted: The node had condition: [DiskPressure]. "},
		{"but the cluster's own", func(*corev1.Pod) {}, Host{Pressure: []corev1.NodeConditionType{corev1.NodeDiskPressure}}, true, ": "},
		{"a safe parameter", sysctl("kernel.shm_rmid_forced"), Host{}, false, ": "},
		{"written the other way", sysctl("kernel/shm_rmid_forced"), Host{}, false, ": "},
		{"an unsafe one", sysctl("kernel.msgmax"), Host{}, false, `SysctlForbidden: forbidden sysctl: "kernel.msgmax" not allowlisted`},
		{"an unsafe one that is allowed", sysctl("kernel.msgmax"), Host{Sysctls: []string{"kernel.msg*"}}, false, ": "},
		{"the host's network is not the pod's to change", func(p *corev1.Pod) { sysctl("net.ipv4.tcp_syncookies")(p); p.Spec.HostNetwork = true }, Host{}, false,
			`SysctlForbidden: forbidden sysctl: "net.ipv4.tcp_syncookies" not allowed with host net enabled`},
		{"a port that is free on this address", port("192.0.2.1"), Host{Others: []*corev1.Pod{apiPod("o", port("192.0.2.2"))}}, false, ": "},
		{"a port that is taken", port("192.0.2.1"), Host{Others: []*corev1.Pod{apiPod("o", port("0.0.0.0"))}}, false, "NodePorts: Predicate NodePorts failed: node(s) didn't have free ports for the requested pod ports"},
		{"strict groups without a runtime for them", func(p *corev1.Pod) {
			p.Spec.SecurityContext = &corev1.PodSecurityContext{SupplementalGroupsPolicy: &strict}
		}, Host{}, false, "SupplementalGroupsPolicyNotSupported: SupplementalGroupsPolicy=Strict is not supported in this node"},
		{"another operating system", func(p *corev1.Pod) { p.Spec.OS = &corev1.PodOS{Name: corev1.Windows} }, Host{}, false, "PodOSNotSupported: Failed to admit pod as the OS field doesn't match node OS"},
		{"a node without the label", func(p *corev1.Pod) { p.Spec.NodeSelector = map[string]string{"a": "b"} }, Host{Node: &corev1.Node{}}, false,
			"NodeAffinity: Predicate NodeAffinity failed: node(s) didn't match Pod's node affinity/selector"},
		{"a node with it", func(p *corev1.Pod) { p.Spec.NodeSelector = map[string]string{"a": "b"} },
			Host{Node: &corev1.Node{ObjectMeta: metav1.ObjectMeta{Labels: map[string]string{"a": "b"}}}}, false, ": "},
		{"AppArmor where there is none", func(p *corev1.Pod) {
			p.Spec.SecurityContext = &corev1.PodSecurityContext{AppArmorProfile: &corev1.AppArmorProfile{Type: corev1.AppArmorProfileTypeRuntimeDefault}}
		}, Host{}, false, "AppArmor: Cannot enforce AppArmor: AppArmor is not enabled on the host"},
	} {
		r := Refuse(apiPod("p", tt.pod), tt.host, tt.critical)
		if got := r.Reason + ": " + r.Message; got != tt.want {
			t.Errorf("%s: %q, want %q", tt.name, got, tt.want)
		}
	}
}

func TestVictims(t *testing.T) {
	named := func(name string, priority int32, cpu string) *corev1.Pod {
		return apiPod(name, asking(cpu, "1Mi"), func(p *corev1.Pod) { p.Spec.Priority = &priority })
	}
	node := corev1.ResourceList{"cpu": resource.MustParse("4"), "memory": resource.MustParse("1Gi"), "pods": resource.MustParse("10")}
	others := []*corev1.Pod{named("system", 2_000_001_000, "1"), named("shop", 100, "1"), named("batch", 0, "1"), named("test", 0, "1")}
	for _, tt := range []struct{ cpu, want string }{{"1", "batch"}, {"2", "batch test"}, {"3", "batch test shop"}, {"4", ""}} {
		var names []string
		for _, v := range Victims(named("new", 2_000_000_000, tt.cpu), others, node) {
			names = append(names, v.Name)
		}
		if got := strings.Join(names, " "); got != tt.want {
			t.Errorf("for %s CPUs go %q, want %q", tt.cpu, got, tt.want)
		}
	}
}
