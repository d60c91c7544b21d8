package storage

import (
	"context"
	"errors"
	"strings"
)

// Root begins the keys of the API's objects, as callers know them.
const Root = "/registry/"

// Under returns a view of s that keeps everything of Root below another prefix,
// as upstream's --etcd-prefix does; "" and Root itself are s as it is.
func Under(s Store, prefix string) Store {
	to := "/" + strings.Trim(prefix, "/") + "/"
	if prefix == "" || to == Root {
		return s
	}
	if to == "//" {
		to = "/"
	}
	return &under{s, to}
}

// under translates keys on the way down and up.
type under struct {
	store  Store
	prefix string
}

func (u *under) down(key string) string {
	if rest, ok := strings.CutPrefix(key, Root); ok {
		return u.prefix + rest
	}
	return key
}

func (u *under) up(r *Record) *Record {
	if r == nil {
		return nil
	}
	rest, ok := strings.CutPrefix(r.Key, u.prefix)
	if !ok {
		return r
	}
	return &Record{Key: Root + rest, Value: r.Value, Rev: r.Rev, Stale: r.Stale}
}

func (u *under) one(r *Record, err error) (*Record, error) {
	var c *ConflictError
	if errors.As(err, &c) {
		return nil, &ConflictError{Current: u.up(c.Current)}
	}
	return u.up(r), err
}

// Rev implements Store.
func (u *under) Rev(ctx context.Context) (int64, error) { return u.store.Rev(ctx) }

// Get implements Store.
func (u *under) Get(ctx context.Context, key string, atLeast int64) (*Record, error) {
	return u.one(u.store.Get(ctx, u.down(key), atLeast))
}

// List implements Store.
func (u *under) List(ctx context.Context, prefix string, o ListOptions) (*Page, error) {
	if o.After != "" {
		o.After = u.down(o.After)
	}
	p, err := u.store.List(ctx, u.down(prefix), o)
	if err != nil {
		return nil, err
	}
	out := *p
	out.Records = make([]*Record, len(p.Records))
	for i, r := range p.Records {
		out.Records[i] = u.up(r)
	}
	return &out, nil
}

// write stores by do; the record that is handed out is not that of the store below.
func (u *under) write(ctx context.Context, do func(context.Context) (*Record, error)) (*Record, error) {
	forms := FormsOf(ctx)
	if forms != nil {
		ctx = WithForms(ctx, nil)
	}
	r, err := u.one(do(ctx))
	if err == nil && forms != nil {
		forms(r)
	}
	return r, err
}

// Create implements Store.
func (u *under) Create(ctx context.Context, key string, value []byte, ttl int64) (*Record, error) {
	return u.write(ctx, func(ctx context.Context) (*Record, error) { return u.store.Create(ctx, u.down(key), value, ttl) })
}

// Update implements Store.
func (u *under) Update(ctx context.Context, key string, value []byte, expect, ttl int64) (*Record, error) {
	return u.write(ctx, func(ctx context.Context) (*Record, error) {
		return u.store.Update(ctx, u.down(key), value, expect, ttl)
	})
}

// Delete implements Store.
func (u *under) Delete(ctx context.Context, key string, expect int64) (*Record, error) {
	return u.one(u.store.Delete(ctx, u.down(key), expect))
}

// Compact implements Compactor.
func (u *under) Compact(ctx context.Context, rev int64) error {
	if c, ok := u.store.(Compactor); ok {
		return c.Compact(ctx, rev)
	}
	return errors.ErrUnsupported
}

// Watch implements Store.
func (u *under) Watch(ctx context.Context, prefix string, o WatchOptions) (Watcher, error) {
	w, err := u.store.Watch(ctx, u.down(prefix), o)
	if err != nil {
		return nil, err
	}
	return &underWatcher{w, u}, nil
}

type underWatcher struct {
	Watcher
	u *under
}

// Next implements Watcher.
func (w *underWatcher) Next(ctx context.Context) ([]Event, error) {
	events, err := w.Watcher.Next(ctx)
	if err != nil {
		return nil, err
	}
	out := make([]Event, len(events))
	for i, e := range events {
		e.Record, e.Prev = w.u.up(e.Record), w.u.up(e.Prev)
		out[i] = e
	}
	return out, nil
}

// RequestProgress implements ProgressRequester.
func (w *underWatcher) RequestProgress(ctx context.Context) {
	if p, ok := w.Watcher.(ProgressRequester); ok {
		p.RequestProgress(ctx)
	}
}
