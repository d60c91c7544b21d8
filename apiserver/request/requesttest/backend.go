// Package requesttest has an in-memory request.Backend for tests of the parts
// that use one. It keeps objects as they are given: no defaults, no validation,
// no admission.
package requesttest

import (
	"context"
	"slices"
	"strconv"
	"strings"
	"sync"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/uuid"

	"github.com/sampan-dev/sampan/api"
)

// Backend is a request.Backend over a map. Make one with New.
type Backend struct {
	mu       sync.Mutex
	rev      int
	objects  map[string]api.Object
	watchers map[int]*watcher
	next     int
}

type watcher struct {
	gr      schema.GroupResource
	mu      sync.Mutex
	pending [][2]api.Object
	signal  chan struct{}
}

// New returns a backend that holds the given objects.
func New() *Backend {
	return &Backend{objects: map[string]api.Object{}, watchers: map[int]*watcher{}}
}

// With adds objects of one kind and returns the backend.
func (b *Backend) With(gr schema.GroupResource, objs ...api.Object) *Backend {
	for _, o := range objs {
		if _, err := b.Create(context.Background(), gr, o, nil); err != nil {
			panic("requesttest: " + err.Error())
		}
	}
	return b
}

func key(gr schema.GroupResource, namespace, name string) string {
	return gr.String() + "\x00" + namespace + "\x00" + name
}

// put stores o (nil deletes) and tells the watchers. b.mu is held.
func (b *Backend) put(gr schema.GroupResource, k string, o api.Object) {
	old := b.objects[k]
	b.rev++
	if o == nil {
		delete(b.objects, k)
	} else {
		o.SetResourceVersion(strconv.Itoa(b.rev))
		b.objects[k] = o
	}
	for _, w := range b.watchers {
		if w.gr == gr {
			w.add(old, o)
		}
	}
}

func (w *watcher) add(old, now api.Object) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.pending = append(w.pending, [2]api.Object{old, now})
	select {
	case w.signal <- struct{}{}:
	default:
	}
}

// Get returns an object.
func (b *Backend) Get(_ context.Context, gr schema.GroupResource, namespace, name string) (api.Object, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if o, ok := b.objects[key(gr, namespace, name)]; ok {
		return o, nil
	}
	return nil, apierrors.NewNotFound(gr, name)
}

// List returns the objects of a kind, in order of their keys.
func (b *Backend) List(_ context.Context, gr schema.GroupResource, namespace string) ([]api.Object, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	prefix := gr.String() + "\x00"
	if namespace != "" {
		prefix += namespace + "\x00"
	}
	var keys []string
	for k := range b.objects {
		if strings.HasPrefix(k, prefix) {
			keys = append(keys, k)
		}
	}
	slices.Sort(keys)
	var out []api.Object
	for _, k := range keys {
		out = append(out, b.objects[k])
	}
	return out, nil
}

// Create stores an object that is not there yet.
func (b *Backend) Create(_ context.Context, gr schema.GroupResource, obj api.Object, _ *metav1.CreateOptions) (api.Object, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	k := key(gr, obj.GetNamespace(), obj.GetName())
	if b.objects[k] != nil {
		return nil, apierrors.NewAlreadyExists(gr, obj.GetName())
	}
	o := obj.DeepCopyObject().(api.Object)
	if o.GetUID() == "" {
		o.SetUID(uuid.NewUUID())
	}
	b.put(gr, k, o)
	return o, nil
}

// Modify changes an object; concurrent changes wait for each other.
func (b *Backend) Modify(_ context.Context, gr schema.GroupResource, namespace, name, _ string, change func(api.Object) error) (api.Object, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	k := key(gr, namespace, name)
	old := b.objects[k]
	if old == nil {
		return nil, apierrors.NewNotFound(gr, name)
	}
	o := old.DeepCopyObject().(api.Object)
	if err := change(o); err != nil {
		return nil, err
	}
	b.put(gr, k, o)
	return o, nil
}

// Delete removes an object at once, unless it is only tried.
func (b *Backend) Delete(_ context.Context, gr schema.GroupResource, namespace, name string, o *metav1.DeleteOptions) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	k := key(gr, namespace, name)
	if b.objects[k] == nil {
		return apierrors.NewNotFound(gr, name)
	}
	if o != nil && len(o.DryRun) > 0 {
		return nil
	}
	b.put(gr, k, nil)
	return nil
}

// Changes delivers what is there and what changes.
func (b *Backend) Changes(ctx context.Context, gr schema.GroupResource, fn func(old, now api.Object)) error {
	w := &watcher{gr: gr, signal: make(chan struct{}, 1)}
	b.mu.Lock()
	b.next++
	id := b.next
	b.watchers[id] = w
	for k, o := range b.objects {
		if strings.HasPrefix(k, gr.String()+"\x00") {
			w.add(nil, o)
		}
	}
	b.mu.Unlock()
	defer func() {
		b.mu.Lock()
		delete(b.watchers, id)
		b.mu.Unlock()
	}()
	for {
		w.mu.Lock()
		list := w.pending
		w.pending = nil
		w.mu.Unlock()
		for _, c := range list {
			fn(c[0], c[1])
		}
		select {
		case <-w.signal:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}
