package published

import (
	"context"
	"errors"
	"reflect"
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/conversion"
	"k8s.io/apimachinery/pkg/runtime"
	upstream "k8s.io/apiserver/pkg/storage"

	"github.com/sampan-dev/sampan/storage"
)

func (a *adapter) GetList(ctx context.Context, k string, opts upstream.ListOptions, into runtime.Object) error {
	k, err := key(k, opts.Recursive)
	if err != nil {
		return err
	}
	ptr, err := meta.GetItemsPtr(into)
	if err != nil {
		return err
	}
	items, err := conversion.EnforcePtr(ptr)
	if err != nil {
		return err
	}
	q, err := a.query(k, opts)
	if err != nil {
		return err
	}
	limit := opts.Predicate.Limit
	if !opts.Recursive {
		limit = 0
	}
	q.Limit = int(limit)
	for {
		page, err := a.page(ctx, k, q, opts)
		if err != nil {
			return err
		}
		last, more, err := a.take(items, page, opts.Predicate, limit)
		if err != nil {
			return err
		}
		if !more || limit > 0 && int64(items.Len()) >= limit {
			return a.finish(k, into, items, last, page.Rev, more, opts)
		}
		// What was selected does not fill the page: the next reads are larger.
		q = storage.ListOptions{Rev: page.Rev, Match: storage.AtExact, After: last, Limit: max(1000, int(limit))}
	}
}

// take adds what is selected of a page, up to limit, and returns the last key
// that was looked at and whether there are more.
func (a *adapter) take(items reflect.Value, page *storage.Page, pred upstream.SelectionPredicate, limit int64) (string, bool, error) {
	last := ""
	for _, rec := range page.Records {
		if limit > 0 && int64(items.Len()) >= limit {
			return last, true, nil
		}
		last = rec.Key
		obj := reflect.New(items.Type().Elem())
		if err := a.read(rec, obj.Interface().(runtime.Object)); err != nil {
			return last, false, err
		}
		ok, err := pred.Matches(obj.Interface().(runtime.Object))
		if err != nil {
			return last, false, err
		}
		if ok {
			items.Set(reflect.Append(items, obj.Elem()))
		}
	}
	return last, page.More, nil
}

func (a *adapter) finish(k string, into runtime.Object, items reflect.Value, last string, rev int64, more bool, opts upstream.ListOptions) error {
	if items.IsNil() {
		items.Set(reflect.MakeSlice(items.Type(), 0, 0))
	}
	token, remaining := "", (*int64)(nil)
	if more {
		var err error
		if token, err = upstream.EncodeContinue(last+"\x00", k, rev); err != nil {
			return err
		}
		if opts.Predicate.Empty() {
			rest, err := a.store.List(context.Background(), k, storage.ListOptions{Rev: rev, Match: storage.AtExact, After: last})
			if err != nil {
				return err
			}
			n := int64(len(rest.Records))
			remaining = &n
		}
	}
	return a.UpdateList(into, uint64(rev), token, remaining)
}

// query says which state is read, and from where.
func (a *adapter) query(k string, opts upstream.ListOptions) (storage.ListOptions, error) {
	q := storage.ListOptions{}
	exact, from, err := upstream.ValidateListOptions(k, a, opts)
	if err != nil {
		return q, err
	}
	if from != "" {
		q.After = strings.TrimSuffix(from, "\x00")
	}
	least, err := a.ParseResourceVersion(opts.ResourceVersion)
	switch {
	case err != nil:
		return q, err
	case exact > 0:
		q.Rev, q.Match = exact, storage.AtExact
	case opts.ResourceVersion != "" && from == "":
		q.Rev, q.Match = int64(least), storage.AtLeast
	}
	return q, nil
}

// Upstream's words.
const (
	expired     = "The resourceVersion for the provided list is too old."
	expiredPage = "The provided continue parameter is too old to display a consistent list result. You can start a new list without the continue parameter, or use the continue token in this response to retrieve the remainder of the results. Continuing with the provided token results in an inconsistent list - objects that were created, modified, or deleted between the time the first chunk was returned and now may show up in the list."
)

// page reads a range, or one object as if it were one.
func (a *adapter) page(ctx context.Context, k string, q storage.ListOptions, opts upstream.ListOptions) (*storage.Page, error) {
	page, err := a.store.List(ctx, k, q)
	switch {
	case errors.Is(err, storage.ErrFuture):
		return nil, a.tooFar(ctx, uint64(q.Rev))
	case errors.Is(err, storage.ErrCompacted) && opts.Predicate.Continue != "":
		token, err := upstream.EncodeContinue(q.After+"\x00", k, -1)
		if err != nil {
			return nil, err
		}
		gone := apierrors.NewResourceExpired(expiredPage)
		gone.ErrStatus.ListMeta = metav1.ListMeta{Continue: token}
		return nil, gone
	case errors.Is(err, storage.ErrCompacted):
		return nil, apierrors.NewResourceExpired(expired)
	case err != nil:
		return nil, err
	}
	if !opts.Recursive { // a prefix names more than the key
		one := *page
		one.Records, one.More = nil, false
		for _, rec := range page.Records {
			if rec.Key == k {
				one.Records = append(one.Records, rec)
			}
		}
		page = &one
	}
	return page, nil
}
