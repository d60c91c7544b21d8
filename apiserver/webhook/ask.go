package webhook

import (
	"context"
	"errors"
	"fmt"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/util/uuid"

	"github.com/sampan-dev/sampan/apiserver/dynamic"
	"github.com/sampan-dev/sampan/apiserver/request"
	"github.com/sampan-dev/sampan/kit/clock"
)

// callError says that a hook could not be asked, or made no sense.
type callError struct {
	hook   string
	reason error
	code   int
}

func (e *callError) Error() string {
	return fmt.Sprintf("failed calling webhook %q: %v", e.hook, e.reason)
}
func (e *callError) Unwrap() error { return e.reason }

// errResting says that a hook is known to be dead and was not asked again.
var errResting = errors.New("it failed to answer several times in a row and is left alone for a while")

// errBudget says that a request has waited long enough for hooks that may fail.
var errBudget = errors.New("the request has already waited too long for webhooks that may be ignored")

// asking is one request's dealings with hooks.
type asking struct {
	w  *Webhooks
	r  *dynamic.Request
	op string
}

// ledger is what one request has spent on waiting in vain; it is kept with the
// request, for both plugins and both rounds.
type ledger struct{ spent time.Duration }

const ledgerMemo = "webhooks/ledger"

func ledgerOf(a *request.Attributes) *ledger {
	if l, ok := a.Memo[ledgerMemo].(*ledger); ok {
		return l
	}
	if a.Memo == nil {
		a.Memo = map[string]any{}
	}
	l := &ledger{}
	a.Memo[ledgerMemo] = l
	return l
}

// invocation is one hook to be asked about one view.
type invocation struct {
	*hook
	hit  dynamic.Hit
	view *dynamic.View
}

// relevant says whether a hook wants to judge the request.
func (q *asking) relevant(ctx context.Context, h *hook) (*invocation, error) {
	hit, ok, err := q.r.Match(ctx, h.match)
	if err != nil || !ok {
		return nil, err
	}
	v, err := q.r.View(hit.Kind)
	if err != nil {
		return nil, apierrors.NewInternalError(err)
	}
	ok, err = h.conditions.Match(ctx, v, hit, nil)
	if err != nil {
		return nil, apierrors.NewForbidden(q.r.Resource.GroupResource(), q.r.Name, err)
	}
	if !ok {
		kind := "webhook"
		q.w.metrics.exclusions.WithLabelValues(h.name, kind, sortOf(h), q.op).Inc()
		return nil, nil
	}
	return &invocation{h, hit, v}, nil
}

// ask calls a hook. An error is a *callError when the hook could not be asked
// and the user's when it was not to be; a verdict may still deny.
func (q *asking) ask(ctx context.Context, i *invocation, wait time.Duration) (*verdict, error) {
	if q.r.DryRun {
		if i.noEffects {
			return nil, &callError{i.name, errors.New("Webhook SideEffects is nil"), 400}
		}
		if !i.harmless {
			return nil, apierrors.NewBadRequest(fmt.Sprintf("admission webhook %q does not support dry run", i.name))
		}
	}
	uid := uuid.NewUUID()
	body, version, err := question(i.hook, i.view, i.hit, uid)
	if err != nil {
		return nil, &callError{i.name, fmt.Errorf("could not create admission objects: %w", err), 400}
	}
	if wait > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, wait)
		defer cancel()
	}
	if deadline, ok := ctx.Deadline(); ok {
		wait = clock.Until(deadline)
	}
	data, err := q.w.caller.post(ctx, i.hook, body, wait)
	if err != nil {
		code := 503
		if s := apierrors.APIStatus(nil); errors.As(err, &s) {
			code = int(s.Status().Code)
		}
		return nil, &callError{i.name, fmt.Errorf("failed to call webhook: %w", err), code}
	}
	v, err := readVerdict(data, version, uid, i.kind == mutatingKind)
	if err != nil {
		return nil, &callError{i.name, fmt.Errorf("received invalid webhook response: %w", err), 503}
	}
	for k, text := range v.annotations {
		request.Annotate(ctx, i.name+"/"+k, text)
	}
	for _, text := range v.warnings {
		request.Warn(ctx, text)
	}
	return v, nil
}

// patience says how long a hook may take, and an error if it is not to be asked.
func (q *asking) patience(i *invocation, spent time.Duration, forgiven bool) (time.Duration, error) {
	if !i.open && !forgiven {
		return i.timeout, nil
	}
	if !i.breaker.allow() {
		return 0, errResting
	}
	left := q.w.cfg.Budget - spent
	if left <= 0 {
		return 0, errBudget
	}
	if i.timeout == 0 || i.timeout > left {
		return left, nil
	}
	return i.timeout, nil
}

// outcome asks a hook with patience, counts what happened, and forgives what is
// to be forgiven: with neither verdict nor error the request goes on unjudged.
// took is the time lost when it was in vain.
func (q *asking) outcome(ctx context.Context, i *invocation, spent time.Duration) (v *verdict, took time.Duration, err error) {
	forgiven := func() bool { return i.open || q.repairs(ctx, i.hook) }
	early := i.open || i.breaker.tired() && forgiven()
	wait, refused := q.patience(i, spent, early)
	start := clock.Now()
	if refused == nil {
		v, err = q.ask(ctx, i, wait)
		took = clock.Since(start)
	} else {
		err = &callError{i.name, refused, 503}
	}
	call, isCall := errors.AsType[*callError](err)
	switch {
	case isCall && refused == nil && ctx.Err() == nil:
		i.breaker.fail()
	case !isCall:
		i.breaker.succeeded()
		took = 0
	}
	if isCall && forgiven() {
		q.w.metrics.asked(i.hook, q.op, clock.Since(start), call.code, false)
		if !errors.Is(err, context.Canceled) {
			q.w.metrics.opened.WithLabelValues(i.name, sortOf(i.hook)).Inc()
			q.failedOpen(ctx, i)
		}
		if ctx.Err() != nil {
			return nil, took, apierrors.NewTimeoutError("request did not complete within requested timeout", 0)
		}
		return nil, took, nil
	}
	q.count(i, v, err, clock.Since(start))
	switch {
	case isCall:
		return nil, took, apierrors.NewInternalError(q.explain(ctx, i.hook, call))
	case err != nil:
		return nil, took, err
	case !v.allowed:
		return nil, took, denied(i.name, v.result)
	}
	return v, took, nil
}

func (q *asking) count(i *invocation, v *verdict, err error, took time.Duration) {
	code, why := 200, ""
	call, isCall := errors.AsType[*callError](err)
	switch {
	case isCall:
		code, why = call.code, byCallFailure
		if errors.Is(err, context.Canceled) {
			why = ""
		}
	case err != nil:
		code, why = 0, byServerFault
	case !v.allowed:
		code, why = int(denied(i.name, v.result).ErrStatus.Code), byVerdict
	}
	q.w.metrics.asked(i.hook, q.op, took, code, err != nil || !v.allowed)
	if why != "" {
		q.w.metrics.rejected(i.hook, q.op, why, code)
	}
}

// failedOpen puts down for the audit log that a hook was passed over.
func (q *asking) failedOpen(ctx context.Context, i *invocation) {
	sort := "validating"
	if i.kind == mutatingKind {
		sort = "mutation"
	}
	key := fmt.Sprintf("failed-open.%s.webhook.admission.k8s.io/round_%d_index_%d", sort, q.r.Round, i.index)
	request.Annotate(ctx, key, i.name)
}
