package aggregate

import (
	"context"
	"encoding/json"
	"log/slog"
	"slices"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	apiregistrationv1 "k8s.io/kube-aggregator/pkg/apis/apiregistration/v1"

	"github.com/sampan-dev/sampan/api"
	"github.com/sampan-dev/sampan/apiserver/request/requesttest"
	"github.com/sampan-dev/sampan/kit/run"
)

func served(group, version string, custom bool) Served {
	return Served{GroupVersion: schema.GroupVersion{Group: group, Version: version}, Custom: custom}
}

// TestPriorities are upstream's.
func TestPriorities(t *testing.T) {
	for name, want := range map[Served][2]int32{
		served("", "v1", false):                                   {18000, 1},
		served("apps", "v1", false):                               {17800, 15},
		served("autoscaling", "v2", false):                        {17500, 30},
		served("autoscaling", "v1", false):                        {17500, 15},
		served("events.k8s.io", "v1beta1", false):                 {17750, 5},
		served("storage.k8s.io", "v1alpha1", false):               {16800, 1},
		served("admissionregistration.k8s.io", "v1alpha1", false): {16700, 9},
		served("resource.k8s.io", "v1beta2", false):               {16200, 15},
		served("example.com", "v1", true):                         {1000, 100},
	} {
		s := registration(name)
		if got := [2]int32{s.Spec.GroupPriorityMinimum, s.Spec.VersionPriority}; got != want {
			t.Errorf("%s: %v, want %v", s.Name, got, want)
		}
	}
}

func TestRegister(t *testing.T) {
	back := requesttest.New()
	gone := registration(served("gone.k8s.io", "v1", false))
	changed := registration(served("batch", "v1", false))
	changed.Spec.GroupPriorityMinimum = 3
	own := registration(served("policy", "v1", false))
	own.Labels, own.Spec.GroupPriorityMinimum = nil, 5
	back.With(apiServices(), gone, changed, own)
	now, next := []Served{
		served("", "v1", false), served("apps", "v1", false), served("batch", "v1", false), served("policy", "v1", false),
		served("apiregistration.k8s.io", "v1", false), served("crd.example.com", "v1", true),
	}, make(chan struct{})
	state := make(chan []Served, 1)
	state <- now
	a, err := New(Config{}, Deps{Back: back, Served: func() ([]Served, <-chan struct{}) {
		s := <-state
		state <- s
		return s, next
	}})
	if err != nil {
		t.Fatal(err)
	}
	if err := a.Register(t.Context(), back); err != nil {
		t.Fatal(err)
	}
	names := func() (out []string) {
		list, _ := back.List(t.Context(), apiServices(), "")
		for _, o := range list {
			out = append(out, o.GetName())
		}
		return out
	}
	if got := names(); !slices.Equal(got, []string{"v1.", "v1.apps", "v1.batch", "v1.policy"}) {
		t.Errorf("there are %v", got)
	}
	priority := func(name string) int32 {
		o, err := back.Get(t.Context(), apiServices(), "", name)
		if err != nil {
			return 0
		}
		return o.(*apiregistrationv1.APIService).Spec.GroupPriorityMinimum
	}
	if priority("v1.batch") != 17400 || priority("v1.policy") != 5 {
		t.Errorf("batch %d, policy %d: what is ours is put right, what somebody made is theirs", priority("v1.batch"), priority("v1.policy"))
	}

	g := run.New(t.Context())
	g.Go("aggregator", a.Run)
	defer func() { g.Stop(); g.Wait() }()
	eventually(t, func() bool { return priority("v1.crd.example.com") == 1000 }, func() string { return "the custom group is not registered" })
	back.Modify(t.Context(), apiServices(), "", "v1.crd.example.com", "", func(o api.Object) error {
		o.(*apiregistrationv1.APIService).Spec.GroupPriorityMinimum = 7
		return nil
	})
	eventually(t, func() bool { return priority("v1.crd.example.com") == 1000 }, func() string { return "a change of an automatic one stays" })
	<-state
	state <- now[:5]
	close(next)
	eventually(t, func() bool { return priority("v1.crd.example.com") == 0 }, func() string { return "a group that is gone stays registered" })
	if priority("v1.apps") == 0 {
		t.Error("a built-in one went with it")
	}
}

// TestTrust: the ConfigMap that other servers read, made, completed and repaired.
func TestTrust(t *testing.T) {
	back := requesttest.New()
	configMaps := schema.GroupResource{Resource: "configmaps"}
	back.With(configMaps, &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: "kube-system", Name: TrustMap}, Data: map[string]string{"client-ca-file": "older\n", "mine": "1"}})
	trust := &Trust{
		ClientCA: []byte("client\n"), RequestHeaderCA: []byte("front\n"), AllowedNames: []string{"front-proxy-client"},
		UserHeaders: []string{"X-Remote-User"}, GroupHeaders: []string{"X-Remote-Group"}, Extra: []string{"X-Remote-Extra-"},
	}
	wrong := make(chan struct{}, 1)
	g := run.New(t.Context())
	g.Go("repair", func(ctx context.Context) error { return trust.Repair(ctx, back, slog.New(slog.DiscardHandler), wrong) })
	g.Go("watch", func(ctx context.Context) error {
		return back.Changes(ctx, configMaps, func(_, now api.Object) {
			if m, ok := now.(*corev1.ConfigMap); !ok || !trust.Right(m) {
				wrong <- struct{}{}
			}
		})
	})
	defer func() { g.Stop(); g.Wait() }()
	data := func() map[string]string {
		o, err := back.Get(t.Context(), configMaps, "kube-system", TrustMap)
		if err != nil {
			return nil
		}
		return o.(*corev1.ConfigMap).Data
	}
	want := map[string]string{
		"client-ca-file": "older\nclient\n", "requestheader-client-ca-file": "front\n", "requestheader-allowed-names": `["front-proxy-client"]`,
		"requestheader-username-headers": `["X-Remote-User"]`, "requestheader-uid-headers": `[]`, "requestheader-group-headers": `["X-Remote-Group"]`,
		"requestheader-extra-headers-prefix": `["X-Remote-Extra-"]`, "mine": "1",
	}
	is := func(want map[string]string) {
		t.Helper()
		text, _ := json.Marshal(want)
		var got []byte
		eventually(t, func() bool { got, _ = json.Marshal(data()); return string(got) == string(text) }, func() string { return "data " + string(got) + ", want " + string(text) })
	}
	is(want)
	back.Delete(t.Context(), configMaps, "kube-system", TrustMap, nil)
	delete(want, "mine")
	want["client-ca-file"] = "client\n"
	is(want)
	back.Modify(t.Context(), configMaps, "kube-system", TrustMap, "", func(o api.Object) error {
		o.(*corev1.ConfigMap).Data["requestheader-allowed-names"] = `["eve"]`
		return nil
	})
	is(want)
}
