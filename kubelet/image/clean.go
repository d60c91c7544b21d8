package image

import (
	"context"
	"fmt"
	"slices"
	"time"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/sampan-dev/sampan/kit/clock"
)

// Usage is how full the images' filesystem is.
type Usage struct{ Capacity, Available int64 }

// Candidate is an image that may be removed.
type Candidate struct {
	ID         string
	Size       int64
	Used, Seen time.Time
}

// Choose returns the images to remove so that free bytes are won, those unused
// for longest first; nothing younger than minAge goes.
func Choose(all []Candidate, free int64, now time.Time, minAge time.Duration) []Candidate {
	slices.SortStableFunc(all, func(a, b Candidate) int {
		if c := a.Used.Compare(b.Used); c != 0 {
			return c
		}
		return a.Seen.Compare(b.Seen)
	})
	var out []Candidate
	for _, c := range all {
		if free <= 0 {
			break
		}
		if now.Sub(c.Seen) < minAge {
			continue
		}
		out = append(out, c)
		free -= c.Size
	}
	return out
}

// Clean removes unused images when the filesystem is fuller than high percent,
// until it is no fuller than low. inUse names images by id.
func (p *Puller) Clean(ctx context.Context, u Usage, high, low int, minAge time.Duration, inUse map[string]bool) error {
	list, err := p.images.ListImages(ctx, nil)
	if err != nil {
		return fmt.Errorf("images: %w", err)
	}
	now := clock.Now()
	var all []Candidate
	p.mu.Lock()
	for _, i := range list {
		if _, ok := p.seen[i.Id]; !ok {
			p.seen[i.Id] = now
		}
		if inUse[i.Id] {
			p.used[i.Id] = now
			continue
		}
		if !i.Pinned {
			all = append(all, Candidate{i.Id, int64(i.Size), p.used[i.Id], p.seen[i.Id]})
		}
	}
	p.mu.Unlock()
	if u.Capacity == 0 || high == 0 || 100-u.Available*100/u.Capacity < int64(high) {
		return nil
	}
	want := u.Capacity*int64(100-low)/100 - u.Available
	for _, c := range Choose(all, want, now, minAge) {
		if err := p.images.RemoveImage(ctx, &runtimeapi.ImageSpec{Image: c.ID}); err != nil {
			return fmt.Errorf("images: remove %s: %w", c.ID, err)
		}
		p.mu.Lock()
		delete(p.seen, c.ID)
		delete(p.used, c.ID)
		p.mu.Unlock()
	}
	return nil
}
