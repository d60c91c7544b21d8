package admissionregistration

import (
	admissionv1 "k8s.io/api/admissionregistration/v1"
	admissionv1beta1 "k8s.io/api/admissionregistration/v1beta1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// orDefault sets *p unless something is there.
func orDefault[T any](p **T, v T) {
	if *p == nil {
		*p = &v
	}
}

func each[T any](list []T, f func(*T)) {
	for i := range list {
		f(&list[i])
	}
}

const (
	port          = 443
	timeout       = 10
	timeoutInBeta = 30
)

func defaultRules(rules []admissionv1.RuleWithOperations) {
	each(rules, func(r *admissionv1.RuleWithOperations) { orDefault(&r.Scope, admissionv1.AllScopes) })
}

func defaultMutating(h *admissionv1.MutatingWebhook) {
	orDefault(&h.FailurePolicy, admissionv1.Fail)
	orDefault(&h.MatchPolicy, admissionv1.Equivalent)
	orDefault(&h.NamespaceSelector, metav1.LabelSelector{})
	orDefault(&h.ObjectSelector, metav1.LabelSelector{})
	orDefault(&h.TimeoutSeconds, timeout)
	orDefault(&h.ReinvocationPolicy, admissionv1.NeverReinvocationPolicy)
	if s := h.ClientConfig.Service; s != nil {
		orDefault(&s.Port, port)
	}
	defaultRules(h.Rules)
}

func defaultValidating(h *admissionv1.ValidatingWebhook) {
	orDefault(&h.FailurePolicy, admissionv1.Fail)
	orDefault(&h.MatchPolicy, admissionv1.Equivalent)
	orDefault(&h.NamespaceSelector, metav1.LabelSelector{})
	orDefault(&h.ObjectSelector, metav1.LabelSelector{})
	orDefault(&h.TimeoutSeconds, timeout)
	if s := h.ClientConfig.Service; s != nil {
		orDefault(&s.Port, port)
	}
	defaultRules(h.Rules)
}

// The first version of the configurations failed open, matched by the letter
// and waited longer.

func defaultBetaMutating(h *admissionv1beta1.MutatingWebhook) {
	orDefault(&h.FailurePolicy, admissionv1beta1.Ignore)
	orDefault(&h.MatchPolicy, admissionv1beta1.Exact)
	orDefault(&h.SideEffects, admissionv1beta1.SideEffectClassUnknown)
	orDefault(&h.TimeoutSeconds, timeoutInBeta)
	if len(h.AdmissionReviewVersions) == 0 {
		h.AdmissionReviewVersions = []string{"v1beta1"}
	}
}

func defaultBetaValidating(h *admissionv1beta1.ValidatingWebhook) {
	orDefault(&h.FailurePolicy, admissionv1beta1.Ignore)
	orDefault(&h.MatchPolicy, admissionv1beta1.Exact)
	orDefault(&h.SideEffects, admissionv1beta1.SideEffectClassUnknown)
	orDefault(&h.TimeoutSeconds, timeoutInBeta)
	if len(h.AdmissionReviewVersions) == 0 {
		h.AdmissionReviewVersions = []string{"v1beta1"}
	}
}

func defaultMatch(m *admissionv1.MatchResources) {
	if m == nil {
		return
	}
	orDefault(&m.MatchPolicy, admissionv1.Equivalent)
	orDefault(&m.NamespaceSelector, metav1.LabelSelector{})
	orDefault(&m.ObjectSelector, metav1.LabelSelector{})
	named := func(r *admissionv1.NamedRuleWithOperations) { orDefault(&r.Scope, admissionv1.AllScopes) }
	each(m.ResourceRules, named)
	each(m.ExcludeResourceRules, named)
}
