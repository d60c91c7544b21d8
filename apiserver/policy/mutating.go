package policy

import (
	"context"
	"errors"
	"fmt"

	admissionv1 "k8s.io/api/admissionregistration/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/managedfields"
	"k8s.io/apiserver/pkg/admission"
	plugincel "k8s.io/apiserver/pkg/admission/plugin/cel"
	"k8s.io/apiserver/pkg/admission/plugin/policy/mutating/patch"
	celconfig "k8s.io/apiserver/pkg/apis/cel"

	"github.com/sampan-dev/sampan/api"
	"github.com/sampan-dev/sampan/apiserver/dynamic"
	"github.com/sampan-dev/sampan/apiserver/request"
	"github.com/sampan-dev/sampan/kit/clock"
	"github.com/sampan-dev/sampan/semantics/expression"
)

// Mutating is the plugin MutatingAdmissionPolicy.
type Mutating struct{ *Policies }

// Name implements request.Plugin.
func (Mutating) Name() string { return MutatingName }

// Handles implements request.Plugin: what goes away cannot be changed.
func (Mutating) Handles(op request.Operation) bool { return op != request.Delete }

// mutation is what a mutating policy's expressions compiled to.
type mutation struct {
	err        error
	conditions *dynamic.Conditions
	compiler   *plugincel.CompositedCompiler
	patchers   []patch.Patcher
}

func newMutation(s *admissionv1.MutatingAdmissionPolicySpec) *mutation {
	c, err := expression.Composed()
	if err != nil {
		return &mutation{err: err}
	}
	scope := expression.Scope{Params: s.ParamKind != nil, Authorizer: true, Stored: true}
	declare(c, s.Variables, scope)
	m := &mutation{compiler: c, conditions: dynamic.NewConditions(s.MatchConditions, s.FailurePolicy, c, scope)}
	scope.Patches = true
	for _, one := range s.Mutations {
		switch {
		case one.JSONPatch != nil:
			e := c.CompileMutatingEvaluator(expression.Patch(one.JSONPatch.Expression), scope.Declarations(), scope.Mode())
			m.patchers = append(m.patchers, patch.NewJSONPatcher(e))
		case one.ApplyConfiguration != nil:
			e := c.CompileMutatingEvaluator(expression.Configuration(one.ApplyConfiguration.Expression), scope.Declarations(), scope.Mode())
			m.patchers = append(m.patchers, patch.NewApplyConfigurationPatcher(e))
		}
	}
	return m
}

// again is what the plugin remembers of a request's first round.
type again struct {
	asked, due map[string]bool
	output     runtime.Object
}

func (g *again) changed() {
	for key := range g.asked {
		g.due[key] = true
	}
	clear(g.asked)
}

// complaint is a policy that could not be evaluated.
type complaint struct {
	rule    *rule
	binding string
	err     error
	reason  metav1.StatusReason
}

func (c *complaint) String() string {
	if c.binding != "" {
		return fmt.Sprintf("policy '%s' with binding '%s' denied request: %s", c.rule.name, c.binding, c.err)
	}
	return fmt.Sprintf("policy %q denied request: %s", c.rule.name, c.err)
}

// changing is one request before the mutating policies.
type changing struct {
	p          *Policies
	r          *dynamic.Request
	a          *request.Attributes
	memo       *again
	complaints []complaint
}

// Mutate has all policies change the request, in the order of their names.
func (m Mutating) Mutate(ctx context.Context, a *request.Attributes) error {
	rules := m.source.of(mutatingSort)
	if len(rules) == 0 || dynamic.Exempt(a.Resource.GroupResource()) {
		return nil
	}
	c := &changing{p: m.Policies, r: m.deps.Of(a), a: a}
	if c.memo, _ = a.Memo[MutatingName].(*again); c.memo == nil {
		c.memo = &again{asked: map[string]bool{}, due: map[string]bool{}}
	} else if a.Object != nil && !equality.Semantic.DeepEqual(c.memo.output, runtime.Object(a.Object)) {
		c.memo.changed()
	}
	for _, r := range rules {
		if err := c.rule(ctx, r); err != nil {
			return err
		}
	}
	if a.Round == 0 && a.Object != nil && len(c.memo.asked)+len(c.memo.due) > 0 {
		c.memo.output = a.Object.DeepCopyObject()
		if a.Memo == nil {
			a.Memo = map[string]any{}
		}
		a.Memo[MutatingName] = c.memo
	}
	return c.refusal()
}

func (c *changing) complain(r *rule, b *bound, err error, reason metav1.StatusReason) {
	if !r.closed() {
		return
	}
	one := complaint{rule: r, err: err, reason: reason}
	if b != nil {
		one.binding = b.name
	}
	c.complaints = append(c.complaints, one)
}

func (c *changing) rule(ctx context.Context, r *rule) error {
	hit, ok, err := c.r.Match(ctx, r.match)
	if err != nil {
		c.complain(r, nil, fmt.Errorf("failed to configure policy: %w", err), "")
		return nil
	}
	if !ok {
		return nil
	}
	for _, b := range r.bindings {
		if _, ok, err := c.r.Match(ctx, b.match); err != nil {
			c.complain(r, b, fmt.Errorf("failed to configure binding: %w", err), "")
			continue
		} else if !ok {
			continue
		}
		params, err := c.p.params(ctx, r.param, b.ref, c.r.Space)
		if err != nil {
			c.complain(r, b, fmt.Errorf("failed to configure binding: %w", err), "")
			continue
		}
		for _, param := range params {
			if err := c.invoke(ctx, r, b, hit, param); err != nil {
				return err
			}
		}
	}
	return nil
}

// invoke does one policy's mutations with one parameter.
func (c *changing) invoke(ctx context.Context, r *rule, b *bound, hit dynamic.Hit, param runtime.Object) error {
	m := r.mutation()
	if m.err != nil {
		c.complain(r, b, m.err, metav1.StatusReasonInvalid)
		return nil
	}
	view, err := c.r.View(hit.Kind)
	if err != nil {
		return apierrors.NewInternalError(err)
	}
	ns, err := c.r.Namespace(ctx)
	if err != nil {
		return err
	}
	ok, err := m.conditions.Match(ctx, view, hit, param)
	if err != nil {
		c.complain(r, b, err, metav1.StatusReasonInvalid)
		return nil
	}
	key := r.name + "\x00" + b.name + "\x00" + nameOf(param)
	if !ok || view.Object == nil || c.a.Object == nil || c.a.Round > 0 && !c.memo.due[key] {
		return nil
	}
	changed := false
	ctx = m.compiler.CreateContext(ctx)
	for _, p := range m.patchers {
		start := clock.Now()
		did, err := c.patch(ctx, p, &question{view, hit, param, ns})
		c.p.metrics.mutation(r.name, b.name, err, clock.Since(start))
		if se := apierrors.APIStatus(nil); errors.As(err, &se) {
			return err
		}
		if err != nil {
			c.complain(r, b, err, metav1.StatusReasonInvalid)
			continue
		}
		changed = changed || did
		if view, err = c.r.View(hit.Kind); err != nil {
			return apierrors.NewInternalError(err)
		}
	}
	if changed {
		c.memo.changed()
		c.a.Again = true
	}
	if r.reinvoke {
		c.memo.asked[key] = true
	}
	return nil
}

func (c *changing) patch(ctx context.Context, p patch.Patcher, q *question) (changed bool, err error) {
	kind := q.view.Kind
	var types managedfields.TypeConverter
	if c.p.types.Merge != nil {
		types, err = c.p.types.Merge(kind)
	}
	if types == nil || err != nil {
		return false, apierrors.NewServiceUnavailable(fmt.Sprintf("Resource kind %s not found. There can be a delay between when CustomResourceDefinitions are created and when they are available.", kind))
	}
	shown, err := p.Patch(ctx, patch.Request{
		MatchedResource: q.hit.Resource, VersionedAttributes: q.view.Versioned(),
		ObjectInterfaces:  admission.NewObjectInterfacesFromScheme(api.Scheme()),
		OptionalVariables: plugincel.OptionalVariableBindings{VersionedParams: q.param, Authorizer: c.r.Authorizer()},
		Namespace:         q.namespace, TypeConverter: types,
	}, celconfig.RuntimeCELCostBudget)
	if err != nil {
		return false, err
	}
	if shown, err = typed(shown, q.view); err != nil {
		return false, apierrors.NewInternalError(fmt.Errorf("failed to convert object: %w", err))
	}
	if equality.Semantic.DeepEqual(shown, q.view.Object) {
		return false, nil
	}
	if err := q.view.Replace(shown); err != nil {
		return false, apierrors.NewInternalError(fmt.Errorf("failed to convert object: %w", err))
	}
	return true, nil
}

// typed makes of a merged document an object of the view's type.
func typed(shown runtime.Object, v *dynamic.View) (runtime.Object, error) {
	u, ok := shown.(*unstructured.Unstructured)
	if _, free := v.Object.(*unstructured.Unstructured); !ok || free {
		return shown, nil
	}
	out, err := api.Scheme().New(v.Kind)
	if err != nil {
		return nil, err
	}
	if err := runtime.DefaultUnstructuredConverter.FromUnstructured(u.Object, out); err != nil {
		return nil, err
	}
	api.SetKind(out, v.Kind)
	return out, nil
}

func nameOf(param runtime.Object) string {
	if o, ok := param.(metav1.Object); ok {
		return o.GetNamespace() + "/" + o.GetName()
	}
	return ""
}

// refusal is the user's error about policies that could not be evaluated.
func (c *changing) refusal() error {
	if len(c.complaints) == 0 {
		return nil
	}
	gr := schema.GroupResource{Group: c.r.Asked().Group, Resource: c.r.Asked().Resource}
	err := apierrors.NewForbidden(gr, called(c.r), errors.New("admission request denied by policy"))
	err.ErrStatus.Message = c.complaints[0].String()
	if reason := c.complaints[0].reason; reason != "" {
		err.ErrStatus.Reason = reason
	}
	for i := range c.complaints {
		err.ErrStatus.Details.Causes = append(err.ErrStatus.Details.Causes, metav1.StatusCause{Message: c.complaints[i].String()})
	}
	return err
}
