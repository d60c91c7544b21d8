package job

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
)

// parseIndexes reads a list such as "1,3-5", leaving out what is no index below n.
func parseIndexes(text string, n int) map[int]bool {
	out := map[int]bool{}
	for part := range strings.SplitSeq(text, ",") {
		from, to, span := strings.Cut(part, "-")
		a, err := strconv.Atoi(from)
		if err != nil {
			continue
		}
		b := a
		if span {
			if b, err = strconv.Atoi(to); err != nil {
				continue
			}
		}
		for i := a; i <= b && i < n; i++ {
			out[i] = true
		}
	}
	return out
}

// showIndexes writes a set as parseIndexes reads it.
func showIndexes(set map[int]bool) string {
	var parts []string
	all := slices.Sorted(maps.Keys(set))
	for i := 0; i < len(all); {
		j := i
		for j+1 < len(all) && all[j+1] == all[j]+1 {
			j++
		}
		switch j - i {
		case 0:
			parts = append(parts, strconv.Itoa(all[i]))
		case 1:
			parts = append(parts, strconv.Itoa(all[i]), strconv.Itoa(all[j]))
		default:
			parts = append(parts, fmt.Sprintf("%d-%d", all[i], all[j]))
		}
		i = j + 1
	}
	return strings.Join(parts, ",")
}

// indexOf returns a pod's completion index, -1 if it has none.
func indexOf(p *corev1.Pod) int {
	n, err := strconv.Atoi(p.Annotations[batchv1.JobCompletionIndexAnnotation])
	if err != nil || n < 0 {
		return -1
	}
	return n
}

// missing returns the first n indexes that are neither completed nor being run.
func missing(completions, n int, completed map[int]bool, active []*corev1.Pod) []int {
	busy := maps.Clone(completed)
	for _, p := range active {
		busy[indexOf(p)] = true
	}
	var out []int
	for i := 0; i < completions && len(out) < n; i++ {
		if !busy[i] {
			out = append(out, i)
		}
	}
	return out
}

// duplicates returns active pods that share an index with another, or whose
// index is not wanted.
func duplicates(active []*corev1.Pod, completions int) []*corev1.Pod {
	seen := map[int]bool{}
	var out []*corev1.Pod
	for _, p := range active {
		i := indexOf(p)
		if i < 0 || i >= completions || seen[i] {
			out = append(out, p)
		}
		seen[i] = true
	}
	return out
}

// index makes a pod the one of a completion index.
func index(p *corev1.Pod, job string, i int) {
	text := strconv.Itoa(i)
	p.GenerateName = job + "-" + text + "-"
	if p.Annotations == nil {
		p.Annotations = map[string]string{}
	}
	if p.Labels == nil {
		p.Labels = map[string]string{}
	}
	p.Annotations[batchv1.JobCompletionIndexAnnotation], p.Labels[batchv1.JobCompletionIndexAnnotation] = text, text
	p.Spec.Hostname = job + "-" + text
	env := corev1.EnvVar{Name: "JOB_COMPLETION_INDEX", ValueFrom: &corev1.EnvVarSource{
		FieldRef: &corev1.ObjectFieldSelector{FieldPath: "metadata.labels['" + batchv1.JobCompletionIndexAnnotation + "']"}}}
	for _, list := range [][]corev1.Container{p.Spec.InitContainers, p.Spec.Containers} {
		for c := range list {
			if !slices.ContainsFunc(list[c].Env, func(e corev1.EnvVar) bool { return e.Name == env.Name }) {
				list[c].Env = append(list[c].Env, env)
			}
		}
	}
}
