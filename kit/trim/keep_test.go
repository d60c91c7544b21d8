package trim

import (
	"testing"
	"time"
)

// A program is trimmed when it rests and has grown; one that grows again at once
// is left alone for longer and longer.
func TestWhenItIsDue(t *testing.T) {
	const mib = 1 << 20
	start := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	var m memory
	m.trimmed(start, 80*mib, time.Second)
	for i, c := range []struct {
		resident int64
		used     time.Duration
		due      bool
	}{
		{115 * mib, 10 * time.Second, false},                       // at work
		{85 * mib, 10*time.Second + 100*time.Millisecond, false},   // rests, and is hardly larger
		{115 * mib, 10*time.Second + 200*time.Millisecond, true},   // rests
		{0, 10*time.Second + 200*time.Millisecond, false},          // nobody knows
		{300 * mib, 11*time.Second + 200*time.Millisecond, false},  // at work again
		{300 * mib, 11*time.Second + 1100*time.Millisecond, false}, // and again
	} {
		if got := m.due(c.resident, c.used); got != c.due {
			t.Errorf("%d: due is %v", i, got)
		}
	}
	m.trimmed(start.Add(time.Minute), 80*mib, 0)
	if m.due(91*mib, 0) || !m.due(93*mib, 0) {
		t.Error("what grew again within a minute is not left alone for twice as much")
	}
	m.trimmed(start.Add(time.Hour), 80*mib, 0)
	if !m.due(87*mib, 0) {
		t.Error("an hour later it is not as at first")
	}
}

func TestItKnowsItself(t *testing.T) {
	if resident() < 1<<20 || used() <= 0 {
		t.Errorf("%d bytes, %v", resident(), used())
	}
}
