package job

import (
	"fmt"
	"strconv"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/utils/ptr"
)

// perIndex says whether each index has failures of its own to spend.
func perIndex(j *batchv1.Job) bool { return j.Spec.BackoffLimitPerIndex != nil }

func number(p *corev1.Pod, annotation string) int {
	n, _ := strconv.Atoi(p.Annotations[annotation])
	return max(n, 0)
}

// tries is how often a pod's index had been tried before it.
func tries(p *corev1.Pod) int {
	return number(p, batchv1.JobIndexFailureCountAnnotation) + number(p, batchv1.JobIndexIgnoredFailureCountAnnotation)
}

// spent finds the indexes that have failed for good, and, of those that are to
// be tried again, the pod that failed last: it stays until its successor is
// there, for it carries the count.
func (t *tally) spent(j *batchv1.Job, pods []*corev1.Pod) {
	t.exhausted = parseIndexes(ptr.Deref(j.Status.FailedIndexes, ""), completions(j))
	if !perIndex(j) {
		return
	}
	busy := map[int]bool{}
	for _, p := range pods {
		switch {
		case failed(j, p) && tracked(p):
			action, _ := judge(j.Spec.PodFailurePolicy, p)
			if i := indexOf(p); i >= 0 && i < completions(j) && !t.completed[i] && exhausts(j, p, action) {
				t.exhausted[i] = true
			}
		case !failed(j, p) && p.Status.Phase != corev1.PodSucceeded:
			busy[indexOf(p)] = true
		}
	}
	over := holds(j.Status.Conditions, batchv1.JobFailureTarget) || holds(j.Status.Conditions, batchv1.JobSuccessCriteriaMet)
	if over || j.DeletionTimestamp != nil {
		return
	}
	for _, p := range pods {
		i := indexOf(p)
		if !failed(j, p) || !tracked(p) || i < 0 || i >= completions(j) || busy[i] || t.completed[i] || t.exhausted[i] {
			continue
		}
		if last := t.retry[i]; last == nil || tries(last) <= tries(p) {
			t.retry[i] = p
		}
	}
}

// exhausts says whether a failed pod was its index's last try.
func exhausts(j *batchv1.Job, p *corev1.Pod, action batchv1.PodFailurePolicyAction) bool {
	switch action {
	case batchv1.PodFailurePolicyActionFailIndex:
		return true
	case batchv1.PodFailurePolicyActionIgnore:
		return false
	}
	return number(p, batchv1.JobIndexFailureCountAnnotation) >= int(*j.Spec.BackoffLimitPerIndex)
}

// succeed notes in a new pod how often its index failed before.
func succeed(j *batchv1.Job, next, last *corev1.Pod) {
	failures, ignored := 0, 0
	if last != nil {
		failures, ignored = number(last, batchv1.JobIndexFailureCountAnnotation), number(last, batchv1.JobIndexIgnoredFailureCountAnnotation)
		if action, _ := judge(j.Spec.PodFailurePolicy, last); action == batchv1.PodFailurePolicyActionIgnore {
			ignored++
		} else {
			failures++
		}
	}
	next.Annotations[batchv1.JobIndexFailureCountAnnotation] = strconv.Itoa(failures)
	if ignored > 0 {
		next.Annotations[batchv1.JobIndexIgnoredFailureCountAnnotation] = strconv.Itoa(ignored)
	}
}

// due returns the indexes to create pods for now, at most n, and how long until
// the next of those that wait.
func (t *tally) due(j *batchv1.Job, n int, now time.Time) (indexes []int, wait time.Duration) {
	blocked := map[int]bool{}
	for i := range t.completed {
		blocked[i] = true
	}
	for i := range t.exhausted {
		blocked[i] = true
	}
	if awaitsOutcome(j) {
		for i := range t.leaving {
			blocked[i] = true
		}
	}
	for _, i := range missing(completions(j), completions(j), blocked, t.active) {
		if len(indexes) == n {
			break
		}
		if last := t.retry[i]; last != nil {
			if left := pause(tries(last)+1, endOf(last, now), now); left > 0 {
				if wait == 0 || left < wait {
					wait = left
				}
				continue
			}
		}
		indexes = append(indexes, i)
	}
	return indexes, wait
}

// satisfied finds the success policy's first rule that the completed indexes meet.
func satisfied(j *batchv1.Job, completed map[int]bool) (message string, ok bool) {
	if j.Spec.SuccessPolicy == nil || len(completed) == 0 {
		return "", false
	}
	for n, r := range j.Spec.SuccessPolicy.Rules {
		hits, all := len(completed), false
		if r.SucceededIndexes != nil {
			wanted := parseIndexes(*r.SucceededIndexes, completions(j))
			if len(wanted) == 0 {
				continue
			}
			hits = 0
			for i := range wanted {
				if completed[i] {
					hits++
				}
			}
			all = hits == len(wanted)
		}
		if all || r.SucceededCount != nil && hits >= int(*r.SucceededCount) {
			return fmt.Sprintf("Matched rules at index %d", n), true
		}
	}
	return "", false
}
