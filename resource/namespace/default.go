package namespace

import (
	"slices"

	corev1 "k8s.io/api/core/v1"

	"github.com/sampan-dev/sampan/resource"
)

// setDefaults gives every namespace a label with its own name, so that
// selectors can name one; a generated name gets it on the next write.
func setDefaults(n *corev1.Namespace) {
	if n.Status.Phase == "" {
		n.Status.Phase = corev1.NamespaceActive
	}
	if n.Name == "" {
		return
	}
	if n.Labels == nil {
		n.Labels = map[string]string{}
	}
	n.Labels[corev1.LabelMetadataName] = n.Name
}

func prepare(_ *resource.Request, next, prev *corev1.Namespace) {
	if prev != nil {
		next.Spec.Finalizers = prev.Spec.Finalizers
		next.Status = prev.Status
		return
	}
	next.Status = corev1.NamespaceStatus{Phase: corev1.NamespaceActive}
	if !slices.Contains(next.Spec.Finalizers, corev1.FinalizerKubernetes) {
		next.Spec.Finalizers = append(next.Spec.Finalizers, corev1.FinalizerKubernetes)
	}
	// The name of a namespace that asked for a generated one is known by now.
	setDefaults(next)
}

func prepareStatus(_ *resource.Request, next, prev *corev1.Namespace) { next.Spec = prev.Spec }

func prepareFinalize(_ *resource.Request, next, prev *corev1.Namespace) { next.Status = prev.Status }
