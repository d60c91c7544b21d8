package statefulset

import (
	"maps"
	"slices"
	"strconv"
	"strings"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sampan-dev/sampan/controller"
)

func podName(set *appsv1.StatefulSet, ordinal int) string {
	return set.Name + "-" + strconv.Itoa(ordinal)
}

// ordinalOf returns a pod's ordinal in the set, -1 if its name has none.
func ordinalOf(set *appsv1.StatefulSet, p *corev1.Pod) int {
	text, ok := strings.CutPrefix(p.Name, set.Name+"-")
	n, err := strconv.Atoi(text)
	if !ok || err != nil || n < 0 || strconv.Itoa(n) != text {
		return -1
	}
	return n
}

// first returns the lowest ordinal.
func first(set *appsv1.StatefulSet) int {
	if set.Spec.Ordinals == nil {
		return 0
	}
	return int(set.Spec.Ordinals.Start)
}

func replicas(set *appsv1.StatefulSet) int {
	if set.Spec.Replicas == nil {
		return 1
	}
	return int(*set.Spec.Replicas)
}

// podFor makes the pod of an ordinal from a template.
func podFor(set *appsv1.StatefulSet, t *corev1.PodTemplateSpec, revision string, ordinal int) *corev1.Pod {
	p := controller.PodFor(t, set, kind)
	p.GenerateName, p.Name = "", podName(set, ordinal)
	p.Labels = controller.WithRevision(p.Labels, revision)
	identify(p, ordinal)
	p.Spec.Hostname, p.Spec.Subdomain = p.Name, set.Spec.ServiceName
	for _, c := range claimsFor(set, ordinal) {
		v := corev1.Volume{Name: c.template, VolumeSource: corev1.VolumeSource{PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{ClaimName: c.claim.Name}}}
		if i := slices.IndexFunc(p.Spec.Volumes, func(o corev1.Volume) bool { return o.Name == v.Name }); i >= 0 {
			p.Spec.Volumes[i] = v
		} else {
			p.Spec.Volumes = append(p.Spec.Volumes, v)
		}
	}
	return p
}

// identify labels a pod with its name and ordinal.
func identify(p *corev1.Pod, ordinal int) {
	if p.Labels == nil {
		p.Labels = map[string]string{}
	}
	p.Labels[appsv1.StatefulSetPodNameLabel], p.Labels[appsv1.PodIndexLabel] = p.Name, strconv.Itoa(ordinal)
}

// drifted says whether a pod has lost a label that identify gives.
func drifted(p *corev1.Pod, ordinal int) bool {
	return p.Labels[appsv1.StatefulSetPodNameLabel] != p.Name || p.Labels[appsv1.PodIndexLabel] != strconv.Itoa(ordinal)
}

// storage is one claim of an ordinal.
type storage struct {
	template string
	claim    *corev1.PersistentVolumeClaim
}

func claimsFor(set *appsv1.StatefulSet, ordinal int) []storage {
	var out []storage
	for i := range set.Spec.VolumeClaimTemplates {
		c := set.Spec.VolumeClaimTemplates[i].DeepCopy()
		name := c.Name
		c.Name, c.Namespace = name+"-"+podName(set, ordinal), set.Namespace
		labels := maps.Clone(c.Labels)
		if labels == nil {
			labels = map[string]string{}
		}
		if set.Spec.Selector != nil {
			maps.Copy(labels, set.Spec.Selector.MatchLabels)
		}
		c.Labels = labels
		c.Status = corev1.PersistentVolumeClaimStatus{}
		if retention(set).WhenDeleted == appsv1.DeletePersistentVolumeClaimRetentionPolicyType {
			c.OwnerReferences = append(c.OwnerReferences, *metav1.NewControllerRef(set, kind))
		}
		out = append(out, storage{name, c})
	}
	return out
}

func retention(set *appsv1.StatefulSet) appsv1.StatefulSetPersistentVolumeClaimRetentionPolicy {
	if p := set.Spec.PersistentVolumeClaimRetentionPolicy; p != nil {
		return *p
	}
	return appsv1.StatefulSetPersistentVolumeClaimRetentionPolicy{}
}

// owners returns the owners that a claim should have, and whether those it has
// differ: the set when claims go with it, the pod while it is being scaled away
// and claims go with that.
func owners(set *appsv1.StatefulSet, c *corev1.PersistentVolumeClaim, p *corev1.Pod, condemned bool) ([]metav1.OwnerReference, bool) {
	r := retention(set)
	bySet := r.WhenDeleted == appsv1.DeletePersistentVolumeClaimRetentionPolicyType
	byPod := condemned && p != nil && r.WhenScaled == appsv1.DeletePersistentVolumeClaimRetentionPolicyType
	var want []metav1.OwnerReference
	for _, o := range c.OwnerReferences {
		ours := o.UID == set.UID || o.Kind == "Pod" && strings.HasSuffix(c.Name, "-"+o.Name) && strings.HasPrefix(o.Name, set.Name+"-")
		if !ours {
			want = append(want, o)
		}
	}
	if byPod {
		want = append(want, *metav1.NewControllerRef(p, corev1.SchemeGroupVersion.WithKind("Pod")))
	} else if bySet {
		want = append(want, *metav1.NewControllerRef(set, kind))
	}
	same := slices.EqualFunc(want, c.OwnerReferences, func(a, b metav1.OwnerReference) bool { return a.UID == b.UID })
	return want, !same
}
