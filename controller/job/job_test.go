package job

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"k8s.io/utils/ptr"

	"github.com/sampan-dev/sampan/client"
	"github.com/sampan-dev/sampan/client/fake"
	"github.com/sampan-dev/sampan/controller"
	"github.com/sampan-dev/sampan/kit/run"
)

func p32(n int32) *int32 { return &n }

func job(edit func(*batchv1.Job)) *batchv1.Job {
	l := map[string]string{"job": "j"}
	j := &batchv1.Job{ObjectMeta: metav1.ObjectMeta{Namespace: "a", Name: "j"}, Spec: batchv1.JobSpec{
		Parallelism: p32(1), Completions: p32(1), BackoffLimit: p32(1), Selector: &metav1.LabelSelector{MatchLabels: l},
		Template: corev1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: l}, Spec: corev1.PodSpec{RestartPolicy: corev1.RestartPolicyNever, Containers: []corev1.Container{{Name: "c"}}}},
	}}
	if edit != nil {
		edit(j)
	}
	return j
}

func TestIndexes(t *testing.T) {
	for _, c := range []struct{ in, out string }{{"", ""}, {"0", "0"}, {"0,1", "0,1"}, {"0-2,4", "0-2,4"}, {"3,4,5,9", "3-5,9"}, {"8-20", "8,9"}} {
		if got := showIndexes(parseIndexes(c.in, 10)); got != c.out {
			t.Errorf("%q: %q", c.in, got)
		}
	}
}

func TestPause(t *testing.T) {
	now := time.Now()
	for n, want := range map[int]time.Duration{0: 0, 1: 10 * time.Second, 2: 20 * time.Second, 3: 40 * time.Second, 20: 10 * time.Minute} {
		if got := pause(n, now, now); got != want {
			t.Errorf("%d: %s", n, got)
		}
	}
}

func TestJudge(t *testing.T) {
	p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "a", Name: "p"}, Status: corev1.PodStatus{
		ContainerStatuses: []corev1.ContainerStatus{{Name: "c", State: corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{ExitCode: 42}}}}}}
	policy := &batchv1.PodFailurePolicy{Rules: []batchv1.PodFailurePolicyRule{
		{Action: batchv1.PodFailurePolicyActionIgnore, OnPodConditions: []batchv1.PodFailurePolicyOnPodConditionsPattern{{Type: corev1.DisruptionTarget, Status: corev1.ConditionTrue}}},
		{Action: batchv1.PodFailurePolicyActionFailJob, OnExitCodes: &batchv1.PodFailurePolicyOnExitCodesRequirement{Operator: batchv1.PodFailurePolicyOnExitCodesOpIn, Values: []int32{42}}},
	}}
	if a, why := judge(policy, p); a != batchv1.PodFailurePolicyActionFailJob || why != "Container c for pod a/p failed with exit code 42 matching FailJob rule at index 1" {
		t.Errorf("%s %s", a, why)
	}
	p.Status.Conditions = []corev1.PodCondition{{Type: corev1.DisruptionTarget, Status: corev1.ConditionTrue}}
	if a, _ := judge(policy, p); a != batchv1.PodFailurePolicyActionIgnore {
		t.Errorf("disrupted: %s", a)
	}
}

// cluster runs the loop; end says how the n-th pod ends.
func cluster(t *testing.T, j *batchv1.Job, end func(n int, p *corev1.Pod) corev1.PodPhase, check func(ctx context.Context, s *fake.Server, j *batchv1.Job)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		s := fake.New(j)
		d := controller.WithClient(s)
		c := New(d)
		ctx, stop := context.WithCancel(t.Context())
		g := run.New(ctx)
		g.Go("mirrors", d.Mirrors.Run)
		g.Go("loop", c.Run)
		seen := map[string]bool{}
		pods := client.Of[corev1.Pod](s, "a")
		for range 60 {
			time.Sleep(time.Second)
			synctest.Wait()
			list, err := pods.List(ctx, nil)
			if err != nil {
				t.Fatal(err)
			}
			// One by one, and in order: what the loop makes of one end may depend on it.
			slices.SortFunc(list, func(a, b *corev1.Pod) int {
				return cmp.Or(cmp.Compare(indexOf(a), indexOf(b)), cmp.Compare(a.Name, b.Name))
			})
			for _, p := range list {
				if seen[p.Name] || p.DeletionTimestamp != nil {
					continue
				}
				seen[p.Name] = true
				if phase := end(len(seen), p); phase != "" {
					q := p.DeepCopy()
					q.Status.Phase = phase
					if i := indexOf(p); phase == corev1.PodFailed && i >= 0 {
						q.Status.ContainerStatuses = []corev1.ContainerStatus{{Name: "c", State: corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{ExitCode: int32(40 + i)}}}}
					}
					if _, err := pods.UpdateStatus(ctx, q); err != nil && !apierrors.IsNotFound(err) {
						t.Fatal(err)
					}
					synctest.Wait()
				}
			}
		}
		synctest.Wait()
		now, err := client.Of[batchv1.Job](s, "a").Get(ctx, "j")
		if err != nil {
			t.Fatal(err)
		}
		check(ctx, s, now)
		stop()
		_ = g.Wait()
	})
}

func show(j *batchv1.Job) string {
	out := fmt.Sprintf("active %d succeeded %d failed %d", j.Status.Active, j.Status.Succeeded, j.Status.Failed)
	for _, c := range j.Status.Conditions {
		if c.Status == corev1.ConditionTrue {
			out += fmt.Sprintf(" %s/%s", c.Type, c.Reason)
		}
	}
	if j.Spec.BackoffLimitPerIndex != nil || j.Spec.SuccessPolicy != nil {
		out += fmt.Sprintf("; indexes %s and %s", j.Status.CompletedIndexes, ptr.Deref(j.Status.FailedIndexes, "none"))
	}
	return out
}

// perIndexJob has four indexes, two at a time, and so many tries of each beyond the first.
func perIndexJob(tries int32, edit func(*batchv1.Job)) func(*batchv1.Job) {
	return func(j *batchv1.Job) {
		mode := batchv1.IndexedCompletion
		j.Spec.Completions, j.Spec.Parallelism, j.Spec.CompletionMode, j.Spec.BackoffLimitPerIndex, j.Spec.BackoffLimit = p32(4), p32(2), &mode, &tries, p32(1<<30)
		if edit != nil {
			edit(j)
		}
	}
}

func TestRuns(t *testing.T) {
	all := func(phase corev1.PodPhase) func(int, *corev1.Pod) corev1.PodPhase {
		return func(int, *corev1.Pod) corev1.PodPhase { return phase }
	}
	odd := func(_ int, p *corev1.Pod) corev1.PodPhase {
		if indexOf(p)%2 == 1 {
			return corev1.PodFailed
		}
		return corev1.PodSucceeded
	}
	yes := true
	indexed := batchv1.IndexedCompletion
	for name, c := range map[string]struct {
		edit func(*batchv1.Job)
		end  func(int, *corev1.Pod) corev1.PodPhase
		want string
	}{
		"one": {nil, all(corev1.PodSucceeded), "active 0 succeeded 1 failed 0 SuccessCriteriaMet/CompletionsReached Complete/CompletionsReached"},
		"five by two": {func(j *batchv1.Job) { j.Spec.Completions, j.Spec.Parallelism = p32(5), p32(2) }, all(corev1.PodSucceeded),
			"active 0 succeeded 5 failed 0 SuccessCriteriaMet/CompletionsReached Complete/CompletionsReached"},
		"fails once": {nil, func(n int, _ *corev1.Pod) corev1.PodPhase {
			if n == 1 {
				return corev1.PodFailed
			}
			return corev1.PodSucceeded
		}, "active 0 succeeded 1 failed 1 SuccessCriteriaMet/CompletionsReached Complete/CompletionsReached"},
		"fails too often": {nil, all(corev1.PodFailed), "active 0 succeeded 0 failed 2 FailureTarget/BackoffLimitExceeded Failed/BackoffLimitExceeded"},
		"too slow": {func(j *batchv1.Job) { d := int64(20); j.Spec.ActiveDeadlineSeconds = &d }, all(""),
			"active 0 succeeded 0 failed 1 FailureTarget/DeadlineExceeded Failed/DeadlineExceeded"},
		"suspended": {func(j *batchv1.Job) { j.Spec.Suspend = &yes }, all(corev1.PodSucceeded), "active 0 succeeded 0 failed 0 Suspended/JobSuspended"},
		"indexed": {func(j *batchv1.Job) {
			j.Spec.Completions, j.Spec.Parallelism, j.Spec.CompletionMode = p32(4), p32(2), &indexed
		}, func(n int, p *corev1.Pod) corev1.PodPhase {
			if n == 2 {
				return corev1.PodFailed
			}
			return corev1.PodSucceeded
		}, "active 0 succeeded 4 failed 1 SuccessCriteriaMet/CompletionsReached Complete/CompletionsReached"},
		"some indexes fail": {perIndexJob(1, nil), odd, "active 0 succeeded 2 failed 4 FailureTarget/FailedIndexes Failed/FailedIndexes; indexes 0,2 and 1,3"},
		"too many indexes":  {perIndexJob(0, func(j *batchv1.Job) { j.Spec.Parallelism, j.Spec.MaxFailedIndexes = p32(1), p32(0) }), odd, "active 0 succeeded 1 failed 1 FailureTarget/MaxFailedIndexesExceeded Failed/MaxFailedIndexesExceeded; indexes 0 and 1"},
		"an index at once": {perIndexJob(3, func(j *batchv1.Job) {
			j.Spec.Completions = p32(2)
			j.Spec.PodFailurePolicy = &batchv1.PodFailurePolicy{Rules: []batchv1.PodFailurePolicyRule{{Action: batchv1.PodFailurePolicyActionFailIndex,
				OnExitCodes: &batchv1.PodFailurePolicyOnExitCodesRequirement{Operator: batchv1.PodFailurePolicyOnExitCodesOpIn, Values: []int32{41}}}}}
		}), odd, "active 0 succeeded 1 failed 1 FailureTarget/FailedIndexes Failed/FailedIndexes; indexes 0 and 1"},
		"enough indexes": {perIndexJob(9, func(j *batchv1.Job) {
			j.Spec.BackoffLimitPerIndex = nil
			j.Spec.SuccessPolicy = &batchv1.SuccessPolicy{Rules: []batchv1.SuccessPolicyRule{{SucceededIndexes: ptr.To("0-3"), SucceededCount: p32(2)}}}
			j.Spec.Parallelism = p32(4)
		}), func(_ int, p *corev1.Pod) corev1.PodPhase {
			if indexOf(p)%2 == 0 {
				return corev1.PodSucceeded
			}
			return ""
		}, "active 0 succeeded 2 failed 2 SuccessCriteriaMet/SuccessPolicy Complete/SuccessPolicy; indexes 0,2 and none"},
		"running": {nil, all(""), "active 1 succeeded 0 failed 0"},
		"work queue": {func(j *batchv1.Job) { j.Spec.Completions, j.Spec.Parallelism = nil, p32(2) }, all(corev1.PodSucceeded),
			"active 0 succeeded 2 failed 0 SuccessCriteriaMet/CompletionsReached Complete/CompletionsReached"},
	} {
		t.Run(name, func(t *testing.T) {
			cluster(t, job(c.edit), c.end, func(ctx context.Context, s *fake.Server, j *batchv1.Job) {
				if got := show(j); got != c.want {
					t.Errorf("got  %s\nwant %s", got, c.want)
				}
				if !finished(j) {
					return
				}
				pods, _ := client.Of[corev1.Pod](s, "a").List(ctx, nil)
				for _, p := range pods {
					if tracked(p) {
						t.Errorf("pod %s is still held", p.Name)
					}
				}
			})
		})
	}
}

func TestPodsOfADeletedJobAreLetGo(t *testing.T) {
	cluster(t, job(nil), func(int, *corev1.Pod) corev1.PodPhase { return "" }, func(ctx context.Context, s *fake.Server, j *batchv1.Job) {
		if err := client.Of[batchv1.Job](s, "a").Delete(ctx, "j", nil); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		pods, _ := client.Of[corev1.Pod](s, "a").List(ctx, nil)
		if len(pods) != 1 || tracked(pods[0]) {
			t.Errorf("pods: %v", pods)
		}
	})
}
