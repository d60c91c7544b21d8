package cronjob

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"

	"github.com/sampan-dev/sampan/client"
	"github.com/sampan-dev/sampan/client/fake"
	"github.com/sampan-dev/sampan/controller"
	"github.com/sampan-dev/sampan/kit/run"
)

func at(text string) time.Time {
	t, err := time.Parse(time.DateTime, text)
	if err != nil {
		panic(err)
	}
	return t
}

func every(schedule string, edit func(*batchv1.CronJob)) *batchv1.CronJob {
	c := &batchv1.CronJob{ObjectMeta: metav1.ObjectMeta{Namespace: "a", Name: "c", UID: "c", CreationTimestamp: metav1.NewTime(at("2000-01-01 00:00:00"))},
		Spec: batchv1.CronJobSpec{Schedule: schedule, ConcurrencyPolicy: batchv1.AllowConcurrent, Suspend: ptr.To(false),
			SuccessfulJobsHistoryLimit: ptr.To[int32](3), FailedJobsHistoryLimit: ptr.To[int32](1),
			JobTemplate: batchv1.JobTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: map[string]string{"l": "m"}}}}}
	if edit != nil {
		edit(c)
	}
	return c
}

func TestDecide(t *testing.T) {
	last := func(text string) func(*batchv1.CronJob) {
		return func(c *batchv1.CronJob) { c.Status.LastScheduleTime = ptr.To(metav1.NewTime(at(text))) }
	}
	running := func(c *batchv1.CronJob) { c.Status.Active = []corev1.ObjectReference{{Name: "c-1", UID: "1"}} }
	all := func(edits ...func(*batchv1.CronJob)) func(*batchv1.CronJob) {
		return func(c *batchv1.CronJob) {
			for _, e := range edits {
				e(c)
			}
		}
	}
	for name, c := range map[string]struct {
		schedule string
		edit     func(*batchv1.CronJob)
		now      string
		start    string // the moment started for
		tell     string
		wait     time.Duration
	}{
		"not yet":       {"0 * * * *", nil, "2000-01-01 00:30:00", "", "", 30*time.Minute + nextDelta},
		"now":           {"0 * * * *", nil, "2000-01-01 01:00:00", "2000-01-01 01:00:00", "", time.Hour + nextDelta},
		"done":          {"0 * * * *", last("2000-01-01 01:00:00"), "2000-01-01 01:00:30", "", "", 59*time.Minute + 30*time.Second + nextDelta},
		"missed a few":  {"0 * * * *", nil, "2000-01-01 05:30:00", "2000-01-01 05:00:00", "", 30*time.Minute + nextDelta},
		"uneven":        {"30 6-16/4 * * 1-5", last("2000-01-03 06:30:00"), "2000-01-05 09:00:00", "2000-01-05 06:30:00", "", 90*time.Minute + nextDelta},
		"missed many":   {"* * * * *", nil, "2000-01-01 05:00:30", "2000-01-01 05:00:00", "TooManyMissedTimes", 30*time.Second + nextDelta},
		"deadline":      {"0 * * * *", func(c *batchv1.CronJob) { c.Spec.StartingDeadlineSeconds = ptr.To[int64](60) }, "2000-01-01 05:30:00", "", "", 30*time.Minute + nextDelta},
		"within it":     {"0 * * * *", func(c *batchv1.CronJob) { c.Spec.StartingDeadlineSeconds = ptr.To[int64](60) }, "2000-01-01 05:00:50", "2000-01-01 05:00:00", "", 59*time.Minute + 10*time.Second + nextDelta},
		"forbidden":     {"0 * * * *", all(running, func(c *batchv1.CronJob) { c.Spec.ConcurrencyPolicy = batchv1.ForbidConcurrent }), "2000-01-01 01:00:00", "", "JobAlreadyActive", time.Hour + nextDelta},
		"replaced":      {"0 * * * *", all(running, func(c *batchv1.CronJob) { c.Spec.ConcurrencyPolicy = batchv1.ReplaceConcurrent }), "2000-01-01 01:00:00", "2000-01-01 01:00:00", "", time.Hour + nextDelta},
		"zone":          {"0 9 * * *", func(c *batchv1.CronJob) { c.Spec.TimeZone = ptr.To("America/New_York") }, "2000-01-01 14:00:00", "2000-01-01 14:00:00", "", 24*time.Hour + nextDelta},
		"zone in it":    {"TZ=Asia/Tokyo 0 9 * * *", last("2000-01-01 00:00:00"), "2000-01-01 14:00:00", "", "", 10*time.Hour + nextDelta},
		"every":         {"@every 2h", last("2000-01-01 01:30:00"), "2000-01-01 10:00:00", "2000-01-01 09:30:00", "", 90*time.Minute + nextDelta},
		"never happens": {"0 0 30 2 *", nil, "2000-01-01 10:00:00", "", "", -1},
		"already listed": {"0 * * * *", func(c *batchv1.CronJob) {
			c.Status.Active = []corev1.ObjectReference{{Name: nameAt(c, at("2000-01-01 01:00:00"))}}
		}, "2000-01-01 01:00:00", "", "", time.Hour + nextDelta},
	} {
		t.Run(name, func(t *testing.T) {
			cj := every(c.schedule, c.edit)
			table, _, err := read(&cj.Spec)
			if err != nil {
				t.Fatal(err)
			}
			s := decide(cj, table, at(c.now))
			var want time.Time
			if c.start != "" {
				want = at(c.start)
			}
			var told []string
			for _, e := range s.tell {
				told = append(told, e.reason)
			}
			if !s.at.Equal(want) || strings.Join(told, " ") != c.tell || s.clear != (cj.Spec.ConcurrencyPolicy == batchv1.ReplaceConcurrent) {
				t.Errorf("start %v, clear %v, tell %v", s.at, s.clear, told)
			}
			if wait, ok := until(cj, table, at(c.now)); ok && wait != c.wait || ok != (c.wait >= 0) {
				t.Errorf("wait %v %v, want %v", wait, ok, c.wait)
			}
		})
	}
}

func TestTooLate(t *testing.T) {
	cj := every("0 * * * *", func(c *batchv1.CronJob) { c.Spec.StartingDeadlineSeconds = ptr.To[int64](10) })
	if tooLate(cj, at("2000-01-01 01:00:00"), at("2000-01-01 01:00:10")) || !tooLate(cj, at("2000-01-01 01:00:00"), at("2000-01-01 01:00:11")) {
		t.Error("the deadline is not ten seconds")
	}
}

func TestJobOfAMoment(t *testing.T) {
	cj := every("0 * * * *", func(c *batchv1.CronJob) { c.Spec.TimeZone = ptr.To("Asia/Tokyo") })
	table, _, _ := read(&cj.Spec)
	j := jobFor(cj, table, at("2000-01-01 01:00:00"))
	if j.Name != "c-15778140" || j.Labels["l"] != "m" || !metav1.IsControlledBy(j, cj) || j.Annotations[batchv1.CronJobScheduledTimestampAnnotation] != "2000-01-01T10:00:00+09:00" {
		t.Errorf("%+v", j.ObjectMeta)
	}
	if cj.Spec.JobTemplate.Annotations != nil {
		t.Error("the template was changed")
	}
}

// world runs the loop; ended says how a Job ends after it has run for a while.
type world struct {
	t   *testing.T
	ctx context.Context
	srv *fake.Server
}

func story(t *testing.T, cj *batchv1.CronJob, fn func(w *world)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		srv := fake.New(cj)
		d := controller.WithClient(srv)
		ctx, stop := context.WithCancel(t.Context())
		g := run.New(ctx)
		g.Go("mirrors", d.Mirrors.Run)
		g.Go("loop", New(d).Run)
		fn(&world{t, ctx, srv})
		stop()
		_ = g.Wait()
	})
}

func (w *world) jobs() []*batchv1.Job {
	w.t.Helper()
	synctest.Wait()
	jobs, err := client.Of[batchv1.Job](w.srv, "a").List(w.ctx, nil)
	if err != nil {
		w.t.Fatal(err)
	}
	slices.SortFunc(jobs, func(a, b *batchv1.Job) int { return strings.Compare(a.Name, b.Name) })
	return jobs
}

func (w *world) finish(j *batchv1.Job, how batchv1.JobConditionType) {
	w.t.Helper()
	c := j.DeepCopy()
	now := metav1.Now()
	c.Status.StartTime = &j.CreationTimestamp
	c.Status.Conditions = []batchv1.JobCondition{{Type: how, Status: corev1.ConditionTrue}}
	if how == batchv1.JobComplete {
		c.Status.CompletionTime = &now
	}
	if _, err := client.Of[batchv1.Job](w.srv, "a").UpdateStatus(w.ctx, c); err != nil {
		w.t.Fatal(err)
	}
	synctest.Wait()
}

func (w *world) cron() *batchv1.CronJob {
	w.t.Helper()
	synctest.Wait()
	c, err := client.Of[batchv1.CronJob](w.srv, "a").Get(w.ctx, "c")
	if err != nil {
		w.t.Fatal(err)
	}
	return c
}

func (w *world) reasons() string {
	w.t.Helper()
	time.Sleep(time.Second)
	synctest.Wait()
	events, _ := client.Of[corev1.Event](w.srv, "a").List(w.ctx, nil)
	seen := map[string]bool{}
	for _, e := range events {
		seen[e.Reason] = true
	}
	var out []string
	for r := range seen {
		out = append(out, r)
	}
	slices.Sort(out)
	return strings.Join(out, " ")
}

func TestHistory(t *testing.T) {
	story(t, every("* * * * *", nil), func(w *world) {
		time.Sleep(time.Second)
		for i := range 6 {
			time.Sleep(time.Minute)
			jobs := w.jobs()
			last := jobs[len(jobs)-1]
			if c := w.cron(); len(c.Status.Active) != 1 || c.Status.Active[0].UID != last.UID || !c.Status.LastScheduleTime.Time.Equal(at(fmt.Sprintf("2000-01-01 00:%02d:00", i+1))) {
				t.Errorf("minute %d: %+v", i+1, c.Status)
			}
			how := batchv1.JobComplete
			if i%3 == 2 {
				how = batchv1.JobFailed
			}
			w.finish(last, how)
		}
		c := w.cron()
		if len(c.Status.Active) != 0 || c.Status.LastSuccessfulTime == nil {
			t.Errorf("%+v", c.Status)
		}
		ended := map[batchv1.JobConditionType]int{}
		for _, j := range w.jobs() {
			ended[end(j)]++
		}
		if ended[batchv1.JobComplete] != 3 || ended[batchv1.JobFailed] != 1 {
			t.Errorf("kept %v", ended)
		}
		if got := w.reasons(); got != "SawCompletedJob SuccessfulCreate SuccessfulDelete" {
			t.Errorf("events %s", got)
		}
	})
}

func TestForbidWaits(t *testing.T) {
	story(t, every("* * * * *", func(c *batchv1.CronJob) { c.Spec.ConcurrencyPolicy = batchv1.ForbidConcurrent }), func(w *world) {
		time.Sleep(3*time.Minute + 30*time.Second)
		jobs := w.jobs()
		if len(jobs) != 1 {
			t.Fatalf("%d jobs", len(jobs))
		}
		w.finish(jobs[0], batchv1.JobComplete)
		if jobs = w.jobs(); len(jobs) != 2 {
			t.Errorf("%d jobs when the first has ended; the missed moment is made up for", len(jobs))
		}
		if got := w.reasons(); got != "JobAlreadyActive SawCompletedJob SuccessfulCreate" {
			t.Errorf("events %s", got)
		}
	})
}

func TestReplace(t *testing.T) {
	story(t, every("* * * * *", func(c *batchv1.CronJob) { c.Spec.ConcurrencyPolicy = batchv1.ReplaceConcurrent }), func(w *world) {
		time.Sleep(time.Minute + time.Second)
		first := w.jobs()
		time.Sleep(time.Minute)
		second := w.jobs()
		if len(first) != 1 || len(second) != 1 || first[0].Name == second[0].Name {
			t.Errorf("first %d, then %d", len(first), len(second))
		}
		if a := w.cron().Status.Active; len(a) != 1 || a[0].UID != second[0].UID {
			t.Errorf("active %v", a)
		}
	})
}

func TestSuspendedAndLost(t *testing.T) {
	story(t, every("* * * * *", func(c *batchv1.CronJob) {
		c.Spec.Suspend = ptr.To(true)
		c.Status.Active = []corev1.ObjectReference{{Namespace: "a", Name: "lost", UID: types.UID("lost")}}
	}), func(w *world) {
		time.Sleep(5 * time.Minute)
		if n := len(w.jobs()); n != 0 {
			t.Errorf("%d jobs while suspended", n)
		}
		if a := w.cron().Status.Active; len(a) != 0 {
			t.Errorf("active %v", a)
		}
		if got := w.reasons(); got != "MissingJob" {
			t.Errorf("events %s", got)
		}
		c := w.cron().DeepCopy()
		c.Spec.Suspend = ptr.To(false)
		if _, err := client.Of[batchv1.CronJob](w.srv, "a").Update(w.ctx, c); err != nil {
			t.Fatal(err)
		}
		if n := len(w.jobs()); n != 1 {
			t.Errorf("%d jobs when resumed, want the latest moment's", n)
		}
	})
}

func TestBadSchedules(t *testing.T) {
	for reason, edit := range map[string]func(*batchv1.CronJob){
		"UnknownTimeZone":     func(c *batchv1.CronJob) { c.Spec.TimeZone = ptr.To("Mars/Olympus") },
		"UnparseableSchedule": func(c *batchv1.CronJob) { c.Spec.Schedule = "soon" },
	} {
		story(t, every("* * * * *", edit), func(w *world) {
			time.Sleep(5 * time.Minute)
			if got := w.reasons(); got != reason || len(w.jobs()) != 0 {
				t.Errorf("events %s", got)
			}
		})
	}
}
