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

// Policy says which unused images go: when the filesystem is fuller than High
// percent, until it is no fuller than Low, and those unused for longer than MaxAge.
type Policy struct {
	Usage          Usage
	High, Low      int
	MinAge, MaxAge time.Duration
}

// ID returns the id of an image that is there; "" when it is not.
func (p *Puller) ID(ctx context.Context, ref string) string {
	got, err := p.images.ImageStatus(ctx, &runtimeapi.ImageSpec{Image: withTag(ref)}, false)
	if err != nil {
		return ""
	}
	return got.GetImage().GetId()
}

// Clean removes unused images. inUse names images by id.
func (p *Puller) Clean(ctx context.Context, policy Policy, inUse map[string]bool) error {
	u := policy.Usage
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
	var gone []Candidate
	if policy.MaxAge > 0 {
		all = slices.DeleteFunc(all, func(c Candidate) bool {
			last := c.Used
			if last.Before(c.Seen) {
				last = c.Seen
			}
			old := now.Sub(last) > policy.MaxAge
			if old {
				gone = append(gone, c)
			}
			return old
		})
	}
	if u.Capacity > 0 && policy.High > 0 && 100-u.Available*100/u.Capacity >= int64(policy.High) {
		gone = append(gone, Choose(all, u.Capacity*int64(100-policy.Low)/100-u.Available, now, policy.MinAge)...)
	}
	for _, c := range gone {
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
