package webhook

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	admissionv1 "k8s.io/api/admission/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime"

	jsonpatch "gopkg.in/evanphx/json-patch.v4"

	"github.com/sampan-dev/sampan/apiserver/dynamic"
	"github.com/sampan-dev/sampan/apiserver/request"
	"github.com/sampan-dev/sampan/kit/run"
)

// Mutating is the plugin MutatingAdmissionWebhook.
type Mutating struct{ *Webhooks }

// Validating is the plugin ValidatingAdmissionWebhook.
type Validating struct{ *Webhooks }

// Name implements request.Plugin.
func (Mutating) Name() string { return MutatingName }

// Name implements request.Plugin.
func (Validating) Name() string { return ValidatingName }

// Handles implements request.Plugin.
func (Mutating) Handles(request.Operation) bool { return true }

// Handles implements request.Plugin.
func (Validating) Handles(request.Operation) bool { return true }

// again is what the mutating plugin remembers of a request's first round.
type again struct {
	asked  map[string]bool // hooks that want to know of later changes
	due    map[string]bool // those of them that something changed after
	output runtime.Object  // what the request was when the last hook was done
}

// changed makes all hooks asked so far due again.
func (g *again) changed() {
	for uid := range g.asked {
		g.due[uid] = true
	}
	clear(g.asked)
}

// Mutate asks the mutating hooks, one after the other.
func (m Mutating) Mutate(ctx context.Context, a *request.Attributes) error {
	all := *m.hooks.mutating.Load()
	if len(all) == 0 || dynamic.Exempt(a.Resource.GroupResource()) {
		return nil
	}
	q := &asking{w: m.Webhooks, r: m.deps.Of(a), op: string(a.Operation)}
	memo, _ := a.Memo[MutatingName].(*again)
	if memo == nil {
		memo = &again{asked: map[string]bool{}, due: map[string]bool{}}
	} else if a.Object != nil && !equality.Semantic.DeepEqual(memo.output, runtime.Object(a.Object)) {
		memo.changed() // by the plugins before
	}
	purse := ledgerOf(a)
	for _, h := range all {
		if a.Round > 0 && !memo.due[h.uid] {
			continue // what was not asked the first time is not asked now
		}
		i, err := q.relevant(ctx, h)
		if err != nil {
			return err
		}
		if i == nil {
			continue
		}
		v, lost, err := q.outcome(ctx, i, purse.spent)
		purse.spent += lost
		if err != nil {
			return err
		}
		changed := false
		if v != nil {
			if changed, err = q.apply(i, v); err != nil {
				return err
			}
		}
		q.mutated(ctx, i, changed)
		if changed {
			memo.changed()
			a.Again = true
		}
		if h.reinvoke {
			memo.asked[h.uid] = true
		}
	}
	if a.Round == 0 && a.Object != nil && len(memo.asked)+len(memo.due) > 0 {
		memo.output = a.Object.DeepCopyObject()
		a.Memo[MutatingName] = memo
	}
	return nil
}

// apply does to the object what a hook wants.
func (q *asking) apply(i *invocation, v *verdict) (changed bool, err error) {
	if len(v.patch) == 0 {
		return false, nil
	}
	fail := func(format string, err error) (bool, error) {
		call := &callError{i.name, fmt.Errorf(format, err), 503}
		if i.open {
			return false, nil
		}
		return false, apierrors.NewInternalError(call)
	}
	patch, err := jsonpatch.DecodePatch(v.patch)
	if err != nil {
		return fail("received undecodable patch in webhook response: %w", err)
	}
	if len(patch) == 0 {
		return false, nil
	}
	if i.view.Object == nil || q.r.Object == nil {
		return false, apierrors.NewInternalError(fmt.Errorf("admission webhook %q attempted to modify the object, which is not supported for this operation", i.name))
	}
	if v.patchType != admissionv1.PatchTypeJSONPatch {
		return fail("%w", fmt.Errorf("unsupported patch type %q", v.patchType))
	}
	before, _, err := i.view.JSON()
	if err != nil {
		return false, apierrors.NewInternalError(err)
	}
	after, err := applyPatch(patch, before)
	if err != nil {
		return false, apierrors.NewInternalError(err)
	}
	next, err := i.view.Decode(after, false)
	if err != nil {
		return false, apierrors.NewInternalError(err)
	}
	changed = !equality.Semantic.DeepEqual(i.view.Object, next)
	if err := i.view.Replace(next); err != nil {
		if se := apierrors.APIStatus(nil); errors.As(err, &se) {
			return false, err
		}
		return false, apierrors.NewInternalError(err)
	}
	return changed, nil
}

const (
	// maxPatched bounds how large a patch may make an object, maxSteps how many
	// steps it may have.
	maxPatched = 3 << 20
	maxSteps   = 10_000
)

// applyPatch applies a patch of a hook, which may be any bytes.
func applyPatch(patch jsonpatch.Patch, doc []byte) (out []byte, err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("the patch cannot be applied: %v", p)
		}
	}()
	if len(patch) > maxSteps {
		return nil, fmt.Errorf("the patch has more than %d operations", maxSteps)
	}
	rounds := []jsonpatch.Patch{patch}
	if slices.ContainsFunc(patch, func(op jsonpatch.Operation) bool { return op.Kind() == "copy" }) {
		rounds = nil // copies of copies grow fast: look after each
		for i := range patch {
			rounds = append(rounds, patch[i:i+1])
		}
	}
	for _, one := range rounds {
		if doc, err = one.Apply(doc); err != nil {
			return nil, err
		}
		if len(doc) > maxPatched {
			return nil, fmt.Errorf("the patch makes the object larger than %d bytes", maxPatched)
		}
	}
	return doc, nil
}

// mutated puts down for the audit log whether a hook changed the object. What
// it changed is part of the object: a log that leaves objects out must not have it.
func (q *asking) mutated(ctx context.Context, i *invocation, changed bool) {
	q.annotate(ctx, "mutation", i, map[string]any{"configuration": i.config, "webhook": i.name, "mutated": changed})
}

func (q *asking) annotate(ctx context.Context, prefix string, i *invocation, value any) {
	if !request.Audited(ctx) {
		return
	}
	if text, err := json.Marshal(value); err == nil {
		request.Annotate(ctx, fmt.Sprintf("%s.webhook.admission.k8s.io/round_%d_index_%d", prefix, q.r.Round, i.index), string(text))
	}
}

// Validate asks the validating hooks, all at once.
func (p Validating) Validate(ctx context.Context, a *request.Attributes) error {
	all := *p.hooks.validating.Load()
	if len(all) == 0 || dynamic.Exempt(a.Resource.GroupResource()) {
		return nil
	}
	q := &asking{w: p.Webhooks, r: p.deps.Of(a), op: string(a.Operation)}
	var list []*invocation
	for _, h := range all {
		i, err := q.relevant(ctx, h)
		if err != nil {
			return err
		}
		if i != nil {
			list = append(list, i)
		}
	}
	if len(list) == 0 {
		return nil
	}
	if ctx.Err() != nil {
		return apierrors.NewTimeoutError("request did not complete within requested timeout", 0)
	}
	for _, i := range list { // what they share is made before they run side by side
		if _, _, err := i.view.JSON(); err != nil {
			return apierrors.NewInternalError(err)
		}
		i.view.Versioned()
	}
	spent := ledgerOf(a).spent
	if len(list) == 1 {
		_, _, err := q.outcome(ctx, list[0], spent)
		return err
	}
	return q.together(ctx, list, spent)
}

// together asks hooks side by side and gives the first error that came.
func (q *asking) together(ctx context.Context, list []*invocation, spent time.Duration) error {
	verdicts := make(chan error, len(list))
	for _, i := range list {
		run.Detach(ctx, "webhook "+i.name, func(ctx context.Context) {
			err := error(apierrors.NewInternalError(fmt.Errorf("%s/%s has panicked", ValidatingName, i.name)))
			defer func() { verdicts <- err }()
			_, _, err = q.outcome(ctx, i, spent)
		})
	}
	var first error
	for range list {
		if err := <-verdicts; first == nil {
			first = err
		}
	}
	return first
}
