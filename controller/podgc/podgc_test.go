package podgc

import (
	"context"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sampan-dev/sampan/client"
	"github.com/sampan-dev/sampan/client/fake"
	"github.com/sampan-dev/sampan/controller"
	"github.com/sampan-dev/sampan/kit/run"
)

func made(name, node string, phase corev1.PodPhase) *corev1.Pod {
	return &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "a", Name: name}, Spec: corev1.PodSpec{NodeName: node}, Status: corev1.PodStatus{Phase: phase}}
}

func TestSurplus(t *testing.T) {
	var pods []*corev1.Pod
	for i := range 5 {
		p := made(fmt.Sprint("p", i), "n", corev1.PodSucceeded)
		p.CreationTimestamp = metav1.NewTime(time.Unix(int64(100-i), 0))
		pods = append(pods, p)
	}
	pods[0].Status.Reason = "Evicted"
	pods = append(pods, made("running", "n", corev1.PodRunning))
	got := surplus(pods, 3)
	if len(got) != 2 || got[0].Name != "p0" || got[1].Name != "p4" {
		t.Errorf("got %v", got)
	}
	if got := surplus(pods, 0); got != nil {
		t.Errorf("no threshold: %v", got)
	}
}

func TestSweep(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		now := metav1.Now()
		never := made("never-scheduled", "", corev1.PodPending)
		never.DeletionTimestamp, never.Finalizers = &now, nil
		s := fake.New(&corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "n"}}, made("good", "n", corev1.PodRunning), made("orphan", "lost", corev1.PodRunning), never)
		s.Hook = func(c fake.Call) error { // as the loop's role is: it may patch a status, not update it
			if c.Verb == "update" {
				return apierrors.NewForbidden(c.Resource.GroupResource(), c.Key.Name, nil)
			}
			return nil
		}
		d := controller.WithClient(s)
		c := New(d, 10)
		ctx, stop := context.WithCancel(t.Context())
		g := run.New(ctx)
		g.Go("mirrors", d.Mirrors.Run)
		g.Go("loop", c.Run)
		has := func(want int) {
			t.Helper()
			synctest.Wait()
			if l, _ := client.Of[corev1.Pod](s, "").List(ctx, nil); len(l) != want {
				t.Errorf("after %s: %d pods, want %d", time.Since(now.Time), len(l), want)
			}
		}
		time.Sleep(time.Second)
		has(2) // the one without a node went
		time.Sleep(30 * time.Second)
		has(2) // the node may yet come back
		time.Sleep(30 * time.Second)
		has(1)
		stop()
		_ = g.Wait()
	})
}
