// Package policy judges and changes requests as users' admission policies say.
//
// Job: the plugins ValidatingAdmissionPolicy and MutatingAdmissionPolicy: which
// policies and bindings a request concerns, their parameters, evaluating their
// expressions; checking the types of stored policies and saying so in their
// status; keeping users from policies over parameters they may not read.
//
// Not its job: what a policy may say (resource/admissionregistration), what a
// request matches and looks like (apiserver/dynamic).
//
// Invariants: a policy that cannot be evaluated does as its failurePolicy says,
// never something in between. Type checking changes no decision.
package policy

import (
	"context"

	"github.com/prometheus/client_golang/prometheus"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/managedfields"
	"k8s.io/kube-openapi/pkg/validation/spec"

	"github.com/sampan-dev/sampan/api"
	"github.com/sampan-dev/sampan/apiserver/dynamic"
	"github.com/sampan-dev/sampan/kit/run"
)

// Types are what policies must know of kinds. Both may be nil: expressions are
// not type-checked, and apply configurations do not work.
type Types struct {
	// Schema is a served kind's schema without references.
	Schema func(kind schema.GroupVersionKind) (*spec.Schema, error)
	// Merge is how objects of a served kind are merged.
	Merge func(kind schema.GroupVersionKind) (managedfields.TypeConverter, error)
}

// Policies are both plugins and what they share.
type Policies struct {
	deps    dynamic.Deps
	types   Types
	metrics *metrics
	source  *source
	checks  *checks
}

// New returns the plugins' parts; nothing runs yet.
func New(deps dynamic.Deps, types Types, reg prometheus.Registerer) *Policies {
	return &Policies{deps: deps, types: types, metrics: newMetrics(reg), source: newSource(), checks: newChecks()}
}

// Names of the plugins.
const (
	ValidatingName = "ValidatingAdmissionPolicy"
	MutatingName   = "MutatingAdmissionPolicy"
)

// Fill reads the policies there are, so that no request is judged without them.
func (p *Policies) Fill(ctx context.Context) error {
	for _, s := range sorts {
		for _, gr := range []schema.GroupResource{s.policies, s.bindings} {
			list, err := p.deps.Back.List(ctx, gr, "")
			if err != nil {
				return err
			}
			for _, obj := range list {
				p.source.set(s, gr, obj.GetName(), obj)
			}
		}
	}
	return nil
}

// Run follows the policies and checks their types until ctx ends.
func (p *Policies) Run(ctx context.Context) error {
	g := run.New(ctx)
	for _, s := range sorts {
		for _, gr := range []schema.GroupResource{s.policies, s.bindings} {
			g.Go(gr.Resource, func(ctx context.Context) error {
				return p.deps.Back.Changes(ctx, gr, func(old, next api.Object) {
					if next == nil {
						p.source.set(s, gr, old.GetName(), nil)
						return
					}
					p.source.set(s, gr, next.GetName(), next)
					p.checks.changed(next)
				})
			})
		}
	}
	g.Go("type checking", p.check)
	return g.Wait()
}
