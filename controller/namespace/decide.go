package namespace

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// findings are what a pass over a namespace's content came to.
type findings struct {
	undiscovered []string       // errors of discovery
	failed       []string       // errors of deleting
	remaining    map[string]int // objects left, by resource
	finalizers   map[string]int // objects that a finalizer holds
	podsLeft     time.Duration  // the longest grace of pods still ending
}

func (f *findings) empty() bool {
	return len(f.undiscovered) == 0 && len(f.failed) == 0 && len(f.remaining) == 0
}

// conditions tells the findings as upstream does.
func conditions(old []corev1.NamespaceCondition, f *findings, now time.Time) []corev1.NamespaceCondition {
	out := slices.Clone(old)
	set := func(t corev1.NamespaceConditionType, bad bool, badReason, badMessage, reason, message string) {
		c := corev1.NamespaceCondition{Type: t, Status: corev1.ConditionFalse, Reason: reason, Message: message, LastTransitionTime: metav1.NewTime(now)}
		if bad {
			c.Status, c.Reason, c.Message = corev1.ConditionTrue, badReason, badMessage
		}
		i := slices.IndexFunc(out, func(o corev1.NamespaceCondition) bool { return o.Type == t })
		if i < 0 {
			out = append(out, c)
			return
		}
		if out[i].Status == c.Status {
			c.LastTransitionTime = out[i].LastTransitionTime
		}
		out[i] = c
	}
	set(corev1.NamespaceDeletionDiscoveryFailure, len(f.undiscovered) > 0, "DiscoveryFailed",
		fmt.Sprintf("Discovery failed for some groups, %d failing: %v", len(f.undiscovered), strings.Join(f.undiscovered, "; ")),
		"ResourcesDiscovered", "All resources successfully discovered")
	set(corev1.NamespaceDeletionGVParsingFailure, false, "", "", "ParsedGroupVersions", "All legacy kube types successfully parsed")
	set(corev1.NamespaceDeletionContentFailure, len(f.failed) > 0, "ContentDeletionFailed",
		fmt.Sprintf("Failed to delete all resource types, %d remaining: %v", len(f.failed), strings.Join(f.failed, ", ")),
		"ContentDeleted", "All content successfully deleted, may be waiting on finalization")
	set(corev1.NamespaceContentRemaining, len(f.remaining) > 0, "SomeResourcesRemain",
		"Some resources are remaining: "+counted(f.remaining, "%s has %d resource instances"),
		"ContentRemoved", "All content successfully removed")
	set(corev1.NamespaceFinalizersRemaining, len(f.finalizers) > 0, "SomeFinalizersRemain",
		"Some content in the namespace has finalizers remaining: "+counted(f.finalizers, "%s in %d resource instances"),
		"ContentHasNoFinalizers", "All content-preserving finalizers finished")
	return out
}

func counted(m map[string]int, format string) string {
	var parts []string
	for _, k := range slices.Sorted(maps.Keys(m)) {
		parts = append(parts, fmt.Sprintf(format, k, m[k]))
	}
	return strings.Join(parts, ", ")
}
