package admission

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	authenticationv1 "k8s.io/api/authentication/v1"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	storagev1 "k8s.io/api/storage/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"github.com/sampan-dev/sampan/apiserver/request"
)

// nodeRestriction keeps a kubelet's writes to its own node and the pods on it.
type nodeRestriction struct{ back request.Backend }

func (*nodeRestriction) Name() string { return "NodeRestriction" }

func (*nodeRestriction) Handles(op request.Operation) bool { return op != request.Connect }

func (p *nodeRestriction) Validate(ctx context.Context, a *request.Attributes) error {
	if a.User == nil || !slices.Contains(a.User.Groups, request.Nodes) {
		return nil
	}
	node, ok := strings.CutPrefix(a.User.Name, "system:node:")
	if !ok || node == "" {
		return forbidf(a, "could not determine node from user %q", a.User.Name)
	}
	switch a.Resource.GroupResource().String() {
	case "pods":
		return p.pod(ctx, a, node)
	case "nodes":
		return ownNode(a, node)
	case "leases.coordination.k8s.io":
		if l, ok := a.Object.(*coordinationv1.Lease); ok && a.Operation == request.Create && l.Name != node || a.Operation != request.Create && a.Name != node {
			return forbid(a, fmt.Errorf("can only access node lease with the same name as the requesting node"))
		}
		return nil
	case "csinodes.storage.k8s.io":
		if c, ok := a.Object.(*storagev1.CSINode); ok && a.Operation == request.Create && c.Name != node || a.Operation != request.Create && a.Name != node {
			return forbid(a, fmt.Errorf("can only access CSINode with the same name as the requesting node"))
		}
		return nil
	case "serviceaccounts":
		return p.token(ctx, a, node)
	case "persistentvolumeclaims":
		if a.Subresource != "status" {
			return forbidf(a, "may only update PVC status")
		}
	}
	return nil
}

func (p *nodeRestriction) pod(ctx context.Context, a *request.Attributes, node string) error {
	switch a.Subresource {
	case "":
		if a.Operation == request.Create {
			return p.mirror(ctx, a, node)
		}
		if a.Operation != request.Delete {
			return forbidf(a, "unexpected operation %q, node %q can only create and delete mirror pods", a.Operation, node)
		}
	case "status":
		was, ok := old[*corev1.Pod](a)
		if !ok {
			return forbidf(a, "unexpected type %T", a.Old)
		}
		if was.Spec.NodeName != node {
			return forbidf(a, "node %q can only update pod status for pods with spec.nodeName set to itself", node)
		}
		if now, ok := a.Object.(*corev1.Pod); ok && !maps.Equal(now.Labels, was.Labels) {
			return forbidf(a, "node %q cannot update labels through pod status", node)
		}
		return nil
	case "eviction":
		name := a.Name
		if e, ok := a.Object.(*policyv1.Eviction); ok && name == "" {
			name = e.Name
		}
		if name == "" {
			return forbidf(a, "could not determine pod from request data")
		}
		return p.onNode(ctx, a, name, node, "evict")
	case "resourceclaims", "binding", "log", "exec", "attach", "portforward", "proxy", "ephemeralcontainers", "resize":
		return forbidf(a, "unexpected pod subresource %q, only 'status' and 'eviction' are allowed", a.Subresource)
	}
	return p.onNode(ctx, a, a.Name, node, "delete")
}

func (p *nodeRestriction) onNode(ctx context.Context, a *request.Attributes, name, node, verb string) error {
	obj, err := p.back.Get(ctx, core("pods"), a.Namespace, name)
	if apierrors.IsNotFound(err) {
		return err
	}
	if err != nil {
		return forbid(a, err)
	}
	if pod, ok := obj.(*corev1.Pod); !ok || pod.Spec.NodeName != node {
		return forbidf(a, "node %q can only %s pods with spec.nodeName set to itself", node, verb)
	}
	return nil
}

// mirror judges a pod a kubelet makes for a manifest of its own.
func (p *nodeRestriction) mirror(ctx context.Context, a *request.Attributes, node string) error {
	pod, ok := a.Object.(*corev1.Pod)
	if !ok {
		return nil
	}
	if _, is := pod.Annotations[corev1.MirrorPodAnnotationKey]; !is {
		return forbidf(a, "pod does not have %q annotation, node %q can only create mirror pods", corev1.MirrorPodAnnotationKey, node)
	}
	if pod.Spec.NodeName != node {
		return forbidf(a, "node %q can only create pods with spec.nodeName set to itself", node)
	}
	if len(pod.OwnerReferences) > 1 {
		return forbidf(a, "node %q can only create pods with a single owner reference set to itself", node)
	}
	if len(pod.OwnerReferences) == 1 {
		o := pod.OwnerReferences[0]
		if o.APIVersion != "v1" || o.Kind != "Node" || o.Name != node {
			return forbidf(a, "node %q can only create pods with an owner reference set to itself", node)
		}
		if o.Controller == nil || !*o.Controller {
			return forbidf(a, "node %q can only create pods with a controller owner reference set to itself", node)
		}
		if o.BlockOwnerDeletion != nil && *o.BlockOwnerDeletion {
			return forbidf(a, "node %q must not set blockOwnerDeletion on an owner reference", node)
		}
		obj, err := p.back.Get(ctx, core("nodes"), "", node)
		if err != nil {
			return err
		}
		if o.UID != obj.GetUID() {
			return forbidf(a, "node %s UID mismatch: expected %s got %s", node, o.UID, obj.GetUID())
		}
	}
	if pod.Spec.ServiceAccountName != "" {
		return forbidf(a, "node %q can not create pods that reference a service account", node)
	}
	for _, v := range pod.Spec.Volumes {
		if v.Secret != nil || v.ConfigMap != nil || v.PersistentVolumeClaim != nil || v.Projected != nil {
			return forbidf(a, "node %q can not create pods that reference secrets, configmaps, persistentvolumeclaims or projected volumes", node)
		}
	}
	return nil
}

func ownNode(a *request.Attributes, node string) error {
	name := a.Name
	if a.Operation == request.Create && a.Object != nil {
		name = a.Object.GetName()
	}
	if name != node {
		return forbidf(a, "node %q is not allowed to modify node %q", node, name)
	}
	if a.Operation == request.Create {
		if n, ok := a.Object.(*corev1.Node); ok {
			if bad := foreignLabels(n.Labels, nil); len(bad) > 0 {
				return forbidf(a, "is not allowed to set the following labels: %s", strings.Join(bad, ", "))
			}
			if len(n.OwnerReferences) > 0 {
				return forbidf(a, "node %q is not allowed to modify ownerReferences", node)
			}
		}
		return nil
	}
	now, ok := a.Object.(*corev1.Node)
	was, had := old[*corev1.Node](a)
	if !ok || !had {
		return nil
	}
	if !equality.Semantic.DeepEqual(now.Spec.Taints, was.Spec.Taints) {
		return forbidf(a, "node %q is not allowed to modify taints", node)
	}
	if !equality.Semantic.DeepEqual(now.OwnerReferences, was.OwnerReferences) {
		return forbidf(a, "node %q is not allowed to modify ownerReferences", node)
	}
	if bad := foreignLabels(now.Labels, was.Labels); len(bad) > 0 {
		return forbidf(a, "is not allowed to modify labels: %s", strings.Join(bad, ", "))
	}
	return nil
}

// foreignLabels lists the kubernetes.io labels that changed and that kubelets
// may not set.
func foreignLabels(now, was map[string]string) (bad []string) {
	keys := slices.Sorted(maps.Keys(now))
	for k := range was {
		if _, still := now[k]; !still {
			keys = append(keys, k)
		}
	}
	for _, k := range keys {
		if v, ok := now[k]; ok && was[k] == v && was != nil {
			if _, had := was[k]; had {
				continue
			}
		}
		if isKubernetes(k) && !kubeletMaySet(k) {
			bad = append(bad, k)
		}
	}
	return bad
}

func isKubernetes(key string) bool {
	domain, _, _ := strings.Cut(key, "/")
	for _, d := range []string{"kubernetes.io", "k8s.io"} {
		if domain == d || strings.HasSuffix(domain, "."+d) {
			return strings.Contains(key, "/")
		}
	}
	return false
}

func kubeletMaySet(key string) bool {
	domain, _, _ := strings.Cut(key, "/")
	for _, d := range []string{"kubelet.kubernetes.io", "node.kubernetes.io"} {
		if domain == d || strings.HasSuffix(domain, "."+d) {
			return true
		}
	}
	switch key {
	case corev1.LabelHostname, corev1.LabelTopologyZone, corev1.LabelTopologyRegion, corev1.LabelFailureDomainBetaZone,
		corev1.LabelFailureDomainBetaRegion, corev1.LabelInstanceType, corev1.LabelInstanceTypeStable, corev1.LabelOSStable,
		corev1.LabelArchStable, "beta.kubernetes.io/os", "beta.kubernetes.io/arch":
		return true
	}
	return false
}

// token judges a kubelet's request for the token of an account.
func (p *nodeRestriction) token(ctx context.Context, a *request.Attributes, node string) error {
	tr, ok := a.Object.(*authenticationv1.TokenRequest)
	if !ok || a.Subresource != "token" {
		return nil
	}
	ref := tr.Spec.BoundObjectRef
	if ref == nil || ref.APIVersion != "v1" || ref.Kind != "Pod" || ref.Name == "" {
		return forbidf(a, "node requested token not bound to a pod")
	}
	if ref.UID == "" {
		return forbidf(a, "node requested token with a pod binding without a uid")
	}
	obj, err := p.back.Get(ctx, core("pods"), a.Namespace, ref.Name)
	if apierrors.IsNotFound(err) {
		return err
	}
	if err != nil {
		return forbid(a, err)
	}
	pod, ok := obj.(*corev1.Pod)
	if !ok || pod.UID != ref.UID {
		return forbidf(a, "the UID in the bound object reference (%s) does not match the UID in record. The object might have been deleted and then recreated", ref.UID)
	}
	if pod.Spec.NodeName != node {
		return forbidf(a, "node requested token bound to a pod scheduled on a different node")
	}
	if name := a.Name; pod.Spec.ServiceAccountName != name && name != "" {
		return forbidf(a, "node requested token for service account %q that pod %q does not use", name, pod.Name)
	}
	return nil
}
