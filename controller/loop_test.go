package controller_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sampan-dev/sampan/client"
	"github.com/sampan-dev/sampan/client/fake"
	"github.com/sampan-dev/sampan/controller"
	"github.com/sampan-dev/sampan/kit/clock"
	"github.com/sampan-dev/sampan/kit/run"
)

func object(name string) *corev1.ConfigMap {
	return &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: "ns"}}
}

// start runs a loop with its mirrors until the test ends.
func start(t *testing.T, d controller.Deps, c controller.Controller) {
	t.Helper()
	g := run.New(t.Context())
	g.Go("mirrors", d.Mirrors.Run)
	g.Go(c.Name(), c.Run)
	t.Cleanup(func() {
		g.Stop()
		if err := g.Wait(); err != nil {
			t.Error(err)
		}
	})
}

// TestLoopRetriesAndSurvives: a failing key comes back later and later, a
// panicking one harms no other.
func TestLoopRetriesAndSurvives(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		srv := fake.New(object("fails"), object("panics"), object("good"))
		d := controller.WithClient(srv)
		registry := prometheus.NewRegistry()
		d.Metrics = controller.NewMetrics(registry)
		tries := map[string][]time.Duration{}
		begin := clock.Now()
		l := controller.NewLoop(d, "test", 1, func(_ context.Context, k controller.Key) error {
			tries[k.Name] = append(tries[k.Name], clock.Since(begin))
			switch {
			case k.Name == "panics" && len(tries[k.Name]) == 1:
				panic("oops")
			case k.Name == "fails" && len(tries[k.Name]) < 4:
				return errors.New("not yet")
			}
			return nil
		})
		controller.Input(l, controller.Self[corev1.ConfigMap])
		start(t, d, l)
		clock.Sleep(t.Context(), time.Minute)
		synctest.Wait()
		got := tries["fails"]
		if len(got) != 4 || got[1] != 5*time.Millisecond || got[2] != 15*time.Millisecond || got[3] != 35*time.Millisecond {
			t.Errorf("tries of a failing key at %v, want 0, 5, 15 and 35 ms", got)
		}
		if len(tries["panics"]) != 2 || len(tries["good"]) != 1 {
			t.Errorf("tries: %v; want the panicking key tried twice and the good one once", tries)
		}
		families, err := registry.Gather()
		if err != nil {
			t.Fatal(err)
		}
		found := map[string]float64{}
		for _, f := range families {
			if c := f.Metric[0].Counter; c != nil {
				found[f.GetName()] = c.GetValue()
			}
		}
		if found["workqueue_retries_total"] != 4 || found["workqueue_adds_total"] != 3 {
			t.Errorf("metrics %v, want 4 retries and 3 adds", found)
		}
	})
}

// TestUnseen: a key waits until the mirror shows what was written for it.
func TestUnseen(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		srv := fake.New(object("a"))
		d := controller.WithClient(srv)
		var m *client.Mirror[corev1.ConfigMap]
		made := 0
		var l *controller.Loop
		l = controller.NewLoop(d, "test", 1, func(ctx context.Context, k controller.Key) error {
			if k.Name != "a" || m.Len() > 1 {
				return nil
			}
			made++
			out, err := client.Of[corev1.ConfigMap](srv, "ns").Create(ctx, &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{GenerateName: "b-", Namespace: "ns"}})
			controller.Wrote(&l.Unseen, k, m, out)
			l.Add(k) // at once, before the mirror can have it
			return err
		})
		m = controller.Input(l, controller.Self[corev1.ConfigMap])
		start(t, d, l)
		clock.Sleep(t.Context(), time.Minute)
		synctest.Wait()
		if made != 1 {
			t.Errorf("made %d objects, want 1", made)
		}
	})
}

func TestSlowStart(t *testing.T) {
	var calls, batches int
	ok, err := controller.SlowStart(t.Context(), 10, func(_ context.Context, i int) error { calls++; return errors.New("quota") })
	if ok != 0 || err == nil || calls != 1 {
		t.Errorf("when all fail: %d calls, want 1", calls)
	}
	seen := make([]bool, 10)
	ok, err = controller.SlowStart(t.Context(), 10, func(_ context.Context, i int) error { seen[i] = true; return nil })
	for _, s := range seen {
		if s {
			batches++
		}
	}
	if ok != 10 || err != nil || batches != 10 {
		t.Errorf("when all is well: %d done, %d indexes, %v", ok, batches, err)
	}
}
