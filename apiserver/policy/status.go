package policy

import (
	"context"
	"time"

	admissionv1 "k8s.io/api/admissionregistration/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"github.com/sampan-dev/sampan/api"
	"github.com/sampan-dev/sampan/kit/backoff"
	"github.com/sampan-dev/sampan/kit/queue"
)

// checks are the policies whose types wait to be checked.
type checks struct{ queue *queue.Queue[string] }

func newChecks() *checks {
	return &checks{queue.New[string](backoff.Policy{First: 100 * time.Millisecond, Max: time.Minute})}
}

// changed notes a policy whose status does not speak of what it says now.
func (c *checks) changed(obj api.Object) {
	if p, ok := obj.(*admissionv1.ValidatingAdmissionPolicy); ok && p.Status.ObservedGeneration < p.Generation {
		c.queue.Add(p.Name)
	}
}

// check writes into policies' status what their types are like, until ctx ends.
// Every API server does, and all write the same.
func (p *Policies) check(ctx context.Context) error {
	q := p.checks.queue
	defer q.Close()
	for {
		name, err := q.Get(ctx)
		if err != nil {
			return nil
		}
		switch err := p.checkOne(ctx, name); {
		case err == nil || apierrors.IsNotFound(err):
			q.Forget(name)
		default:
			q.Retry(name)
		}
		q.Done(name)
	}
}

func (p *Policies) checkOne(ctx context.Context, name string) error {
	obj, err := p.deps.Back.Get(ctx, validatingSort.policies, "", name)
	if err != nil {
		return err
	}
	policy, ok := obj.(*admissionv1.ValidatingAdmissionPolicy)
	if !ok || policy.Status.ObservedGeneration >= policy.Generation {
		return nil
	}
	status := admissionv1.ValidatingAdmissionPolicyStatus{ObservedGeneration: policy.Generation, TypeChecking: &admissionv1.TypeChecking{}}
	if p.types.Schema != nil {
		status.TypeChecking.ExpressionWarnings = p.warnings(policy)
	}
	_, err = p.deps.Back.Modify(ctx, validatingSort.policies, "", name, "status", func(obj api.Object) error {
		if next, ok := obj.(*admissionv1.ValidatingAdmissionPolicy); ok && next.Generation == status.ObservedGeneration {
			next.Status.ObservedGeneration, next.Status.TypeChecking = status.ObservedGeneration, status.TypeChecking
		}
		return nil
	})
	return err
}
