package keys

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/sampan-dev/sampan/kit/clock"
)

// errWatchEnded is when the member ends a watch: it stops, or is compacted.
var errWatchEnded = errors.New("the watch ended")

// wait calls start with the store's index, and then fn with each event that the
// request waits for, until fn says that it is enough.
func (s *Store) wait(ctx context.Context, r *request, start func(index uint64), fn func(*Event) bool) error {
	c, err := s.client()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	past, index, rev, err := s.past(ctx, c, r.since)
	if err != nil {
		return err
	}
	start(index)
	for _, e := range past {
		if e.concerns(r.path, r.recursive) && !fn(e) {
			return nil
		}
	}
	from := max(r.since, index+1)
	for resp := range c.Watch(clientv3.WithRequireLeader(ctx), eventPrefix, clientv3.WithPrefix(), clientv3.WithRev(rev+1), clientv3.WithFilterDelete()) {
		if err := resp.Err(); err != nil {
			return err
		}
		if err := readable(ctx, c, resp.Header.Revision); err != nil {
			return err
		}
		for _, ev := range resp.Events {
			e, err := parseEvent(ev.Kv.Key, ev.Kv.Value)
			if err != nil {
				return err
			}
			if e.index >= from && e.concerns(r.path, r.recursive) && !fn(e) {
				return nil
			}
		}
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return errWatchEnded
}

// readable returns when this member's reads see a revision: etcd tells watchers
// of a write a moment before it shows it to readers.
func readable(ctx context.Context, c *clientv3.Client, rev int64) error {
	for {
		_, err := c.Get(ctx, indexKey, clientv3.WithSerializable(), clientv3.WithRev(rev), clientv3.WithCountOnly())
		if errors.Is(err, rpctypes.ErrCompacted) {
			return nil // long seen, then
		}
		if !errors.Is(err, rpctypes.ErrFutureRev) {
			return err
		}
		if err := clock.Sleep(ctx, time.Millisecond); err != nil {
			return err
		}
	}
}

// past is the kept events from an index on, the store's index, and the revision
// they were read at.
func (s *Store) past(ctx context.Context, c *clientv3.Client, since uint64) ([]*Event, uint64, int64, error) {
	ops := []clientv3.Op{
		clientv3.OpGet(indexKey),
		clientv3.OpGet(eventPrefix, clientv3.WithPrefix(), clientv3.WithLimit(1), clientv3.WithKeysOnly()),
	}
	if since > 0 {
		ops = append(ops, clientv3.OpGet(eventKey(since), clientv3.WithRange(clientv3.GetPrefixRangeEnd(eventPrefix))))
	}
	resp, err := c.Txn(ctx).Then(ops...).Commit()
	if err != nil {
		return nil, 0, 0, err
	}
	index, _, err := number(resp.Responses[0].GetResponseRange())
	if err != nil || since == 0 {
		return nil, index, resp.Header.Revision, err
	}
	oldest := uint64(0)
	if kvs := resp.Responses[1].GetResponseRange().Kvs; len(kvs) > 0 {
		oldest, _ = strconv.ParseUint(strings.TrimPrefix(string(kvs[0].Key), eventPrefix), 10, 64)
	}
	if oldest > firstIndex+1 && since < oldest {
		return nil, 0, 0, fail(codeCleared, fmt.Sprintf("the requested history has been cleared [%d/%d]", oldest, since), index)
	}
	var events []*Event
	for _, kv := range resp.Responses[2].GetResponseRange().Kvs {
		e, err := parseEvent(kv.Key, kv.Value)
		if err != nil {
			return nil, 0, 0, err
		}
		events = append(events, e)
	}
	return events, index, resp.Header.Revision, nil
}

func parseEvent(key, value []byte) (*Event, error) {
	e := &Event{}
	if err := json.Unmarshal(value, e); err != nil {
		return nil, fmt.Errorf("keys: %s: %w", key, err)
	}
	e.index = e.Node.ModifiedIndex
	return e, nil
}

// lost says whether a watch ended because there is no leader, or none to ask.
func lost(err error) bool {
	return errors.Is(err, errWatchEnded) || errors.Is(err, rpctypes.ErrNoLeader)
}
