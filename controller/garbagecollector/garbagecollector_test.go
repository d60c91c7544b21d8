package garbagecollector

import (
	"context"
	"encoding/json"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	apiregistrationv1 "k8s.io/kube-aggregator/pkg/apis/apiregistration/v1"

	"github.com/sampan-dev/sampan/api"
	"github.com/sampan-dev/sampan/client"
	"github.com/sampan-dev/sampan/client/fake"
	"github.com/sampan-dev/sampan/controller"
	"github.com/sampan-dev/sampan/kit/run"
)

func ref(kind, name, uid string, block bool) metav1.OwnerReference {
	return metav1.OwnerReference{APIVersion: "apps/v1", Kind: kind, Name: name, UID: types.UID(uid), BlockOwnerDeletion: &block}
}

func TestDecide(t *testing.T) {
	fg := &node{identity: identity{uid: "f"}, foreground: true}
	plain := &node{identity: identity{uid: "p"}}
	for name, c := range map[string]struct {
		s          standing
		finalizers []string
		dependents []*node
		unlink     int
		unblock    bool
		remove     metav1.DeletionPropagation
	}{
		"an owner is there":             {s: standing{solid: []types.UID{"a"}}},
		"one there, one gone":           {s: standing{solid: []types.UID{"a"}, dangling: []types.UID{"b"}, waiting: []types.UID{"c"}}, unlink: 2},
		"all gone":                      {s: standing{dangling: []types.UID{"a"}}, remove: metav1.DeletePropagationBackground},
		"gone, to orphan":               {s: standing{dangling: []types.UID{"a"}}, finalizers: []string{"orphan"}, remove: metav1.DeletePropagationOrphan},
		"gone, foreground":              {s: standing{dangling: []types.UID{"a"}}, finalizers: []string{"foregroundDeletion"}, remove: metav1.DeletePropagationForeground},
		"owner waits, leaf":             {s: standing{waiting: []types.UID{"a"}}, remove: metav1.DeletePropagationBackground},
		"owner waits, has dependents":   {s: standing{waiting: []types.UID{"a"}}, dependents: []*node{plain}, remove: metav1.DeletePropagationForeground},
		"owner waits, circle":           {s: standing{waiting: []types.UID{"a"}}, dependents: []*node{fg}, unblock: true, remove: metav1.DeletePropagationForeground},
		"no owners (changed meanwhile)": {},
	} {
		p := decide(c.s, c.finalizers, c.dependents)
		if len(p.unlink) != c.unlink || p.unblock != c.unblock || p.remove != c.remove {
			t.Errorf("%s: %+v", name, p)
		}
	}
}

// serve makes s tell of the resources of the tests.
func serve(t *testing.T, s *fake.Server, groups ...string) {
	put := func(path string, v any) {
		data, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		s.SetRaw(path, data)
	}
	verbs := metav1.Verbs{"list", "watch", "delete", "get", "patch"}
	put("/api/v1", metav1.APIResourceList{GroupVersion: "v1", APIResources: []metav1.APIResource{
		{Name: "pods", Kind: "Pod", Namespaced: true, Verbs: verbs}, {Name: "nodes", Kind: "Node", Verbs: verbs}, {Name: "events", Kind: "Event", Namespaced: true, Verbs: verbs},
	}})
	var list metav1.APIGroupList
	for _, g := range groups {
		v := metav1.GroupVersionForDiscovery{GroupVersion: g + "/v1", Version: "v1"}
		list.Groups = append(list.Groups, metav1.APIGroup{Name: g, Versions: []metav1.GroupVersionForDiscovery{v}, PreferredVersion: v})
	}
	put("/apis", list)
	put("/apis/apps/v1", metav1.APIResourceList{GroupVersion: "apps/v1", APIResources: []metav1.APIResource{
		{Name: "replicasets", Kind: "ReplicaSet", Namespaced: true, Verbs: verbs}, {Name: "deployments", Kind: "Deployment", Namespaced: true, Verbs: verbs},
	}})
}

// collect runs the collector, within a bubble, over s while then does something to it.
func collect(t *testing.T, s *fake.Server, then func(ctx context.Context)) {
	t.Helper()
	d := controller.WithClient(s)
	c := New(d)
	ctx, stop := context.WithCancel(t.Context())
	g := run.New(ctx)
	g.Go("mirrors", d.Mirrors.Run)
	g.Go("loop", c.Run)
	settle()
	if then != nil {
		then(ctx)
		settle()
	}
	stop()
	_ = g.Wait()
}

func settle() {
	time.Sleep(2 * time.Second)
	synctest.Wait()
}

func meta(name, uid string, owners ...metav1.OwnerReference) metav1.ObjectMeta {
	return metav1.ObjectMeta{Namespace: "a", Name: name, UID: types.UID(uid), OwnerReferences: owners}
}

func pod(name string, owners ...metav1.OwnerReference) *corev1.Pod {
	return &corev1.Pod{ObjectMeta: meta(name, "uid-"+name, owners...)}
}

func names(t *testing.T, s *fake.Server) []string {
	t.Helper()
	var out []string
	for _, r := range []string{"pods", "replicasets", "deployments"} {
		gvr := client.Resource[appsv1.Deployment]().GroupVersion().WithResource(r)
		if r == "pods" {
			gvr = client.Resource[corev1.Pod]()
		}
		l, err := s.List(t.Context(), gvr, "", nil)
		if err != nil {
			t.Fatal(err)
		}
		for _, o := range l.Items {
			out = append(out, o.GetName())
		}
	}
	slices.Sort(out)
	return out
}

func expect(t *testing.T, s *fake.Server, want ...string) {
	t.Helper()
	if got := names(t, s); !slices.Equal(got, want) {
		t.Errorf("left: %v, want %v", got, want)
	}
}

func family() []api.Object {
	return []api.Object{
		&appsv1.Deployment{ObjectMeta: meta("d", "d")},
		&appsv1.ReplicaSet{ObjectMeta: meta("rs", "rs", ref("Deployment", "d", "d", true))},
		pod("p1", ref("ReplicaSet", "rs", "rs", true)), pod("p2", ref("ReplicaSet", "rs", "rs", true)),
		pod("free"),
	}
}

func drop(t *testing.T, s *fake.Server, how metav1.DeletionPropagation) func(context.Context) {
	return func(ctx context.Context) {
		if err := client.Of[appsv1.Deployment](s, "a").Delete(ctx, "d", &metav1.DeleteOptions{PropagationPolicy: &how}); err != nil {
			t.Error(err)
		}
	}
}

func TestBackgroundDeletionTakesTheFamily(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := fake.New(family()...)
		serve(t, s, "apps")
		collect(t, s, drop(t, s, metav1.DeletePropagationBackground))
		expect(t, s, "free")
	})
}

func TestForegroundDeletionTakesDependentsFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := fake.New(family()...)
		serve(t, s, "apps")
		collect(t, s, drop(t, s, metav1.DeletePropagationForeground))
		expect(t, s, "free")
		var order []string
		for _, c := range s.Calls() {
			if c.Verb == "delete" || c.Verb == "patch" && c.Object.GetDeletionTimestamp() != nil {
				order = append(order, c.Verb+" "+c.Key.Name)
			}
		}
		if at := slices.Index(order, "patch d"); at < slices.Index(order, "patch rs") || at < slices.Index(order, "delete p1") {
			t.Errorf("the owner went too early: %v", order)
		}
	})
}

func TestForegroundWaitsForABlockedDependent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		held := pod("held", ref("ReplicaSet", "rs", "rs", true))
		held.Finalizers = []string{"example.com/hold"}
		s := fake.New(append(family(), held)...)
		serve(t, s, "apps")
		collect(t, s, drop(t, s, metav1.DeletePropagationForeground))
		expect(t, s, "d", "free", "held", "rs")
	})
}

func TestOrphanDeletionLeavesDependents(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := fake.New(family()...)
		serve(t, s, "apps")
		collect(t, s, drop(t, s, metav1.DeletePropagationOrphan))
		expect(t, s, "free", "p1", "p2", "rs")
		rs, err := client.Of[appsv1.ReplicaSet](s, "a").Get(t.Context(), "rs")
		if err != nil || len(rs.OwnerReferences) != 0 {
			t.Errorf("still owned: %v %v", rs, err)
		}
	})
}

func TestOwnersAreAskedFor(t *testing.T) {
	for name, c := range map[string]struct {
		owners []metav1.OwnerReference
		groups []string
		stays  bool
		refs   int
	}{
		"owner is there":         {[]metav1.OwnerReference{ref("ReplicaSet", "rs", "rs", true)}, []string{"apps"}, true, 1},
		"never was":              {[]metav1.OwnerReference{ref("ReplicaSet", "other", "x", true)}, []string{"apps"}, false, 0},
		"same name, another uid": {[]metav1.OwnerReference{ref("ReplicaSet", "rs", "earlier", true)}, []string{"apps"}, false, 0},
		"one of two gone":        {[]metav1.OwnerReference{ref("ReplicaSet", "rs", "rs", true), ref("ReplicaSet", "rs", "earlier", true)}, []string{"apps"}, true, 1},
		"kind not served":        {[]metav1.OwnerReference{ref("Widget", "w", "w", true)}, []string{"apps"}, true, 1},
		"discovery failed":       {[]metav1.OwnerReference{ref("ReplicaSet", "other", "x", true)}, []string{"broken"}, true, 1},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := fake.New(&appsv1.ReplicaSet{ObjectMeta: meta("rs", "rs")}, pod("p", c.owners...))
				serve(t, s, c.groups...)
				collect(t, s, nil)
				p, err := client.Of[corev1.Pod](s, "a").Get(t.Context(), "p")
				if (err == nil) != c.stays {
					t.Fatalf("pod: %v", err)
				}
				if c.stays && len(p.OwnerReferences) != c.refs {
					t.Errorf("references: %v", p.OwnerReferences)
				}
			})
		})
	}
}

func TestOwnerInAnotherNamespaceIsNone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := pod("p", ref("ReplicaSet", "rs", "rs", true))
		p.Namespace = "b"
		s := fake.New(&appsv1.ReplicaSet{ObjectMeta: meta("rs", "rs")}, p)
		serve(t, s, "apps")
		collect(t, s, func(ctx context.Context) {
			s.Put(func() api.Object { q := p.DeepCopy(); q.Name, q.UID = "q", "uid-q"; return q }())
		})
		expect(t, s, "rs")
		events, _ := client.Of[corev1.Event](s, "").List(t.Context(), nil)
		if len(events) == 0 || events[0].Reason != "OwnerRefInvalidNamespace" ||
			events[0].Message != `ownerRef [apps/v1/ReplicaSet, namespace: b, name: rs, uid: rs] does not exist in namespace "b"` {
			t.Errorf("events: %v", events)
		}
	})
}

// TestNewKinds: what a definition brings is known a moment later, not at the next look around.
func TestNewKinds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := fake.New(pod("orphan", ref("Deployment", "d", "gone", false)))
		serve(t, s)
		collect(t, s, func(context.Context) {
			expect(t, s, "orphan")
			serve(t, s, "apps")
			s.Put(&apiregistrationv1.APIService{ObjectMeta: metav1.ObjectMeta{Name: "v1.apps"}})
		})
		expect(t, s)
	})
}
