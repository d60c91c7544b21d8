package etcd

import (
	"context"
	"sync/atomic"
	"time"

	"go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/server/v3/etcdserver"
	"go.etcd.io/etcd/server/v3/storage/mvcc"

	"github.com/sampan-dev/sampan/storage"
)

// NewLocal returns a store over a member in this process. It may be used as
// soon as the member is Ready.
func NewLocal(s *Server) *Store { return &Store{b: &local{srv: s}} }

// local calls the member's methods: no connection, no encoding.
type local struct {
	srv *Server
	// caughtUp is the member known to have applied all it had acknowledged in an
	// earlier life: from then on, alone, it is its own proof of consistency.
	caughtUp atomic.Pointer[etcdserver.EtcdServer]
}

func (l *local) member() (*etcdserver.EtcdServer, error) {
	if e := l.srv.running.Load(); e != nil {
		return e, nil
	}
	return nil, errDown
}

func (l *local) Range(ctx context.Context, r *etcdserverpb.RangeRequest) (*etcdserverpb.RangeResponse, error) {
	e, err := l.member()
	if err != nil {
		return nil, err
	}
	return e.Range(ctx, r)
}

func (l *local) Txn(ctx context.Context, r *etcdserverpb.TxnRequest) (*etcdserverpb.TxnResponse, error) {
	e, err := l.member()
	if err != nil {
		return nil, err
	}
	var resp *etcdserverpb.TxnResponse
	err = l.srv.during(ctx, func(ctx context.Context) (err error) {
		resp, err = e.Txn(ctx, r)
		return err
	})
	return resp, err
}

func (l *local) Compact(ctx context.Context, r *etcdserverpb.CompactionRequest) (*etcdserverpb.CompactionResponse, error) {
	e, err := l.member()
	if err != nil {
		return nil, err
	}
	return e.Compact(ctx, r)
}

func (l *local) LeaseGrant(ctx context.Context, r *etcdserverpb.LeaseGrantRequest) (*etcdserverpb.LeaseGrantResponse, error) {
	e, err := l.member()
	if err != nil {
		return nil, err
	}
	var resp *etcdserverpb.LeaseGrantResponse
	err = l.srv.during(ctx, func(ctx context.Context) (err error) {
		resp, err = e.LeaseGrant(ctx, r)
		return err
	})
	return resp, err
}

func (l *local) sync(ctx context.Context) (int64, bool, error) {
	e, err := l.member()
	if err != nil {
		return 0, false, err
	}
	if l.caughtUp.Load() != e || len(e.Cluster().Members()) != 1 {
		if err := synced(ctx, e); err != nil {
			return 0, false, err
		}
		l.caughtUp.Store(e)
	}
	return e.KV().Rev(), true, nil
}

func (l *local) healthy(ctx context.Context) error { return l.srv.Healthy(ctx) }

func (l *local) close() error { return nil }

func (l *local) watch(ctx context.Context, from, end []byte, o storage.WatchOptions) (stream, error) {
	e, err := l.member()
	if err != nil {
		return nil, err
	}
	if o.After+1 < e.KV().FirstRev() {
		return nil, storage.ErrCompacted
	}
	ws := e.Watchable().NewWatchStream()
	if len(end) == 1 && end[0] == 0 {
		end = []byte{} // how mvcc writes infinity
	}
	id, err := ws.Watch(context.WithoutCancel(ctx), clientv3.AutoWatchID, from, end, o.After+1)
	if err != nil {
		ws.Close()
		return nil, err
	}
	return &localStream{e: e, ws: ws, id: id}, nil
}

type localStream struct {
	e  *etcdserver.EtcdServer
	ws mvcc.WatchStream
	id mvcc.WatchID
}

// together bounds how many changes one recv gathers.
const together = 1000

func (s *localStream) recv(ctx context.Context, stop <-chan struct{}, idle <-chan time.Time) (batch, error) {
	b := batch{prev: s.prev}
	select {
	case r, ok := <-s.ws.Chan():
		if err := s.take(&b, r, ok); err != nil {
			return b, err
		}
	case <-idle:
		b.idle = true
		return b, nil
	case <-stop:
		return b, storage.ErrStopped
	case <-s.e.StopNotify():
		return b, errDown
	case <-ctx.Done():
		return b, ctx.Err()
	}
	for b.progress == 0 && len(b.events) < together {
		select {
		case r, ok := <-s.ws.Chan():
			if err := s.take(&b, r, ok); err != nil {
				return b, err
			}
		default:
			return b, nil
		}
	}
	return b, nil
}

// take adds r to b, whose last word is progress.
func (s *localStream) take(b *batch, r mvcc.WatchResponse, ok bool) error {
	switch {
	case !ok:
		return errLost
	case r.CompactRevision != 0:
		return mvcc.ErrCompacted
	case len(r.Events) > 0:
		b.events = append(b.events, r.Events...)
	default:
		b.progress = r.Revision
	}
	return nil
}

func (s *localStream) prev(e *mvccpb.Event) *mvccpb.KeyValue {
	res, err := s.e.KV().Range(context.Background(), e.Kv.Key, nil, mvcc.RangeOptions{Rev: e.Kv.ModRevision - 1})
	if err != nil || len(res.KVs) == 0 {
		return nil // compacted since: not known
	}
	return res.KVs[0]
}

func (s *localStream) requestProgress(context.Context) { s.ws.RequestProgress(s.id) }

func (s *localStream) close() { s.ws.Close() }
