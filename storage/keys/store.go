package keys

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"time"

	"go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/sampan-dev/sampan/kit/clock"
)

// Prefix is what the third version calls all that the second keeps.
const Prefix = "/_etcd/v2/"

const (
	indexKey    = Prefix + "i"
	nodePrefix  = Prefix + "n"
	eventPrefix = Prefix + "e/"
	timePrefix  = Prefix + "t/"
)

// firstIndex is the index before any change: upstream counts what the cluster
// notes of its first member and of itself.
const firstIndex = 4

// history is how many changes can still be waited for after they were made.
const history = 1000

// Store keeps the second version's keys in an etcd.
type Store struct {
	// client returns the member to ask, or why there is none.
	client func() (*clientv3.Client, error)
	// One change at a time from here: others would only have to be made again.
	mu    sync.Mutex
	stats stats
}

// NewStore returns a store over the member that client returns.
func NewStore(client func() (*clientv3.Client, error)) *Store {
	return &Store{client: client, stats: stats{started: clock.Now(), done: map[string]uint64{}}}
}

func nodeKey(p string) string { return nodePrefix + p }

func eventKey(index uint64) string { return fmt.Sprintf("%s%020d", eventPrefix, index) }

func timeKey(expires int64, p string) string { return fmt.Sprintf("%s%020d%s", timePrefix, expires, p) }

// below is the range of everything under a directory.
func below(p string) (string, clientv3.OpOption) {
	from := nodeKey(strings.TrimSuffix(p, "/") + "/")
	return from, clientv3.WithRange(clientv3.GetPrefixRangeEnd(from))
}

// snapshot is a view with the revision of the index that it was read at.
type snapshot struct {
	view
	rev int64
}

func number(kvs *etcdserverpb.RangeResponse) (uint64, int64, error) {
	if len(kvs.Kvs) == 0 {
		return firstIndex, 0, nil
	}
	n, err := strconv.ParseUint(string(kvs.Kvs[0].Value), 10, 64)
	if err != nil {
		return 0, 0, fmt.Errorf("keys: %s: %w", indexKey, err)
	}
	return n, kvs.Kvs[0].ModRevision, nil
}

func parse(r *etcdserverpb.RangeResponse) (*record, error) {
	if len(r.Kvs) == 0 {
		return nil, nil
	}
	out := &record{}
	if err := json.Unmarshal(r.Kvs[0].Value, out); err != nil {
		return nil, fmt.Errorf("keys: %s: %w", r.Kvs[0].Key, err)
	}
	return out, nil
}

// look reads what a change at a path depends on.
func (s *Store) look(ctx context.Context, c *clientv3.Client, p string, opts ...clientv3.OpOption) (*snapshot, error) {
	up := parents(p)
	ops := []clientv3.Op{clientv3.OpGet(indexKey, opts...), clientv3.OpGet(nodeKey(p), opts...)}
	from, end := below(p)
	ops = append(ops, clientv3.OpGet(from, append(opts, end, clientv3.WithLimit(1), clientv3.WithKeysOnly())...))
	for _, a := range up {
		ops = append(ops, clientv3.OpGet(nodeKey(a), opts...))
	}
	resp, err := c.Txn(ctx).Then(ops...).Commit()
	if err != nil {
		return nil, err
	}
	v := &snapshot{view: view{ancestors: map[string]*record{}}}
	if v.index, v.rev, err = number(resp.Responses[0].GetResponseRange()); err != nil {
		return nil, err
	}
	if v.self, err = parse(resp.Responses[1].GetResponseRange()); err != nil {
		return nil, err
	}
	v.children = resp.Responses[2].GetResponseRange().Count > 0
	for i, a := range up {
		r, err := parse(resp.Responses[3+i].GetResponseRange())
		if err != nil {
			return nil, err
		}
		if r != nil {
			v.ancestors[a] = r
		}
	}
	return v, nil
}

// change makes what decide says of the newest state.
func (s *Store) change(ctx context.Context, p string, decide func(*view, time.Time) (*change, *Error)) (*Event, error) {
	c, err := s.client()
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for {
		v, err := s.look(ctx, c, p)
		if err != nil {
			return nil, err
		}
		ch, refused := decide(&v.view, clock.Now())
		if refused != nil {
			return nil, refused
		}
		if ch == nil {
			return nil, nil // nothing to do any more
		}
		ops, err := ch.ops(p, v.index+1)
		if err != nil {
			return nil, err
		}
		resp, err := c.Txn(ctx).If(clientv3.Compare(clientv3.ModRevision(indexKey), "=", v.rev)).Then(ops...).Commit()
		if err != nil {
			return nil, err
		}
		if resp.Succeeded {
			ch.event.index = v.index + 1
			return ch.event, nil
		}
	}
}

// ops are the writes of a change to p that becomes number index.
func (ch *change) ops(p string, index uint64) ([]clientv3.Op, error) {
	event, err := json.Marshal(ch.event)
	if err != nil {
		return nil, fmt.Errorf("keys: event: %w", err)
	}
	ops := []clientv3.Op{
		clientv3.OpPut(indexKey, strconv.FormatUint(index, 10)),
		clientv3.OpPut(eventKey(index), string(event)),
	}
	if index > history {
		ops = append(ops, clientv3.OpDelete(eventKey(index-history)))
	}
	renewed := false
	for path, r := range ch.puts {
		text, err := json.Marshal(r)
		if err != nil {
			return nil, fmt.Errorf("keys: %s: %w", path, err)
		}
		ops = append(ops, clientv3.OpPut(nodeKey(path), string(text)))
		if r.Expires != 0 {
			ops = append(ops, clientv3.OpPut(timeKey(r.Expires, path), ""))
			renewed = renewed || path == p && r.Expires == ch.past
		}
	}
	if ch.past != 0 && !renewed {
		ops = append(ops, clientv3.OpDelete(timeKey(ch.past, p)))
	}
	if ch.drop != "" {
		from, end := below(ch.drop)
		ops = append(ops, clientv3.OpDelete(nodeKey(ch.drop)), clientv3.OpDelete(from, end))
	}
	return ops, nil
}

// get reads a node, and what is below it if it is a directory.
func (s *Store) get(ctx context.Context, r *request) (*Event, error) {
	c, err := s.client()
	if err != nil {
		return nil, err
	}
	var opts []clientv3.OpOption
	if !r.quorum {
		opts = append(opts, clientv3.WithSerializable())
	}
	v, err := s.look(ctx, c, r.path, opts...)
	if err != nil {
		return nil, err
	}
	if err := v.find(r.path); err != nil {
		return nil, err
	}
	now := clock.Now()
	e := &Event{Action: "get", index: v.index}
	if r.path == "/" {
		e.Node = &Node{Dir: true}
	} else {
		e.Node = v.self.show(r.path, now)
	}
	if !e.Node.Dir || !v.children {
		return e, nil
	}
	from, end := below(r.path)
	resp, err := c.Get(ctx, from, append(opts, end)...)
	if err != nil {
		return nil, err
	}
	entries := make([]entry, 0, len(resp.Kvs))
	for _, kv := range resp.Kvs {
		n := entry{path: strings.TrimPrefix(string(kv.Key), nodePrefix)}
		if err := json.Unmarshal(kv.Value, &n.record); err != nil {
			return nil, fmt.Errorf("keys: %s: %w", kv.Key, err)
		}
		entries = append(entries, n)
	}
	e.Node.Nodes = tree(r.path, entries, r.recursive, now)
	return e, nil
}

// refusal is err as the API says it.
func refusal(err error) *Error {
	var e *Error
	switch {
	case errors.As(err, &e):
		return e
	case errors.Is(err, rpctypes.ErrUserEmpty), errors.Is(err, rpctypes.ErrPermissionDenied):
		return fail(codeUnauthorized, "Insufficient credentials", 0)
	case errors.Is(err, rpctypes.ErrNoLeader):
		return fail(codeElection, err.Error(), 0)
	case errors.Is(err, context.DeadlineExceeded):
		return fail(codeRaft, "etcdserver: request timed out", 0)
	}
	return fail(codeRaft, err.Error(), 0)
}
