package cache

import "sync"

// bell wakes all who wait for it. It holds nothing while nobody does. Take the
// channel before looking at what it announces, and no ring is missed.
type bell struct {
	mu sync.Mutex
	ch chan struct{}
}

func (b *bell) wait() <-chan struct{} {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.ch == nil {
		b.ch = make(chan struct{})
	}
	return b.ch
}

// ring wakes who waits, and says whether anybody did.
func (b *bell) ring() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.ch == nil {
		return false
	}
	close(b.ch)
	b.ch = nil
	return true
}

// awaited says whether anybody waits.
func (b *bell) awaited() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.ch != nil
}
