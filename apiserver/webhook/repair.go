package webhook

import (
	"context"
	"fmt"
	"slices"
	"strings"

	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/sampan-dev/sampan/api"
	"github.com/sampan-dev/sampan/apiserver/request"
)

// repairs says whether a hook that cannot be asked must not keep the request
// away, for without such requests it could never come back: the heartbeats of
// nodes, the bookkeeping of the system, and the very pods behind the hook. A
// hook that answers is heard in any case.
func (q *asking) repairs(ctx context.Context, h *hook) bool {
	return heartbeat(q.r.Attributes) || q.own(ctx, h)
}

// heartbeat recognises what the system's own parts write to stay alive.
func heartbeat(a *request.Attributes) bool {
	if a.User == nil || !system(a.User) {
		return false
	}
	resource := a.Resource.Resource
	if a.Subresource != "" {
		resource += "/" + a.Subresource
	}
	switch a.Resource.Group {
	case "":
		switch resource {
		case "nodes", "nodes/status", "pods/status", "pods/binding", "bindings", "endpoints", "resourcequotas/status", "namespaces/status", "namespaces/finalize":
			return true
		case "serviceaccounts/token": // without which no container starts
			return true
		case "serviceaccounts", "configmaps": // every namespace's own, without which no pod starts there
			return a.Name == "default" || a.Name == "kube-root-ca.crt"
		case "pods": // an evicted pod makes room for another
			return a.Operation == request.Delete
		}
	case "coordination.k8s.io":
		return resource == "leases" && (a.Namespace == "kube-node-lease" || a.Namespace == metav1.NamespaceSystem)
	case discoveryv1.GroupName:
		return resource == "endpointslices"
	case "certificates.k8s.io": // nodes join, and their certificates run out
		return a.Resource.Resource == "certificatesigningrequests"
	case "storage.k8s.io":
		return a.Resource.Resource == "volumeattachments" || resource == "csinodes"
	}
	return false
}

// system says whether a user is the server, a node or one of the control
// plane's own actors.
func system(u *request.User) bool {
	switch u.Name {
	case request.LoopbackUser, "system:kube-scheduler", "system:kube-controller-manager":
		return true
	}
	if slices.Contains(u.Groups, request.Nodes) && strings.HasPrefix(u.Name, "system:node:") {
		return true
	}
	const accounts = "system:serviceaccount:" + metav1.NamespaceSystem + ":"
	return strings.HasPrefix(u.Name, accounts) && strings.HasSuffix(u.Name, "-controller")
}

// own says whether the request is about a pod, or what makes a pod, that stands
// behind the hook's own service. Whoever may make such a pod may answer in the
// hook's name anyway, so nothing is given away.
func (q *asking) own(ctx context.Context, h *hook) bool {
	s := h.client.Service
	if s == nil || q.r.Attributes.Namespace != s.Namespace || q.r.Operation == request.Connect {
		return false
	}
	obj := q.r.Object
	if obj == nil {
		obj = q.r.Old
	}
	if obj == nil {
		return false
	}
	found, err := q.w.deps.Back.Get(ctx, schema.GroupResource{Resource: "services"}, s.Namespace, s.Name)
	if err != nil {
		return false
	}
	svc, ok := found.(*corev1.Service)
	if !ok || len(svc.Spec.Selector) == 0 {
		return false
	}
	set := podLabels(obj)
	return set != nil && labels.SelectorFromSet(svc.Spec.Selector).Matches(labels.Set(set))
}

// podLabels are the labels of a pod, or of the pods that a workload makes.
func podLabels(obj api.Object) map[string]string {
	switch o := obj.(type) {
	case *corev1.Pod:
		return o.Labels
	case *appsv1.ReplicaSet:
		return o.Spec.Template.Labels
	case *appsv1.Deployment:
		return o.Spec.Template.Labels
	case *appsv1.StatefulSet:
		return o.Spec.Template.Labels
	case *appsv1.DaemonSet:
		return o.Spec.Template.Labels
	case *appsv1.ControllerRevision:
		return o.Labels
	case *batchv1.Job:
		return o.Spec.Template.Labels
	case *corev1.ReplicationController:
		if o.Spec.Template != nil {
			return o.Spec.Template.Labels
		}
	}
	return nil
}

// explain adds to a failure what it takes to mend it.
func (q *asking) explain(ctx context.Context, h *hook, call *callError) error {
	where := "its URL"
	if h.client.URL != nil {
		where = *h.client.URL
	}
	if s := h.client.Service; s != nil {
		where = fmt.Sprintf("service %s/%s", s.Namespace, s.Name)
		port := int32(443)
		if s.Port != nil {
			port = *s.Port
		}
		if _, err := q.w.caller.reach.addresses(ctx, s.Namespace, s.Name, port); err != nil && !strings.Contains(call.reason.Error(), err.Error()) {
			where += " (" + err.Error() + ")"
		}
	}
	resource := resources()[h.kind].Resource
	return &explained{call, fmt.Sprintf("; %s %q asks %s about such requests and fails them (failurePolicy: Fail) while there is no answer: mend it, or run: kubectl delete %s %s",
		h.kind, h.config, where, resource, h.config)}
}

type explained struct {
	error
	more string
}

func (e *explained) Error() string { return e.error.Error() + e.more }
func (e *explained) Unwrap() error { return e.error }
