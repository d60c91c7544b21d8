package etcd

import (
	"context"
	"fmt"
	"time"

	"go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"

	"github.com/sampan-dev/sampan/storage"
)

// NewRemote returns a store over the network. It connects in the background.
func NewRemote(endpoints []string, t TLS) (*Store, error) {
	cfg := clientv3.Config{
		Endpoints:            endpoints,
		DialKeepAliveTime:    30 * time.Second, // upstream's keepalives
		DialKeepAliveTimeout: 10 * time.Second,
		Logger:               zap.NewNop(),
	}
	if t != (TLS{}) {
		info := t.info()
		tc, err := info.ClientConfig()
		if err != nil {
			return nil, fmt.Errorf("etcd: client certificate: %w", err)
		}
		cfg.TLS = tc
	}
	c, err := clientv3.New(cfg)
	if err != nil {
		return nil, fmt.Errorf("etcd: client: %w", err)
	}
	return &Store{b: &remote{c: c, kv: clientv3.RetryKVClient(c), lease: clientv3.RetryLeaseClient(c)}}, nil
}

type remote struct {
	c     *clientv3.Client
	kv    etcdserverpb.KVClient
	lease etcdserverpb.LeaseClient
}

func (r *remote) Range(ctx context.Context, q *etcdserverpb.RangeRequest) (*etcdserverpb.RangeResponse, error) {
	return r.kv.Range(ctx, q)
}

func (r *remote) Txn(ctx context.Context, q *etcdserverpb.TxnRequest) (*etcdserverpb.TxnResponse, error) {
	return r.kv.Txn(ctx, q)
}

func (r *remote) Compact(ctx context.Context, q *etcdserverpb.CompactionRequest) (*etcdserverpb.CompactionResponse, error) {
	return r.kv.Compact(ctx, q)
}

func (r *remote) LeaseGrant(ctx context.Context, q *etcdserverpb.LeaseGrantRequest) (*etcdserverpb.LeaseGrantResponse, error) {
	return r.lease.LeaseGrant(ctx, q)
}

// sync implements backend: the request to come is consistent by itself.
func (r *remote) sync(context.Context) (int64, bool, error) { return 0, false, nil }

func (r *remote) healthy(ctx context.Context) error {
	if _, err := r.Range(ctx, revRequest()); err != nil {
		return fmt.Errorf("etcd: %w", err)
	}
	return nil
}

func (r *remote) close() error { return r.c.Close() }

func (r *remote) watch(ctx context.Context, from, end []byte, o storage.WatchOptions) (stream, error) {
	ctx, cancel := context.WithCancel(clientv3.WithRequireLeader(context.WithoutCancel(ctx)))
	opts := []clientv3.OpOption{clientv3.WithRange(string(end)), clientv3.WithRev(o.After + 1)}
	if !o.NoPrev {
		opts = append(opts, clientv3.WithPrevKV())
	}
	return &remoteStream{c: r.c, ctx: ctx, cancel: cancel, ch: r.c.Watch(ctx, string(from), opts...)}, nil
}

type remoteStream struct {
	c      *clientv3.Client
	ctx    context.Context // names the connection's stream to RequestProgress
	cancel context.CancelFunc
	ch     clientv3.WatchChan
}

func (s *remoteStream) recv(ctx context.Context, stop <-chan struct{}, idle <-chan time.Time) (batch, error) {
	var b batch
	select {
	case r, ok := <-s.ch:
		switch {
		case !ok:
			return b, errLost
		case r.CompactRevision != 0:
			return b, rpctypes.ErrCompacted
		case r.Err() != nil:
			return b, r.Err()
		case r.IsProgressNotify():
			b.progress = r.Header.Revision
		}
		prev := make(map[*mvccpb.Event]*mvccpb.KeyValue, len(r.Events))
		for _, e := range r.Events {
			pe := (*mvccpb.Event)(e)
			b.events = append(b.events, pe)
			prev[pe] = e.PrevKv
		}
		b.prev = func(e *mvccpb.Event) *mvccpb.KeyValue { return prev[e] }
	case <-idle:
		b.idle = true
	case <-stop:
		return b, storage.ErrStopped
	case <-ctx.Done():
		return b, ctx.Err()
	}
	return b, nil
}

func (s *remoteStream) requestProgress(context.Context) {
	// An error means that the stream is being made again, which says more.
	_ = s.c.RequestProgress(s.ctx)
}

func (s *remoteStream) close() { s.cancel() }
