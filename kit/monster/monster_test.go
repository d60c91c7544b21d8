package monster_test

import (
	"testing"

	"github.com/sampan-dev/sampan/kit/monster"
)

var kept []byte

// recorder is a test that only notes its failure.
type recorder struct {
	testing.TB
	failed bool
}

func (r *recorder) Helper()               {}
func (r *recorder) Errorf(string, ...any) { r.failed = true }

func TestBounded(t *testing.T) {
	for size, want := range map[int]bool{1 << 20: false, 300 << 20: true} {
		r := &recorder{TB: t}
		monster.Bounded(r, 1, func() { kept = make([]byte, size) })
		if kept = nil; r.failed != want {
			t.Errorf("%d bytes: failed %v", size, r.failed)
		}
	}
}

// The texts are distinct and small: a fuzzer mutates them by the thousand.
func TestTexts(t *testing.T) {
	seen := map[string]bool{}
	for what, texts := range map[string]func(func(string, []byte) bool){"JSON": monster.JSON(), "YAML": monster.YAML(), "protobuf": monster.Proto()} {
		for name, text := range texts {
			if key := what + name; seen[key] || len(text) > 256<<10 {
				t.Errorf("%s: %s: %d bytes", what, name, len(text))
			} else {
				seen[key] = true
			}
		}
	}
}
