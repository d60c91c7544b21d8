package scheduler

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	devicev1 "k8s.io/api/resource/v1"
	storagev1 "k8s.io/api/storage/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"

	"github.com/sampan-dev/sampan/client"
	"github.com/sampan-dev/sampan/client/fake"
	"github.com/sampan-dev/sampan/kit/clock"
	"github.com/sampan-dev/sampan/kit/run"
	"github.com/sampan-dev/sampan/semantics/volume"
)

func list(pairs ...string) corev1.ResourceList {
	l := corev1.ResourceList{}
	for i := 0; i < len(pairs); i += 2 {
		l[corev1.ResourceName(pairs[i])] = resource.MustParse(pairs[i+1])
	}
	return l
}

func testNode(name, cpu string, edit ...func(*corev1.Node)) *corev1.Node {
	n := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name, UID: types.UID(name), Labels: map[string]string{corev1.LabelHostname: name}},
		Status: corev1.NodeStatus{Allocatable: list("cpu", cpu, "memory", "32Gi", "pods", "110")}}
	for _, f := range edit {
		f(n)
	}
	return n
}

func testPod(name, cpu string, edit ...func(*corev1.Pod)) *corev1.Pod {
	p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: "default", UID: types.UID(name), Generation: 1, Labels: map[string]string{"app": "a"}},
		Spec: corev1.PodSpec{SchedulerName: "default-scheduler", Containers: []corev1.Container{{Name: "c", Image: "nginx", Resources: corev1.ResourceRequirements{Requests: list("cpu", cpu)}}}}}
	for _, f := range edit {
		f(p)
	}
	return p
}

func withPriority(n int32) func(*corev1.Pod) { return func(p *corev1.Pod) { p.Spec.Priority = &n } }

func near(anti bool, key string) func(*corev1.Pod) {
	return func(p *corev1.Pod) {
		terms := []corev1.PodAffinityTerm{{TopologyKey: key, LabelSelector: &metav1.LabelSelector{MatchLabels: map[string]string{"app": "a"}}}}
		if anti {
			p.Spec.Affinity = &corev1.Affinity{PodAntiAffinity: &corev1.PodAntiAffinity{RequiredDuringSchedulingIgnoredDuringExecution: terms}}
		} else {
			p.Spec.Affinity = &corev1.Affinity{PodAffinity: &corev1.PodAffinity{RequiredDuringSchedulingIgnoredDuringExecution: terms}}
		}
	}
}

func onto(node string) func(*corev1.Pod) { return func(p *corev1.Pod) { p.Spec.NodeName = node } }

func zone(z string) func(*corev1.Node) {
	return func(n *corev1.Node) { n.Labels[corev1.LabelTopologyZone] = z }
}

// TestWhy checks the reasons users read in events.
func TestWhy(t *testing.T) {
	const none = " no new claims to deallocate, preemption: 0/1 nodes are available: 1 No preemption victims found for incoming pod."
	const useless = " no new claims to deallocate, preemption: 0/1 nodes are available: 1 Preemption is not helpful for scheduling."
	taint := func(n *corev1.Node) {
		n.Spec.Taints = []corev1.Taint{{Key: "k", Value: "v", Effect: corev1.TaintEffectNoSchedule}}
	}
	for name, tc := range map[string]struct {
		node  *corev1.Node
		there []*corev1.Pod
		pod   *corev1.Pod
		want  string
	}{
		"cpu taken":     {testNode("n", "1"), []*corev1.Pod{testPod("x", "800m", onto("n"))}, testPod("p", "500m"), "0/1 nodes are available: 1 Insufficient cpu." + none},
		"cpu never":     {testNode("n", "1"), nil, testPod("p", "2"), "0/1 nodes are available: 1 Insufficient cpu." + useless},
		"pods":          {testNode("n", "1", func(n *corev1.Node) { n.Status.Allocatable["pods"] = resource.MustParse("0") }), nil, testPod("p", "1m"), "0/1 nodes are available: 1 Too many pods." + none},
		"cordon":        {testNode("n", "1", func(n *corev1.Node) { n.Spec.Unschedulable = true }), nil, testPod("p", "1m"), "0/1 nodes are available: 1 node(s) were unschedulable." + useless},
		"taint":         {testNode("n", "1", taint), nil, testPod("p", "1m"), "0/1 nodes are available: 1 node(s) had untolerated taint(s)." + useless},
		"selector":      {testNode("n", "1"), nil, testPod("p", "1m", func(p *corev1.Pod) { p.Spec.NodeSelector = map[string]string{"disk": "ssd"} }), "0/1 nodes are available: 1 node(s) didn't match Pod's node affinity/selector." + useless},
		"anti-affinity": {testNode("n", "1"), []*corev1.Pod{testPod("x", "1m", onto("n"))}, testPod("p", "1m", near(true, corev1.LabelHostname)), "0/1 nodes are available: 1 node(s) didn't match pod anti-affinity rules." + none},
		"existing anti": {testNode("n", "1"), []*corev1.Pod{testPod("x", "1m", onto("n"), near(true, corev1.LabelHostname))}, testPod("p", "1m"), "0/1 nodes are available: 1 node(s) didn't satisfy existing pods anti-affinity rules." + none},
		"affinity":      {testNode("n", "1"), nil, testPod("p", "1m", near(false, corev1.LabelHostname), func(p *corev1.Pod) { p.Labels = nil }), "0/1 nodes are available: 1 node(s) didn't match pod affinity rules." + useless},
		"extended": {testNode("n", "1"), nil, testPod("p", "1m", func(p *corev1.Pod) {
			p.Spec.Containers[0].Resources.Requests["example.com/gpu"] = resource.MustParse("1")
		}), "0/1 nodes are available: 1 Insufficient example.com/gpu." + useless},
		"never preempts": {testNode("n", "1"), []*corev1.Pod{testPod("x", "800m", onto("n"))}, testPod("p", "500m", func(p *corev1.Pod) { never := corev1.PreemptNever; p.Spec.PreemptionPolicy = &never }), "0/1 nodes are available: 1 Insufficient cpu. no new claims to deallocate, preemption: not eligible due to preemptionPolicy=Never."},
	} {
		t.Run(name, func(t *testing.T) {
			c := newCluster()
			c.setNode(tc.node)
			for _, p := range tc.there {
				c.setPod(p)
			}
			n, k := c.place(newInfo(tc.pod), nil, clock.Rand(1))
			if n != nil {
				t.Fatalf("placed on %s", n.obj.Name)
			}
			d := c.diagnose(k)
			text := ""
			if ok, why := c.mayPreempt(tc.pod, nil); !ok {
				text = why
			} else if v := c.makeRoom(newInfo(tc.pod), k, &d, nil); v == nil {
				text = d.noRoomMade()
			}
			if got := d.message("no new claims to deallocate", text); got != tc.want {
				t.Errorf("message\n got %q\nwant %q", got, tc.want)
			}
		})
	}
}

// TestRespectsTopology places many pods and checks the constraints afterwards.
func TestRespectsTopology(t *testing.T) {
	zones := func() *cluster {
		c := newCluster()
		for i := range 6 {
			c.setNode(testNode(fmt.Sprint("n", i), "64", zone(fmt.Sprint("z", i%3))))
		}
		return c
	}
	placeAll := func(t *testing.T, c *cluster, n int, edit func(*corev1.Pod)) map[string]int {
		t.Helper()
		got := map[string]int{}
		rng := clock.Rand(7)
		for i := range n {
			in := newInfo(testPod(fmt.Sprint("p", i), "10m", edit))
			at, _ := c.place(in, nil, rng)
			if at == nil {
				got[""]++
				continue
			}
			c.putPod(in, at.obj.Name)
			got[at.obj.Labels[corev1.LabelTopologyZone]]++
		}
		return got
	}
	t.Run("spread", func(t *testing.T) {
		got := placeAll(t, zones(), 31, func(p *corev1.Pod) {
			p.Spec.TopologySpreadConstraints = []corev1.TopologySpreadConstraint{{MaxSkew: 1, TopologyKey: corev1.LabelTopologyZone, WhenUnsatisfiable: corev1.DoNotSchedule,
				LabelSelector: &metav1.LabelSelector{MatchLabels: map[string]string{"app": "a"}}}}
		})
		if len(got) != 3 || got["z0"] < 10 || got["z1"] < 10 || got["z2"] < 10 {
			t.Errorf("zones got %v, want 10 or 11 each", got)
		}
	})
	t.Run("anti", func(t *testing.T) {
		if got := placeAll(t, zones(), 5, near(true, corev1.LabelTopologyZone)); got[""] != 2 || got["z0"] != 1 || got["z1"] != 1 || got["z2"] != 1 {
			t.Errorf("zones got %v, want one each and two without", got)
		}
	})
	t.Run("together", func(t *testing.T) {
		if got := placeAll(t, zones(), 9, near(false, corev1.LabelTopologyZone)); len(got) != 1 || got[""] != 0 {
			t.Errorf("zones got %v, want all in one", got)
		}
	})
}

// TestClassesAgreeWithFresh compares what classes keep with what a cluster seen
// for the first time says, over a random history.
func TestClassesAgreeWithFresh(t *testing.T) {
	rng := clock.Rand(42)
	kinds := []func(*corev1.Pod){func(*corev1.Pod) {}, near(true, corev1.LabelHostname), near(false, corev1.LabelTopologyZone),
		func(p *corev1.Pod) {
			p.Spec.Containers[0].Ports = []corev1.ContainerPort{{HostPort: 80, ContainerPort: 80}}
		},
		func(p *corev1.Pod) { p.Labels = map[string]string{"app": "b"} }}
	long := newCluster()
	nodes := map[string]*corev1.Node{}
	pods := map[types.UID]*corev1.Pod{}
	for step := range 400 {
		switch k := rng.IntN(10); {
		case k == 0 || len(nodes) == 0:
			n := testNode(fmt.Sprint("n", rng.IntN(8)), fmt.Sprint(1+rng.IntN(3)), zone(fmt.Sprint("z", rng.IntN(3))))
			nodes[n.Name] = n
			long.setNode(n)
		case k == 1:
			for name := range nodes {
				delete(nodes, name)
				long.dropNode(name)
				for uid, p := range pods {
					if p.Spec.NodeName == name {
						delete(pods, uid)
						long.dropPod(uid)
					}
				}
				break
			}
		case k < 4:
			for uid := range pods {
				delete(pods, uid)
				long.dropPod(uid)
				break
			}
		default:
			p := testPod(fmt.Sprint("p", step), "150m", kinds[rng.IntN(len(kinds))])
			i := newInfo(p)
			if n, _ := long.place(i, nil, rng); n != nil {
				p.Spec.NodeName = n.obj.Name
				pods[p.UID] = p
				long.putPod(i, n.obj.Name)
			}
		}
		fresh := newCluster()
		for _, n := range nodes {
			fresh.setNode(n)
		}
		for _, p := range pods {
			fresh.setPod(p)
		}
		for j, edit := range kinds {
			i := newInfo(testPod("probe", "150m", edit))
			a, b := long.classOf(i, nil), fresh.classOf(i, nil)
			for name := range nodes {
				x, y := a.takes(long.byName[name]), b.takes(fresh.byName[name])
				if x != y {
					t.Fatalf("step %d kind %d node %s: kept class says %v, fresh one %v", step, j, name, x, y)
				}
			}
		}
	}
}

// TestSpreadsAWorkload: without any wish of their own, pods of one workload go
// to different nodes and zones.
func TestSpreadsAWorkload(t *testing.T) {
	c := newCluster()
	for i := range 4 {
		c.setNode(testNode(fmt.Sprint("n", i), "64", zone(fmt.Sprint("z", i%2))))
	}
	rng := clock.Rand(5)
	sel := labels.SelectorFromSet(labels.Set{"app": "a"})
	got := map[string]int{}
	for i := range 8 {
		in := newInfo(testPod(fmt.Sprint("p", i), "0"))
		n, _ := c.place(in, sel, rng)
		c.putPod(in, n.obj.Name)
		got[n.obj.Name]++
	}
	for name, n := range got {
		if n != 2 {
			t.Errorf("%s has %d pods, want 2: %v", name, n, got)
		}
	}
}

// TestDaemonPods go to the node they name, or nowhere.
func TestDaemonPods(t *testing.T) {
	c := newCluster()
	for i := range 3 {
		c.setNode(testNode(fmt.Sprint("n", i), "1"))
	}
	tied := func(name string) func(*corev1.Pod) {
		return func(p *corev1.Pod) {
			p.Spec.Affinity = &corev1.Affinity{NodeAffinity: &corev1.NodeAffinity{RequiredDuringSchedulingIgnoredDuringExecution: &corev1.NodeSelector{NodeSelectorTerms: []corev1.NodeSelectorTerm{
				{MatchFields: []corev1.NodeSelectorRequirement{{Key: "metadata.name", Operator: corev1.NodeSelectorOpIn, Values: []string{name}}}}}}}}
		}
	}
	n, _ := c.place(newInfo(testPod("d", "1", tied("n1"))), nil, clock.Rand(1))
	if n == nil || n.obj.Name != "n1" {
		t.Fatalf("placed on %v, want n1", n)
	}
	c.setPod(testPod("x", "600m", onto("n1")))
	n, k := c.place(newInfo(testPod("d", "600m", tied("n1"))), nil, clock.Rand(1))
	d := c.diagnose(k)
	if want := "0/3 nodes are available: 1 Insufficient cpu, 2 node(s) didn't match Pod's node affinity/selector."; n != nil || d.message("", "") != want {
		t.Errorf("placed on %v, message %q; want %q", n, d.message("", ""), want)
	}
}

// TestVolumes: claims decide which nodes do, and pods wait for them.
func TestVolumes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		wait := storagev1.VolumeBindingWaitForFirstConsumer
		late := "late"
		claim := func(name, on string, class *string) *corev1.PersistentVolumeClaim {
			c := &corev1.PersistentVolumeClaim{ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: "default", UID: types.UID(name)}, Spec: corev1.PersistentVolumeClaimSpec{VolumeName: on, StorageClassName: class,
				Resources: corev1.VolumeResourceRequirements{Requests: list("storage", "1Gi")}}}
			if on != "" {
				c.Annotations = map[string]string{volume.BindCompleted: "yes"}
			}
			return c
		}
		on := func(node string) *corev1.PersistentVolume {
			return &corev1.PersistentVolume{ObjectMeta: metav1.ObjectMeta{Name: "pv-" + node}, Spec: corev1.PersistentVolumeSpec{NodeAffinity: &corev1.VolumeNodeAffinity{Required: &corev1.NodeSelector{NodeSelectorTerms: []corev1.NodeSelectorTerm{
				{MatchExpressions: []corev1.NodeSelectorRequirement{{Key: corev1.LabelHostname, Operator: corev1.NodeSelectorOpIn, Values: []string{node}}}}}}}}}
		}
		srv := fake.New(testNode("n1", "4"), testNode("n2", "4"), claim("bound", "pv-n2", nil), on("n2"), claim("loose", "", nil), claim("first", "", &late),
			&storagev1.StorageClass{ObjectMeta: metav1.ObjectMeta{Name: late}, Provisioner: "csi.example.com", VolumeBindingMode: &wait})
		m := client.NewMirrors(srv)
		s, err := New(Config{Seed: 1}, Deps{Client: srv, Mirrors: m})
		if err != nil {
			t.Fatal(err)
		}
		g := run.New(t.Context())
		g.Go("mirrors", m.Run)
		g.Go("scheduler", s.Run)
		for _, name := range []string{"bound", "loose", "first", "none"} {
			srv.Put(testPod(name, "1m", func(p *corev1.Pod) {
				p.Spec.Volumes = []corev1.Volume{{Name: "v", VolumeSource: corev1.VolumeSource{PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{ClaimName: name}}}}
			}))
		}
		clock.Sleep(t.Context(), 5*time.Second)
		get := func(name string) *corev1.Pod {
			p, err := client.Of[corev1.Pod](srv, "default").Get(t.Context(), name)
			if err != nil {
				t.Fatal(err)
			}
			return p
		}
		if got := get("bound").Spec.NodeName; got != "n2" {
			t.Errorf("the pod of a volume on n2 is on %q", got)
		}
		for name, want := range map[string]string{"loose": "0/2 nodes are available: pod has unbound immediate PersistentVolumeClaims.", "none": "0/2 nodes are available: persistentvolumeclaim \"none\" not found."} {
			if c := get(name).Status.Conditions; len(c) != 1 || !strings.HasPrefix(c[0].Message, want) {
				t.Errorf("%s: %+v, want %q", name, c, want)
			}
		}
		pvc, _ := client.Of[corev1.PersistentVolumeClaim](srv, "default").Get(t.Context(), "first")
		chosen := pvc.Annotations[volume.SelectedNode]
		if chosen == "" || get("first").Spec.NodeName != "" {
			t.Fatalf("claim offered to %q, pod on %q; want a node offered and the pod waiting", chosen, get("first").Spec.NodeName)
		}
		srv.Put(on(chosen))
		srv.Put(claim("first", "pv-"+chosen, &late))
		clock.Sleep(t.Context(), 15*time.Second)
		if got := get("first").Spec.NodeName; got != chosen {
			t.Errorf("once bound the pod is on %q, want %s", got, chosen)
		}
		g.Stop()
		g.Wait()
	})
}

// TestClaimsThatChangeMeanwhile: what the mirror shows by now counts, not what
// the class was judged by.
func TestClaimsThatChangeMeanwhile(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		wait, late := storagev1.VolumeBindingWaitForFirstConsumer, "late"
		claim := &corev1.PersistentVolumeClaim{ObjectMeta: metav1.ObjectMeta{Name: "c", Namespace: "default", UID: "c"}, Spec: corev1.PersistentVolumeClaimSpec{StorageClassName: &late}}
		srv := fake.New(claim, &storagev1.StorageClass{ObjectMeta: metav1.ObjectMeta{Name: late}, Provisioner: "csi.example.com", VolumeBindingMode: &wait})
		m := client.NewMirrors(srv)
		s, err := New(Config{Seed: 3}, Deps{Client: srv, Mirrors: m})
		if err != nil {
			t.Fatal(err)
		}
		g := run.New(t.Context())
		g.Go("mirrors", m.Run)
		synctest.Wait()
		s.cluster.setNode(testNode("n1", "4"))
		s.cluster.setNode(testNode("n2", "4"))
		p := testPod("p", "1m", func(p *corev1.Pod) {
			p.Spec.Volumes = []corev1.Volume{{Name: "v", VolumeSource: corev1.VolumeSource{PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{ClaimName: "c"}}}}
		})
		if n, k := s.cluster.place(newInfo(p), nil, s.rng); n == nil {
			t.Fatal(k.refused)
		}
		bound := claim.DeepCopy()
		bound.Annotations = map[string]string{volume.BindCompleted: "yes"}
		bound.Spec.VolumeName = "pv"
		srv.Put(&corev1.PersistentVolume{ObjectMeta: metav1.ObjectMeta{Name: "pv"}, Spec: corev1.PersistentVolumeSpec{NodeAffinity: &corev1.VolumeNodeAffinity{Required: &corev1.NodeSelector{NodeSelectorTerms: []corev1.NodeSelectorTerm{
			{MatchExpressions: []corev1.NodeSelectorRequirement{{Key: corev1.LabelHostname, Operator: corev1.NodeSelectorOpIn, Values: []string{"n2"}}}}}}}}})
		srv.Put(bound)
		synctest.Wait()
		for node, want := range map[string]bool{"n1": false, "n2": true} {
			if _, _, ok := s.v.confirm(p, s.cluster.byName[node].obj); ok != want {
				t.Errorf("%s: %v, want %v", node, ok, want)
			}
		}
		for range 20 {
			s.line.set(p, clock.Now())
			w, _ := s.line.pop(clock.Now())
			s.attempt(w)
			if at, ok := s.cluster.pods[p.UID]; ok && at.node.obj.Name == "n1" {
				t.Fatal("the pod goes where its volume cannot be reached")
			}
			s.line.drop(p.UID)
		}
		g.Stop()
		g.Wait()
	})
}

// TestLocalVolumes: pods go where volumes of their class are left, and no two get the same.
func TestLocalVolumes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		wait, class := storagev1.VolumeBindingWaitForFirstConsumer, "local"
		srv := fake.New(testNode("n1", "4"), testNode("n2", "4"), testNode("n3", "4"),
			&storagev1.StorageClass{ObjectMeta: metav1.ObjectMeta{Name: class}, Provisioner: volume.NoProvisioner, VolumeBindingMode: &wait})
		for _, node := range []string{"n1", "n2"} {
			srv.Put(&corev1.PersistentVolume{ObjectMeta: metav1.ObjectMeta{Name: "pv-" + node}, Status: corev1.PersistentVolumeStatus{Phase: corev1.VolumeAvailable},
				Spec: corev1.PersistentVolumeSpec{Capacity: list("storage", "5Gi"), StorageClassName: class, NodeAffinity: &corev1.VolumeNodeAffinity{Required: &corev1.NodeSelector{NodeSelectorTerms: []corev1.NodeSelectorTerm{
					{MatchExpressions: []corev1.NodeSelectorRequirement{{Key: corev1.LabelHostname, Operator: corev1.NodeSelectorOpIn, Values: []string{node}}}}}}}}})
		}
		m := client.NewMirrors(srv)
		s, err := New(Config{Seed: 1}, Deps{Client: srv, Mirrors: m})
		if err != nil {
			t.Fatal(err)
		}
		// The binder: a claim that a volume names becomes bound.
		client.MirrorOf[corev1.PersistentVolume](m, client.MirrorOptions{}).OnChange(func(_, v *corev1.PersistentVolume) {
			if v == nil || v.Spec.ClaimRef == nil {
				return
			}
			run.Detach(t.Context(), "bind", func(ctx context.Context) {
				c, err := client.Of[corev1.PersistentVolumeClaim](srv, "default").Get(ctx, v.Spec.ClaimRef.Name)
				if err == nil && c.Spec.VolumeName == "" {
					c = c.DeepCopy()
					c.Spec.VolumeName, c.Annotations = v.Name, map[string]string{volume.BindCompleted: "yes"}
					srv.Put(c)
				}
			})
		})
		for _, name := range []string{"a", "b", "c"} {
			srv.Put(&corev1.PersistentVolumeClaim{ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: "default", UID: types.UID(name)}, Spec: corev1.PersistentVolumeClaimSpec{StorageClassName: &class,
				Resources: corev1.VolumeResourceRequirements{Requests: list("storage", "1Gi")}}})
			srv.Put(testPod(name, "1m", func(p *corev1.Pod) {
				p.Spec.Volumes = []corev1.Volume{{Name: "v", VolumeSource: corev1.VolumeSource{PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{ClaimName: name}}}}
			}))
		}
		g := run.New(t.Context())
		g.Go("mirrors", m.Run)
		g.Go("scheduler", s.Run)
		clock.Sleep(t.Context(), 3*time.Second)
		on := map[string]int{}
		pods, _ := client.Of[corev1.Pod](srv, "default").List(t.Context(), nil)
		for _, p := range pods {
			on[p.Spec.NodeName]++
			if p.Spec.NodeName == "" && !strings.HasPrefix(p.Status.Conditions[0].Message, "0/3 nodes are available: 3 node(s) didn't find available persistent volumes to bind.") {
				t.Errorf("%s: %s", p.Name, p.Status.Conditions[0].Message)
			}
		}
		if on["n1"] != 1 || on["n2"] != 1 || on[""] != 1 {
			t.Errorf("pods on %v", on)
		}
		g.Stop()
		g.Wait()
	})
}

// TestRoomIsKept: what comes while the evicted leave does not take the room made.
func TestRoomIsKept(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		grace := int64(5)
		there := func(name string, prio int32, cpu string) *corev1.Pod {
			p := testPod(name, cpu, onto("n1"), withPriority(prio))
			p.Spec.TerminationGracePeriodSeconds, p.DeletionGracePeriodSeconds = &grace, &grace
			return p
		}
		srv := fake.New(testNode("n1", "1"), there("one", 1, "200m"), there("two", 2, "300m"), there("three", 3, "450m"))
		m := client.NewMirrors(srv)
		s, err := New(Config{Seed: 1}, Deps{Client: srv, Mirrors: m})
		if err != nil {
			t.Fatal(err)
		}
		g := run.New(t.Context())
		g.Go("mirrors", m.Run)
		g.Go("scheduler", s.Run)
		pods := client.Of[corev1.Pod](srv, "default")
		clock.Sleep(t.Context(), time.Second)
		srv.Put(testPod("four", "500m", withPriority(4)))
		now := int64(0)
		for i := range 10 {
			clock.Sleep(t.Context(), time.Second)
			// The evicted leave one by one, and are replaced at once.
			if name := map[int]string{2: "one", 4: "two"}[i]; name != "" {
				p, err := pods.Get(t.Context(), name)
				if err == nil && p.DeletionTimestamp == nil && !evictedByUs(p) {
					t.Errorf("%s was not evicted", name)
				}
				pods.Delete(t.Context(), name, &metav1.DeleteOptions{GracePeriodSeconds: &now})
				srv.Put(testPod(name+"-again", map[string]string{"one": "200m", "two": "300m"}[name], withPriority(int32(len(name)-2))))
			}
		}
		on := map[string]string{}
		list, _ := pods.List(t.Context(), nil)
		for _, p := range list {
			on[p.Name] = p.Spec.NodeName
		}
		if on["four"] != "n1" || on["three"] != "n1" || on["one-again"] != "" || on["two-again"] != "" {
			t.Errorf("pods on %v", on)
		}
		g.Stop()
		g.Wait()
	})
}

// TestDevices: a pod waits for its device claims and goes where they were allocated.
func TestDevices(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		srv := fake.New(testNode("n1", "4"), testNode("n2", "4"))
		m := client.NewMirrors(srv)
		s, err := New(Config{Seed: 1}, Deps{Client: srv, Mirrors: m})
		if err != nil {
			t.Fatal(err)
		}
		g := run.New(t.Context())
		g.Go("mirrors", m.Run)
		g.Go("scheduler", s.Run)
		template := "gpu"
		srv.Put(testPod("p", "1m", func(p *corev1.Pod) {
			p.Spec.ResourceClaims = []corev1.PodResourceClaim{{Name: "gpu", ResourceClaimTemplateName: &template}}
		}))
		get := func() *corev1.Pod {
			clock.Sleep(t.Context(), 15*time.Second)
			p, err := client.Of[corev1.Pod](srv, "default").Get(t.Context(), "p")
			if err != nil {
				t.Fatal(err)
			}
			return p
		}
		waits := func(why string) *corev1.Pod {
			t.Helper()
			p := get()
			if len(p.Status.Conditions) != 1 || !strings.HasPrefix(p.Status.Conditions[0].Message, "0/2 nodes are available: "+why+".") {
				t.Errorf("%+v, want %s", p.Status.Conditions, why)
			}
			return p
		}
		p := waits(`pod "default/p": ResourceClaim not created yet`).DeepCopy()
		name := "p-gpu"
		p.Status.ResourceClaimStatuses = []corev1.PodResourceClaimStatus{{Name: "gpu", ResourceClaimName: &name}}
		c := wish(name, "gpu", "none")
		c.OwnerReferences = []metav1.OwnerReference{*metav1.NewControllerRef(p, corev1.SchemeGroupVersion.WithKind("Pod"))}
		srv.Put(c)
		srv.Put(&devicev1.DeviceClass{ObjectMeta: metav1.ObjectMeta{Name: "gpu"}})
		srv.Put(p)
		waits("2 cannot allocate all claims")
		c = c.DeepCopy()
		c.Status.Allocation = &devicev1.AllocationResult{NodeSelector: &corev1.NodeSelector{NodeSelectorTerms: []corev1.NodeSelectorTerm{
			{MatchExpressions: []corev1.NodeSelectorRequirement{{Key: corev1.LabelHostname, Operator: corev1.NodeSelectorOpIn, Values: []string{"n2"}}}}}}}
		srv.Put(c)
		if got := get().Spec.NodeName; got != "n2" {
			t.Errorf("on %q, want where the device is", got)
		}
		g.Stop()
		g.Wait()
	})
}

// TestEphemeralVolumes: a pod made again under its old name is not mistaken for the old one.
func TestEphemeralVolumes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		srv := fake.New(testNode("n1", "4"))
		m := client.NewMirrors(srv)
		s, err := New(Config{Seed: 1}, Deps{Client: srv, Mirrors: m})
		if err != nil {
			t.Fatal(err)
		}
		g := run.New(t.Context())
		g.Go("mirrors", m.Run)
		g.Go("scheduler", s.Run)
		now := int64(0)
		for _, uid := range []types.UID{"first", "second"} {
			p := testPod("p", "1m", func(p *corev1.Pod) {
				p.UID = uid
				p.Spec.Volumes = []corev1.Volume{{Name: "v", VolumeSource: corev1.VolumeSource{Ephemeral: &corev1.EphemeralVolumeSource{}}}}
			})
			srv.Put(p)
			clock.Sleep(t.Context(), time.Second)
			srv.Put(&corev1.PersistentVolumeClaim{ObjectMeta: metav1.ObjectMeta{Name: "p-v", Namespace: "default", UID: uid, Annotations: map[string]string{volume.BindCompleted: "yes"},
				OwnerReferences: []metav1.OwnerReference{*metav1.NewControllerRef(p, corev1.SchemeGroupVersion.WithKind("Pod"))}}, Spec: corev1.PersistentVolumeClaimSpec{VolumeName: "pv"}})
			srv.Put(&corev1.PersistentVolume{ObjectMeta: metav1.ObjectMeta{Name: "pv"}})
			clock.Sleep(t.Context(), 5*time.Second)
			got, err := client.Of[corev1.Pod](srv, "default").Get(t.Context(), "p")
			if err != nil || got.Spec.NodeName != "n1" {
				t.Errorf("%s pod: %v %+v", uid, err, got.Status)
			}
			client.Of[corev1.Pod](srv, "default").Delete(t.Context(), "p", &metav1.DeleteOptions{GracePeriodSeconds: &now})
			client.Of[corev1.PersistentVolumeClaim](srv, "default").Delete(t.Context(), "p-v", nil)
		}
		g.Stop()
		g.Wait()
	})
}

// TestRunPreempts evicts, keeps the room, and takes it.
func TestRunPreempts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		grace := int64(30)
		low := testPod("low", "900m", onto("n1"), withPriority(1))
		low.DeletionGracePeriodSeconds = &grace
		srv := fake.New(testNode("n1", "1"), low)
		m := client.NewMirrors(srv)
		s, err := New(Config{Seed: 1}, Deps{Client: srv, Mirrors: m})
		if err != nil {
			t.Fatal(err)
		}
		g := run.New(t.Context())
		g.Go("mirrors", m.Run)
		g.Go("scheduler", s.Run)
		pods := client.Of[corev1.Pod](srv, "default")
		srv.Put(testPod("high", "800m", withPriority(100)))
		clock.Sleep(t.Context(), 3*time.Second)
		p, _ := pods.Get(t.Context(), "low")
		if p.DeletionTimestamp == nil || len(p.Status.Conditions) != 1 || p.Status.Conditions[0].Reason != "PreemptionByScheduler" {
			t.Fatalf("the victim: deletion %v, conditions %+v", p.DeletionTimestamp, p.Status.Conditions)
		}
		if p, _ = pods.Get(t.Context(), "high"); p.Status.NominatedNodeName != "n1" || p.Spec.NodeName != "" {
			t.Fatalf("nominated %q, bound %q; want n1 nominated while the victim ends", p.Status.NominatedNodeName, p.Spec.NodeName)
		}
		zero := int64(0)
		srv.Put(testPod("thief", "500m", withPriority(50))) // must not take the room
		pods.Delete(t.Context(), "low", &metav1.DeleteOptions{GracePeriodSeconds: &zero})
		clock.Sleep(t.Context(), 30*time.Second)
		high, _ := pods.Get(t.Context(), "high")
		thief, _ := pods.Get(t.Context(), "thief")
		if high.Spec.NodeName != "n1" || thief.Spec.NodeName != "" {
			t.Errorf("high is on %q, the other on %q; want n1 and nowhere", high.Spec.NodeName, thief.Spec.NodeName)
		}
		g.Stop()
		g.Wait()
	})
}

func TestPreemptsTheLeastImportant(t *testing.T) {
	c := newCluster()
	for i := range 3 {
		c.setNode(testNode(fmt.Sprint("n", i), "2"))
	}
	for i, pr := range []int32{50, 10, 90} {
		for j := range 2 {
			c.setPod(testPod(fmt.Sprint("low", i, j), "1", onto(fmt.Sprint("n", i)), withPriority(pr)))
		}
	}
	in := newInfo(testPod("p", "1", withPriority(100)))
	n, k := c.place(in, nil, clock.Rand(1))
	if n != nil {
		t.Fatal("there is no room, yet a node was found")
	}
	d := c.diagnose(k)
	v := c.makeRoom(in, k, &d, nil)
	if v == nil || v.node.obj.Name != "n1" || len(v.pods) != 1 || priority(v.pods[0].pod) != 10 {
		t.Fatalf("victims %+v, want one pod of priority 10 on n1", v)
	}
	if len(c.pods) != 6 {
		t.Errorf("%d pods left in the cluster after a trial, want 6", len(c.pods))
	}
}

// TestRun schedules through a server: what fits is bound, what does not waits
// with a reason until there is room.
func TestRun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		srv := fake.New(testNode("n1", "1"))
		m := client.NewMirrors(srv)
		s, err := New(Config{Seed: 1}, Deps{Client: srv, Mirrors: m})
		if err != nil {
			t.Fatal(err)
		}
		g := run.New(t.Context())
		g.Go("mirrors", m.Run)
		g.Go("scheduler", s.Run)
		pods := client.Of[corev1.Pod](srv, "default")
		for i := range 3 {
			if _, err := pods.Create(t.Context(), testPod(fmt.Sprint("p", i), "400m")); err != nil {
				t.Fatal(err)
			}
		}
		clock.Sleep(t.Context(), 3*time.Second)
		waits := ""
		for i := range 3 {
			p, err := pods.Get(t.Context(), fmt.Sprint("p", i))
			if err != nil {
				t.Fatal(err)
			}
			if p.Spec.NodeName == "" {
				waits += p.Name
				if len(p.Status.Conditions) != 1 || !strings.HasPrefix(p.Status.Conditions[0].Message, "0/1 nodes are available: 1 Insufficient cpu.") || p.Status.Conditions[0].Reason != "Unschedulable" {
					t.Errorf("conditions of the waiting pod: %+v", p.Status.Conditions)
				}
			}
		}
		if len(waits) != 2 {
			t.Fatalf("waiting pods: %q, want exactly one", waits)
		}
		srv.Put(testNode("n2", "1"))
		clock.Sleep(t.Context(), 15*time.Second)
		if p, _ := pods.Get(t.Context(), waits); p.Spec.NodeName != "n2" {
			t.Errorf("%s is on %q, want n2 once it came", waits, p.Spec.NodeName)
		}
		reasons := map[string]bool{}
		events, _ := client.Of[corev1.Event](srv, "").List(t.Context(), nil)
		for _, e := range events {
			reasons[e.Reason+": "+e.Message] = true
		}
		for _, want := range []string{"FailedScheduling: 0/1 nodes are available: 1 Insufficient cpu. no new claims to deallocate, preemption: 0/1 nodes are available: 1 No preemption victims found for incoming pod.",
			"Scheduled: Successfully assigned default/" + waits + " to n2"} {
			if !reasons[want] {
				t.Errorf("no event %q among %v", want, reasons)
			}
		}
		g.Stop()
		if err := g.Wait(); err != nil {
			t.Error(err)
		}
	})
}

func BenchmarkPlace5000Nodes(b *testing.B) {
	for name, edit := range map[string]func(*corev1.Pod){"basic": func(*corev1.Pod) {}, "anti-affinity": near(true, corev1.LabelHostname), "affinity": near(false, corev1.LabelTopologyZone)} {
		b.Run(name, func(b *testing.B) {
			c := newCluster()
			for i := range 5000 {
				c.setNode(testNode(fmt.Sprint("n", i), "1000", zone(fmt.Sprint("z", i%10)), func(n *corev1.Node) { n.Status.Allocatable["pods"] = resource.MustParse("100000") }))
			}
			rng := clock.Rand(1)
			i := 0
			for b.Loop() {
				p := testPod(fmt.Sprint("p", i), "10m", edit)
				i++
				in := newInfo(p)
				n, _ := c.place(in, nil, rng)
				if n == nil {
					c = emptied(c)
					continue
				}
				c.putPod(in, n.obj.Name)
			}
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "pods/s")
		})
	}
}

// emptied is the same cluster without its pods.
func emptied(c *cluster) *cluster {
	for uid := range c.pods {
		c.dropPod(uid)
	}
	return c
}
