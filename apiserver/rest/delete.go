package rest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sampan-dev/sampan/api"
	"github.com/sampan-dev/sampan/apiserver/request"
	"github.com/sampan-dev/sampan/storage"
)

func secondsOf(n int64) time.Duration { return time.Duration(n) * time.Second }

// Delete removes an object or begins its removal.
func (e *Engine) Delete(ctx context.Context, o *Op, opts *metav1.DeleteOptions) (*Result, error) {
	var rec *storage.Record
	fresh := false
	for race := 0; race < maxRaces; race++ {
		if rec == nil {
			var err error
			if rec, err = e.current(ctx, o.key(o.Info.Name), fresh); err != nil {
				return nil, storeError(err, o.GR(), o.Info.Name)
			}
		}
		res, err := e.deleteOnce(ctx, o, opts, rec, fresh)
		var lost *storage.ConflictError
		switch {
		case errors.Is(err, errStale), errors.Is(err, storage.ErrNotFound):
			rec, fresh = nil, true
		case errors.As(err, &lost):
			rec, fresh = lost.Current, true
		default:
			return res, err
		}
	}
	return nil, conflict(o.GR(), o.Info.Name)
}

func (e *Engine) deleteOnce(ctx context.Context, o *Op, opts *metav1.DeleteOptions, rec *storage.Record, fresh bool) (*Result, error) {
	cur, err := o.object(rec)
	if err != nil {
		return nil, err
	}
	if err := o.deletePreconditions(opts.Preconditions, cur); err != nil {
		if !fresh {
			return nil, errStale
		}
		return nil, err
	}
	a := o.attributes(ctx, request.Delete, nil, cur, opts)
	a.DryRun = isDryRun(opts.DryRun)
	if err := e.mutate(ctx, a); err != nil {
		return nil, err
	}
	settle, err := e.validate(ctx, a)
	if err != nil {
		settle(false)
		return nil, err
	}
	res, err := e.deleteAdmitted(ctx, o, opts, rec, cur)
	settle(err == nil && !a.DryRun)
	return res, err
}

func (e *Engine) deleteAdmitted(ctx context.Context, o *Op, opts *metav1.DeleteOptions, rec *storage.Record, cur api.Object) (*Result, error) {
	next, step := o.planDelete(cur, opts)
	if isDryRun(opts.DryRun) {
		if next == nil {
			next = cur
		}
		return &Result{Obj: next, Gone: step == deleteNow}, nil
	}
	switch step {
	case deletePending:
		return &Result{Obj: cur, Rec: rec}, nil
	case deleteMark:
		next.SetResourceVersion("")
		value, err := o.encodeStored(next)
		if err != nil {
			return nil, err
		}
		newRec, err := e.Store.Update(o.adopt(ctx, next), rec.Key, value, rec.Rev, o.Kind.TTL(next))
		if err != nil {
			return nil, err
		}
		return o.stored(newRec, next)
	}
	return e.remove(ctx, o, cur.DeepCopyObject().(api.Object), rec)
}

func (o *Op) deletePreconditions(p *metav1.Preconditions, cur api.Object) error {
	if p == nil {
		return nil
	}
	if p.UID != nil && *p.UID != cur.GetUID() {
		return apierrors.NewConflict(o.GR(), o.Info.Name, fmt.Errorf("Precondition failed: UID in precondition: %v, UID in object meta: %v", *p.UID, cur.GetUID()))
	}
	if p.ResourceVersion != nil && *p.ResourceVersion != cur.GetResourceVersion() {
		return apierrors.NewConflict(o.GR(), o.Info.Name, fmt.Errorf("Precondition failed: ResourceVersion in precondition: %v, ResourceVersion in object meta: %v", *p.ResourceVersion, cur.GetResourceVersion()))
	}
	return nil
}

type deleteStep uint8

const (
	deleteNow     deleteStep = iota // remove the record
	deleteMark                      // store next, which waits for something
	deletePending                   // it waits already, nothing changes
)

// planDelete decides what becomes of an object somebody wants deleted. next is
// nil unless it is to be stored.
func (o *Op) planDelete(cur api.Object, opts *metav1.DeleteOptions) (next api.Object, step deleteStep) {
	next = cur.DeepCopyObject().(api.Object)
	finalizers := o.finalizers(cur, opts)
	if cur.GetDeletionTimestamp() == nil {
		for _, f := range o.Served.Info.DeleteFinalizers {
			if !slices.Contains(finalizers, f) {
				finalizers = append(slices.Clip(finalizers), f)
			}
		}
	}
	newFinalizers := !slices.Equal(finalizers, cur.GetFinalizers())
	next.SetFinalizers(finalizers)
	waits := len(finalizers) > 0 || o.Kind.Held(cur)
	first := cur.GetDeletionTimestamp() == nil
	grace, graceful := int64(0), false
	changed := newFinalizers
	if first {
		grace, graceful = o.Kind.Grace(cur, opts.GracePeriodSeconds)
	} else if left := cur.GetDeletionGracePeriodSeconds(); left != nil && o.isGraceful(cur) {
		grace, graceful = *left, true
		if want := opts.GracePeriodSeconds; want != nil && *want < *left {
			grace, changed = max(*want, 0), true
			t := metav1.NewTime(cur.GetDeletionTimestamp().Add(-secondsOf(*left)).Add(secondsOf(grace)))
			next.SetDeletionTimestamp(&t)
			next.SetDeletionGracePeriodSeconds(&grace)
		}
	}
	if !waits && (!graceful || grace == 0) {
		return nil, deleteNow
	}
	if first {
		next.SetDeletionTimestamp(newDeletion(grace))
		next.SetDeletionGracePeriodSeconds(&grace)
		if g := next.GetGeneration(); g > 0 {
			next.SetGeneration(g + 1)
		}
		o.Kind.BeginDelete(next)
		return next, deleteMark
	}
	if !changed {
		return nil, deletePending
	}
	return next, deleteMark
}

func (o *Op) isGraceful(obj api.Object) bool {
	_, ok := o.Kind.Grace(obj, nil)
	return ok
}

// finalizers are those of cur with the garbage collector's as the user's
// propagation policy says.
func (o *Op) finalizers(cur api.Object, opts *metav1.DeleteOptions) []string {
	have := cur.GetFinalizers()
	orphan, foreground := o.propagation(have, opts)
	kept := make([]string, 0, len(have)+1)
	for _, f := range have {
		if f != metav1.FinalizerOrphanDependents && f != metav1.FinalizerDeleteDependents {
			kept = append(kept, f)
		}
	}
	if orphan {
		kept = append(kept, metav1.FinalizerOrphanDependents)
	}
	if foreground {
		kept = append(kept, metav1.FinalizerDeleteDependents)
	}
	if len(kept) == len(have) {
		same := true
		for _, f := range kept {
			same = same && slices.Contains(have, f)
		}
		if same {
			return have
		}
	}
	return kept
}

func (o *Op) propagation(have []string, opts *metav1.DeleteOptions) (orphan, foreground bool) {
	switch {
	case opts.OrphanDependents != nil:
		return *opts.OrphanDependents, false
	case opts.PropagationPolicy != nil:
		return *opts.PropagationPolicy == metav1.DeletePropagationOrphan, *opts.PropagationPolicy == metav1.DeletePropagationForeground
	case slices.Contains(have, metav1.FinalizerOrphanDependents):
		return true, false
	case slices.Contains(have, metav1.FinalizerDeleteDependents):
		return false, true
	}
	orphan = o.Served.Info.Orphans
	if o.Version != nil {
		orphan = o.Version.Orphans
	}
	return orphan, false
}

// DeleteCollection deletes everything a list finds and returns what was deleted.
func (e *Engine) DeleteCollection(ctx context.Context, o *Op, opts *metav1.DeleteOptions, sel *metav1.ListOptions) ([]*Result, string, error) {
	l, err := e.List(ctx, o, sel)
	if err != nil {
		return nil, "", err
	}
	if err := o.warm(l.Records); err != nil {
		return nil, "", err
	}
	var out []*Result
	for _, rec := range l.Records {
		obj, err := o.object(rec)
		if err != nil {
			return nil, "", err
		}
		one := *o
		i := *o.Info
		i.Name, i.Namespace = obj.GetName(), obj.GetNamespace()
		one.Info = &i
		res, err := e.Delete(ctx, &one, opts.DeepCopy())
		if apierrors.IsNotFound(err) {
			continue
		}
		if err != nil {
			return nil, "", err
		}
		out = append(out, res)
	}
	return out, l.Version(), nil
}
