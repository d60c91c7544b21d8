package storagemigration

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"

	"github.com/sampan-dev/sampan/api"
	"github.com/sampan-dev/sampan/client"
	"github.com/sampan-dev/sampan/client/fake"
	"github.com/sampan-dev/sampan/controller"
	"github.com/sampan-dev/sampan/kit/run"
)

// applied counts the objects that were written again.
type applied struct {
	*fake.Server
	names map[string]int
}

func (a *applied) Patch(ctx context.Context, r schema.GroupVersionResource, ns, name, sub string, t types.PatchType, data []byte, o *metav1.PatchOptions) (api.Object, error) {
	if t != types.ApplyPatchType {
		return a.Server.Patch(ctx, r, ns, name, sub, t, data, o)
	}
	a.names[name]++
	return a.Server.Get(ctx, r, ns, name, "", nil)
}

func TestMigrates(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := func(name, resource string) *migration {
			m := &migration{ObjectMeta: metav1.ObjectMeta{Name: name, CreationTimestamp: metav1.Now()}}
			m.Spec.Resource = metav1.GroupResource{Resource: resource}
			return m
		}
		s := &applied{fake.New(&corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: "a", Namespace: "x"}}, &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: "b", Namespace: "y"}},
			m("good", "secrets"), m("unknown", "wonders")), map[string]int{}}
		s.Serve([]schema.GroupVersionResource{client.Resource[corev1.Secret]()})
		d := controller.WithClient(s)
		g := run.New(t.Context())
		g.Go("mirrors", d.Mirrors.Run)
		g.Go("loop", New(d).Run)
		defer func() { g.Stop(); g.Wait() }()
		time.Sleep(5 * time.Second)
		synctest.Wait()
		migrations := client.Of[migration](s, "")
		if m, _ := migrations.Get(t.Context(), "good"); !is(m, "Succeeded") || is(m, "Running") || m.Status.ResourceVersion == "" || s.names["a"] != 1 || s.names["b"] != 1 {
			t.Errorf("%+v, written %v", m.Status, s.names)
		}
		if m, _ := migrations.Get(t.Context(), "unknown"); !is(m, "Running") {
			t.Errorf("%+v", m.Status)
		}
		time.Sleep(2 * time.Minute)
		if m, _ := migrations.Get(t.Context(), "unknown"); !is(m, "Failed") {
			t.Errorf("%+v", m.Status)
		}
	})
}
