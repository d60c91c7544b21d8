package client

import (
	"context"

	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"

	"github.com/sampan-dev/sampan/api"
)

// Reader is what actors read of a kind: all its objects, in memory, as the
// server last told. Objects are shared.
type Reader[T any] interface {
	Get(namespace, name string) (*T, bool)
	// List returns all objects of a namespace, "" for all, in no order.
	List(namespace string) []*T
	// By returns the objects that the named index files under value.
	By(index, value string) []*T
	// Synced says whether the first list has arrived.
	Synced() bool
}

// Watchable is a Reader that tells of changes.
type Watchable[T any] interface {
	Reader[T]
	// OnChange calls fn for every change, one at a time, in order; for the
	// objects already there fn is called with old nil. fn must be quick.
	// new is nil when the object is gone. resync calls do not happen.
	OnChange(fn func(old, new *T))
	// Index adds an index before the mirror runs; adding one of the same name again has no effect.
	Index(name string, keys func(*T) []string)
	// WaitSynced waits for the first list.
	WaitSynced(ctx context.Context) error
}

// Mirror keeps all objects of T that its selectors choose in memory. Get one
// with MirrorOf.
type Mirror[T any] struct{ s *store }

var _ Watchable[struct{}] = (*Mirror[struct{}])(nil)

// as turns an erased object back into its type; nil stays nil.
func as[T any](o api.Object) *T {
	if o == nil {
		return nil
	}
	return any(o).(*T)
}

// Get implements Reader.
func (m *Mirror[T]) Get(namespace, name string) (*T, bool) {
	o := m.s.get(namespace, name)
	return as[T](o), o != nil
}

// List implements Reader.
func (m *Mirror[T]) List(namespace string) []*T {
	var out []*T
	m.s.each(namespace, func(n int) { out = make([]*T, 0, n) }, func(o api.Object) { out = append(out, as[T](o)) })
	return out
}

// By implements Reader.
func (m *Mirror[T]) By(index, value string) []*T {
	var out []*T
	m.s.by(index, value, func(n int) { out = make([]*T, 0, n) }, func(o api.Object) { out = append(out, as[T](o)) })
	return out
}

// Len returns how many objects there are.
func (m *Mirror[T]) Len() int {
	m.s.data.RLock()
	defer m.s.data.RUnlock()
	return m.s.count
}

// Synced implements Reader.
func (m *Mirror[T]) Synced() bool {
	m.s.data.RLock()
	defer m.s.data.RUnlock()
	return m.s.synced
}

// Seen says whether the mirror shows the state of resourceVersion rv or a later
// one: an actor that wrote rv and then finds it Seen decides on what it wrote.
func (m *Mirror[T]) Seen(rv string) bool {
	m.s.data.RLock()
	defer m.s.data.RUnlock()
	return m.s.rev >= revision(rv)
}

// OnChange implements Watchable.
func (m *Mirror[T]) OnChange(fn func(old, new *T)) {
	m.s.onChange(func(old, now api.Object) { fn(as[T](old), as[T](now)) })
}

// Index implements Watchable.
func (m *Mirror[T]) Index(name string, keys func(*T) []string) {
	m.s.addIndex(name, func(o api.Object) []string { return keys(as[T](o)) })
}

// WaitSynced implements Watchable.
func (m *Mirror[T]) WaitSynced(ctx context.Context) error { return m.s.wait(ctx) }

func (s *store) wait(ctx context.Context) error {
	select {
	case <-s.ready:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// ObjectMirror is a mirror of a resource whose type need not be compiled in.
type ObjectMirror struct {
	s       *store
	mirrors *Mirrors
	key     mirrorKey
}

// Get returns the named object, nil if there is none.
func (m *ObjectMirror) Get(namespace, name string) api.Object { return m.s.get(namespace, name) }

// List returns all objects of a namespace, "" for all, in no order.
func (m *ObjectMirror) List(namespace string) []api.Object {
	var out []api.Object
	m.s.each(namespace, func(n int) { out = make([]api.Object, 0, n) }, func(o api.Object) { out = append(out, o) })
	return out
}

// OnChange is as Watchable's.
func (m *ObjectMirror) OnChange(fn func(old, new api.Object)) { m.s.onChange(fn) }

// Synced is as Reader's.
func (m *ObjectMirror) Synced() bool {
	m.s.data.RLock()
	defer m.s.data.RUnlock()
	return m.s.synced
}

// WaitSynced is as Watchable's.
func (m *ObjectMirror) WaitSynced(ctx context.Context) error { return m.s.wait(ctx) }

// Stop ends the mirror if nobody else asked for it by MirrorOf: it is for
// resources that the server no longer serves.
func (m *ObjectMirror) Stop() { m.mirrors.stop(m.key) }

// Resource returns what is mirrored.
func (m *ObjectMirror) Resource() schema.GroupVersionResource { return m.key.resource }

// Key names an object within its kind.
type Key = types.NamespacedName

// KeyOf returns the name of o.
func KeyOf[T any](o *T) Key { return nameOf(object(o)) }
