package podspec

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// Warnings tells what is accepted but will not do what its author thinks; base
// is the template's path, nil for a pod.
func Warnings(spec *corev1.PodSpec, meta *metav1.ObjectMeta, base *field.Path) []string {
	w := &warner{}
	w.labels(spec, base.Child("spec"))
	w.annotations(meta, base.Child("metadata", "annotations"))
	w.volumes(spec, base.Child("spec", "volumes"))
	w.misc(spec, base.Child("spec"))
	Each(spec, base.Child("spec"), w.container)
	return w.out
}

// TemplateWarnings are Warnings for a template below path.
func TemplateWarnings(t *corev1.PodTemplateSpec, path *field.Path) []string {
	return Warnings(&t.Spec, &t.ObjectMeta, path)
}

type warner struct{ out []string }

func (w *warner) say(path *field.Path, format string, args ...any) {
	w.out = append(w.out, path.String()+": "+fmt.Sprintf(format, args...))
}

// oldNodeLabels are names of nodes' labels that others replaced.
var oldNodeLabels = map[string]string{
	"beta.kubernetes.io/arch":                  `deprecated since v1.14; use "kubernetes.io/arch" instead`,
	"beta.kubernetes.io/os":                    `deprecated since v1.14; use "kubernetes.io/os" instead`,
	"failure-domain.beta.kubernetes.io/region": `deprecated since v1.17; use "topology.kubernetes.io/region" instead`,
	"failure-domain.beta.kubernetes.io/zone":   `deprecated since v1.17; use "topology.kubernetes.io/zone" instead`,
	"beta.kubernetes.io/instance-type":         `deprecated since v1.17; use "node.kubernetes.io/instance-type" instead`,
}

func (w *warner) labels(spec *corev1.PodSpec, path *field.Path) {
	for _, k := range slices.Sorted(maps.Keys(spec.NodeSelector)) {
		if text, ok := oldNodeLabels[k]; ok {
			w.say(path.Child("nodeSelector").Key(k), "%s", text)
		}
	}
	if a := spec.Affinity; a != nil && a.NodeAffinity != nil {
		at := path.Child("affinity", "nodeAffinity")
		if r := a.NodeAffinity.RequiredDuringSchedulingIgnoredDuringExecution; r != nil {
			for i := range r.NodeSelectorTerms {
				w.term(&r.NodeSelectorTerms[i], at.Child("requiredDuringSchedulingIgnoredDuringExecution", "nodeSelectorTerms").Index(i))
			}
		}
		for i := range a.NodeAffinity.PreferredDuringSchedulingIgnoredDuringExecution {
			w.term(&a.NodeAffinity.PreferredDuringSchedulingIgnoredDuringExecution[i].Preference, at.Child("preferredDuringSchedulingIgnoredDuringExecution").Index(i).Child("preference"))
		}
	}
	for i, c := range spec.TopologySpreadConstraints {
		at := path.Child("topologySpreadConstraints").Index(i)
		if text, ok := oldNodeLabels[c.TopologyKey]; ok {
			w.say(at.Child("topologyKey"), "%s is %s", c.TopologyKey, text)
		}
		if c.LabelSelector == nil {
			w.say(at.Child("labelSelector"), "a null labelSelector results in matching no pod")
		}
	}
}

func (w *warner) term(t *corev1.NodeSelectorTerm, path *field.Path) {
	for i, e := range t.MatchExpressions {
		if text, ok := oldNodeLabels[e.Key]; ok {
			w.say(path.Child("matchExpressions").Index(i).Child("key"), "%s is %s", e.Key, text)
		}
	}
}

func (w *warner) annotations(meta *metav1.ObjectMeta, path *field.Path) {
	if meta == nil {
		return
	}
	for _, k := range slices.Sorted(maps.Keys(meta.Annotations)) {
		switch {
		case k == corev1.SeccompPodAnnotationKey || strings.HasPrefix(k, corev1.SeccompContainerAnnotationKeyPrefix):
			w.say(path.Key(k), `non-functional in v1.27+; use the "seccompProfile" field instead`)
		case strings.HasPrefix(k, corev1.DeprecatedAppArmorBetaContainerAnnotationKeyPrefix):
			w.say(path.Key(k), `deprecated since v1.30; use the "appArmorProfile" field instead`)
		case k == "scheduler.alpha.kubernetes.io/critical-pod":
			w.say(path.Key(k), `non-functional in v1.16+; use the "priorityClassName" field instead`)
		case k == "security.alpha.kubernetes.io/sysctls" || k == "security.alpha.kubernetes.io/unsafe-sysctls":
			w.say(path.Key(k), `non-functional in v1.11+; use the "sysctls" field instead`)
		case strings.HasPrefix(k, "pod.alpha.kubernetes.io/init-container") || strings.HasPrefix(k, "pod.beta.kubernetes.io/init-container"):
			w.say(path.Key(k), `non-functional in v1.16+; use the "initContainers" field instead`)
		}
	}
}

func (w *warner) volumes(spec *corev1.PodSpec, path *field.Path) {
	for i := range spec.Volumes {
		v, at := &spec.Volumes[i], path.Index(i)
		if v.ConfigMap != nil || v.Secret != nil || v.Projected != nil {
			w.overlaps(v, at)
		}
		switch {
		case v.PhotonPersistentDisk != nil:
			w.say(at.Child("photonPersistentDisk"), "deprecated in v1.11, non-functional in v1.16+")
		case v.GitRepo != nil:
			w.say(at.Child("gitRepo"), "deprecated in v1.11, and disabled by default in v1.33+")
		case v.ScaleIO != nil:
			w.say(at.Child("scaleIO"), "deprecated in v1.16, non-functional in v1.22+")
		case v.Flocker != nil:
			w.say(at.Child("flocker"), "deprecated in v1.22, non-functional in v1.25+")
		case v.StorageOS != nil:
			w.say(at.Child("storageOS"), "deprecated in v1.22, non-functional in v1.25+")
		case v.Quobyte != nil:
			w.say(at.Child("quobyte"), "deprecated in v1.22, non-functional in v1.25+")
		case v.Glusterfs != nil:
			w.say(at.Child("glusterfs"), "deprecated in v1.25, non-functional in v1.26+")
		case v.RBD != nil:
			w.say(at.Child("rbd"), "deprecated in v1.28, non-functional in v1.31+")
		case v.CephFS != nil:
			w.say(at.Child("cephfs"), "deprecated in v1.28, non-functional in v1.31+")
		case v.Ephemeral != nil && v.Ephemeral.VolumeClaimTemplate != nil:
			if size, ok := v.Ephemeral.VolumeClaimTemplate.Spec.Resources.Requests[corev1.ResourceStorage]; ok && size.MilliValue()%1000 != 0 {
				w.say(at.Child("ephemeral", "volumeClaimTemplate", "spec", "resources", "requests").Key("storage"), "fractional byte value %q is invalid, must be an integer", size.String())
			}
		}
	}
}

// overlaps warns of two items of one volume that write the same file.
func (w *warner) overlaps(v *corev1.Volume, path *field.Path) {
	one := func(items []corev1.KeyToPath, at *field.Path) {
		seen := map[string]bool{}
		for i, k := range items {
			if seen[k.Path] {
				w.say(at.Child("items").Index(i), "duplicate path %q", k.Path)
			}
			seen[k.Path] = true
		}
	}
	if v.ConfigMap != nil {
		one(v.ConfigMap.Items, path.Child("configMap"))
	}
	if v.Secret != nil {
		one(v.Secret.Items, path.Child("secret"))
	}
}

func (w *warner) misc(spec *corev1.PodSpec, path *field.Path) {
	hosts := map[string]bool{}
	for i, a := range spec.HostAliases {
		if hosts[a.IP] {
			w.say(path.Child("hostAliases"), "duplicate ip %q", a.IP)
			continue
		}
		hosts[a.IP] = true
		w.out = append(w.out, validation.GetWarningsForIP(path.Child("hostAliases").Index(i).Child("ip"), a.IP)...)
	}
	secrets := map[string]bool{}
	for i, s := range spec.ImagePullSecrets {
		at := path.Child("imagePullSecrets")
		switch {
		case s.Name == "":
			w.say(at.Index(i).Child("name"), "invalid empty name %q", s.Name)
		case secrets[s.Name]:
			w.say(at.Index(i).Child("name"), "duplicate name %q", s.Name)
		}
		secrets[s.Name] = true
	}
	if g := spec.TerminationGracePeriodSeconds; g != nil && *g < 0 {
		w.say(path.Child("terminationGracePeriodSeconds"), "must be >= 0; negative values are invalid and will be treated as 1")
	}
	if spec.DNSConfig != nil {
		for i, ns := range spec.DNSConfig.Nameservers {
			w.out = append(w.out, validation.GetWarningsForIP(path.Child("dnsConfig", "nameservers").Index(i), ns)...)
		}
	}
}

func (w *warner) container(c *corev1.Container, path *field.Path) {
	for _, list := range []struct {
		name string
		list corev1.ResourceList
	}{{"limits", c.Resources.Limits}, {"requests", c.Resources.Requests}} {
		for _, name := range sorted(list.list) {
			if q := list.list[name]; (name == corev1.ResourceMemory || name == corev1.ResourceEphemeralStorage) && q.MilliValue()%1000 != 0 {
				w.say(path.Child("resources", list.name).Key(string(name)), "fractional byte value %q is invalid, must be an integer", q.String())
			}
		}
	}
	env := sets.New[string]()
	for i, e := range c.Env {
		// A name may be built from its own earlier value.
		if env.Has(e.Name) && !strings.Contains(e.Value, "$("+e.Name+")") {
			w.say(path.Child("env").Index(i), "hides previous definition of %q, which may be dropped when using apply", e.Name)
		}
		env.Insert(e.Name)
	}
	ports := map[corev1.ContainerPort]int{}
	for i, p := range c.Ports {
		key := corev1.ContainerPort{ContainerPort: p.ContainerPort, Protocol: p.Protocol, HostIP: p.HostIP, HostPort: p.HostPort}
		if first, ok := ports[key]; ok {
			w.say(path.Child("ports").Index(i), "duplicate port definition with %s", path.Child("ports").Index(first))
			continue
		}
		ports[key] = i
	}
}
