package rest

import (
	"math/rand/v2"
	"sync"

	"k8s.io/apimachinery/pkg/types"

	"github.com/google/uuid"

	"github.com/sampan-dev/sampan/kit/clock"
)

// nameAlphabet has no vowels and no digits that look like letters, so that no
// words come out.
const nameAlphabet = "bcdfghjklmnpqrstvwxz2456789"

const (
	nameRandom  = 5
	nameMaxBase = 63 - nameRandom
)

// nameSource makes names of generateName.
type nameSource struct {
	mu  *sync.Mutex
	rng *rand.Rand
}

func newNames(seed uint64) nameSource { return nameSource{&sync.Mutex{}, clock.Rand(seed)} }

func (n nameSource) make(base string) string {
	if len(base) > nameMaxBase {
		base = base[:nameMaxBase]
	}
	b := make([]byte, nameRandom)
	n.mu.Lock()
	for i := range b {
		b[i] = nameAlphabet[n.rng.IntN(len(nameAlphabet))]
	}
	n.mu.Unlock()
	return base + string(b)
}

func newUID() types.UID { return types.UID(uuid.NewString()) }
