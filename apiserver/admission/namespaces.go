package admission

import (
	"context"
	"errors"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sampan-dev/sampan/apiserver/request"
)

// namespaceLifecycle keeps objects out of namespaces that do not exist or are
// going away, and the system's namespaces from being deleted.
type namespaceLifecycle struct{ back request.Backend }

func (*namespaceLifecycle) Name() string { return "NamespaceLifecycle" }

func (*namespaceLifecycle) Handles(op request.Operation) bool { return op != request.Connect }

func (*namespaceLifecycle) Validate(_ context.Context, a *request.Attributes) error {
	if a.Operation == request.Delete && a.Resource.GroupResource() == core("namespaces") && immortal(a.Name) {
		return apierrors.NewForbidden(a.Resource.GroupResource(), a.Name, errors.New("this namespace may not be deleted"))
	}
	return nil
}

// Mutate changes nothing: it is the first to be asked, so that no other plugin
// stumbles over a namespace that does not exist.
func (p *namespaceLifecycle) Mutate(ctx context.Context, a *request.Attributes) error {
	isNamespace := a.Resource.GroupResource() == core("namespaces")
	if a.Operation == request.Delete || a.Namespace == "" || isNamespace || a.Resource.Resource == "localsubjectaccessreviews" {
		return nil
	}
	obj, err := p.back.Get(ctx, core("namespaces"), "", a.Namespace)
	if err != nil {
		return err
	}
	ns, ok := obj.(*corev1.Namespace)
	if !ok || a.Operation != request.Create || ns.Status.Phase != corev1.NamespaceTerminating && ns.DeletionTimestamp == nil {
		return nil
	}
	refusal := apierrors.NewForbidden(a.Resource.GroupResource(), nameOf(a), fmt.Errorf("unable to create new content in namespace %s because it is being terminated", a.Namespace))
	refusal.ErrStatus.Details.Causes = append(refusal.ErrStatus.Details.Causes, metav1.StatusCause{
		Type: corev1.NamespaceTerminatingCause, Message: fmt.Sprintf("namespace %s is being terminated", a.Namespace), Field: "metadata.namespace",
	})
	return refusal
}

func immortal(name string) bool {
	return name == metav1.NamespaceDefault || name == metav1.NamespaceSystem || name == metav1.NamespacePublic
}
