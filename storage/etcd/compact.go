package etcd

import (
	"context"
	"fmt"
	"log/slog"
	"strconv"
	"time"

	"go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/sampan-dev/sampan/kit/clock"
	"github.com/sampan-dev/sampan/storage"
)

// compactKey is where upstream's API servers agree on compactions: its version
// counts them, its value is the revision last compacted to.
const compactKey = "compact_rev_key"

// CompactInterval is upstream's --etcd-compaction-interval.
const CompactInterval = 5 * time.Minute

// Compactor forgets, every interval, the revisions older than one interval. Of
// several API servers at one etcd, whichever is first in an interval does it.
type Compactor struct {
	Store *Store
	// Above is what stands on Store and has a history of its own, a cache; it
	// compacts itself and Store. Without it, a page of a list could be had from
	// one server and be gone on another. Nil for Store alone.
	Above    storage.Compactor
	Interval time.Duration // CompactInterval when 0
	Log      *slog.Logger  // slog.Default() when nil

	seen int64 // the version of compactKey when last looked at
	rev  int64 // the revision then
}

// Run compacts until ctx ends. Failures are logged and tried again in time.
func (c *Compactor) Run(ctx context.Context) error {
	log := c.Log
	if log == nil {
		log = slog.Default()
	}
	t := clock.NewTicker(orElse(c.Interval, CompactInterval))
	defer t.Stop()
	for {
		select {
		case <-t.C:
		case <-ctx.Done():
			return ctx.Err()
		}
		if err := c.Once(ctx); err != nil && ctx.Err() == nil {
			log.Warn("etcd compaction failed", "err", err)
		}
	}
}

// Once does what is due at the end of an interval: compact to the revision seen
// at its beginning, or to where another server says that it has.
func (c *Compactor) Once(ctx context.Context) error {
	resp, err := c.Store.b.Txn(ctx, compactRequest(c.seen, c.rev))
	if err != nil {
		return fmt.Errorf("compact: claim: %w", err)
	}
	to := c.rev
	c.rev = resp.Header.Revision
	if !resp.Succeeded {
		c.seen, to = 0, 0
		if kvs := resp.Responses[0].GetResponseRange().GetKvs(); len(kvs) > 0 {
			c.seen = kvs[0].Version
			to, _ = strconv.ParseInt(string(kvs[0].Value), 10, 64)
		}
	} else {
		c.seen++
	}
	if to == 0 {
		return nil // the first look: nothing is an interval old yet
	}
	if c.Above != nil {
		return c.Above.Compact(ctx, to)
	}
	return c.Store.Compact(ctx, to)
}

// compactRequest claims the compaction to rev if nobody claimed one since seen.
func compactRequest(seen, rev int64) *etcdserverpb.TxnRequest {
	return &etcdserverpb.TxnRequest{
		Compare: []*etcdserverpb.Compare{{
			Result:      etcdserverpb.Compare_EQUAL,
			Target:      etcdserverpb.Compare_VERSION,
			Key:         []byte(compactKey),
			TargetUnion: &etcdserverpb.Compare_Version{Version: seen},
		}},
		Success: []*etcdserverpb.RequestOp{putOp(compactKey, []byte(strconv.FormatInt(rev, 10)), 0)},
		Failure: []*etcdserverpb.RequestOp{{Request: &etcdserverpb.RequestOp_RequestRange{
			RequestRange: &etcdserverpb.RangeRequest{Key: []byte(compactKey)},
		}}},
	}
}
