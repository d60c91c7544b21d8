package endpointslice

import (
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/sampan-dev/sampan/client"
	"github.com/sampan-dev/sampan/client/fake"
	"github.com/sampan-dev/sampan/controller"
	"github.com/sampan-dev/sampan/kit/clock"
	"github.com/sampan-dev/sampan/kit/run"
)

func service() *corev1.Service {
	return &corev1.Service{ObjectMeta: metav1.ObjectMeta{Name: "web", Namespace: "ns", UID: "s", Labels: map[string]string{"l": "1"}},
		Spec: corev1.ServiceSpec{ClusterIP: "10.96.0.9", IPFamilies: []corev1.IPFamily{corev1.IPv4Protocol}, Selector: map[string]string{"app": "web"},
			Ports: []corev1.ServicePort{{Name: "http", Port: 80, Protocol: corev1.ProtocolTCP, TargetPort: intstr.FromInt32(8080)}}}}
}

func aPod(i int, ready bool) *corev1.Pod {
	status := corev1.ConditionFalse
	if ready {
		status = corev1.ConditionTrue
	}
	ip := fmt.Sprintf("10.0.%d.%d", i/250, i%250+1)
	return &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprintf("p%03d", i), Namespace: "ns", UID: types.UID(fmt.Sprintf("u%03d", i)), Labels: map[string]string{"app": "web"}},
		Spec:   corev1.PodSpec{NodeName: "n1"},
		Status: corev1.PodStatus{Phase: corev1.PodRunning, PodIP: ip, PodIPs: []corev1.PodIP{{IP: ip}}, Conditions: []corev1.PodCondition{{Type: corev1.PodReady, Status: status}}}}
}

func inZone(string) (node, bool) { return node{zone: "z"}, true }

// apply does what a plan says, to slices in memory.
func apply(have []*discoveryv1.EndpointSlice, p plan, serial *int) []*discoveryv1.EndpointSlice {
	for _, s := range p.remove {
		have = slices.DeleteFunc(have, func(h *discoveryv1.EndpointSlice) bool { return h.Name == s.Name })
	}
	for _, s := range p.update {
		have[slices.IndexFunc(have, func(h *discoveryv1.EndpointSlice) bool { return h.Name == s.Name })] = s
	}
	for _, s := range p.create {
		*serial++
		s.Name = fmt.Sprintf("%s%d", s.GenerateName, *serial)
		have = append(have, s)
	}
	return have
}

// TestAnyHistory checks after every step of a random history that the slices
// hold each pod once, none too many, and that a second look finds nothing to do.
func TestAnyHistory(t *testing.T) {
	rng := clock.Rand(3)
	s := service()
	var have []*discoveryv1.EndpointSlice
	serial := 0
	pods := map[int]*corev1.Pod{}
	for step := range 200 {
		for range rng.IntN(60) {
			i := rng.IntN(400)
			if pods[i] != nil && rng.IntN(2) == 0 {
				delete(pods, i)
			} else {
				pods[i] = aPod(i, rng.IntN(4) > 0)
			}
		}
		var list []*corev1.Pod
		for _, p := range pods {
			list = append(list, p)
		}
		have = apply(have, decide(s, list, inZone, have), &serial)
		seen := map[types.UID]bool{}
		for _, sl := range have {
			if len(sl.Endpoints) > perSlice || len(sl.Endpoints) == 0 && len(pods) > 0 {
				t.Fatalf("step %d: slice of %d endpoints", step, len(sl.Endpoints))
			}
			for _, e := range sl.Endpoints {
				if seen[e.TargetRef.UID] {
					t.Fatalf("step %d: pod %s twice", step, e.TargetRef.Name)
				}
				seen[e.TargetRef.UID] = true
				if want := pods[mustIndex(e.TargetRef.Name)].Status.Conditions[0].Status == corev1.ConditionTrue; *e.Conditions.Ready != want {
					t.Fatalf("step %d: %s ready %v, want %v", step, e.TargetRef.Name, *e.Conditions.Ready, want)
				}
			}
		}
		if len(seen) != len(pods) {
			t.Fatalf("step %d: %d of %d pods listed", step, len(seen), len(pods))
		}
		if p := decide(s, list, inZone, have); len(p.create)+len(p.update)+len(p.remove) > 0 {
			t.Fatalf("step %d: not at rest: %d to create, %d to update, %d to remove", step, len(p.create), len(p.update), len(p.remove))
		}
	}
}

func mustIndex(name string) (i int) {
	fmt.Sscanf(name, "p%d", &i)
	return i
}

// TestConditions checks what an endpoint tells of pods in each state.
func TestConditions(t *testing.T) {
	going := aPod(1, true)
	going.DeletionTimestamp = &metav1.Time{Time: time.Unix(1, 0)}
	for name, tc := range map[string]struct {
		pod     *corev1.Pod
		publish bool
		want    [3]bool // ready, serving, terminating
	}{
		"ready":     {aPod(1, true), false, [3]bool{true, true, false}},
		"unready":   {aPod(1, false), false, [3]bool{false, false, false}},
		"going":     {going, false, [3]bool{false, true, true}},
		"published": {aPod(1, false), true, [3]bool{true, false, false}},
	} {
		s := service()
		s.Spec.PublishNotReadyAddresses = tc.publish
		e := endpointOf(s, tc.pod, "10.0.0.1", inZone)
		if got := [3]bool{*e.Conditions.Ready, *e.Conditions.Serving, *e.Conditions.Terminating}; got != tc.want || *e.Zone != "z" || *e.NodeName != "n1" {
			t.Errorf("%s: ready, serving, terminating %v, want %v", name, got, tc.want)
		}
	}
}

// TestFollows keeps slices through a server.
func TestFollows(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		srv := fake.New(service())
		d := controller.WithClient(srv)
		c := New(d)
		g := run.New(t.Context())
		g.Go("mirrors", d.Mirrors.Run)
		g.Go("loop", c.Run)
		defer func() { g.Stop(); g.Wait() }()
		slicesOf := func() []*discoveryv1.EndpointSlice {
			clock.Sleep(t.Context(), 5*time.Second)
			l, err := client.Of[discoveryv1.EndpointSlice](srv, "ns").List(t.Context(), nil)
			if err != nil {
				t.Fatal(err)
			}
			return l
		}
		got := slicesOf()
		if len(got) != 1 || len(got[0].Endpoints) != 0 || got[0].Labels[discoveryv1.LabelServiceName] != "web" || got[0].Labels[discoveryv1.LabelManagedBy] != manager || got[0].Labels["l"] != "1" {
			t.Fatalf("slices of a service without pods: %+v, want one empty one", got)
		}
		for i := range 150 {
			srv.Put(aPod(i, true))
		}
		got = slicesOf()
		n := 0
		for _, s := range got {
			n += len(s.Endpoints)
			if *s.Ports[0].Port != 8080 || *s.Ports[0].Name != "http" || s.AddressType != discoveryv1.AddressTypeIPv4 || len(s.OwnerReferences) != 1 {
				t.Errorf("slice %+v", s)
			}
		}
		if n != 150 || len(got) != 2 {
			t.Errorf("%d endpoints in %d slices, want 150 in 2", n, len(got))
		}
	})
}
