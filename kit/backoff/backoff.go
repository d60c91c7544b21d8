// Package backoff computes how long to wait before trying again. It is pure:
// it keeps no timers and reads no clock.
package backoff

import "time"

// Policy is exponential growth between two bounds.
type Policy struct {
	First  time.Duration // the wait after the first failure
	Max    time.Duration // the longest wait
	Factor float64       // growth per failure; 0 means 2
}

// After returns the wait after the given number of failures in a row, 1 or more.
func (p Policy) After(failures int) time.Duration {
	if failures <= 0 {
		return 0
	}
	factor := p.Factor
	if factor == 0 {
		factor = 2
	}
	d := float64(p.First)
	for i := 1; i < failures; i++ {
		if d *= factor; d >= float64(p.Max) {
			return p.Max
		}
	}
	return min(time.Duration(d), p.Max)
}
