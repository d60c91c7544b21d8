package rest

import (
	"context"
	"errors"
	"slices"
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/sampan-dev/sampan/api"
	"github.com/sampan-dev/sampan/apiserver/request"
	"github.com/sampan-dev/sampan/kit/clock"
	"github.com/sampan-dev/sampan/storage"
)

// generateTries is how often a generated name that is taken is replaced.
const generateTries = 8

// Create stores a new object. obj is of the served version and belongs to the
// engine from now on.
func (e *Engine) Create(ctx context.Context, o *Op, obj api.Object, opts *metav1.CreateOptions) (*Result, error) {
	stored, err := o.toStored(obj)
	if err != nil {
		return nil, err
	}
	if err := o.matchNamespace(stored); err != nil {
		return nil, err
	}
	if stored.GetName() == "" && stored.GetGenerateName() == "" {
		return e.create(ctx, o, stored, opts) // validation says what is missing
	}
	if stored.GetName() != "" {
		return e.create(ctx, o, stored, opts)
	}
	for try := 1; ; try++ {
		next := stored
		if try < generateTries {
			next = stored.DeepCopyObject().(api.Object)
		}
		res, err := e.create(ctx, o, next, opts)
		if err == nil || !apierrors.IsAlreadyExists(err) {
			return res, err
		}
		if try == generateTries {
			return nil, apierrors.NewGenerateNameConflict(o.GR(), next.GetName(), 1)
		}
	}
}

// matchNamespace puts the request's namespace into the object.
func (o *Op) matchNamespace(obj api.Object) error {
	ns := o.Info.Namespace
	if o.Served.Info.ClusterScoped {
		ns = ""
	}
	switch obj.GetNamespace() {
	case ns:
	case "":
		obj.SetNamespace(ns)
	default:
		if ns != "" {
			return apierrors.NewBadRequest("the namespace of the provided object does not match the namespace sent on the request")
		}
		obj.SetNamespace("")
	}
	return nil
}

func (e *Engine) create(ctx context.Context, o *Op, obj api.Object, opts *metav1.CreateOptions) (*Result, error) {
	if obj.GetResourceVersion() != "" {
		return nil, errors.New("resourceVersion should not be set on objects to be created")
	}
	if o.custom != nil {
		if err := o.custom.Closed(); err != nil {
			return nil, err
		}
	}
	dryRun := isDryRun(opts.DryRun)
	dedupOwners(ctx, obj)
	if obj.GetName() == "" && obj.GetGenerateName() != "" {
		obj.SetName(e.names.make(obj.GetGenerateName()))
	}
	if e.Fields != nil {
		e.track(o, o.Kind.New(), obj, o.manager(opts.FieldManager))
	}
	a := o.attributes(ctx, request.Create, obj, nil, opts)
	a.DryRun = dryRun
	if err := e.mutate(ctx, a); err != nil {
		return nil, err
	}
	tx := e.begin()
	settle, err := e.readyCreate(ctx, o, obj, a, tx)
	if err != nil {
		settle(false)
		e.end(ctx, tx, false)
		return nil, err
	}
	if dryRun {
		settle(false)
		e.end(ctx, tx, false)
		return &Result{Obj: obj, Created: true}, nil
	}
	rec, err := e.insert(ctx, o, obj)
	settle(err == nil)
	e.end(ctx, tx, err == nil)
	if err != nil {
		return nil, storeError(err, o.GR(), obj.GetName())
	}
	res, err := o.stored(rec, obj)
	if err == nil {
		res.Created = true
	}
	return res, err
}

// insert stores obj. An object too large with its managedFields is tried without.
func (e *Engine) insert(ctx context.Context, o *Op, obj api.Object) (*storage.Record, error) {
	value, err := o.encodeStored(obj)
	if err != nil {
		return nil, err
	}
	rec, err := e.Store.Create(o.adopt(ctx, obj), o.key(obj.GetName()), value, o.Kind.TTL(obj))
	if errors.Is(err, storage.ErrTooLarge) && len(obj.GetManagedFields()) > 0 {
		obj.SetManagedFields(nil)
		if value, err = o.encodeStored(obj); err == nil {
			rec, err = e.Store.Create(o.adopt(ctx, obj), o.key(obj.GetName()), value, o.Kind.TTL(obj))
		}
	}
	return rec, err
}

// readyCreate fills in, judges and admits a new object.
func (e *Engine) readyCreate(ctx context.Context, o *Op, obj api.Object, a *request.Attributes, tx Transaction) (func(bool), error) {
	nothing := func(bool) {}
	dedupOwners(ctx, obj)
	obj.SetDeletionTimestamp(nil)
	obj.SetDeletionGracePeriodSeconds(nil)
	now := metav1.NewTime(clock.Now().Truncate(1e9))
	obj.SetCreationTimestamp(now)
	obj.SetUID(newUID())
	obj.SetSelfLink("")
	rq := o.request(ctx, a.DryRun)
	o.Kind.Prepare(rq, obj, nil)
	if _, known := o.Kind.SpecChanged(obj, obj); known {
		obj.SetGeneration(1)
	}
	if err := e.ledger(ctx, o, tx, obj, nil); err != nil {
		return nothing, err
	}
	errs := apivalidation.ValidateObjectMetaAccessor(metaOf(obj), !o.Served.Info.ClusterScoped, o.Kind.ValidateName, field.NewPath("metadata"))
	errs = append(errs, o.Kind.Validate(obj, nil)...)
	errs = append(errs, o.Kind.ValidateAs(rq, obj, nil)...)
	if len(errs) > 0 {
		return nothing, apierrors.NewInvalid(o.Served.Info.GroupVersionKind.GroupKind(), obj.GetName(), errs)
	}
	if err := pathSegment(o, obj.GetName()); err != nil {
		return nothing, err
	}
	for _, w := range o.Kind.Warnings(obj, nil) {
		request.Warn(ctx, w)
	}
	a.Name = obj.GetName()
	return e.validate(ctx, a)
}

// pathSegment refuses names that no URL could hold, whatever the kind thinks.
func pathSegment(o *Op, name string) error {
	for _, bad := range []string{"/", "%"} {
		if strings.Contains(name, bad) {
			return apierrors.NewInvalid(o.Served.Info.GroupVersionKind.GroupKind(), name, field.ErrorList{
				field.Invalid(field.NewPath("metadata", "name"), name, "may not contain '"+bad+"'"),
			})
		}
	}
	if name == "." || name == ".." {
		return apierrors.NewInvalid(o.Served.Info.GroupVersionKind.GroupKind(), name, field.ErrorList{
			field.Invalid(field.NewPath("metadata", "name"), name, "may not be '"+name+"'"),
		})
	}
	return nil
}

// track updates managedFields; an object that cannot be tracked keeps those it had.
func (e *Engine) track(o *Op, live, obj api.Object, manager string) {
	if err := e.Fields.Update(o.Kind, o.Version, o.Info.Subresource, live, obj, manager); err != nil {
		e.Log.Warn("managed fields not tracked", "kind", o.GVK.String(), "name", obj.GetName(), "err", err)
		obj.SetManagedFields(live.GetManagedFields())
	}
}

func (e *Engine) begin() Transaction {
	if e.Begin == nil {
		return nil
	}
	return e.Begin()
}

// ledger takes and gives back the kind's cluster-wide values.
func (e *Engine) ledger(ctx context.Context, o *Op, tx Transaction, next, prev api.Object) error {
	if tx == nil || !o.Served.Info.KeepsLedger {
		return nil
	}
	err := o.Kind.Ledger(ctx, tx, next, prev)
	var se apierrors.APIStatus
	if err == nil || errors.As(err, &se) {
		return err
	}
	name := ""
	if next != nil {
		name = next.GetName()
	}
	if list, ok := errors.AsType[*field.Error](err); ok {
		return apierrors.NewInvalid(o.Served.Info.GroupVersionKind.GroupKind(), name, field.ErrorList{list})
	}
	return apierrors.NewInternalError(err)
}

func (e *Engine) end(ctx context.Context, tx Transaction, stored bool) {
	if tx == nil {
		return
	}
	finish := tx.Rollback
	if stored {
		finish = tx.Commit
	}
	if err := finish(ctx); err != nil {
		e.Log.Warn("ledger transaction", "stored", stored, "err", err)
	}
}

// dedupOwners drops owner references of an owner that is there already.
func dedupOwners(ctx context.Context, obj api.Object) {
	refs := obj.GetOwnerReferences()
	if len(refs) < 2 {
		return
	}
	kept := make([]metav1.OwnerReference, 0, len(refs))
	var twice []string
	for _, r := range refs {
		if slices.ContainsFunc(kept, func(k metav1.OwnerReference) bool { return k.UID == r.UID }) {
			twice = append(twice, string(r.UID))
			continue
		}
		kept = append(kept, r)
	}
	if len(twice) > 0 {
		request.Warn(ctx, ".metadata.ownerReferences contains duplicate entries; API server dedups owner references in 1.20+, and may reject such requests as early as 1.24; please fix your requests; duplicate UID(s) observed: "+strings.Join(twice, ", "))
		obj.SetOwnerReferences(kept)
	}
}
