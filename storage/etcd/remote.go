package etcd

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/sampan-dev/sampan/storage"
)

// NewRemote returns a store over the network. It connects in the background.
func NewRemote(endpoints []string, t TLS) (*Store, error) {
	r := &remote{}
	cfg := clientv3.Config{
		Endpoints:            endpoints,
		DialOptions:          []grpc.DialOption{grpc.WithChainUnaryInterceptor(r.once)},
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
	r.c, r.kv, r.lease = c, clientv3.RetryKVClient(c), clientv3.RetryLeaseClient(c)
	return &Store{b: r}, nil
}

type remote struct {
	c     *clientv3.Client
	kv    etcdserverpb.KVClient
	lease etcdserverpb.LeaseClient
	// reached says that etcd has answered. Until then it may be starting, and is
	// waited for as long as the request lives.
	reached atomic.Bool
}

// answerWithin bounds a request to an etcd that was reached before, wherever it is
// lost on its way. A member answers within its own 5 s and two elections'.
const answerWithin = 10 * time.Second

// errNoMajority is what a request fails with that etcd could not decide on. A
// write may have been made all the same.
var errNoMajority = fmt.Errorf("etcd has no leader, or does not reach most of its members: %w", rpctypes.ErrTimeout)

// once is below clientv3's retries, at each try. A member that has no leader waits
// for one before it says so; asked again it would only wait again, as clientv3
// would make it do for as long as the request lives.
func (r *remote) once(ctx context.Context, method string, q, a any, conn *grpc.ClientConn, invoke grpc.UnaryInvoker, opts ...grpc.CallOption) error {
	err := invoke(ctx, method, q, a, conn, opts...)
	switch {
	case err == nil:
		r.reached.Store(true)
	case r.reached.Load() && ctx.Err() == nil && waitedInVain(err):
		return errNoMajority
	}
	return err
}

// waitedInVain says that a member's own time for a request was over.
func waitedInVain(err error) bool {
	return status.Code(err) == codes.DeadlineExceeded || errors.Is(rpctypes.Error(err), rpctypes.ErrTimeout)
}

// decided asks what etcd must decide on in time if it was ever reached.
func decided[Q, A any](ctx context.Context, r *remote, ask func(context.Context, Q, ...grpc.CallOption) (A, error), q Q) (A, error) {
	if !r.reached.Load() {
		return ask(ctx, q)
	}
	bound, cancel := context.WithTimeout(ctx, answerWithin)
	defer cancel()
	a, err := ask(bound, q)
	if err != nil && bound.Err() != nil && ctx.Err() == nil {
		err = errNoMajority
	}
	return a, err
}

// Range bounds reads of one key, which take no time of their own: without a
// leader a read waits for those before it, too, each as long as the member does.
func (r *remote) Range(ctx context.Context, q *etcdserverpb.RangeRequest) (*etcdserverpb.RangeResponse, error) {
	if len(q.RangeEnd) == 0 {
		return decided(ctx, r, r.kv.Range, q)
	}
	return r.kv.Range(ctx, q)
}

func (r *remote) Txn(ctx context.Context, q *etcdserverpb.TxnRequest) (*etcdserverpb.TxnResponse, error) {
	return decided(ctx, r, r.kv.Txn, q)
}

func (r *remote) Compact(ctx context.Context, q *etcdserverpb.CompactionRequest) (*etcdserverpb.CompactionResponse, error) {
	return r.kv.Compact(ctx, q)
}

func (r *remote) LeaseGrant(ctx context.Context, q *etcdserverpb.LeaseGrantRequest) (*etcdserverpb.LeaseGrantResponse, error) {
	return decided(ctx, r, r.lease.LeaseGrant, q)
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
