package podspec

import (
	"fmt"
	"math"

	corev1 "k8s.io/api/core/v1"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	metavalidation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// judge validates one specification and gathers what is wrong with it.
type judge struct {
	spec    *corev1.PodSpec
	meta    *metav1.ObjectMeta // nil unless spec is a real pod's
	volumes map[string]corev1.VolumeSource
	claims  sets.Set[string]
	errs    field.ErrorList
}

// Validate judges a pod's specification; meta is the pod's, which is what makes
// the rules those of a pod, and nil for one in a template.
func Validate(spec *corev1.PodSpec, meta *metav1.ObjectMeta, path *field.Path) field.ErrorList {
	j := &judge{spec: spec, meta: meta}
	j.whole(path)
	return j.errs
}

// ValidateTemplate judges a template: its metadata and specification, and what
// only a running pod may have.
func ValidateTemplate(t *corev1.PodTemplateSpec, path *field.Path) field.ErrorList {
	errs := metavalidation.ValidateLabels(t.Labels, path.Child("labels"))
	errs = append(errs, apivalidation.ValidateAnnotations(t.Annotations, path.Child("annotations"))...)
	errs = append(errs, ValidateAnnotations(t.Annotations, &t.Spec, path.Child("annotations"))...)
	errs = append(errs, Validate(&t.Spec, nil, path.Child("spec"))...)
	if len(t.Spec.EphemeralContainers) > 0 {
		errs = append(errs, field.Forbidden(path.Child("spec", "ephemeralContainers"), "ephemeral containers not allowed in pod template"))
	}
	return errs
}

// add records errors; nil is none.
func (j *judge) add(errs ...*field.Error) {
	for _, e := range errs {
		if e != nil {
			j.errs = append(j.errs, e)
		}
	}
}

func (j *judge) required(path *field.Path) { j.add(field.Required(path, "")) }

// say records each message about a value.
func (j *judge) say(path *field.Path, value any, messages []string) {
	for _, m := range messages {
		j.add(field.Invalid(path, value, m))
	}
}

// oneOf records a value that is none of those there are.
func oneOf[T ~string](j *judge, path *field.Path, value T, valid ...T) {
	for _, v := range valid {
		if v == value {
			return
		}
	}
	j.add(field.NotSupported(path, value, valid))
}

// mustBeOneOf is oneOf for a value that may not be left out.
func mustBeOneOf[T ~string](j *judge, path *field.Path, value T, valid ...T) {
	if value == "" {
		j.required(path)
		return
	}
	oneOf(j, path, value, valid...)
}

func (j *judge) isPod() bool { return j.meta != nil }

func (j *judge) hostUsers() bool { return j.spec.HostUsers == nil || *j.spec.HostUsers }

func (j *judge) whole(path *field.Path) {
	s := j.spec
	if s.TerminationGracePeriodSeconds == nil {
		j.required(path.Child("terminationGracePeriodSeconds"))
	}
	j.allVolumes(path.Child("volumes"))
	j.resourceClaims(path.Child("resourceClaims"))
	j.containers(path.Child("containers"))
	j.initContainers(path.Child("initContainers"))
	j.ephemeralContainers(path.Child("ephemeralContainers"))
	j.podResources(path.Child("resources"))
	j.hostNetworkPorts(path)
	mustBeOneOf(j, path.Child("restartPolicy"), s.RestartPolicy, corev1.RestartPolicyAlways, corev1.RestartPolicyOnFailure, corev1.RestartPolicyNever)
	mustBeOneOf(j, path.Child("dnsPolicy"), s.DNSPolicy, corev1.DNSClusterFirstWithHostNet, corev1.DNSClusterFirst, corev1.DNSDefault, corev1.DNSNone)
	j.add(metavalidation.ValidateLabels(s.NodeSelector, path.Child("nodeSelector"))...)
	j.podSecurity(path)
	j.affinity(s.Affinity, path.Child("affinity"))
	j.dnsConfig(path.Child("dnsConfig"))
	for i, g := range s.ReadinessGates {
		j.qualified(string(g.ConditionType), path.Child("readinessGates").Index(i).Child("conditionType"))
	}
	j.schedulingGates(path.Child("schedulingGates"))
	j.spread(path.Child("topologySpreadConstraints"))
	j.hostProcess(path)
	j.hostUsersDeps(path)
	j.names(path)
	j.tolerations(s.Tolerations, path.Child("tolerations"))
	j.hostAliases(path.Child("hostAliases"))
	if s.PreemptionPolicy != nil {
		mustBeOneOf(j, path.Child("preemptionPolicy"), *s.PreemptionPolicy, corev1.PreemptLowerPriority, corev1.PreemptNever)
	}
	if s.Overhead != nil {
		j.resources(&corev1.ResourceRequirements{Limits: s.Overhead}, path.Child("overhead"), nil)
	}
	j.os(path)
}

func (j *judge) names(path *field.Path) {
	s := j.spec
	if s.ServiceAccountName != "" {
		j.say(path.Child("serviceAccountName"), s.ServiceAccountName, apivalidation.NameIsDNSSubdomain(s.ServiceAccountName, false))
	}
	if s.NodeName != "" {
		j.say(path.Child("nodeName"), s.NodeName, apivalidation.NameIsDNSSubdomain(s.NodeName, false))
	}
	if v := s.ActiveDeadlineSeconds; v != nil && (*v < 1 || *v > math.MaxInt32) {
		j.add(field.Invalid(path.Child("activeDeadlineSeconds"), *v, validation.InclusiveRangeError(1, math.MaxInt32)))
	}
	if s.Hostname != "" {
		j.say(path.Child("hostname"), s.Hostname, validation.IsDNS1123Label(s.Hostname))
	}
	if s.Subdomain != "" {
		j.say(path.Child("subdomain"), s.Subdomain, validation.IsDNS1123Label(s.Subdomain))
	}
	if s.HostnameOverride != nil {
		j.hostnameOverride(path)
	}
	if s.PriorityClassName != "" {
		j.say(path.Child("priorityClassName"), s.PriorityClassName, apivalidation.NameIsDNSSubdomain(s.PriorityClassName, false))
	}
	if s.RuntimeClassName != nil {
		j.say(path.Child("runtimeClassName"), *s.RuntimeClassName, apivalidation.NameIsDNSSubdomain(*s.RuntimeClassName, false))
	}
}

func (j *judge) hostnameOverride(path *field.Path) {
	s, at := j.spec, path.Child("hostnameOverride")
	if s.SetHostnameAsFQDN != nil && *s.SetHostnameAsFQDN {
		j.add(field.Forbidden(at, "may not be specified when `setHostnameAsFQDN` is true"))
	}
	if s.HostNetwork {
		j.add(field.Forbidden(at, "may not be specified when `hostNetwork` is true"))
	}
	const longest = 64
	if len(*s.HostnameOverride) > longest {
		j.add(field.Invalid(at, *s.HostnameOverride, fmt.Sprintf("must be no more than %d characters", longest)))
	}
	j.say(at, *s.HostnameOverride, validation.IsDNS1123Subdomain(*s.HostnameOverride))
}

func (j *judge) qualified(name string, path *field.Path) {
	j.add(metavalidation.ValidateLabelName(name, path)...)
}

func (j *judge) resourceClaims(path *field.Path) {
	j.claims = sets.New[string]()
	for i, c := range j.spec.ResourceClaims {
		at := path.Index(i)
		switch {
		case c.Name == "":
			j.required(at.Child("name"))
		case j.claims.Has(c.Name):
			j.add(field.Duplicate(at.Child("name"), c.Name))
		default:
			j.say(at.Child("name"), c.Name, validation.IsDNS1123Label(c.Name))
			j.claims.Insert(c.Name)
		}
		switch {
		case c.ResourceClaimName != nil && c.ResourceClaimTemplateName != nil:
			j.add(field.Invalid(at, c, "at most one of `resourceClaimName` or `resourceClaimTemplateName` may be specified"))
		case c.ResourceClaimName == nil && c.ResourceClaimTemplateName == nil:
			j.add(field.Invalid(at, c, "must specify one of: `resourceClaimName`, `resourceClaimTemplateName`"))
		}
		if n := c.ResourceClaimName; n != nil {
			j.say(at.Child("resourceClaimName"), *n, apivalidation.NameIsDNSSubdomain(*n, false))
		}
		if n := c.ResourceClaimTemplateName; n != nil {
			j.say(at.Child("resourceClaimTemplateName"), *n, apivalidation.NameIsDNSSubdomain(*n, false))
		}
	}
}
