package service

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/sampan-dev/sampan/resource"
)

// books is a ledger with small ranges.
type books struct {
	families []string
	ips      map[string]string
	ports    map[string]string
}

func newBooks(families ...string) *books {
	return &books{families, map[string]string{}, map[string]string{}}
}

func (b *books) Families() []string { return b.families }

func (b *books) TakeIP(_ context.Context, family, want, owner string) (string, error) {
	if want == "" {
		for i := 1; ; i++ {
			want = fmt.Sprintf("10.96.0.%d", i)
			if family == "IPv6" {
				want = fmt.Sprintf("fd00::%d", i)
			}
			if b.ips[want] == "" {
				break
			}
		}
	}
	if b.ips[want] != "" {
		return "", errors.New("provided IP is already allocated")
	}
	b.ips[want] = owner
	return want, nil
}

func (b *books) FreeIP(addr string) { delete(b.ips, addr) }

func (b *books) TakePort(_ context.Context, protocol string, want int32, owner string) (int32, error) {
	key := func(p int32) string { return fmt.Sprintf("%s/%d", protocol, p) }
	if want == 0 {
		for want = 30000; b.ports[key(want)] != ""; want++ {
		}
	}
	if want < 30000 || want > 32767 {
		return 0, errors.New("provided port is not in the valid range. The range of valid ports is 30000-32767")
	}
	if b.ports[key(want)] != "" {
		return 0, errors.New("provided port is already allocated")
	}
	b.ports[key(want)] = owner
	return want, nil
}

func (b *books) FreePort(protocol string, port int32) {
	delete(b.ports, fmt.Sprintf("%s/%d", protocol, port))
}

func (b *books) String() string {
	return strings.Join(append(slices.Sorted(maps.Keys(b.ips)), slices.Sorted(maps.Keys(b.ports))...), " ")
}

// put sends an object through the pipeline as the server does.
func put(b *books, next, prev *corev1.Service) (*corev1.Service, error) {
	k := Kind()
	next = next.DeepCopy()
	k.Default(next)
	if prev == nil {
		k.Prepare(&resource.Request{}, next, nil)
		if err := k.Ledger(context.Background(), b, next, nil); err != nil {
			return nil, err
		}
		return next, k.Validate(next, nil).ToAggregate()
	}
	k.Prepare(&resource.Request{}, next, prev)
	if err := k.Ledger(context.Background(), b, next, prev); err != nil {
		return nil, err
	}
	return next, k.Validate(next, prev).ToAggregate()
}

func svc(change func(*corev1.ServiceSpec)) *corev1.Service {
	s := &corev1.Service{ObjectMeta: metav1.ObjectMeta{Name: "s", Namespace: "default"}, Spec: corev1.ServiceSpec{
		Selector: map[string]string{"app": "a"}, Ports: []corev1.ServicePort{{Port: 80}},
	}}
	if change != nil {
		change(&s.Spec)
	}
	return s
}

func TestDefaults(t *testing.T) {
	s, err := put(newBooks("IPv4"), svc(nil), nil)
	if err != nil {
		t.Fatal(err)
	}
	spec := s.Spec
	if spec.ClusterIP != "10.96.0.1" || !slices.Equal(spec.ClusterIPs, []string{"10.96.0.1"}) ||
		spec.Type != "ClusterIP" || spec.SessionAffinity != "None" || *spec.InternalTrafficPolicy != "Cluster" ||
		*spec.IPFamilyPolicy != "SingleStack" || !slices.Equal(spec.IPFamilies, []corev1.IPFamily{"IPv4"}) ||
		spec.Ports[0].Protocol != "TCP" || spec.Ports[0].TargetPort != intstr.FromInt32(80) || spec.ExternalTrafficPolicy != "" {
		t.Errorf("got %+v", spec)
	}
}

func TestCreateRules(t *testing.T) {
	for name, c := range map[string]struct {
		change func(*corev1.ServiceSpec)
		want   string
	}{
		"good":        {nil, ""},
		"no ports":    {func(s *corev1.ServiceSpec) { s.Ports = nil }, "spec.ports: Required value"},
		"type":        {func(s *corev1.ServiceSpec) { s.Type = "X" }, `spec.type: Unsupported value: "X": supported values: "ClusterIP", "ExternalName", "LoadBalancer", "NodePort"`},
		"port":        {func(s *corev1.ServiceSpec) { s.Ports[0].Port = 0 }, "spec.ports[0].port: Invalid value: 0: must be between 1 and 65535, inclusive"},
		"unnamed":     {func(s *corev1.ServiceSpec) { s.Ports = append(s.Ports, corev1.ServicePort{Port: 81}) }, "spec.ports[0].name: Required value"},
		"node port":   {func(s *corev1.ServiceSpec) { s.Ports[0].NodePort = 30000 }, "spec.ports[0].nodePort: Forbidden: may not be used when `type` is 'ClusterIP'"},
		"affinity":    {func(s *corev1.ServiceSpec) { s.SessionAffinity = "X" }, `spec.sessionAffinity: Unsupported value: "X": supported values: "ClientIP", "None"`},
		"loopback":    {func(s *corev1.ServiceSpec) { s.ExternalIPs = []string{"127.0.0.1"} }, "may not be in the loopback range"},
		"taken":       {func(s *corev1.ServiceSpec) { s.ClusterIP = "10.96.0.9" }, `spec.clusterIPs: Invalid value: ["10.96.0.9"]: failed to allocate IP 10.96.0.9: provided IP is already allocated`},
		"port taken":  {func(s *corev1.ServiceSpec) { s.Type, s.Ports[0].NodePort = "NodePort", 30080 }, "spec.ports[0].nodePort: Invalid value: 30080: provided port is already allocated"},
		"port range":  {func(s *corev1.ServiceSpec) { s.Type, s.Ports[0].NodePort = "NodePort", 80 }, "spec.ports[0].nodePort: Invalid value: 80: provided port is not in the valid range. The range of valid ports is 30000-32767"},
		"headless":    {func(s *corev1.ServiceSpec) { s.Type, s.ClusterIP = "NodePort", "None" }, "spec.clusterIPs[0]: Invalid value: \"None\": may not be set to 'None' for NodePort services"},
		"name needed": {func(s *corev1.ServiceSpec) { s.Type = "ExternalName" }, "spec.externalName: Required value"},
		"name good":   {func(s *corev1.ServiceSpec) { s.Type, s.ExternalName = "ExternalName", "example.com." }, ""},
		"bad ip":      {func(s *corev1.ServiceSpec) { s.ClusterIP = "nope" }, `spec.clusterIPs[0]: Invalid value: "nope": must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)`},
		"dual":        {func(s *corev1.ServiceSpec) { s.IPFamilyPolicy = new(corev1.IPFamilyPolicyRequireDualStack) }, `spec.ipFamilyPolicy: Invalid value: "RequireDualStack": this cluster is not configured for dual-stack services`},
		"family":      {func(s *corev1.ServiceSpec) { s.IPFamilies = []corev1.IPFamily{"IPv6"} }, `spec.ipFamilies[0]: Invalid value: "IPv6": not configured on this cluster`},
		"balancer":    {func(s *corev1.ServiceSpec) { s.LoadBalancerSourceRanges = []string{"10.0.0.0/8"} }, "spec.loadBalancerSourceRanges: Forbidden: may only be used when `type` is 'LoadBalancer'"},
		"policy":      {func(s *corev1.ServiceSpec) { s.ExternalTrafficPolicy = "Local" }, `spec.externalTrafficPolicy: Invalid value: "Local": may only be set for externally-accessible services`},
		"twice": {func(s *corev1.ServiceSpec) {
			s.Ports = []corev1.ServicePort{{Name: "a", Port: 1}, {Name: "b", Port: 1}}
		}, "spec.ports[1]: Duplicate value"},
	} {
		b := newBooks("IPv4")
		b.ips["10.96.0.9"], b.ports["TCP/30080"] = "other", "other"
		_, err := put(b, svc(c.change), nil)
		if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("%s: got %v, want %q", name, err, c.want)
		}
	}
}

func TestDualStack(t *testing.T) {
	b := newBooks("IPv4", "IPv6")
	both, err := put(b, svc(func(s *corev1.ServiceSpec) { s.IPFamilyPolicy = new(corev1.IPFamilyPolicyPreferDualStack) }), nil)
	if err != nil || !slices.Equal(both.Spec.ClusterIPs, []string{"10.96.0.1", "fd00::1"}) {
		t.Fatalf("got %v, %v", both, err)
	}
	next := both.DeepCopy()
	next.Spec.IPFamilyPolicy = new(corev1.IPFamilyPolicySingleStack)
	one, err := put(b, next, both)
	if err != nil || !slices.Equal(one.Spec.ClusterIPs, []string{"10.96.0.1"}) || len(one.Spec.IPFamilies) != 1 {
		t.Fatalf("got %v, %v", one, err)
	}
	if got := b.String(); got != "10.96.0.1" {
		t.Errorf("after the downgrade the books hold %s", got)
	}
	next = one.DeepCopy()
	next.Spec.IPFamilyPolicy = new(corev1.IPFamilyPolicyRequireDualStack)
	if again, err := put(b, next, one); err != nil || len(again.Spec.ClusterIPs) != 2 || again.Spec.ClusterIP != "10.96.0.1" {
		t.Errorf("got %v, %v", again, err)
	}
	bare, err := put(b, svc(func(s *corev1.ServiceSpec) { s.Selector, s.ClusterIP = nil, "None" }), nil)
	if err != nil || *bare.Spec.IPFamilyPolicy != "RequireDualStack" || len(bare.Spec.IPFamilies) != 2 {
		t.Errorf("headless without selector: got %v, %v", bare, err)
	}
}

// What a service holds follows its type and goes when it goes.
func TestBooksFollowTheService(t *testing.T) {
	b := newBooks("IPv4")
	cur, err := put(b, svc(nil), nil)
	for _, step := range []struct {
		change func(*corev1.ServiceSpec)
		want   string
	}{
		{func(s *corev1.ServiceSpec) { s.Type = "NodePort" }, "10.96.0.1 TCP/30000"},
		{func(s *corev1.ServiceSpec) { s.Ports[0].NodePort = 31000 }, "10.96.0.1 TCP/31000"},
		{func(s *corev1.ServiceSpec) {
			s.Ports = []corev1.ServicePort{{Name: "t", Port: 53, NodePort: 31000}, {Name: "u", Port: 53, Protocol: "UDP"}}
		}, "10.96.0.1 TCP/31000 UDP/31000"},
		{func(s *corev1.ServiceSpec) { s.Type, s.ExternalTrafficPolicy = "LoadBalancer", "Local" }, "10.96.0.1 TCP/30000 TCP/31000 UDP/31000"},
		{func(s *corev1.ServiceSpec) { s.Type = "ClusterIP" }, "10.96.0.1"},
		{func(s *corev1.ServiceSpec) { s.Type, s.ExternalName = "ExternalName", "example.com" }, ""},
		{func(s *corev1.ServiceSpec) { s.Type = "NodePort" }, "10.96.0.1 TCP/30000 UDP/30000"},
	} {
		if err != nil {
			t.Fatal(err)
		}
		next := cur.DeepCopy()
		step.change(&next.Spec)
		cur, err = put(b, next, cur)
		if got := b.String(); got != step.want || err != nil {
			t.Fatalf("the books hold %q, want %q (%v)", got, step.want, err)
		}
	}
	if err := Kind().Ledger(t.Context(), b, nil, cur); err != nil || b.String() != "" {
		t.Errorf("after deletion the books hold %q, %v", b, err)
	}
}

func TestUpdateRules(t *testing.T) {
	b := newBooks("IPv4")
	cur, err := put(b, svc(nil), nil)
	if err != nil {
		t.Fatal(err)
	}
	next := cur.DeepCopy()
	next.Spec.ClusterIP, next.Spec.ClusterIPs = "10.96.0.7", []string{"10.96.0.7"}
	_, err = put(b, next, cur)
	if want := `spec.clusterIPs[0]: Invalid value: ["10.96.0.7"]: may not change once set`; err == nil || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
	// A client that sends what it once created keeps what was allocated.
	if again, err := put(b, svc(nil), cur); err != nil || again.Spec.ClusterIP != "10.96.0.1" {
		t.Errorf("got %v, %v", again, err)
	}
}

func TestColumns(t *testing.T) {
	now := time.Unix(1700000060, 0)
	cells := func(s *corev1.Service) string {
		s.CreationTimestamp = metav1.Unix(1700000000, 0)
		return strings.Trim(fmt.Sprint(Kind().Cells(s, now)), "[]")
	}
	for want, s := range map[string]*corev1.Service{
		"s ClusterIP 10.0.0.1 <none> 80/TCP 60s app=a": svc(func(s *corev1.ServiceSpec) {
			s.Type, s.ClusterIPs, s.Ports[0].Protocol = "ClusterIP", []string{"10.0.0.1"}, "TCP"
		}),
		"s LoadBalancer 10.0.0.1 <pending> 80:30000/TCP 60s app=a": svc(func(s *corev1.ServiceSpec) {
			s.Type, s.ClusterIPs, s.Ports[0].Protocol, s.Ports[0].NodePort = "LoadBalancer", []string{"10.0.0.1"}, "TCP", 30000
		}),
		"s ExternalName <none> example.com <none> 60s <none>": svc(func(s *corev1.ServiceSpec) {
			s.Type, s.ExternalName, s.Ports, s.Selector = "ExternalName", "example.com", nil, nil
		}),
	} {
		if got := cells(s); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}
