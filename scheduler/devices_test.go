package scheduler

import (
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	devicev1 "k8s.io/api/resource/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"

	"github.com/sampan-dev/sampan/api"
	"github.com/sampan-dev/sampan/client"
	"github.com/sampan-dev/sampan/client/fake"
	"github.com/sampan-dev/sampan/kit/run"
)

func claimed(names ...string) func(*corev1.Pod) {
	return func(p *corev1.Pod) {
		for _, n := range names {
			p.Spec.ResourceClaims = append(p.Spec.ResourceClaims, corev1.PodResourceClaim{Name: n, ResourceClaimName: &n})
		}
	}
}

func wish(name, class, model string) *devicev1.ResourceClaim {
	return &devicev1.ResourceClaim{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name, UID: types.UID(name)}, Spec: devicev1.ResourceClaimSpec{Devices: devicev1.DeviceClaim{
		Requests: []devicev1.DeviceRequest{{Name: "r", Exactly: &devicev1.ExactDeviceRequest{DeviceClassName: class, AllocationMode: devicev1.DeviceAllocationModeExactCount, Count: 1,
			Selectors: []devicev1.DeviceSelector{{CEL: &devicev1.CELDeviceSelector{Expression: `device.attributes["gpu.example.com"].model == "` + model + `"`}}}}}}}}}
}

func published(node string, devices ...string) *devicev1.ResourceSlice {
	s := &devicev1.ResourceSlice{ObjectMeta: metav1.ObjectMeta{Name: node}, Spec: devicev1.ResourceSliceSpec{Driver: "gpu.example.com", NodeName: &node, Pool: devicev1.ResourcePool{Name: node, ResourceSliceCount: 1}}}
	for _, d := range devices {
		model, _, _ := strings.Cut(d, "-")
		s.Spec.Devices = append(s.Spec.Devices, devicev1.Device{Name: d, Attributes: map[devicev1.QualifiedName]devicev1.DeviceAttribute{"model": {StringValue: &model}}})
	}
	return s
}

// deviceStory is a scheduler over a fake server.
func deviceStory(t *testing.T, objs []api.Object, fn func(srv *fake.Server, rest func(time.Duration), pod func(string) *corev1.Pod, claim func(string) *devicev1.ResourceClaim)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		srv := fake.New(objs...)
		m := client.NewMirrors(srv)
		s, err := New(Config{Seed: 1}, Deps{Client: srv, Mirrors: m})
		if err != nil {
			t.Fatal(err)
		}
		g := run.New(t.Context())
		g.Go("mirrors", m.Run)
		g.Go("scheduler", s.Run)
		defer func() { g.Stop(); g.Wait() }()
		rest := func(d time.Duration) { time.Sleep(d + 7*time.Millisecond); synctest.Wait() }
		rest(0)
		fn(srv, rest, func(name string) *corev1.Pod {
			p, err := client.Of[corev1.Pod](srv, "default").Get(t.Context(), name)
			if err != nil {
				t.Fatal(err)
			}
			return p
		}, func(name string) *devicev1.ResourceClaim {
			c, err := client.Of[devicev1.ResourceClaim](srv, "default").Get(t.Context(), name)
			if err != nil {
				t.Fatal(err)
			}
			return c
		})
	})
}

func why(p *corev1.Pod) string {
	for _, c := range p.Status.Conditions {
		if c.Type == corev1.PodScheduled {
			return c.Message
		}
	}
	return ""
}

// TestDevicesAreAllocated follows pods with claims for devices.
func TestDevicesAreAllocated(t *testing.T) {
	objs := []api.Object{testNode("n1", "4"), testNode("n2", "4"), published("n1", "big-0"), published("n2", "small-0", "small-1"),
		&devicev1.DeviceClass{ObjectMeta: metav1.ObjectMeta{Name: "gpu"}}, wish("a", "gpu", "small"), wish("b", "gpu", "small"), wish("c", "gpu", "small"), wish("d", "none", "small")}
	deviceStory(t, objs, func(srv *fake.Server, rest func(time.Duration), pod func(string) *corev1.Pod, claim func(string) *devicev1.ResourceClaim) {
		srv.Put(testPod("pa", "1m", claimed("a")))
		rest(5 * time.Second)
		a := claim("a")
		if pod("pa").Spec.NodeName != "n2" || a.Status.Allocation == nil || a.Status.Allocation.Devices.Results[0].Device != "small-0" || a.Status.Allocation.AllocationTimestamp == nil {
			t.Fatalf("pod on %q, claim %+v: %s", pod("pa").Spec.NodeName, a.Status, why(pod("pa")))
		}
		if len(a.Status.ReservedFor) != 1 || a.Status.ReservedFor[0].UID != "pa" || !slices.Contains(a.Finalizers, devicev1.Finalizer) {
			t.Errorf("claim %v is reserved for %v", a.Finalizers, a.Status.ReservedFor)
		}
		// A second pod shares the claim; it must follow the first.
		srv.Put(testPod("pa2", "1m", claimed("a")))
		srv.Put(testPod("pb", "1m", claimed("b")))
		rest(5 * time.Second)
		if pod("pa2").Spec.NodeName != "n2" || len(claim("a").Status.ReservedFor) != 2 {
			t.Errorf("the second user is on %q, the claim reserved for %v", pod("pa2").Spec.NodeName, claim("a").Status.ReservedFor)
		}
		if pod("pb").Spec.NodeName != "n2" || claim("b").Status.Allocation.Devices.Results[0].Device != "small-1" {
			t.Errorf("the second claim is on %q with %+v", pod("pb").Spec.NodeName, claim("b").Status.Allocation)
		}
		// There are no more, and one class is not there.
		srv.Put(testPod("pc", "1m", claimed("c")))
		srv.Put(testPod("pd", "1m", claimed("d")))
		rest(5 * time.Second)
		if got, want := why(pod("pc")), "0/2 nodes are available: 2 cannot allocate all claims. still not schedulable, preemption: 0/2 nodes are available: 2 Preemption is not helpful for scheduling."; got != want {
			t.Errorf("message\n got %q\nwant %q", got, want)
		}
		if got, want := why(pod("pd")), "0/2 nodes are available: request r: device class none does not exist."; !strings.HasPrefix(got, want) {
			t.Errorf("message %q, want %q", got, want)
		}
		// Devices that are given back, and classes that come, are seen.
		b := claim("b").DeepCopy()
		b.Status.Allocation, b.Status.ReservedFor = nil, nil
		if err := client.Of[corev1.Pod](srv, "default").Delete(t.Context(), "pb", nil); err != nil {
			t.Fatal(err)
		}
		srv.Put(b)
		rest(15 * time.Second)
		if pod("pc").Spec.NodeName != "n2" || claim("c").Status.Allocation == nil {
			t.Errorf("a freed device is not taken: %s", why(pod("pc")))
		}
		srv.Put(published("n1", "big-0", "small-9"))
		srv.Put(&devicev1.DeviceClass{ObjectMeta: metav1.ObjectMeta{Name: "none"}})
		rest(15 * time.Second)
		if pod("pd").Spec.NodeName != "n1" || claim("d").Status.Allocation.Devices.Results[0].Device != "small-9" {
			t.Errorf("a new class and device: pod on %q: %s", pod("pd").Spec.NodeName, why(pod("pd")))
		}
	})
}

// TestDevicesAreTakenOnce lets many pods ask for few devices at the same moment.
func TestDevicesAreTakenOnce(t *testing.T) {
	objs := []api.Object{testNode("n1", "64"), testNode("n2", "64"), published("n1", "x-0", "x-1", "x-2"), published("n2", "x-0", "x-1"), &devicev1.DeviceClass{ObjectMeta: metav1.ObjectMeta{Name: "gpu"}}}
	deviceStory(t, objs, func(srv *fake.Server, rest func(time.Duration), pod func(string) *corev1.Pod, claim func(string) *devicev1.ResourceClaim) {
		names := []string{"a", "b", "c", "d", "e", "f", "g", "h"}
		for _, n := range names {
			srv.Put(wish(n, "gpu", "x"))
			srv.Put(testPod("p"+n, "1m", claimed(n)))
		}
		rest(time.Minute)
		seen := map[string]bool{}
		for _, n := range names {
			a := claim(n).Status.Allocation
			if (a != nil) != (pod("p"+n).Spec.NodeName != "") {
				t.Errorf("claim %s has %v, its pod is on %q", n, a, pod("p"+n).Spec.NodeName)
			}
			if a == nil {
				continue
			}
			d := a.Devices.Results[0]
			if key := d.Pool + "/" + d.Device; seen[key] || d.Pool != pod("p"+n).Spec.NodeName {
				t.Errorf("device %s is given twice, or to another node than %s", key, pod("p"+n).Spec.NodeName)
			} else {
				seen[key] = true
			}
		}
		if len(seen) != 5 {
			t.Errorf("%d of five devices are in use", len(seen))
		}
	})
}

// TestDevicesElsewhere: a claim that has its devices where its pod cannot go, and
// that nobody uses, gives them back.
func TestDevicesElsewhere(t *testing.T) {
	c := wish("a", "gpu", "x")
	c.Status.Allocation = &devicev1.AllocationResult{NodeSelector: &corev1.NodeSelector{NodeSelectorTerms: []corev1.NodeSelectorTerm{{MatchFields: []corev1.NodeSelectorRequirement{
		{Key: "metadata.name", Operator: corev1.NodeSelectorOpIn, Values: []string{"n1"}}}}}}}
	full := testNode("n1", "4", func(n *corev1.Node) { n.Spec.Unschedulable = true })
	objs := []api.Object{full, testNode("n2", "4"), published("n1", "x-0"), published("n2", "x-0"), &devicev1.DeviceClass{ObjectMeta: metav1.ObjectMeta{Name: "gpu"}}, c}
	deviceStory(t, objs, func(srv *fake.Server, rest func(time.Duration), pod func(string) *corev1.Pod, claim func(string) *devicev1.ResourceClaim) {
		srv.Put(testPod("p", "1m", claimed("a")))
		rest(30 * time.Second)
		list, err := client.Of[corev1.Event](srv, "default").List(t.Context(), nil)
		if err != nil {
			t.Fatal(err)
		}
		const want = "0/2 nodes are available: 1 node(s) were unschedulable, 1 resourceclaim not available on the node. deallocation of ResourceClaim completed, preemption: 0/2 nodes are available: 2 Preemption is not helpful for scheduling."
		if !slices.ContainsFunc(list, func(e *corev1.Event) bool { return e.Message == want }) {
			for _, e := range list {
				t.Log(e.Message)
			}
			t.Errorf("no event %q", want)
		}
		if a := claim("a").Status.Allocation; pod("p").Spec.NodeName != "n2" || a == nil || a.Devices.Results[0].Pool != "n2" {
			t.Errorf("pod on %q, claim %+v: %s", pod("p").Spec.NodeName, a, why(pod("p")))
		}
	})
}

func TestClaimsThatCannotBeUsed(t *testing.T) {
	crowd := wish("crowd", "gpu", "x")
	crowd.Status.Allocation = &devicev1.AllocationResult{}
	for i := range devicev1.ResourceClaimReservedForMaxSize {
		crowd.Status.ReservedFor = append(crowd.Status.ReservedFor, devicev1.ResourceClaimConsumerReference{Resource: "pods", UID: types.UID(rune(i))})
	}
	going := wish("going", "gpu", "x")
	going.DeletionTimestamp, going.Finalizers = ptr.To(metav1.Now()), []string{"x"}
	objs := []api.Object{testNode("n1", "4"), crowd, going, wish("stranger", "gpu", "x")}
	deviceStory(t, objs, func(srv *fake.Server, rest func(time.Duration), pod func(string) *corev1.Pod, _ func(string) *devicev1.ResourceClaim) {
		for name, want := range map[string]string{
			"crowd": "resourceclaim in use", "going": `resourceclaim "going" is being deleted`, "absent": `could not find ResourceClaim "default/absent"`,
			"stranger": "ResourceClaim default/stranger was not created for Pod default/stranger (Pod is not owner)",
			"unmade":   `pod "default/unmade": ResourceClaim not created yet`,
		} {
			p := testPod(name, "1m", claimed(name))
			if name == "stranger" || name == "unmade" {
				p.Spec.ResourceClaims = []corev1.PodResourceClaim{{Name: "x", ResourceClaimTemplateName: ptr.To("t")}}
			}
			if name == "stranger" {
				p.Status.ResourceClaimStatuses = []corev1.PodResourceClaimStatus{{Name: "x", ResourceClaimName: &name}}
			}
			srv.Put(p)
			rest(5 * time.Second)
			if got := why(pod(name)); !strings.HasPrefix(got, "0/1 nodes are available: "+want+".") {
				t.Errorf("%s: %q, want %q", name, got, want)
			}
		}
	})
}
