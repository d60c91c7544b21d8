package dynamic

import (
	"context"
	"slices"
	"strings"

	admissionv1 "k8s.io/api/admissionregistration/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/sampan-dev/sampan/apiserver/request"
)

// Match says which requests somebody wants to judge.
type Match struct {
	rules, except      []admissionv1.NamedRuleWithOperations
	equivalent, any    bool
	namespaces, object labels.Selector
	err                error // a selector that cannot be read
}

// Hit is how a request came to match: the resource and kind that were asked for.
type Hit struct {
	Resource schema.GroupVersionResource
	Kind     schema.GroupVersionKind
}

// NewMatch compiles the rules of a webhook.
func NewMatch(rules []admissionv1.RuleWithOperations, policy *admissionv1.MatchPolicyType, namespaces, object *metav1.LabelSelector) *Match {
	m := &Match{equivalent: policy != nil && *policy == admissionv1.Equivalent}
	for _, r := range rules {
		m.rules = append(m.rules, admissionv1.NamedRuleWithOperations{RuleWithOperations: r})
	}
	m.selectors(namespaces, object)
	return m
}

// MatchResources compiles the constraints of a policy or a binding, which
// without rules match everything.
func MatchResources(r *admissionv1.MatchResources) *Match {
	if r == nil {
		return &Match{any: true, namespaces: labels.Everything(), object: labels.Everything()}
	}
	m := &Match{rules: r.ResourceRules, except: r.ExcludeResourceRules, any: len(r.ResourceRules) == 0,
		equivalent: r.MatchPolicy == nil || *r.MatchPolicy == admissionv1.Equivalent}
	m.selectors(r.NamespaceSelector, r.ObjectSelector)
	return m
}

func (m *Match) selectors(namespaces, object *metav1.LabelSelector) {
	read := func(s *metav1.LabelSelector) labels.Selector {
		if s == nil {
			return labels.Everything()
		}
		sel, err := metav1.LabelSelectorAsSelector(s)
		if err != nil {
			m.err = err
		}
		return sel
	}
	m.namespaces, m.object = read(namespaces), read(object)
}

// Match says whether m wants to judge the request, and in what version. An
// error concerns only requests that the rules match.
func (r *Request) Match(ctx context.Context, m *Match) (Hit, bool, error) {
	hit := Hit{Resource: r.Asked(), Kind: r.Spoken()}
	if !m.any {
		var ok bool
		if hit, ok = r.hit(m.rules, m.equivalent); !ok {
			return Hit{}, false, nil
		}
	}
	if len(m.except) > 0 {
		if _, excluded := r.hit(m.except, m.equivalent); excluded {
			return Hit{}, false, nil
		}
	}
	if m.err != nil {
		return Hit{}, false, apierrors.NewInternalError(m.err)
	}
	if !m.object.Empty() && !labelled(r.subject(), m.object) && !labelled(r.before(), m.object) {
		return Hit{}, false, nil
	}
	ok, err := r.inNamespace(ctx, m.namespaces)
	return hit, ok, err
}

func labelled(obj runtime.Object, s labels.Selector) bool {
	o, ok := obj.(metav1.Object)
	return ok && s.Matches(labels.Set(o.GetLabels()))
}

// inNamespace judges the labels of the request's namespace; what lives in none
// is always judged.
func (r *Request) inNamespace(ctx context.Context, s labels.Selector) (bool, error) {
	if s.Empty() || r.Space == "" && !r.isNamespace() {
		return true, nil
	}
	if r.isNamespace() && r.Subresource == "" && r.Object != nil {
		return s.Matches(labels.Set(r.Object.GetLabels())), nil
	}
	ns, err := r.lookup(ctx)
	if err != nil {
		return false, err
	}
	return s.Matches(labels.Set(ns.Labels)), nil
}

// hit finds the first rule that names the request as it was spoken, or else in
// another version of the same thing.
func (r *Request) hit(rules []admissionv1.NamedRuleWithOperations, equivalent bool) (Hit, bool) {
	asked := r.Asked()
	for i := range rules {
		if r.matches(&rules[i], asked) {
			return Hit{asked, r.Spoken()}, true
		}
	}
	if !equivalent {
		return Hit{}, false
	}
	for i := range rules {
		if !r.operation(rules[i].Operations) {
			continue
		}
		for _, w := range r.ways() {
			if w.Resource != asked && r.matches(&rules[i], w.Resource) {
				return Hit{w.Resource, w.Kind}, true
			}
		}
	}
	return Hit{}, false
}

func (r *Request) matches(rule *admissionv1.NamedRuleWithOperations, as schema.GroupVersionResource) bool {
	return r.operation(rule.Operations) && has(rule.APIGroups, as.Group) && has(rule.APIVersions, as.Version) &&
		r.resource(rule.Resources, as.Resource) && r.scope(rule.Scope) &&
		(len(rule.ResourceNames) == 0 || slices.Contains(rule.ResourceNames, r.Name))
}

func has(list []string, s string) bool {
	return slices.Contains(list, s) || slices.Contains(list, "*")
}

func (r *Request) operation(list []admissionv1.OperationType) bool {
	for _, op := range list {
		if op == admissionv1.OperationAll || request.Operation(op) == r.Operation {
			return true
		}
	}
	return false
}

func (r *Request) resource(list []string, resource string) bool {
	for _, name := range list {
		res, sub, _ := strings.Cut(name, "/")
		if (res == "*" || res == resource) && (sub == "*" || sub == r.Subresource) {
			return true
		}
	}
	return false
}

func (r *Request) scope(s *admissionv1.ScopeType) bool {
	if s == nil || *s == admissionv1.AllScopes {
		return true
	}
	cluster := r.isNamespace() || r.Space == ""
	return cluster == (*s == admissionv1.ClusterScope)
}
