package admission

import (
	"context"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/sampan-dev/sampan/apiserver/request"
)

// noPrivileged is kube-apiserver's --allow-privileged=false: no pod, and no
// template of one, has a privileged container. It is no plugin of the row, since
// upstream judges it with the rest of the object; the words are upstream's.
type noPrivileged struct{ onCreateUpdate }

func (noPrivileged) Name() string { return "AllowPrivileged" }

func (noPrivileged) Validate(_ context.Context, a *request.Attributes) error {
	_, spec, isPod := template(a)
	if spec == nil {
		return nil
	}
	at := field.NewPath("spec")
	if !isPod {
		if a.Resource.Resource == "cronjobs" {
			at = at.Child("jobTemplate", "spec")
		}
		at = at.Child("template", "spec")
	}
	if a.Resource.Resource == "podtemplates" {
		at = field.NewPath("template", "spec")
	}
	var errs field.ErrorList
	judge := func(list string, i int, s *corev1.SecurityContext) {
		if s != nil && s.Privileged != nil && *s.Privileged {
			errs = append(errs, field.Forbidden(at.Child(list).Index(i).Child("securityContext", "privileged"), "disallowed by cluster policy"))
		}
	}
	for i := range spec.EphemeralContainers {
		judge("ephemeralContainers", i, spec.EphemeralContainers[i].SecurityContext)
	}
	if isPod && a.Operation == request.Update { // nothing else of a pod's can have changed
		if len(errs) > 0 {
			return invalid(a, errs)
		}
		return nil
	}
	for i := range spec.InitContainers {
		judge("initContainers", i, spec.InitContainers[i].SecurityContext)
	}
	for i := range spec.Containers {
		judge("containers", i, spec.Containers[i].SecurityContext)
	}
	if len(errs) > 0 {
		return invalid(a, errs)
	}
	return nil
}
