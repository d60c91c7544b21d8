package nodettl

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sampan-dev/sampan/client"
	"github.com/sampan-dev/sampan/client/fake"
	"github.com/sampan-dev/sampan/controller"
	"github.com/sampan-dev/sampan/kit/run"
)

func TestSteps(t *testing.T) {
	at := 0
	for _, c := range []struct{ nodes, seconds int }{{1, 0}, {100, 0}, {101, 15}, {95, 15}, {89, 0}, {5000, 300}, {1900, 300}, {1799, 60}, {1, 0}} {
		if at = step(at, c.nodes); steps[at].seconds != c.seconds {
			t.Errorf("%d nodes: %d s, want %d", c.nodes, steps[at].seconds, c.seconds)
		}
	}
}

func TestEveryNodeFollows(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		srv := fake.New()
		d := controller.WithClient(srv)
		g := run.New(t.Context())
		g.Go("mirrors", d.Mirrors.Run)
		g.Go("loop", New(d).Run)
		defer func() { g.Stop(); g.Wait() }()
		nodes := client.Of[corev1.Node](srv, "")
		for i := range 101 {
			nodes.Create(t.Context(), &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprint("n", i)}})
			if i == 0 || i == 100 {
				time.Sleep(time.Second)
				synctest.Wait()
				n, _ := nodes.Get(t.Context(), "n0")
				if got, want := n.Annotations[corev1.ObjectTTLAnnotationKey], map[int]string{0: "0", 100: "15"}[i]; got != want {
					t.Errorf("%d nodes: %q, want %q", i+1, got, want)
				}
			}
		}
	})
}
