package etcd

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	etcderrors "go.etcd.io/etcd/server/v3/etcdserver/errors"
	"go.etcd.io/etcd/server/v3/lease"
	"go.etcd.io/etcd/server/v3/storage/mvcc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/sampan-dev/sampan/storage"
)

// backend is what a Store needs of etcd, in etcd's own words.
type backend interface {
	Range(context.Context, *etcdserverpb.RangeRequest) (*etcdserverpb.RangeResponse, error)
	Txn(context.Context, *etcdserverpb.TxnRequest) (*etcdserverpb.TxnResponse, error)
	Compact(context.Context, *etcdserverpb.CompactionRequest) (*etcdserverpb.CompactionResponse, error)
	LeaseGrant(context.Context, *etcdserverpb.LeaseGrantRequest) (*etcdserverpb.LeaseGrantResponse, error)

	// sync makes sure that this backend shows every write acknowledged so far and
	// returns its revision; local says that it did. Otherwise a read that is not
	// serializable must.
	sync(context.Context) (rev int64, local bool, err error)
	watch(ctx context.Context, from, end []byte, o storage.WatchOptions) (stream, error)
	healthy(context.Context) error
	close() error
}

// stream delivers the changes of one watch.
type stream interface {
	// recv waits for the next changes, or for progress to rev without changes.
	recv(ctx context.Context, stop <-chan struct{}, idle <-chan time.Time) (b batch, err error)
	requestProgress(ctx context.Context)
	close()
}

// batch is what recv brings: changes with the versions before them, or progress.
type batch struct {
	events   []*mvccpb.Event
	prev     func(*mvccpb.Event) *mvccpb.KeyValue
	progress int64
	idle     bool // nothing came before the idle timer
}

// Store is storage.Store over etcd. Make one with NewLocal or NewRemote.
type Store struct {
	b      backend
	leases leases
}

var (
	_ storage.Store     = (*Store)(nil)
	_ storage.Compactor = (*Store)(nil)
)

// Healthy says whether consistent reads can be served.
func (s *Store) Healthy(ctx context.Context) error { return s.b.healthy(ctx) }

// Close frees the connections of a remote store.
func (s *Store) Close() error { return s.b.close() }

// Rev implements storage.Store.
func (s *Store) Rev(ctx context.Context) (int64, error) {
	if err := ctx.Err(); err != nil {
		return 0, err
	}
	rev, local, err := s.b.sync(ctx)
	if err == nil && !local {
		var resp *etcdserverpb.RangeResponse
		if resp, err = s.b.Range(ctx, revRequest()); err == nil {
			rev = resp.Header.Revision
		}
	}
	return rev, explain(ctx, "rev", compactKey, err)
}

// Get implements storage.Store.
func (s *Store) Get(ctx context.Context, key string, atLeast int64) (*storage.Record, error) {
	resp, err := s.read(ctx, getRequest(key, false), atLeast)
	if err != nil {
		return nil, explain(ctx, "get", key, err)
	}
	if len(resp.Kvs) == 0 {
		return nil, storage.ErrNotFound
	}
	return record(resp.Kvs[0]), nil
}

// read asks for a state no older than atLeast, or a consistent one for 0.
func (s *Store) read(ctx context.Context, r *etcdserverpb.RangeRequest, atLeast int64) (*etcdserverpb.RangeResponse, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	rev, local, err := s.b.sync(ctx)
	if err != nil {
		return nil, err
	}
	if atLeast > rev && local {
		return nil, storage.ErrFuture
	}
	r.Serializable = local
	resp, err := s.b.Range(ctx, r)
	if err == nil && resp.Header.Revision < atLeast {
		return nil, storage.ErrFuture
	}
	return resp, err
}

// List implements storage.Store.
func (s *Store) List(ctx context.Context, prefix string, o storage.ListOptions) (*storage.Page, error) {
	if o.Index != "" {
		return nil, storage.ErrNoIndex
	}
	r, some := listRequest(prefix, o)
	if !some {
		r.Limit, r.RangeEnd = 1, nil // nothing is there; ask for the revision
		r.CountOnly = true
	}
	atLeast := o.Rev
	if o.Match != storage.AtLeast {
		atLeast = 0
	}
	resp, err := s.read(ctx, r, atLeast)
	if err != nil {
		return nil, explain(ctx, "list", prefix, err)
	}
	return page(resp, o), nil
}

// Create implements storage.Store.
func (s *Store) Create(ctx context.Context, key string, value []byte, ttl int64) (*storage.Record, error) {
	return s.put(ctx, "create", &storage.Record{Key: key, Value: value}, ttl)
}

// Update implements storage.Store.
func (s *Store) Update(ctx context.Context, key string, value []byte, expect, ttl int64) (*storage.Record, error) {
	return s.put(ctx, "update", &storage.Record{Key: key, Value: value, Rev: expect}, ttl)
}

// put writes r if its key is at r.Rev.
func (s *Store) put(ctx context.Context, op string, r *storage.Record, ttl int64) (*storage.Record, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	for again := false; ; again = true {
		id, err := s.leases.get(ctx, s.b, ttl)
		if err != nil {
			return nil, explain(ctx, op, r.Key, err)
		}
		resp, err := s.b.Txn(ctx, writeRequest(r.Key, r.Rev, putOp(r.Key, r.Value, id)))
		if ttl > 0 && !again && leaseGone(err) {
			s.leases.forget(id)
			continue
		}
		if err != nil {
			return nil, explain(ctx, op, r.Key, err)
		}
		if !resp.Succeeded {
			return nil, failed(resp)
		}
		return formed(ctx, &storage.Record{Key: r.Key, Value: r.Value, Rev: resp.Header.Revision}), nil
	}
}

func formed(ctx context.Context, r *storage.Record) *storage.Record {
	if fn := storage.FormsOf(ctx); fn != nil {
		fn(r)
	}
	return r
}

// Delete implements storage.Store.
func (s *Store) Delete(ctx context.Context, key string, expect int64) (*storage.Record, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	resp, err := s.b.Txn(ctx, writeRequest(key, expect, deleteOp(key)))
	if err != nil {
		return nil, explain(ctx, "delete", key, err)
	}
	if !resp.Succeeded {
		return nil, failed(resp)
	}
	prev := resp.Responses[0].GetResponseDeleteRange().GetPrevKvs()
	if len(prev) == 0 {
		return nil, storage.ErrNotFound // expect was 0
	}
	return formed(ctx, &storage.Record{Key: key, Value: prev[0].Value, Rev: resp.Header.Revision}), nil
}

// Compact implements storage.Compactor.
func (s *Store) Compact(ctx context.Context, rev int64) error {
	_, err := s.b.Compact(ctx, &etcdserverpb.CompactionRequest{Revision: rev})
	err = explain(ctx, "compact", fmt.Sprint(rev), err)
	if errors.Is(err, storage.ErrCompacted) {
		return nil
	}
	return err
}

func leaseGone(err error) bool {
	return errors.Is(err, lease.ErrLeaseNotFound) || errors.Is(rpctypes.Error(err), rpctypes.ErrLeaseNotFound)
}

// explain gives etcd's errors, of either backend, the contract's meaning.
func explain(ctx context.Context, op, subject string, err error) error {
	if err == nil {
		return nil
	}
	if cerr := ctx.Err(); cerr != nil {
		return cerr
	}
	remote := rpctypes.Error(err)
	is := func(local, rpc error) bool { return errors.Is(err, local) || errors.Is(remote, rpc) }
	switch {
	case errors.Is(err, context.DeadlineExceeded): // the member's own time, for ctx is not over
		err = errNoMajority
	case errors.Is(err, storage.ErrFuture), is(mvcc.ErrFutureRev, rpctypes.ErrFutureRev):
		return storage.ErrFuture
	case is(mvcc.ErrCompacted, rpctypes.ErrCompacted):
		return storage.ErrCompacted
	case is(etcderrors.ErrRequestTooLarge, rpctypes.ErrRequestTooLarge), tooLargeToSend(err):
		return storage.ErrTooLarge
	case is(etcderrors.ErrNoSpace, rpctypes.ErrNoSpace):
		return fmt.Errorf("%s: %s: etcd is out of space: compact and defragment it, or raise its quota: %w", op, subject, err)
	}
	return fmt.Errorf("%s: %s: %w", op, subject, err)
}

// tooLargeToSend says that gRPC itself refused the size.
func tooLargeToSend(err error) bool {
	return status.Code(err) == codes.ResourceExhausted && strings.Contains(err.Error(), "larger than max")
}
