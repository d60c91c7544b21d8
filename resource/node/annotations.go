package node

import (
	"encoding/json"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// validateAnnotations judges the one annotation of nodes that has a form:
// pods that the scheduler should keep away.
func validateAnnotations(n *corev1.Node, path *field.Path) (errs field.ErrorList) {
	text := n.Annotations[corev1.PreferAvoidPodsAnnotationKey]
	if text == "" {
		return nil
	}
	var avoid corev1.AvoidPods
	if err := json.Unmarshal([]byte(text), &avoid); err != nil {
		return field.ErrorList{field.Invalid(path.Child("AvoidPods"), corev1.PreferAvoidPodsAnnotationKey, err.Error())}
	}
	for i, e := range avoid.PreferAvoidPods {
		at := path.Child(corev1.PreferAvoidPodsAnnotationKey).Index(i).Child("podSignature")
		if e.PodSignature.PodController == nil {
			errs = append(errs, field.Required(at, ""))
		} else if c := e.PodSignature.PodController; c.Controller == nil || !*c.Controller {
			errs = append(errs, field.Invalid(at.Child("PodController"), c.Controller, "must point to a controller"))
		}
	}
	return errs
}

// warnings speak of fields that no longer do anything and of odd addresses.
func warnings(next, _ *corev1.Node) (out []string) {
	if next.Spec.ConfigSource != nil {
		out = append(out, "spec.configSource: the feature is no longer available")
	}
	if next.Spec.DoNotUseExternalID != "" {
		out = append(out, "spec.externalID: this field is deprecated, and is unused by Kubernetes")
	}
	for i, cidr := range next.Spec.PodCIDRs {
		out = append(out, validation.GetWarningsForCIDR(field.NewPath("spec", "podCIDRs").Index(i), cidr)...)
	}
	return out
}
