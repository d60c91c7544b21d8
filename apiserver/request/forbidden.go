package request

import (
	"errors"
	"fmt"
	"net/http"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// Forbidden is the 403 for what u asked for in i; reason may be empty.
func Forbidden(u *User, i *Info, reason string) *apierrors.StatusError {
	text := forbiddenText(u, i)
	if reason != "" {
		text += ": " + reason
	}
	return apierrors.NewForbidden(schema.GroupResource{Group: i.Group, Resource: i.Resource}, i.Name, errors.New(text))
}

func forbiddenText(u *User, i *Info) string {
	if !i.IsResource {
		return fmt.Sprintf("User %q cannot %s path %q", u.Name, i.Verb, i.Path)
	}
	resource := i.Resource
	if i.Subresource != "" {
		resource += "/" + i.Subresource
	}
	if i.Namespace != "" {
		return fmt.Sprintf("User %q cannot %s resource %q in API group %q in the namespace %q", u.Name, i.Verb, resource, i.Group, i.Namespace)
	}
	return fmt.Sprintf("User %q cannot %s resource %q in API group %q at the cluster scope", u.Name, i.Verb, resource, i.Group)
}

// Unauthorized is the 401 of everyone whose credential is missing or bad: it
// says nothing of why.
func Unauthorized() *apierrors.StatusError {
	return &apierrors.StatusError{ErrStatus: metav1.Status{
		Status: metav1.StatusFailure, Code: http.StatusUnauthorized,
		Reason: metav1.StatusReasonUnauthorized, Message: "Unauthorized",
	}}
}
