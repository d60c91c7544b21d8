package etcd

import (
	"context"
	"sync"
	"time"

	"go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/sampan-dev/sampan/kit/clock"
)

// Upstream's bounds of sharing a lease: it is lengthened by a twentieth or a
// minute, whichever is less, and used that long for at most so many keys.
const (
	leaseReuse   = 60
	leaseMaxKeys = 1000
)

// leases shares one lease among records whose time ends at about the same time:
// events come by the hundred and etcd pays for every lease.
type leases struct {
	mu    sync.Mutex
	byTTL map[int64]*sharedLease
}

type sharedLease struct {
	id    int64
	until time.Time
	keys  int
}

// get returns a lease that lasts at least ttl seconds; 0 for ttl 0.
func (l *leases) get(ctx context.Context, b backend, ttl int64) (int64, error) {
	if ttl <= 0 {
		return 0, nil
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	now := clock.Now()
	if s := l.byTTL[ttl]; s != nil && now.Before(s.until) && s.keys < leaseMaxKeys {
		s.keys++
		return s.id, nil
	}
	extra := min(ttl/20, leaseReuse)
	resp, err := b.LeaseGrant(ctx, &etcdserverpb.LeaseGrantRequest{TTL: ttl + extra})
	if err != nil {
		return 0, err
	}
	if l.byTTL == nil {
		l.byTTL = map[int64]*sharedLease{}
	}
	l.byTTL[ttl] = &sharedLease{id: resp.ID, until: now.Add(time.Duration(extra) * time.Second), keys: 1}
	return resp.ID, nil
}

// forget drops a lease that etcd no longer knows.
func (l *leases) forget(id int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for ttl, s := range l.byTTL {
		if s.id == id {
			delete(l.byTTL, ttl)
		}
	}
}
