package resourceclaim

import (
	"errors"
	"fmt"
	"maps"
	"slices"

	corev1 "k8s.io/api/core/v1"
	devicev1 "k8s.io/api/resource/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sampan-dev/sampan/semantics/pod"
)

type claim = devicev1.ResourceClaim

// named returns the name of the claim behind one of a pod's entries: "" while
// it is not made, and made when it is the pod's own. none says that the entry
// needs no claim.
func named(p *corev1.Pod, c *corev1.PodResourceClaim) (name string, made, none bool, err error) {
	switch {
	case c.ResourceClaimName != nil:
		return *c.ResourceClaimName, false, false, nil
	case c.ResourceClaimTemplateName == nil:
		return "", false, false, errors.New("neither claim name nor template name set")
	}
	for _, s := range p.Status.ResourceClaimStatuses {
		if s.Name == c.Name {
			return deref(s.ResourceClaimName), true, s.ResourceClaimName == nil, nil
		}
	}
	return "", true, false, nil
}

func deref(s *string) string {
	if s == nil {
		return ""
	}
	return *s
}

// isFor says whether a claim was made for a pod.
func isFor(p *corev1.Pod, c *claim) error {
	if p.Namespace == c.Namespace && metav1.IsControlledBy(c, p) {
		return nil
	}
	return fmt.Errorf("ResourceClaim %s/%s was not created for Pod %s/%s (Pod is not owner)", c.Namespace, c.Name, p.Namespace, p.Name)
}

func reservedFor(p *corev1.Pod, c *claim) bool {
	return slices.ContainsFunc(c.Status.ReservedFor, func(r devicev1.ResourceClaimConsumerReference) bool { return r.UID == p.UID })
}

// done says whether a pod needs its claims no more.
func done(p *corev1.Pod) bool {
	return pod.Finished(p) || p.DeletionTimestamp != nil && p.Spec.NodeName == ""
}

// from makes the claim that a template describes for one of a pod's entries.
func from(t *devicev1.ResourceClaimTemplate, p *corev1.Pod, entry string) *claim {
	// A name has room for 63 characters, six of them for what makes it unique.
	const room = 57
	name := p.Name + "-" + entry + "-"
	if n := len(name); n > room {
		name = p.Name[:len(p.Name)*room/n] + "-" + entry[:len(entry)*room/n]
	}
	annotations := maps.Clone(t.Spec.Annotations)
	if annotations == nil {
		annotations = map[string]string{}
	}
	annotations[devicev1.PodResourceClaimAnnotation] = entry
	yes := true
	return &claim{
		ObjectMeta: metav1.ObjectMeta{GenerateName: name, Namespace: p.Namespace, Labels: t.Spec.Labels, Annotations: annotations,
			OwnerReferences: []metav1.OwnerReference{{APIVersion: "v1", Kind: "Pod", Name: p.Name, UID: p.UID, Controller: &yes}}},
		Spec: *t.Spec.Spec.DeepCopy(),
	}
}

// owner returns the pod that a claim was made for.
func owner(c *claim) (metav1.OwnerReference, bool) {
	ref := metav1.GetControllerOfNoCopy(c)
	if ref == nil || ref.APIVersion != "v1" || ref.Kind != "Pod" {
		return metav1.OwnerReference{}, false
	}
	return *ref, true
}
