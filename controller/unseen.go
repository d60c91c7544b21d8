package controller

import (
	"slices"
	"sync"

	"github.com/sampan-dev/sampan/api"
	"github.com/sampan-dev/sampan/client"
)

// Unseen remembers a loop's own writes until the mirrors show them. The zero
// value is ready.
type Unseen struct {
	mu   sync.Mutex
	keys map[Key][]func() bool
}

// Wait makes k wait until seen says yes.
func (u *Unseen) Wait(k Key, seen func() bool) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.keys == nil {
		u.keys = map[Key][]func() bool{}
	}
	u.keys[k] = append(u.keys[k], seen)
}

// Settled says whether the mirrors show all of k's writes.
func (u *Unseen) Settled(k Key) bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	if len(u.keys[k]) == 0 {
		return true
	}
	left := slices.DeleteFunc(u.keys[k], func(seen func() bool) bool { return seen() })
	if len(left) == 0 {
		delete(u.keys, k)
		return true
	}
	u.keys[k] = left
	return false
}

// Wrote makes k wait until m shows o as it was just written, or later.
func Wrote[T any](u *Unseen, k Key, m *client.Mirror[T], o *T) {
	if o == nil {
		return
	}
	rv := any(o).(api.Object).GetResourceVersion()
	u.Wait(k, func() bool { return m.Seen(rv) })
}

// Removed makes k wait until m shows o as being deleted, or gone.
func Removed[T any](u *Unseen, k Key, m *client.Mirror[T], o *T) {
	was := any(o).(api.Object)
	u.Wait(k, func() bool {
		now, ok := m.Get(was.GetNamespace(), was.GetName())
		if !ok {
			return true
		}
		n := any(now).(api.Object)
		return n.GetUID() != was.GetUID() || n.GetDeletionTimestamp() != nil
	})
}
