package fairness

import (
	"sync"
	"time"
)

// drops says, per level, after how many seconds a refused client should come
// back: longer, by doubling, the more are refused, and shorter by one a second
// when few are.
type drops struct {
	mu sync.Mutex
	m  map[string]*dropped
}

// dropped is what was refused at one level.
type dropped struct {
	after   int64 // seconds, what is told
	doubled int64 // the second it was last doubled in
	second  int64 // the current one
	count   int64 // refused in it
	past    [maxAfter]int64
}

// maxAfter is the longest clients are sent away for, in seconds.
const maxAfter = 32

// count notes a refusal and returns the seconds to tell.
func (d *drops) count(level string, now time.Time) int64 {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.m == nil {
		d.m = map[string]*dropped{}
	}
	s := d.m[level]
	if s == nil {
		s = &dropped{after: 1, second: now.Unix()}
		d.m[level] = s
	}
	if second := now.Unix(); second != s.second {
		s.turn(second)
	}
	s.count++
	return s.after
}

// turn begins a new second.
func (s *dropped) turn(second int64) {
	s.past[s.second%maxAfter] = s.count
	for k := s.second + 1; k < second && k < s.second+1+maxAfter; k++ {
		s.past[k%maxAfter] = 0
	}
	s.second, s.count = second, 0
	recent := int64(0)
	for k := range s.after {
		if at := second - 1 - k; at >= 0 {
			recent += s.past[at%maxAfter]
		}
	}
	switch {
	case second-s.doubled >= s.after && recent >= 3*s.after:
		s.after = min(2*s.after, maxAfter)
		s.doubled = second
	case recent < s.after && s.after > 1:
		s.after--
	}
}
