package rest

import (
	"bytes"
	"context"
	"errors"
	"fmt"

	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/sampan-dev/sampan/api"
	"github.com/sampan-dev/sampan/apiserver/request"
	"github.com/sampan-dev/sampan/kit/clock"
	"github.com/sampan-dev/sampan/storage"
)

// change says what a write does to the object there is.
type change struct {
	name string
	// make returns the next object, which it owns, from the current one, which
	// it must not modify; cur is nil when there is none and create is set.
	make func(ctx context.Context, cur api.Object) (api.Object, error)
	// create allows the object to be made.
	create bool
	// tracked is set when make has seen to managedFields itself.
	tracked bool
	// raw writes what make returns without rules or admission.
	raw     bool
	manager string
	dryRun  bool
	opts    runtime.Object // UpdateOptions or PatchOptions
}

// maxRaces is how often a write that need not fail on a race is tried.
const maxRaces = 64

// Update replaces an object by one of the served version, which belongs to the
// engine from now on.
func (e *Engine) Update(ctx context.Context, o *Op, obj api.Object, opts *metav1.UpdateOptions) (*Result, error) {
	if err := o.checkName(obj); err != nil {
		return nil, err
	}
	stored, err := o.toStored(obj)
	if err != nil {
		return nil, err
	}
	if err := o.matchNamespace(stored); err != nil {
		return nil, err
	}
	c := &change{
		name: o.Info.Name, create: o.Served.Info.CreateOnUpdate && o.Info.Subresource == "",
		manager: o.manager(opts.FieldManager), dryRun: isDryRun(opts.DryRun), opts: opts,
	}
	c.make = func(context.Context, api.Object) (api.Object, error) {
		return stored.DeepCopyObject().(api.Object), nil
	}
	return e.write(ctx, o, c)
}

// checkName holds the object against the URL.
func (o *Op) checkName(obj api.Object) error {
	name := o.Info.Name
	switch {
	case obj.GetName() == "":
		return apierrors.NewBadRequest(fmt.Sprintf("the name of the object (%s based on URL) was undeterminable: name must be provided", name))
	case obj.GetName() != name:
		return apierrors.NewBadRequest(fmt.Sprintf("the name of the object (%s) does not match the name on the URL (%s)", obj.GetName(), name))
	}
	if ns := o.Info.Namespace; !o.Served.Info.ClusterScoped && ns != "" && obj.GetNamespace() != "" && obj.GetNamespace() != ns {
		return apierrors.NewBadRequest(fmt.Sprintf("the namespace of the object (%s) does not match the namespace on the request (%s)", obj.GetNamespace(), ns))
	}
	return nil
}

// errStale says that a verdict came from a record that may be old.
var errStale = errors.New("stale")

// write changes one object, again and again while others change it too, unless
// the user insisted on a version.
func (e *Engine) write(ctx context.Context, o *Op, c *change) (*Result, error) {
	var rec *storage.Record
	fresh := false
	for race := 0; ; race++ {
		if rec == nil {
			var err error
			rec, err = e.current(ctx, o.key(c.name), fresh)
			if errors.Is(err, storage.ErrNotFound) {
				if !c.create {
					return nil, apierrors.NewNotFound(o.GR(), c.name)
				}
				return e.createOnUpdate(ctx, o, c)
			}
			if err != nil {
				return nil, storeError(err, o.GR(), c.name)
			}
		}
		res, err := e.attempt(ctx, o, c, rec, fresh)
		var lost *storage.ConflictError
		switch {
		case errors.Is(err, errStale):
			rec, fresh = nil, true
		case errors.As(err, &lost):
			rec, fresh = lost.Current, true
		case errors.Is(err, storage.ErrNotFound):
			rec, fresh = nil, true
		default:
			return res, err
		}
		if race >= maxRaces {
			return nil, conflict(o.GR(), c.name)
		}
	}
}

func (e *Engine) createOnUpdate(ctx context.Context, o *Op, c *change) (*Result, error) {
	obj, err := c.make(ctx, nil)
	if err != nil {
		return nil, err
	}
	if obj.GetUID() != "" {
		return nil, apierrors.NewConflict(o.GR(), c.name, fmt.Errorf("Precondition failed: UID in precondition: %v, UID in object meta: %v", obj.GetUID(), ""))
	}
	if err := e.mayCreate(ctx, o); err != nil {
		return nil, err
	}
	if o.Version == nil || obj.GetObjectKind().GroupVersionKind() == o.Served.Info.GroupVersionKind {
		if err := o.matchNamespace(obj); err != nil {
			return nil, err
		}
		obj.SetResourceVersion("")
		p := *o
		if c.tracked {
			res, err := (&Engine{Deps: e.untracked(), names: e.names}).create(ctx, &p, obj, &metav1.CreateOptions{DryRun: dryRunFlags(c.dryRun), FieldManager: c.manager})
			return res, err
		}
		return e.create(ctx, &p, obj, &metav1.CreateOptions{DryRun: dryRunFlags(c.dryRun), FieldManager: c.manager})
	}
	return nil, apierrors.NewNotFound(o.GR(), c.name)
}

// untracked is the engine's parts without the keeping of managedFields, for an
// object whose fields were settled by an apply.
func (e *Engine) untracked() Deps {
	d := e.Deps
	d.Fields = nil
	return d
}

func dryRunFlags(on bool) []string {
	if on {
		return []string{metav1.DryRunAll}
	}
	return nil
}

// mayCreate asks whether a user who may update may create too.
func (e *Engine) mayCreate(ctx context.Context, o *Op) error {
	if e.Authorizer == nil {
		return nil
	}
	i := *o.Info
	i.Verb = "create"
	u := request.UserFrom(ctx)
	d, reason, err := e.Authorizer.Authorize(ctx, u, &i)
	if d == request.Allow {
		return nil
	}
	if err != nil {
		return apierrors.NewInternalError(err)
	}
	return request.Forbidden(u, &i, reason)
}

// attempt makes the next object of rec and stores it if rec is still current.
func (e *Engine) attempt(ctx context.Context, o *Op, c *change, rec *storage.Record, fresh bool) (*Result, error) {
	cur, err := o.object(rec)
	if err != nil {
		return nil, err
	}
	next, err := c.make(ctx, cur)
	if err != nil {
		return nil, err
	}
	api.SetKind(next, o.Served.Info.GroupVersionKind)
	if err := o.preconditions(c, next, cur, fresh); err != nil {
		return nil, err
	}
	tx := e.begin()
	settle := func(bool) {}
	if !c.raw {
		settle, err = e.readyUpdate(ctx, o, c, next, cur, tx)
	}
	if err == nil && c.dryRun {
		settle(false)
		e.end(ctx, tx, false)
		return &Result{Obj: next}, nil
	}
	var res *Result
	if err == nil {
		res, err = e.replace(ctx, o, next, cur, rec, fresh)
	}
	settle(err == nil)
	e.end(ctx, tx, err == nil)
	return res, err
}

// preconditions compares what the object says of its version and identity.
func (o *Op) preconditions(c *change, next, cur api.Object, fresh bool) error {
	fail := func(err error) error {
		if !fresh {
			return errStale
		}
		return err
	}
	if uid := next.GetUID(); uid != "" && uid != cur.GetUID() {
		return fail(apierrors.NewConflict(o.GR(), c.name, fmt.Errorf("Precondition failed: UID in precondition: %v, UID in object meta: %v", uid, cur.GetUID())))
	}
	switch rv := next.GetResourceVersion(); {
	case rv == "" || rv == "0":
		if !o.Served.Info.Unconditional && !c.raw {
			return apierrors.NewInvalid(o.Served.Info.GroupVersionKind.GroupKind(), c.name, field.ErrorList{
				field.Invalid(field.NewPath("metadata", "resourceVersion"), 0, "must be specified for an update"),
			})
		}
		next.SetResourceVersion(cur.GetResourceVersion())
	case rv != cur.GetResourceVersion():
		return fail(conflict(o.GR(), c.name))
	}
	return nil
}

// readyUpdate fills in, judges and admits a new version of an object.
func (e *Engine) readyUpdate(ctx context.Context, o *Op, c *change, next, cur api.Object, tx Transaction) (func(bool), error) {
	nothing := func(bool) {}
	dedupOwners(ctx, next)
	carryOver(next, cur)
	if e.Fields != nil && !c.tracked {
		e.track(o, cur, next, c.manager)
	}
	a := o.attributes(ctx, request.Update, next, cur, c.opts)
	a.DryRun = c.dryRun
	if err := e.mutate(ctx, a); err != nil {
		return nothing, err
	}
	dedupOwners(ctx, next)
	rq := o.request(ctx, c.dryRun)
	var errs field.ErrorList
	var warnings []string
	sub, isSub := o.Kind.Sub(o.Info.Subresource)
	if isSub {
		sub.Prepare(rq, next, cur)
	} else {
		o.Kind.Prepare(rq, next, cur)
	}
	next.SetGeneration(cur.GetGeneration())
	// A status is what was observed of a generation; writing it makes no new one.
	if changed, known := o.Kind.SpecChanged(next, cur); known && changed && o.Info.Subresource != "status" {
		next.SetGeneration(cur.GetGeneration() + 1)
	}
	if !isSub {
		if err := e.ledger(ctx, o, tx, next, cur); err != nil {
			return nothing, err
		}
	}
	meta := metaOf(next)
	errs = apivalidation.ValidateObjectMetaAccessor(meta, !o.Served.Info.ClusterScoped, anyName, field.NewPath("metadata"))
	errs = append(errs, apivalidation.ValidateObjectMetaAccessorUpdate(meta, metaOf(cur), field.NewPath("metadata"))...)
	if isSub {
		errs = append(errs, sub.Validate(next, cur)...)
		warnings = sub.Warnings(next, cur)
	} else {
		errs = append(errs, o.Kind.Validate(next, cur)...)
		errs = append(errs, o.Kind.ValidateAs(rq, next, cur)...)
		warnings = o.Kind.Warnings(next, cur)
	}
	if len(errs) > 0 {
		return nothing, apierrors.NewInvalid(o.Served.Info.GroupVersionKind.GroupKind(), c.name, errs)
	}
	for _, w := range warnings {
		request.Warn(ctx, w)
	}
	return e.validate(ctx, a)
}

// anyName accepts the name that was good enough when the object was made.
func anyName(string, bool) []string { return nil }

// carryOver keeps what a user need not send and may not change.
func carryOver(next, cur api.Object) {
	next.SetSelfLink("")
	if next.GetUID() == "" {
		next.SetUID(cur.GetUID())
	}
	if t := next.GetCreationTimestamp(); t.IsZero() {
		next.SetCreationTimestamp(cur.GetCreationTimestamp())
	}
	if next.GetDeletionTimestamp() == nil {
		next.SetDeletionTimestamp(cur.GetDeletionTimestamp())
	}
	if next.GetDeletionGracePeriodSeconds() == nil {
		next.SetDeletionGracePeriodSeconds(cur.GetDeletionGracePeriodSeconds())
	}
	next.SetGeneration(cur.GetGeneration())
}

// replace stores next in rec's place, or removes the object when next says that
// nothing holds it any more.
func (e *Engine) replace(ctx context.Context, o *Op, next, cur api.Object, rec *storage.Record, fresh bool) (*Result, error) {
	if e.released(o, next, cur) {
		return e.remove(ctx, o, next, rec)
	}
	next.SetResourceVersion("")
	sameButTimes(next, cur)
	value, err := o.encodeStored(next)
	if err != nil {
		return nil, err
	}
	if !rec.Stale && bytes.Equal(value, rec.Value) {
		if !fresh {
			// Others may have written since: only the newest state can be left as it is.
			now, err := e.current(ctx, rec.Key, true)
			if err != nil {
				return nil, storeError(err, o.GR(), next.GetName())
			}
			if now.Rev != rec.Rev {
				return nil, errStale
			}
		}
		return &Result{Obj: cur, Rec: rec}, nil
	}
	newRec, err := e.Store.Update(o.adopt(ctx, next), rec.Key, value, rec.Rev, o.Kind.TTL(next))
	if err != nil {
		var lost *storage.ConflictError
		if errors.As(err, &lost) || errors.Is(err, storage.ErrNotFound) {
			return nil, err
		}
		return nil, storeError(err, o.GR(), next.GetName())
	}
	return o.stored(newRec, next)
}

// released says whether an object being deleted has nothing left to wait for.
func (e *Engine) released(o *Op, next, cur api.Object) bool {
	g := next.GetDeletionGracePeriodSeconds()
	return cur.GetDeletionTimestamp() != nil && len(next.GetFinalizers()) == 0 && (g == nil || *g == 0) && !o.Kind.Held(next)
}

// remove deletes an object in the course of an update.
func (e *Engine) remove(ctx context.Context, o *Op, next api.Object, rec *storage.Record) (*Result, error) {
	tx := e.begin()
	if err := e.ledger(ctx, o, tx, nil, next); err != nil {
		e.end(ctx, tx, false)
		return nil, err
	}
	gone, err := e.Store.Delete(ctx, rec.Key, rec.Rev)
	e.end(ctx, tx, err == nil)
	if err != nil {
		return nil, err
	}
	next.SetResourceVersion(fmt.Sprint(gone.Rev))
	return &Result{Obj: next, Gone: true}, nil
}

// sameButTimes undoes a change of managedFields that changed nothing but times,
// so that a write without effect stays one.
func sameButTimes(next, cur api.Object) {
	if u, ok := next.(*unstructured.Unstructured); ok {
		if v, ok := cur.(*unstructured.Unstructured); ok {
			sameLoose(u, v)
			return
		}
	}
	a, b := next.GetManagedFields(), cur.GetManagedFields()
	if len(a) != len(b) {
		return
	}
	for i := range a {
		x, y := a[i], b[i]
		x.Time, y.Time = nil, nil
		if !equality.Semantic.DeepEqual(x, y) {
			return
		}
	}
	// The owners are the same. Were it only for the times, is all else the same?
	probe := next.DeepCopyObject().(api.Object)
	probe.SetManagedFields(b)
	probe.SetResourceVersion(cur.GetResourceVersion())
	if equality.Semantic.DeepEqual(probe, cur) {
		next.SetManagedFields(b)
	}
}

// newDeletion returns now plus a grace period, in whole seconds as upstream does.
func newDeletion(seconds int64) *metav1.Time {
	t := metav1.NewTime(clock.Now().Truncate(1e9).Add(secondsOf(seconds)))
	return &t
}
