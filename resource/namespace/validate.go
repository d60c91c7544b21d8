package namespace

import (
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

func validate(next, prev *corev1.Namespace) (errs field.ErrorList) {
	if prev != nil {
		return nil
	}
	for _, f := range next.Spec.Finalizers {
		errs = append(errs, validateFinalizer(string(f), field.NewPath("spec", "finalizers"))...)
	}
	return errs
}

func validateFinalize(next, _ *corev1.Namespace) (errs field.ErrorList) {
	path := field.NewPath("spec", "finalizers")
	for i, f := range next.Spec.Finalizers {
		errs = append(errs, validateFinalizer(string(f), path.Index(i))...)
	}
	return errs
}

// validateStatus keeps the phase in step with the deletion mark.
func validateStatus(next, _ *corev1.Namespace) (errs field.ErrorList) {
	path := field.NewPath("status", "Phase")
	if next.DeletionTimestamp.IsZero() {
		if next.Status.Phase != corev1.NamespaceActive {
			errs = append(errs, field.Invalid(path, next.Status.Phase, "may only be 'Active' if `deletionTimestamp` is empty"))
		}
	} else if next.Status.Phase != corev1.NamespaceTerminating {
		errs = append(errs, field.Invalid(path, next.Status.Phase, "may only be 'Terminating' if `deletionTimestamp` is not empty"))
	}
	return errs
}

// validateFinalizer judges one finalizer: a qualified name, and if it has no
// domain then the one that Kubernetes itself uses.
func validateFinalizer(name string, path *field.Path) (errs field.ErrorList) {
	for _, msg := range validation.IsQualifiedName(name) {
		errs = append(errs, field.Invalid(path, name, msg))
	}
	if len(strings.Split(name, "/")) == 1 && name != string(corev1.FinalizerKubernetes) && name != "orphan" && name != "foregroundDeletion" {
		errs = append(errs, field.Invalid(path, name, "name is neither a standard finalizer name nor is it fully qualified"))
	}
	return errs
}
