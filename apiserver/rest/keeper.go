package rest

import (
	"sync"
	"weak"

	"github.com/sampan-dev/sampan/storage"
)

// formsBudget is how many bytes of wire forms records may hold together. Forms
// beyond it are dropped, the oldest first, and made again when wanted.
const formsBudget = 64 << 20

// keeper counts the wire forms that records hold.
type keeper struct {
	budget int

	mu    sync.Mutex
	used  int
	queue []kept
	head  int // queue[:head] is done with
}

// kept is one form; a record nobody has any more takes its forms with it.
type kept struct {
	rec  weak.Pointer[storage.Record]
	slot int32
	size int32
}

// add counts a form that was just made, and drops old ones for it.
func (k *keeper) add(rec *storage.Record, slot, size int) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.used += size
	k.queue = append(k.queue, kept{weak.Make(rec), int32(slot), int32(size)})
	for k.used > k.budget && k.head < len(k.queue)-1 {
		old := k.queue[k.head]
		k.queue[k.head] = kept{}
		k.head++
		k.used -= int(old.size)
		if r := old.rec.Value(); r != nil {
			r.DropForm(int(old.slot))
		}
	}
	if k.head > 1024 && k.head > len(k.queue)/2 {
		k.queue = append(k.queue[:0:0], k.queue[k.head:]...)
		k.head = 0
	}
}
