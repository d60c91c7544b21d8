package endpoints

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/sampan-dev/sampan/client"
	"github.com/sampan-dev/sampan/client/fake"
	"github.com/sampan-dev/sampan/controller"
	"github.com/sampan-dev/sampan/kit/clock"
	"github.com/sampan-dev/sampan/kit/run"
)

func service(edit func(*corev1.Service)) *corev1.Service {
	s := &corev1.Service{ObjectMeta: metav1.ObjectMeta{Name: "web", Namespace: "ns", Labels: map[string]string{"l": "1"}},
		Spec: corev1.ServiceSpec{ClusterIP: "10.96.0.9", IPFamilies: []corev1.IPFamily{corev1.IPv4Protocol}, Selector: map[string]string{"app": "web"},
			Ports: []corev1.ServicePort{{Name: "http", Port: 80, Protocol: corev1.ProtocolTCP, TargetPort: intstr.FromString("web")}}}}
	if edit != nil {
		edit(s)
	}
	return s
}

func aPod(name, ip string, ready bool, port int32) *corev1.Pod {
	status := corev1.ConditionFalse
	if ready {
		status = corev1.ConditionTrue
	}
	return &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: "ns", UID: types.UID("u-" + name), Labels: map[string]string{"app": "web"}},
		Spec:   corev1.PodSpec{NodeName: "n1", Hostname: name, Subdomain: "web", Containers: []corev1.Container{{Name: "c", Ports: []corev1.ContainerPort{{Name: "web", ContainerPort: port, Protocol: corev1.ProtocolTCP}}}}},
		Status: corev1.PodStatus{Phase: corev1.PodRunning, PodIP: ip, PodIPs: []corev1.PodIP{{IP: ip}}, Conditions: []corev1.PodCondition{{Type: corev1.PodReady, Status: status}}}}
}

// show writes subsets as [ready|not ready]:ports.
func show(subsets []corev1.EndpointSubset) string {
	out := ""
	for _, s := range subsets {
		out += "["
		for _, a := range s.Addresses {
			out += a.IP + " "
		}
		out += "|"
		for _, a := range s.NotReadyAddresses {
			out += " " + a.IP
		}
		out += "]"
		for _, p := range s.Ports {
			out += fmt.Sprintf("%s:%d", p.Name, p.Port)
		}
	}
	return out
}

func TestSubsets(t *testing.T) {
	gone := aPod("g", "10.0.0.9", true, 80)
	gone.DeletionTimestamp = &metav1.Time{Time: time.Unix(1, 0)}
	done := aPod("d", "10.0.0.8", false, 80)
	done.Status.Phase = corev1.PodSucceeded
	for name, tc := range map[string]struct {
		svc  *corev1.Service
		pods []*corev1.Pod
		want string
	}{
		"none":            {service(nil), nil, ""},
		"ready and not":   {service(nil), []*corev1.Pod{aPod("a", "10.0.0.2", true, 80), aPod("b", "10.0.0.1", true, 80), aPod("c", "10.0.0.3", false, 80)}, "[10.0.0.1 10.0.0.2 | 10.0.0.3]http:80"},
		"different ports": {service(nil), []*corev1.Pod{aPod("a", "10.0.0.2", true, 80), aPod("b", "10.0.0.1", true, 81)}, "[10.0.0.2 |]http:80[10.0.0.1 |]http:81"},
		"going and gone":  {service(nil), []*corev1.Pod{gone, done, aPod("n", "", true, 80)}, ""},
		"publish":         {service(func(s *corev1.Service) { s.Spec.PublishNotReadyAddresses = true }), []*corev1.Pod{aPod("c", "10.0.0.3", false, 80), gone}, "[10.0.0.3 10.0.0.9 |]http:80"},
		"headless":        {service(func(s *corev1.Service) { s.Spec.ClusterIP, s.Spec.Ports = "None", nil }), []*corev1.Pod{aPod("a", "10.0.0.2", true, 80)}, "[10.0.0.2 |]"},
		"no such port":    {service(func(s *corev1.Service) { s.Spec.Ports[0].TargetPort = intstr.FromString("other") }), []*corev1.Pod{aPod("a", "10.0.0.2", true, 80)}, ""},
		"other family":    {service(func(s *corev1.Service) { s.Spec.IPFamilies = []corev1.IPFamily{corev1.IPv6Protocol} }), []*corev1.Pod{aPod("a", "10.0.0.2", true, 80)}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			got, over := subsetsOf(tc.svc, tc.pods)
			if show(got) != tc.want || over {
				t.Errorf("subsets %q (over %v), want %q", show(got), over, tc.want)
			}
		})
	}
}

// TestFollows keeps an Endpoints object through a service's life.
func TestFollows(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		srv := fake.New(service(nil), aPod("a", "10.0.0.2", false, 80))
		d := controller.WithClient(srv)
		c := New(d)
		g := run.New(t.Context())
		g.Go("mirrors", d.Mirrors.Run)
		g.Go("loop", c.Run)
		defer func() { g.Stop(); g.Wait() }()
		eps := client.Of[corev1.Endpoints](srv, "ns")
		check := func(want string) {
			t.Helper()
			clock.Sleep(t.Context(), 3*time.Second)
			e, err := eps.Get(t.Context(), "web")
			if err != nil {
				t.Fatal(err)
			}
			if show(e.Subsets) != want || e.Labels["l"] != "1" || e.Labels[managedBy] != manager {
				t.Errorf("endpoints %q labels %v, want %q", show(e.Subsets), e.Labels, want)
			}
		}
		check("[| 10.0.0.2]http:80")
		srv.Put(aPod("a", "10.0.0.2", true, 80))
		check("[10.0.0.2 |]http:80")
		if err := eps.Delete(t.Context(), "web", nil); err != nil {
			t.Fatal(err)
		}
		check("[10.0.0.2 |]http:80") // made again
		client.Of[corev1.Service](srv, "ns").Delete(t.Context(), "web", nil)
		clock.Sleep(t.Context(), 3*time.Second)
		if _, err := eps.Get(t.Context(), "web"); err == nil {
			t.Error("the endpoints outlived their service")
		}
	})
}
