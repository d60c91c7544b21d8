// Package taint judges which pods put up with which taints.
//
// Job: whether a toleration, or a list of them, covers a taint.
//
// Not its job: what follows from a taint that is not covered.
//
// Invariants: pure.
package taint

import (
	"slices"
	"strconv"

	corev1 "k8s.io/api/core/v1"
)

// Covers says whether a toleration covers a taint.
func Covers(t *corev1.Toleration, taint *corev1.Taint) bool {
	if t.Effect != "" && t.Effect != taint.Effect || t.Key != "" && t.Key != taint.Key {
		return false
	}
	switch t.Operator {
	case "", corev1.TolerationOpEqual:
		return t.Value == taint.Value
	case corev1.TolerationOpExists:
		return true
	case corev1.TolerationOpLt, corev1.TolerationOpGt:
		bound, okBound := number(t.Value)
		value, ok := number(taint.Value)
		return ok && okBound && (t.Operator == corev1.TolerationOpLt && value < bound || t.Operator == corev1.TolerationOpGt && value > bound)
	}
	return false
}

// number reads a decimal integer as it is usually written.
func number(text string) (int64, bool) {
	n, err := strconv.ParseInt(text, 10, 64)
	return n, err == nil && strconv.FormatInt(n, 10) == text
}

// Covering returns the first toleration that covers a taint, nil if none does.
func Covering(list []corev1.Toleration, taint *corev1.Taint) *corev1.Toleration {
	i := slices.IndexFunc(list, func(t corev1.Toleration) bool { return Covers(&t, taint) })
	if i < 0 {
		return nil
	}
	return &list[i]
}

// Tolerated says whether any of the tolerations covers a taint.
func Tolerated(list []corev1.Toleration, taint *corev1.Taint) bool {
	return Covering(list, taint) != nil
}
