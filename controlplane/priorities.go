package controlplane

import (
	"context"

	schedulingv1 "k8s.io/api/scheduling/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/sampan-dev/sampan/apiserver/request"
)

// systemPriorities makes the two classes that every cluster has.
func systemPriorities(ctx context.Context, b request.Backend) error {
	gr := schema.GroupResource{Group: schedulingv1.GroupName, Resource: "priorityclasses"}
	for _, c := range []struct {
		name, about string
		value       int32
	}{
		{"system-node-critical", "Used for system critical pods that must not be moved from their current node.", 2000001000},
		{"system-cluster-critical", "Used for system critical pods that must run in the cluster, but can be moved to another node if necessary.", 2000000000},
	} {
		if _, err := b.Get(ctx, gr, "", c.name); err == nil {
			continue
		}
		_, err := b.Create(ctx, gr, &schedulingv1.PriorityClass{
			ObjectMeta: metav1.ObjectMeta{Name: c.name}, Value: c.value, Description: c.about,
		}, &metav1.CreateOptions{})
		if err != nil && !apierrors.IsAlreadyExists(err) {
			return err
		}
	}
	return nil
}
