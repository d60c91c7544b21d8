package ttlafterfinished

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sampan-dev/sampan/client"
	"github.com/sampan-dev/sampan/client/fake"
	"github.com/sampan-dev/sampan/controller"
	"github.com/sampan-dev/sampan/kit/run"
)

func job(name string, ttl int32, done batchv1.JobConditionType) *batchv1.Job {
	j := &batchv1.Job{ObjectMeta: metav1.ObjectMeta{Namespace: "a", Name: name}}
	if ttl >= 0 {
		j.Spec.TTLSecondsAfterFinished = &ttl
	}
	if done != "" {
		j.Status.Conditions = []batchv1.JobCondition{{Type: done, Status: corev1.ConditionTrue, LastTransitionTime: metav1.Now()}}
	}
	return j
}

func TestJobsGoWhenTheirTimeIsUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := fake.New(job("complete", 100, batchv1.JobComplete), job("failed", 0, batchv1.JobFailed), job("running", 1, ""), job("kept", -1, batchv1.JobComplete))
		d := controller.WithClient(s)
		c := New(d)
		ctx, stop := context.WithCancel(t.Context())
		g := run.New(ctx)
		g.Go("mirrors", d.Mirrors.Run)
		g.Go("loop", c.Run)
		left := func(want int) {
			t.Helper()
			synctest.Wait()
			n := 0
			jobs, _ := client.Of[batchv1.Job](s, "a").List(ctx, nil)
			for _, j := range jobs {
				if j.DeletionTimestamp == nil {
					n++
				}
			}
			if n != want {
				t.Errorf("%d jobs, want %d", n, want)
			}
		}
		time.Sleep(time.Second)
		left(3)
		time.Sleep(98 * time.Second)
		left(3)
		time.Sleep(5 * time.Second)
		left(2)
		stop()
		_ = g.Wait()
	})
}
