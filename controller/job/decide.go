package job

import (
	"fmt"
	"slices"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"

	"github.com/sampan-dev/sampan/semantics/jobspec"
	"github.com/sampan-dev/sampan/semantics/pod"
)

// tally is what a Job's pods amount to.
type tally struct {
	status    batchv1.JobStatus // with every end seen so far
	completed map[int]bool      // indexes, of an indexed Job
	active    []*corev1.Pod
	release   []*corev1.Pod // their ends are written: they may go
	ending    int           // deleted but still running
	held      int           // pods that still have the finalizer
	failed    []*corev1.Pod // seen to fail for the first time
	succeeded bool          // one was seen to succeed for the first time
	verdict   string        // why the failure policy fails the Job

	leaving   map[int]bool        // indexes of pods that still run while being deleted
	exhausted map[int]bool        // indexes that have failed for good
	retry     map[int]*corev1.Pod // of indexes to be tried again, the pod that failed last
	actions   []batchv1.PodFailurePolicyAction
}

func tracked(p *corev1.Pod) bool { return slices.Contains(p.Finalizers, batchv1.JobTrackingFinalizer) }

// failed says whether the pod counts as a failure: also while it ends, unless
// the Job waits for the outcome.
func failed(j *batchv1.Job, p *corev1.Pod) bool {
	if p.Status.Phase == corev1.PodFailed {
		return true
	}
	return p.DeletionTimestamp != nil && p.Status.Phase != corev1.PodSucceeded && !awaitsOutcome(j)
}

// awaitsOutcome says whether pods are replaced only when they have failed.
func awaitsOutcome(j *batchv1.Job) bool {
	return j.Spec.PodFailurePolicy != nil || j.Spec.PodReplacementPolicy != nil && *j.Spec.PodReplacementPolicy == batchv1.Failed
}

func completions(j *batchv1.Job) int {
	if j.Spec.Completions == nil {
		return 0
	}
	return int(*j.Spec.Completions)
}

// count takes the ends of pods into a Job's status, in two steps: first the
// UIDs are written down, then, the finalizer off, they become numbers.
func count(j *batchv1.Job, pods []*corev1.Pod) *tally {
	t := &tally{status: *j.Status.DeepCopy(), retry: map[int]*corev1.Pod{}, leaving: map[int]bool{}}
	s := &t.status
	if s.UncountedTerminatedPods == nil {
		s.UncountedTerminatedPods = &batchv1.UncountedTerminatedPods{}
	}
	indexed := jobspec.Indexed(&j.Spec)
	known := parseIndexes(j.Status.CompletedIndexes, completions(j))
	t.completed = parseIndexes(j.Status.CompletedIndexes, completions(j))
	held := map[types.UID]bool{}
	for _, p := range pods {
		if tracked(p) {
			held[p.UID] = true
		}
	}
	t.held = len(held)
	was := j.Status.UncountedTerminatedPods
	written := func(uid types.UID) bool {
		return was != nil && (slices.Contains(was.Failed, uid) || slices.Contains(was.Succeeded, uid))
	}
	settle := func(list *[]types.UID, n *int32) {
		*list = slices.DeleteFunc(*list, func(uid types.UID) bool {
			if !held[uid] {
				*n++
			}
			return !held[uid]
		})
	}
	if indexed {
		t.spent(j, pods)
	}
	settle(&s.UncountedTerminatedPods.Succeeded, &s.Succeeded)
	settle(&s.UncountedTerminatedPods.Failed, &s.Failed)
	for _, p := range pods {
		fails, succeeds := failed(j, p), p.Status.Phase == corev1.PodSucceeded
		if p.DeletionTimestamp != nil && !pod.Finished(p) {
			t.ending++
			t.leaving[indexOf(p)] = true
		}
		switch {
		case !fails && !succeeds:
			if p.DeletionTimestamp == nil {
				t.active = append(t.active, p)
			}
		case !tracked(p):
		case succeeds && indexed:
			i := indexOf(p)
			if i < 0 || i >= completions(j) || known[i] {
				t.release = append(t.release, p)
			} else {
				t.succeeded = t.succeeded || !t.completed[i]
				t.completed[i] = true
			}
		case t.retry[indexOf(p)] == p:
			if action, why := judge(j.Spec.PodFailurePolicy, p); action == batchv1.PodFailurePolicyActionFailJob && t.verdict == "" {
				t.verdict = why
			}
		case written(p.UID):
			t.release = append(t.release, p)
		case succeeds:
			t.succeeded = true
			s.UncountedTerminatedPods.Succeeded = append(s.UncountedTerminatedPods.Succeeded, p.UID)
		default:
			action, why := judge(j.Spec.PodFailurePolicy, p)
			if action != "" {
				t.actions = append(t.actions, action)
			}
			if action == batchv1.PodFailurePolicyActionIgnore {
				t.release = append(t.release, p)
				continue
			}
			if action == batchv1.PodFailurePolicyActionFailJob && t.verdict == "" {
				t.verdict = why
			}
			t.failed = append(t.failed, p)
			s.UncountedTerminatedPods.Failed = append(s.UncountedTerminatedPods.Failed, p.UID)
		}
	}
	if indexed {
		s.Succeeded = int32(len(t.completed))
		s.CompletedIndexes = showIndexes(t.completed)
		if perIndex(j) {
			s.FailedIndexes = ptr.To(showIndexes(t.exhausted))
		}
	}
	return t
}

// judge finds the failure policy's first rule that a failed pod meets.
func judge(policy *batchv1.PodFailurePolicy, p *corev1.Pod) (batchv1.PodFailurePolicyAction, string) {
	if policy == nil {
		return "", ""
	}
	for i, r := range policy.Rules {
		if e := r.OnExitCodes; e != nil {
			for _, cs := range slices.Concat(p.Status.ContainerStatuses, p.Status.InitContainerStatuses) {
				if cs.State.Terminated == nil || cs.State.Terminated.ExitCode == 0 || e.ContainerName != nil && *e.ContainerName != cs.Name {
					continue
				}
				code := cs.State.Terminated.ExitCode
				if slices.Contains(e.Values, code) == (e.Operator == batchv1.PodFailurePolicyOnExitCodesOpIn) {
					return r.Action, fmt.Sprintf("Container %s for pod %s/%s failed with exit code %v matching %v rule at index %d", cs.Name, p.Namespace, p.Name, code, r.Action, i)
				}
			}
		}
		for _, want := range r.OnPodConditions {
			if c := pod.Condition(&p.Status, want.Type); c != nil && c.Status == want.Status {
				return r.Action, fmt.Sprintf("Pod %s/%s has condition %v matching %v rule at index %d", p.Namespace, p.Name, want.Type, r.Action, i)
			}
		}
	}
	return "", ""
}

func (t *tally) totals() (succeeded, failed int) {
	u := t.status.UncountedTerminatedPods
	return int(t.status.Succeeded) + len(u.Succeeded), int(t.status.Failed) + len(u.Failed)
}

func find(cs []batchv1.JobCondition, kind batchv1.JobConditionType) *batchv1.JobCondition {
	for i := range cs {
		if cs[i].Type == kind {
			return &cs[i]
		}
	}
	return nil
}

func holds(cs []batchv1.JobCondition, kind batchv1.JobConditionType) bool {
	c := find(cs, kind)
	return c != nil && c.Status == corev1.ConditionTrue
}

func finished(j *batchv1.Job) bool {
	return holds(j.Status.Conditions, batchv1.JobComplete) || holds(j.Status.Conditions, batchv1.JobFailed)
}

// target decides whether the Job has come to its end, and which.
func target(j *batchv1.Job, t *tally, now time.Time) (kind batchv1.JobConditionType, reason, message string) {
	for _, k := range []batchv1.JobConditionType{batchv1.JobFailureTarget, batchv1.JobSuccessCriteriaMet} {
		if holds(j.Status.Conditions, k) {
			c := find(j.Status.Conditions, k)
			return k, c.Reason, c.Message
		}
	}
	ok, bad := t.totals()
	limit := 6
	if j.Spec.BackoffLimit != nil {
		limit = int(*j.Spec.BackoffLimit)
	}
	suspended := j.Spec.Suspend != nil && *j.Spec.Suspend
	switch {
	case t.verdict != "":
		return batchv1.JobFailureTarget, batchv1.JobReasonPodFailurePolicy, t.verdict
	case bad > limit || restartsExceed(j, t.active, limit):
		return batchv1.JobFailureTarget, batchv1.JobReasonBackoffLimitExceeded, "Job has reached the specified backoff limit"
	case !suspended && deadline(j, now) == 0:
		return batchv1.JobFailureTarget, batchv1.JobReasonDeadlineExceeded, "Job was active longer than specified deadline"
	case perIndex(j) && j.Spec.MaxFailedIndexes != nil && len(t.exhausted) > int(*j.Spec.MaxFailedIndexes):
		return batchv1.JobFailureTarget, batchv1.JobReasonMaxFailedIndexesExceeded, "Job has exceeded the specified maximal number of failed indexes"
	case perIndex(j) && len(t.exhausted) > 0 && len(t.exhausted)+len(t.completed) >= completions(j):
		return batchv1.JobFailureTarget, batchv1.JobReasonFailedIndexes, "Job has failed indexes"
	}
	if message, met := satisfied(j, t.completed); met {
		return batchv1.JobSuccessCriteriaMet, batchv1.JobReasonSuccessPolicy, message
	}
	switch {
	case j.Spec.Completions == nil && ok > 0 && len(t.active) == 0 && t.ending == 0, j.Spec.Completions != nil && ok >= completions(j):
		return batchv1.JobSuccessCriteriaMet, batchv1.JobReasonCompletionsReached, "Reached expected number of succeeded pods"
	}
	return "", "", ""
}

// deadline returns how long the Job may still run: 0 not at all, negative when nothing limits it.
func deadline(j *batchv1.Job, now time.Time) time.Duration {
	if j.Spec.ActiveDeadlineSeconds == nil || j.Status.StartTime == nil {
		return -1
	}
	return max(j.Status.StartTime.Add(time.Duration(*j.Spec.ActiveDeadlineSeconds)*time.Second).Sub(now), 0)
}

// restartsExceed counts restarts in place, where pods restart so.
func restartsExceed(j *batchv1.Job, active []*corev1.Pod, limit int) bool {
	if j.Spec.Template.Spec.RestartPolicy != corev1.RestartPolicyOnFailure {
		return false
	}
	n := 0
	for _, p := range active {
		for _, cs := range slices.Concat(p.Status.InitContainerStatuses, p.Status.ContainerStatuses) {
			n += int(cs.RestartCount)
		}
	}
	return n > 0 && n >= limit
}

// plan is what to do with pods.
type plan struct {
	create  int
	indexes []int // of those created, for an indexed Job
	remove  []*corev1.Pod
	wait    time.Duration // until another index may be tried again
}

// decide compares wish and pods; over says that the Job is ending or suspended.
func decide(j *batchv1.Job, t *tally, over bool, now time.Time) plan {
	if over {
		return plan{remove: t.active}
	}
	parallelism := 1
	if j.Spec.Parallelism != nil {
		parallelism = int(*j.Spec.Parallelism)
	}
	ok, _ := t.totals()
	want := parallelism
	if j.Spec.Completions != nil {
		want = min(parallelism, max(completions(j)-ok-len(t.exhausted), 0))
	} else if ok > 0 {
		want = min(parallelism, len(t.active))
	}
	indexed := jobspec.Indexed(&j.Spec)
	if indexed {
		if extra := duplicates(t.active, completions(j)); len(extra) > 0 {
			return plan{remove: extra}
		}
	}
	busy := len(t.active)
	if awaitsOutcome(j) {
		busy += t.ending
	}
	switch {
	case len(t.active) > want:
		victims := slices.Clone(t.active)
		slices.SortStableFunc(victims, func(a, b *corev1.Pod) int { return precious(a) - precious(b) })
		return plan{remove: victims[:len(victims)-want]}
	case busy < want:
		p := plan{create: want - busy}
		if indexed {
			p.indexes, p.wait = t.due(j, p.create, now)
			p.create = len(p.indexes)
		}
		return p
	}
	return plan{}
}

// precious ranks pods by how far they have come.
func precious(p *corev1.Pod) int {
	switch {
	case p.Spec.NodeName == "":
		return 0
	case p.Status.Phase == corev1.PodPending:
		return 1
	case !pod.Ready(p):
		return 2
	}
	return 3
}

// setCondition adds a condition or changes its status, and says whether it did.
func setCondition(s *batchv1.JobStatus, kind batchv1.JobConditionType, status corev1.ConditionStatus, reason, message string, now time.Time) bool {
	at := metav1.NewTime(now)
	c := batchv1.JobCondition{Type: kind, Status: status, Reason: reason, Message: message, LastProbeTime: at, LastTransitionTime: at}
	if old := find(s.Conditions, kind); old == nil {
		s.Conditions = append(s.Conditions, c)
	} else if old.Status == status && old.Reason == reason {
		return false
	} else {
		*old = c
	}
	return true
}

// Upstream's wait before a failed pod's successor.
const (
	backoffBase = 10 * time.Second
	backoffMax  = 10 * time.Minute
)

// pause returns how long to wait after n failures in a row, the last at last.
func pause(n int, last, now time.Time) time.Duration {
	if n == 0 {
		return 0
	}
	d := backoffBase
	for i := 1; i < n && d < backoffMax; i++ {
		d *= 2
	}
	return max(min(d, backoffMax)-now.Sub(last), 0)
}
