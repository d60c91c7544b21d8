package serviceaccount

import (
	"context"
	"testing"
	"testing/synctest"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sampan-dev/sampan/client"
	"github.com/sampan-dev/sampan/client/fake"
	"github.com/sampan-dev/sampan/controller"
	"github.com/sampan-dev/sampan/kit/run"
)

func namespace(name string, phase corev1.NamespacePhase) *corev1.Namespace {
	return &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name}, Status: corev1.NamespaceStatus{Phase: phase}}
}

func TestMissing(t *testing.T) {
	for _, c := range []struct {
		phase corev1.NamespacePhase
		has   bool
		want  bool
	}{
		{corev1.NamespaceActive, false, true},
		{corev1.NamespaceActive, true, false},
		{corev1.NamespaceTerminating, false, false},
	} {
		if got := missing(namespace("a", c.phase), c.has); got != c.want {
			t.Errorf("%s, has %v: got %v", c.phase, c.has, got)
		}
	}
}

func TestEveryActiveNamespaceGetsAndKeepsItsAccount(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := fake.New(namespace("a", corev1.NamespaceActive), namespace("going", corev1.NamespaceTerminating))
		d := controller.WithClient(s)
		c := New(d)
		ctx, stop := context.WithCancel(t.Context())
		g := run.New(ctx)
		g.Go("mirrors", d.Mirrors.Run)
		g.Go("loop", c.Run)
		synctest.Wait()
		accounts := client.Of[corev1.ServiceAccount](s, "")
		has := func(when, ns string, want bool) {
			t.Helper()
			synctest.Wait()
			if _, err := client.Of[corev1.ServiceAccount](s, ns).Get(ctx, "default"); (err == nil) != want {
				t.Errorf("%s: %s/default: %v", when, ns, err)
			}
		}
		has("at start", "a", true)
		has("at start", "going", false)
		s.Put(namespace("b", corev1.NamespaceActive))
		has("new", "b", true)
		if err := client.Of[corev1.ServiceAccount](s, "a").Delete(ctx, "default", nil); err != nil {
			t.Fatal(err)
		}
		has("deleted", "a", true)
		if l, _ := accounts.List(ctx, nil); len(l) != 2 {
			t.Errorf("%d accounts", len(l))
		}
		stop()
		_ = g.Wait()
	})
}
