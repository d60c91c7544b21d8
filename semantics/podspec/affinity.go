package podspec

import (
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	metavalidation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

func (j *judge) selector(s *metav1.LabelSelector, path *field.Path) {
	j.add(metavalidation.ValidateLabelSelector(s, metavalidation.LabelSelectorValidationOptions{}, path)...)
}

func (j *judge) affinity(a *corev1.Affinity, path *field.Path) {
	if a == nil {
		return
	}
	const required, preferred = "requiredDuringSchedulingIgnoredDuringExecution", "preferredDuringSchedulingIgnoredDuringExecution"
	if n := a.NodeAffinity; n != nil {
		at := path.Child("nodeAffinity")
		if n.RequiredDuringSchedulingIgnoredDuringExecution != nil {
			j.add(NodeSelector(n.RequiredDuringSchedulingIgnoredDuringExecution, at.Child(required))...)
		}
		for i, t := range n.PreferredDuringSchedulingIgnoredDuringExecution {
			j.weight(t.Weight, at.Child(preferred).Index(i))
			j.add(nodeTerm(&t.Preference, true, at.Child(preferred).Index(i).Child("preference"))...)
		}
	}
	pods := func(terms []corev1.PodAffinityTerm, weighted []corev1.WeightedPodAffinityTerm, at *field.Path) {
		for i := range terms {
			j.podTerm(&terms[i], at.Child(required).Index(i))
		}
		for i := range weighted {
			j.weight(weighted[i].Weight, at.Child(preferred).Index(i))
			j.podTerm(&weighted[i].PodAffinityTerm, at.Child(preferred).Index(i).Child("podAffinityTerm"))
		}
	}
	if p := a.PodAffinity; p != nil {
		pods(p.RequiredDuringSchedulingIgnoredDuringExecution, p.PreferredDuringSchedulingIgnoredDuringExecution, path.Child("podAffinity"))
	}
	if p := a.PodAntiAffinity; p != nil {
		pods(p.RequiredDuringSchedulingIgnoredDuringExecution, p.PreferredDuringSchedulingIgnoredDuringExecution, path.Child("podAntiAffinity"))
	}
}

func (j *judge) weight(w int32, path *field.Path) {
	if w <= 0 || w > 100 {
		j.add(field.Invalid(path.Child("weight"), w, "must be in the range 1-100"))
	}
}

// NodeSelector judges a selector of nodes, which must have terms.
func NodeSelector(s *corev1.NodeSelector, path *field.Path) field.ErrorList {
	at := path.Child("nodeSelectorTerms")
	if len(s.NodeSelectorTerms) == 0 {
		return field.ErrorList{field.Required(at, "must have at least one node selector term")}
	}
	var errs field.ErrorList
	for i := range s.NodeSelectorTerms {
		errs = append(errs, nodeTerm(&s.NodeSelectorTerms[i], false, at.Index(i))...)
	}
	return errs
}

// nodeTerm judges one term; a mere preference may name values no label can have.
func nodeTerm(t *corev1.NodeSelectorTerm, preference bool, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	for i := range t.MatchExpressions {
		errs = append(errs, nodeExpression(&t.MatchExpressions[i], preference, path.Child("matchExpressions").Index(i))...)
	}
	for i, r := range t.MatchFields {
		at := path.Child("matchFields").Index(i)
		switch r.Operator {
		case corev1.NodeSelectorOpIn, corev1.NodeSelectorOpNotIn:
			if len(r.Values) != 1 {
				errs = append(errs, field.Required(at.Child("values"), "must be only one value when `operator` is 'In' or 'NotIn' for node field selector"))
			}
		default:
			errs = append(errs, field.Invalid(at.Child("operator"), r.Operator, "not a valid selector operator"))
		}
		if r.Key != metav1.ObjectNameField {
			errs = append(errs, field.Invalid(at.Child("key"), r.Key, "not a valid field selector key"))
			continue
		}
		for k, v := range r.Values {
			for _, m := range apivalidation.NameIsDNSSubdomain(v, false) {
				errs = append(errs, field.Invalid(at.Child("values").Index(k), v, m))
			}
		}
	}
	return errs
}

func nodeExpression(r *corev1.NodeSelectorRequirement, preference bool, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	values := path.Child("values")
	switch r.Operator {
	case corev1.NodeSelectorOpIn, corev1.NodeSelectorOpNotIn:
		if len(r.Values) == 0 {
			errs = append(errs, field.Required(values, "must be specified when `operator` is 'In' or 'NotIn'"))
		}
	case corev1.NodeSelectorOpExists, corev1.NodeSelectorOpDoesNotExist:
		if len(r.Values) > 0 {
			errs = append(errs, field.Forbidden(values, "may not be specified when `operator` is 'Exists' or 'DoesNotExist'"))
		}
	case corev1.NodeSelectorOpGt, corev1.NodeSelectorOpLt:
		if len(r.Values) != 1 {
			errs = append(errs, field.Required(values, "must be specified single value when `operator` is 'Lt' or 'Gt'"))
		}
	default:
		errs = append(errs, field.Invalid(path.Child("operator"), r.Operator, "not a valid selector operator"))
	}
	errs = append(errs, metavalidation.ValidateLabelName(r.Key, path.Child("key"))...)
	if !preference {
		for i, v := range r.Values {
			for _, m := range validation.IsValidLabelValue(v) {
				errs = append(errs, field.Invalid(values.Index(i), v, m))
			}
		}
	}
	return errs
}

func (j *judge) podTerm(t *corev1.PodAffinityTerm, path *field.Path) {
	j.selector(t.LabelSelector, path.Child("labelSelector"))
	j.selector(t.NamespaceSelector, path.Child("namespaceSelector"))
	for _, ns := range t.Namespaces {
		j.say(path.Child("namespace"), ns, apivalidation.ValidateNamespaceName(ns, false))
	}
	j.labelKeys(t.MatchLabelKeys, t.LabelSelector, path.Child("matchLabelKeys"))
	j.labelKeys(t.MismatchLabelKeys, t.LabelSelector, path.Child("mismatchLabelKeys"))
	for i, k := range t.MatchLabelKeys {
		if slices.Contains(t.MismatchLabelKeys, k) {
			j.add(field.Invalid(path.Child("matchLabelKeys").Index(i), k, "exists in both matchLabelKeys and mismatchLabelKeys"))
		}
	}
	if t.TopologyKey == "" {
		j.add(field.Required(path.Child("topologyKey"), "can not be empty"))
	}
	j.qualified(t.TopologyKey, path.Child("topologyKey"))
}

func (j *judge) labelKeys(keys []string, selector *metav1.LabelSelector, path *field.Path) {
	if len(keys) == 0 {
		return
	}
	if selector == nil {
		j.add(field.Forbidden(path, "must not be specified when labelSelector is not set"))
	}
	for i, k := range keys {
		j.qualified(k, path.Index(i))
	}
}

func (j *judge) spread(path *field.Path) {
	type pair struct {
		key    string
		action corev1.UnsatisfiableConstraintAction
	}
	seen := sets.New[pair]()
	for i := range j.spec.TopologySpreadConstraints {
		c, at := &j.spec.TopologySpreadConstraints[i], path.Index(i)
		if c.MaxSkew <= 0 {
			j.add(field.Invalid(at.Child("maxSkew"), c.MaxSkew, "must be greater than zero"))
		}
		if c.TopologyKey == "" {
			j.add(field.Required(at.Child("topologyKey"), "can not be empty"))
		} else {
			j.qualified(c.TopologyKey, at.Child("topologyKey"))
		}
		oneOf(j, at.Child("whenUnsatisfiable"), c.WhenUnsatisfiable, corev1.DoNotSchedule, corev1.ScheduleAnyway)
		if p := (pair{c.TopologyKey, c.WhenUnsatisfiable}); seen.Has(p) {
			j.add(field.Duplicate(at.Child("{topologyKey, whenUnsatisfiable}"), fmt.Sprintf("{%v, %v}", p.key, p.action)))
		} else {
			seen.Insert(p)
		}
		if d := c.MinDomains; d != nil {
			if *d <= 0 {
				j.add(field.Invalid(at.Child("minDomains"), d, "must be greater than zero"))
			}
			if c.WhenUnsatisfiable != corev1.DoNotSchedule {
				j.add(field.Invalid(at.Child("minDomains"), d, fmt.Sprintf("can only use minDomains if whenUnsatisfiable=%s, not %s", corev1.DoNotSchedule, c.WhenUnsatisfiable)))
			}
		}
		if p := c.NodeAffinityPolicy; p != nil {
			oneOf(j, at.Child("nodeAffinityPolicy"), *p, corev1.NodeInclusionPolicyHonor, corev1.NodeInclusionPolicyIgnore)
		}
		if p := c.NodeTaintsPolicy; p != nil {
			oneOf(j, at.Child("nodeTaintsPolicy"), *p, corev1.NodeInclusionPolicyHonor, corev1.NodeInclusionPolicyIgnore)
		}
		j.labelKeys(c.MatchLabelKeys, c.LabelSelector, at.Child("matchLabelKeys"))
		j.selector(c.LabelSelector, at.Child("labelSelector"))
	}
}

func (j *judge) schedulingGates(path *field.Path) {
	seen := sets.New[string]()
	for i, g := range j.spec.SchedulingGates {
		j.qualified(g.Name, path.Index(i))
		if seen.Has(g.Name) {
			j.add(field.Duplicate(path.Index(i), g.Name))
		}
		seen.Insert(g.Name)
	}
}

// Tolerations judges a list of tolerations.
func Tolerations(list []corev1.Toleration, path *field.Path) field.ErrorList {
	j := &judge{}
	j.tolerations(list, path)
	return j.errs
}

func (j *judge) tolerations(list []corev1.Toleration, path *field.Path) {
	for i, t := range list {
		at := path.Index(i)
		if t.Key != "" {
			j.qualified(t.Key, at.Child("key"))
		} else if t.Operator != corev1.TolerationOpExists {
			j.add(field.Invalid(at.Child("operator"), t.Operator, "operator must be Exists when `key` is empty, which means \"match all values and all keys\""))
		}
		if t.TolerationSeconds != nil && t.Effect != corev1.TaintEffectNoExecute {
			j.add(field.Invalid(at.Child("effect"), t.Effect, "effect must be 'NoExecute' when `tolerationSeconds` is set"))
		}
		switch t.Operator {
		case corev1.TolerationOpEqual, "":
			if m := validation.IsValidLabelValue(t.Value); len(m) > 0 {
				j.add(field.Invalid(at.Child("operator"), t.Value, strings.Join(m, ";")))
			}
		case corev1.TolerationOpExists:
			if t.Value != "" {
				j.add(field.Invalid(at.Child("operator"), t.Value, "value must be empty when `operator` is 'Exists'"))
			}
		default:
			oneOf(j, at.Child("operator"), t.Operator, corev1.TolerationOpEqual, corev1.TolerationOpExists)
		}
		if t.Effect != "" {
			oneOf(j, at.Child("effect"), t.Effect, corev1.TaintEffectNoSchedule, corev1.TaintEffectPreferNoSchedule, corev1.TaintEffectNoExecute)
		}
	}
}
