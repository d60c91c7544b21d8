package published

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"reflect"

	"k8s.io/apimachinery/pkg/runtime"
	upstream "k8s.io/apiserver/pkg/storage"

	"github.com/sampan-dev/sampan/storage"
)

// adapter is upstream's contract said in terms of ours.
type adapter struct {
	store storage.Store
	codec runtime.Codec
	upstream.APIObjectVersioner
}

const root = "/registry"

func (a *adapter) Versioner() upstream.Versioner { return a.APIObjectVersioner }

// key checks a key as upstream does and puts it where objects are.
func key(k string, recursive bool) (string, error) {
	k, err := upstream.PrepareKey("/pods/", k, recursive)
	if err != nil {
		return "", err
	}
	return root + k, nil
}

func (a *adapter) read(rec *storage.Record, into runtime.Object) error {
	if _, _, err := a.codec.Decode(rec.Value, nil, into); err != nil {
		return err
	}
	return a.UpdateObject(into, uint64(rec.Rev))
}

func (a *adapter) fresh(like runtime.Object) runtime.Object {
	return reflect.New(reflect.TypeOf(like).Elem()).Interface().(runtime.Object)
}

func (a *adapter) Create(ctx context.Context, k string, obj, out runtime.Object, ttl uint64) error {
	k, err := key(k, false)
	if err != nil {
		return err
	}
	if v, err := a.ObjectResourceVersion(obj); err == nil && v != 0 {
		return upstream.ErrResourceVersionSetOnCreate
	}
	if err := a.PrepareObjectForStorage(obj); err != nil {
		return fmt.Errorf("PrepareObjectForStorage failed: %w", err)
	}
	data, err := runtime.Encode(a.codec, obj)
	if err != nil {
		return err
	}
	rec, err := a.store.Create(ctx, k, data, int64(ttl))
	if errors.Is(err, storage.ErrExists) {
		return upstream.NewKeyExistsError(k, 0)
	}
	if err != nil || out == nil {
		return err
	}
	return a.read(rec, out)
}

func (a *adapter) Get(ctx context.Context, k string, opts upstream.GetOptions, into runtime.Object) error {
	k, err := key(k, false)
	if err != nil {
		return err
	}
	least, err := a.ParseResourceVersion(opts.ResourceVersion)
	if err != nil {
		return err
	}
	rec, err := a.store.Get(ctx, k, int64(least))
	switch {
	case errors.Is(err, storage.ErrNotFound) && opts.IgnoreNotFound:
		return runtime.SetZeroValue(into)
	case errors.Is(err, storage.ErrNotFound):
		return upstream.NewKeyNotFoundError(k, 0)
	case errors.Is(err, storage.ErrFuture):
		return a.tooFar(ctx, least)
	case err != nil:
		return err
	}
	return a.read(rec, into)
}

func (a *adapter) tooFar(ctx context.Context, asked uint64) error {
	now, err := a.store.Rev(ctx)
	if err != nil {
		return err
	}
	return upstream.NewTooLargeResourceVersionError(asked, uint64(now), 0)
}

// state is an object as a writer sees it: as stored, or as he remembers it.
type state struct {
	rec     *storage.Record // nil: there is none
	obj     runtime.Object
	current bool // it was just read
}

func (a *adapter) current(ctx context.Context, k string, like runtime.Object, ignoreNotFound bool) (state, error) {
	rec, err := a.store.Get(ctx, k, 0)
	if errors.Is(err, storage.ErrNotFound) {
		if !ignoreNotFound {
			return state{}, upstream.NewKeyNotFoundError(k, 0)
		}
		return state{obj: a.fresh(like), current: true}, nil
	}
	if err != nil {
		return state{}, err
	}
	obj := a.fresh(like)
	return state{rec: rec, obj: obj, current: true}, a.read(rec, obj)
}

// begin is what a writer starts from.
func (a *adapter) begin(ctx context.Context, k string, like, cached runtime.Object, ignoreNotFound bool) (state, error) {
	if cached == nil {
		return a.current(ctx, k, like, ignoreNotFound)
	}
	rev, err := a.ObjectResourceVersion(cached)
	if err != nil || rev == 0 {
		return a.current(ctx, k, like, ignoreNotFound)
	}
	obj := cached.DeepCopyObject()
	plain := obj.DeepCopyObject()
	if err := a.PrepareObjectForStorage(plain); err != nil {
		return state{}, err
	}
	data, err := runtime.Encode(a.codec, plain)
	return state{rec: &storage.Record{Key: k, Value: data, Rev: int64(rev)}, obj: obj}, err
}

// again reads the object anew after what was remembered did not do; it reports
// false when that was current after all.
func (a *adapter) again(ctx context.Context, k string, s state, like runtime.Object, ignoreNotFound bool) (state, bool, error) {
	if s.current {
		return s, false, nil
	}
	now, err := a.current(ctx, k, like, ignoreNotFound)
	if err != nil {
		return s, false, err
	}
	if now.rec != nil && s.rec != nil && now.rec.Rev == s.rec.Rev {
		now.current = true
		return now, false, nil
	}
	return now, true, nil
}

func (a *adapter) Delete(ctx context.Context, k string, out runtime.Object, pre *upstream.Preconditions, validate upstream.ValidateObjectFunc, cached runtime.Object, _ upstream.DeleteOptions) error {
	k, err := key(k, false)
	if err != nil {
		return err
	}
	s, err := a.begin(ctx, k, out, cached, false)
	if err != nil {
		return err
	}
	for {
		err := pre.Check(k, s.obj)
		if err == nil {
			err = validate(ctx, s.obj)
		}
		if err != nil {
			next, changed, readErr := a.again(ctx, k, s, out, false)
			if readErr != nil {
				return readErr
			}
			if !changed {
				return err
			}
			s = next
			continue
		}
		rec, err := a.store.Delete(ctx, k, s.rec.Rev)
		var conflict *storage.ConflictError
		switch {
		case err == nil:
			return a.read(rec, out)
		case errors.Is(err, storage.ErrNotFound):
			return upstream.NewKeyNotFoundError(k, 0)
		case !errors.As(err, &conflict):
			return err
		}
		if s, err = a.current(ctx, k, out, false); err != nil {
			return err
		}
	}
}

func (a *adapter) GuaranteedUpdate(ctx context.Context, k string, out runtime.Object, ignoreNotFound bool, pre *upstream.Preconditions, try upstream.UpdateFunc, cached runtime.Object) error {
	k, err := key(k, false)
	if err != nil {
		return err
	}
	s, err := a.begin(ctx, k, out, cached, ignoreNotFound)
	if err != nil {
		return err
	}
	for {
		rec, err := a.attempt(ctx, k, s, pre, try)
		var conflict *storage.ConflictError
		switch {
		case errors.As(err, &conflict), errors.Is(err, storage.ErrExists), errors.Is(err, storage.ErrNotFound), errors.Is(err, errStale):
			if s, err = a.current(ctx, k, out, ignoreNotFound); err != nil {
				return err
			}
			continue
		case err != nil:
			next, changed, readErr := a.again(ctx, k, s, out, ignoreNotFound)
			if readErr != nil {
				return readErr
			}
			if !changed {
				return err
			}
			s = next
			continue
		}
		return a.read(rec, out)
	}
}

var errStale = errors.New("nothing to write, going by what is remembered")

// attempt writes what try makes of s, unless that is what is stored.
func (a *adapter) attempt(ctx context.Context, k string, s state, pre *upstream.Preconditions, try upstream.UpdateFunc) (*storage.Record, error) {
	if err := pre.Check(k, s.obj); err != nil {
		return nil, err
	}
	m := upstream.ResponseMeta{}
	if s.rec != nil {
		m.ResourceVersion = uint64(s.rec.Rev)
	}
	obj, ttl, err := try(s.obj.DeepCopyObject(), m)
	if err != nil {
		return nil, err
	}
	if err := a.PrepareObjectForStorage(obj); err != nil {
		return nil, err
	}
	data, err := runtime.Encode(a.codec, obj)
	if err != nil {
		return nil, err
	}
	var seconds int64
	if ttl != nil {
		seconds = int64(*ttl)
	}
	if s.rec == nil {
		return a.store.Create(ctx, k, data, seconds)
	}
	if bytes.Equal(data, s.rec.Value) && ttl == nil {
		if !s.current {
			return nil, errStale
		}
		return s.rec, nil
	}
	return a.store.Update(ctx, k, data, s.rec.Rev, seconds)
}
