package policy

import (
	"cmp"
	"slices"
	"sync"
	"sync/atomic"

	admissionv1 "k8s.io/api/admissionregistration/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/sampan-dev/sampan/api"
	"github.com/sampan-dev/sampan/apiserver/dynamic"
)

// sort is one of the two sorts of policy.
type sort struct {
	name               string
	policies, bindings schema.GroupResource
}

func group(resource string) schema.GroupResource {
	return schema.GroupResource{Group: admissionv1.GroupName, Resource: resource}
}

var (
	validatingSort = &sort{ValidatingName, group("validatingadmissionpolicies"), group("validatingadmissionpolicybindings")}
	mutatingSort   = &sort{MutatingName, group("mutatingadmissionpolicies"), group("mutatingadmissionpolicybindings")}
	sorts          = []*sort{validatingSort, mutatingSort}
)

// rule is one policy with its bindings, ready to be asked.
type rule struct {
	name     string
	failure  *admissionv1.FailurePolicyType
	param    *admissionv1.ParamKind
	match    *dynamic.Match
	bindings []*bound

	// What the expressions compile to is made when first needed.
	validation func() *validation
	mutation   func() *mutation
	reinvoke   bool
}

// closed says that failing to evaluate refuses the request.
func (r *rule) closed() bool { return r.failure == nil || *r.failure != admissionv1.Ignore }

// bound is one binding.
type bound struct {
	name    string
	ref     *admissionv1.ParamRef
	match   *dynamic.Match
	actions []admissionv1.ValidationAction
}

// source knows all policies and bindings there are.
type source struct {
	mu       sync.Mutex
	objects  map[schema.GroupResource]map[string]api.Object
	compiled map[*sort]map[string]*rule

	rules map[*sort]*atomic.Pointer[[]*rule]
}

func newSource() *source {
	s := &source{objects: map[schema.GroupResource]map[string]api.Object{}, compiled: map[*sort]map[string]*rule{}, rules: map[*sort]*atomic.Pointer[[]*rule]{}}
	for _, one := range sorts {
		s.objects[one.policies], s.objects[one.bindings] = map[string]api.Object{}, map[string]api.Object{}
		s.compiled[one], s.rules[one] = map[string]*rule{}, &atomic.Pointer[[]*rule]{}
		s.rules[one].Store(&[]*rule{})
	}
	return s
}

// of are the policies that have bindings, in the order of their names.
func (s *source) of(one *sort) []*rule { return *s.rules[one].Load() }

// set takes note of a policy or binding; nil is one that is gone.
func (s *source) set(one *sort, gr schema.GroupResource, name string, obj api.Object) {
	s.mu.Lock()
	defer s.mu.Unlock()
	was := s.objects[gr][name]
	if was != nil && obj != nil && was.GetUID() == obj.GetUID() && was.GetGeneration() == obj.GetGeneration() {
		return // only metadata or status changed
	}
	if obj == nil {
		delete(s.objects[gr], name)
	} else {
		s.objects[gr][name] = obj
	}
	if gr == one.policies {
		delete(s.compiled[one], name)
		if obj != nil {
			s.compiled[one][name] = compile(obj)
		}
	}
	s.publish(one)
}

func (s *source) publish(one *sort) {
	byPolicy := map[string][]*bound{}
	for _, obj := range s.objects[one.bindings] {
		policy, b := bind(obj)
		byPolicy[policy] = append(byPolicy[policy], b)
	}
	var out []*rule
	for name, r := range s.compiled[one] {
		if list := byPolicy[name]; len(list) > 0 {
			next := *r
			slices.SortFunc(list, func(a, b *bound) int { return cmp.Compare(a.name, b.name) })
			next.bindings = list
			out = append(out, &next)
		}
	}
	slices.SortFunc(out, func(a, b *rule) int { return cmp.Compare(a.name, b.name) })
	s.rules[one].Store(&out)
}

func bind(obj api.Object) (policy string, b *bound) {
	switch o := obj.(type) {
	case *admissionv1.ValidatingAdmissionPolicyBinding:
		return o.Spec.PolicyName, &bound{o.Name, o.Spec.ParamRef, dynamic.MatchResources(o.Spec.MatchResources), o.Spec.ValidationActions}
	case *admissionv1.MutatingAdmissionPolicyBinding:
		return o.Spec.PolicyName, &bound{o.Name, o.Spec.ParamRef, dynamic.MatchResources(o.Spec.MatchResources), nil}
	}
	return "", &bound{}
}

func compile(obj api.Object) *rule {
	switch o := obj.(type) {
	case *admissionv1.ValidatingAdmissionPolicy:
		return &rule{name: o.Name, failure: o.Spec.FailurePolicy, param: o.Spec.ParamKind,
			match: dynamic.MatchResources(o.Spec.MatchConstraints), validation: sync.OnceValue(func() *validation { return newValidation(&o.Spec) })}
	case *admissionv1.MutatingAdmissionPolicy:
		return &rule{name: o.Name, failure: o.Spec.FailurePolicy, param: o.Spec.ParamKind,
			match: dynamic.MatchResources(o.Spec.MatchConstraints), mutation: sync.OnceValue(func() *mutation { return newMutation(&o.Spec) }),
			reinvoke: o.Spec.ReinvocationPolicy == admissionv1.IfNeededReinvocationPolicy}
	}
	return &rule{}
}
