package client

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"slices"
	"sync"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/watch"

	"github.com/sampan-dev/sampan/api"
	"github.com/sampan-dev/sampan/kit/backoff"
	"github.com/sampan-dev/sampan/kit/clock"
	"github.com/sampan-dev/sampan/kit/run"
)

// Mirrors is the set of mirrors of one connection: whoever asks for the same
// kind with the same selectors shares one. Make one with NewMirrors.
type Mirrors struct {
	c   Interface
	log *slog.Logger

	mu    sync.Mutex
	all   map[mirrorKey]*entry
	ctx   context.Context // set while Run runs
	group *run.Group
}

type mirrorKey struct {
	resource  schema.GroupVersionResource
	namespace string
	labels    string
	fields    string
	metadata  bool
}

type entry struct {
	store  *store
	typed  bool
	cancel context.CancelFunc
}

// MirrorOptions choose what is mirrored: all objects of the kind, by default.
type MirrorOptions struct {
	Namespace string
	Labels    string // a label selector
	Fields    string // a field selector
}

// retry is how long a mirror waits after failures: upstream's reflector's.
var retry = backoff.Policy{First: 800 * time.Millisecond, Max: 30 * time.Second}

// NewMirrors returns an empty set over c.
func NewMirrors(c Interface) *Mirrors {
	return &Mirrors{c: c, log: slog.Default().With("room", "client"), all: map[mirrorKey]*entry{}}
}

// Client returns the connection that the mirrors read.
func (ms *Mirrors) Client() Interface { return ms.c }

// MirrorOf returns the mirror of T that o chooses, making it if nobody asked
// before. It is filled while ms runs.
func MirrorOf[T any](ms *Mirrors, o MirrorOptions) *Mirror[T] {
	k := mirrorKey{resource: Resource[T](), namespace: o.Namespace, labels: o.Labels, fields: o.Fields}
	return &Mirror[T]{ms.entry(k, true).store}
}

// Objects returns the mirror of all objects of r, of which the caller wants
// the metadata alone: a mirror that MirrorOf made is shared, otherwise one of
// metadata is made where the connection can.
func (ms *Mirrors) Objects(r schema.GroupVersionResource) *ObjectMirror {
	k := mirrorKey{resource: r}
	ms.mu.Lock()
	e := ms.all[k]
	ms.mu.Unlock()
	if e == nil {
		k.metadata = true
		e = ms.entry(k, false)
	}
	return &ObjectMirror{s: e.store, mirrors: ms, key: k}
}

func (ms *Mirrors) entry(k mirrorKey, typed bool) *entry {
	ms.mu.Lock()
	defer ms.mu.Unlock()
	e := ms.all[k]
	if e == nil {
		e = &entry{store: newStore()}
		ms.all[k] = e
		if ms.group != nil {
			ms.start(k, e)
		}
	}
	e.typed = e.typed || typed
	return e
}

func (ms *Mirrors) stop(k mirrorKey) {
	ms.mu.Lock()
	defer ms.mu.Unlock()
	if e := ms.all[k]; e != nil && !e.typed {
		delete(ms.all, k)
		if e.cancel != nil {
			e.cancel()
		}
	}
}

// Run fills the mirrors, those included that are asked for later, until ctx ends.
func (ms *Mirrors) Run(ctx context.Context) error {
	g := run.New(ctx)
	g.Go("mirrors", func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() })
	ms.mu.Lock()
	if ms.group != nil {
		ms.mu.Unlock()
		return errors.New("client: mirrors run already")
	}
	ms.group, ms.ctx = g, ctx
	for k, e := range ms.all {
		ms.start(k, e)
	}
	ms.mu.Unlock()
	<-ctx.Done()
	ms.mu.Lock()
	ms.group = nil
	ms.mu.Unlock()
	g.Stop()
	return g.Wait()
}

// WaitSynced waits until every mirror asked for so far has its first list.
func (ms *Mirrors) WaitSynced(ctx context.Context) error {
	ms.mu.Lock()
	var stores []*store
	for _, e := range ms.all {
		if e.typed {
			stores = append(stores, e.store)
		}
	}
	ms.mu.Unlock()
	for _, s := range stores {
		if err := s.wait(ctx); err != nil {
			return err
		}
	}
	return nil
}

func (ms *Mirrors) start(k mirrorKey, e *entry) {
	c := ms.c
	if k.metadata {
		c = Metadata(c)
	}
	f := &reflector{c: c, key: k, store: e.store, log: ms.log.With("resource", k.resource.GroupResource().String())}
	stopped, cancel := context.WithCancel(ms.ctx)
	e.cancel = cancel
	ms.group.Go("mirror "+k.resource.GroupResource().String(), func(ctx context.Context) error {
		ctx, end := context.WithCancel(ctx)
		defer end()
		defer context.AfterFunc(stopped, end)()
		f.run(ctx)
		return nil
	})
}

// reflector fills one store: it lists, then watches, and lists again only when
// the watch cannot go on.
type reflector struct {
	c     Interface
	key   mirrorKey
	store *store
	log   *slog.Logger
}

func (f *reflector) run(ctx context.Context) {
	version := "0" // the first list may come from any cache
	failures := 0
	for ctx.Err() == nil {
		rv, err := f.list(ctx, version)
		if err == nil {
			failures = 0
			err = f.follow(ctx, rv)
		}
		if ctx.Err() != nil {
			return
		}
		version = ""
		if apierrors.IsNotFound(err) && f.absent(ctx) {
			// A server need not serve every kind: then there are no objects of it.
			f.store.replace(nil, "")
			if clock.Sleep(ctx, clock.Jitter(retry.Max, 1)) != nil {
				return
			}
			continue
		}
		if apierrors.IsResourceExpired(err) || apierrors.IsGone(err) {
			f.log.Debug("mirror lists again", "cause", err)
			continue
		}
		failures++
		f.log.Warn("mirror lost its source", "err", err)
		if clock.Sleep(ctx, clock.Jitter(retry.After(failures), 1)) != nil {
			return
		}
	}
}

// absent says whether discovery knows that the resource is not served. Only
// then is a list's 404 more than trouble, which must not look like emptiness.
func (f *reflector) absent(ctx context.Context) bool {
	r := f.key.resource
	path := "/apis/" + r.Group + "/" + r.Version
	if r.Group == "" {
		path = "/api/" + r.Version
	}
	served, err := discoverVersion(ctx, f.c, path, r.GroupVersion())
	if err != nil {
		return apierrors.IsNotFound(err)
	}
	return !slices.ContainsFunc(served, func(s Served) bool { return s.Resource == r.Resource })
}

func (f *reflector) options() metav1.ListOptions {
	return metav1.ListOptions{LabelSelector: f.key.labels, FieldSelector: f.key.fields}
}

// list replaces the store's contents and returns the version to watch from.
func (f *reflector) list(ctx context.Context, version string) (string, error) {
	o := f.options()
	o.ResourceVersion = version
	var items []api.Object
	for {
		l, err := f.c.List(ctx, f.key.resource, f.key.namespace, &o)
		if err != nil {
			return "", err
		}
		items = append(items, l.Items...)
		if l.Continue == "" {
			f.store.replace(items, l.ResourceVersion)
			return l.ResourceVersion, nil
		}
		o.Continue, o.ResourceVersion = l.Continue, ""
	}
}

// follow watches from rv on, again and again as the server ends watches, until
// the history is gone.
func (f *reflector) follow(ctx context.Context, rv string) error {
	failures := 0
	for {
		next, progress, err := f.watch(ctx, rv)
		rv = next
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case err == nil || errors.Is(err, io.EOF):
			if progress {
				failures = 0
				continue
			}
		case apierrors.IsResourceExpired(err) || apierrors.IsGone(err):
			return err
		default:
			if apierrors.IsNotFound(err) || apierrors.IsForbidden(err) {
				return err // the resource is gone: tell of it and list again
			}
			f.log.Debug("watch ended", "err", err)
		}
		failures++
		if err := clock.Sleep(ctx, clock.Jitter(retry.After(failures), 1)); err != nil {
			return err
		}
	}
}

// watch applies changes until the watch ends; it returns the last version seen.
func (f *reflector) watch(ctx context.Context, rv string) (string, bool, error) {
	o := f.options()
	o.ResourceVersion, o.AllowWatchBookmarks = rv, true
	// Watches of many mirrors should not all end together.
	timeout := int64(clock.Jitter(5*time.Minute, 1).Seconds())
	o.TimeoutSeconds = &timeout
	events, err := f.c.Watch(ctx, f.key.resource, f.key.namespace, &o)
	if err != nil {
		return rv, false, err
	}
	defer events.Stop()
	began, progress := clock.Now(), false
	for {
		e, err := events.Next(ctx)
		if err != nil {
			return rv, progress || clock.Since(began) > time.Second, err
		}
		o, ok := e.Object.(api.Object)
		if !ok {
			continue
		}
		progress = true
		if v := o.GetResourceVersion(); v != "" {
			rv = v
		}
		switch e.Type {
		case watch.Added, watch.Modified:
			f.store.apply(o, false)
		case watch.Deleted:
			f.store.apply(o, true)
		case watch.Bookmark:
			f.store.bookmark(rv)
		}
	}
}
