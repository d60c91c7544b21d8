package fairness

import (
	"math"
	"time"
)

// share is what a level is configured to have.
type share struct {
	exempt    bool
	shares    int32
	lendable  int32  // percent
	borrowing *int32 // percent; nil is without limit
}

// bounds are the seats that follow from a share.
type bounds struct{ nominal, least, most int }

// divide gives each level its seats of total. Rounding up may make the sum a
// little more.
func divide(total int, shares []share) []bounds {
	sum := 0.0
	for _, s := range shares {
		sum += float64(s.shares)
	}
	out := make([]bounds, len(shares))
	for i, s := range shares {
		if sum > 0 {
			out[i].nominal = int(math.Ceil(float64(total) * float64(s.shares) / sum))
		}
		n := out[i].nominal
		out[i].least = n - int(math.Round(float64(n)*float64(s.lendable)/100))
		out[i].most = n + total
		if s.borrowing != nil {
			out[i].most = n + int(math.Round(float64(n)*float64(*s.borrowing)/100))
		}
	}
	return out
}

// claim is what a level may get when idle seats are lent.
type claim struct{ least, most, target float64 }

// smallest keeps a level that wants nothing in the proportion.
const smallest = 0.001

// allocate finds the one proportion of their targets that gives the claims total
// together, each within its bounds.
func allocate(total int, claims []claim) (seats []float64, proportion float64) {
	give := func(p float64) (sum float64) {
		for _, c := range claims {
			sum += min(c.most, max(c.least, p*max(c.target, smallest)))
		}
		return sum
	}
	low, high := 0.0, 1.0
	for give(high) < float64(total) && high < 1e12 {
		high *= 2
	}
	for range 100 {
		mid := (low + high) / 2
		if give(mid) < float64(total) {
			low = mid
		} else {
			high = mid
		}
	}
	seats = make([]float64, len(claims))
	for i, c := range claims {
		seats[i] = min(c.most, max(c.least, high*max(c.target, smallest)))
	}
	return seats, high
}

// demand follows how many seats a level could use.
type demand struct {
	since, at  time.Time
	sum, sum2  float64 // of value and its square, by seconds
	peak       int
	avg, dev   float64
	high       int
	smoothed   float64
	thisDemand int // at the end of the period
}

// smoothing is how much of the past a period leaves.
const smoothing = 0.977

// add counts value for the time until now.
func (d *demand) add(now time.Time, value int) {
	dt := now.Sub(d.at).Seconds()
	d.at = now
	d.sum += dt * float64(value)
	d.sum2 += dt * float64(value) * float64(value)
	d.peak = max(d.peak, value)
}

// close ends a period: value is the demand now. A period much longer than usual
// was one of rest, whose peak tells nothing.
func (d *demand) close(now time.Time, value int, usual time.Duration) {
	d.add(now, value)
	d.high, d.thisDemand = d.peak, value
	if length := now.Sub(d.since); length > 0 {
		if length > 2*usual {
			d.high = value
		}
		d.avg = d.sum / length.Seconds()
		d.dev = math.Sqrt(max(0, d.sum2/length.Seconds()-d.avg*d.avg))
		envelope := d.avg + d.dev
		d.smoothed = max(envelope, smoothing*d.smoothed+(1-smoothing)*envelope)
	}
	d.since, d.sum, d.sum2, d.peak = now, 0, 0, value
}

// lend says how many seats each level may take from now on, given what they
// wanted of late. Levels that are exempt take what they need first.
func lend(shares []share, bs []bounds, ds []demand) (limits []int, fair float64) {
	limits = make([]int, len(shares))
	left, least, current := 0, 0, 0
	for i := range shares {
		left += bs[i].nominal
	}
	lower := make([]int, len(shares))
	for i, s := range shares {
		if s.exempt {
			limits[i] = max(bs[i].least, ds[i].high)
			left -= limits[i]
			continue
		}
		lower[i] = max(bs[i].least, min(bs[i].nominal, ds[i].high))
		least += bs[i].least
		current += lower[i]
	}
	if left <= current {
		part := 0.0
		if left > least {
			part = float64(left-least) / float64(current-least)
		}
		for i, s := range shares {
			if !s.exempt {
				limits[i] = bs[i].least + int(math.Round(part*float64(lower[i]-bs[i].least)))
			}
		}
		return limits, 0
	}
	var claims []claim
	var of []int
	for i, s := range shares {
		if !s.exempt {
			target := max(float64(lower[i]), ds[i].smoothed, float64(ds[i].thisDemand))
			claims = append(claims, claim{least: float64(lower[i]), most: float64(bs[i].most), target: target})
			of = append(of, i)
		}
	}
	seats, fair := allocate(left, claims)
	for k, i := range of {
		limits[i] = int(math.Round(seats[k]))
	}
	return limits, fair
}
