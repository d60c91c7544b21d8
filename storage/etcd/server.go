package etcd

import (
	"context"
	"errors"
	"expvar"
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/server/v3/embed"
	"go.etcd.io/etcd/server/v3/etcdserver"
	"go.etcd.io/etcd/server/v3/etcdserver/api/v3client"
	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"

	"github.com/sampan-dev/sampan/kit/clock"
	"github.com/sampan-dev/sampan/kit/run"
	"github.com/sampan-dev/sampan/storage/keys"
)

// errDown is what callers get while the member is not serving.
var errDown = errors.New("etcd: the member is not running")

// Server is an etcd member inside this process. Run may be called again after
// it failed.
type Server struct {
	cfg     func(*guard) *embed.Config
	running atomic.Pointer[etcdserver.EtcdServer]
	client  atomic.Pointer[clientv3.Client] // calls of running
	keys    *keys.Store                     // the second version's; nil: not served
	changed atomic.Pointer[chan struct{}]   // closed when running changes
	reign   atomic.Pointer[reign]           // nil until a leader was seen to change
}

// NewServer checks cfg and returns a member that is not running yet.
func NewServer(cfg Config) (*Server, error) {
	if err := cfg.Check(); err != nil {
		return nil, fmt.Errorf("etcd: configuration: %w", err)
	}
	log := cfg.Log
	if log == nil {
		log = slog.Default()
	}
	log = log.With("room", "etcd")
	return newServer(cfg.SecondVersion, func(g *guard) *embed.Config { return cfg.embedded(bridge(log, g)) }), nil
}

func newServer(v2 bool, cfg func(*guard) *embed.Config) *Server {
	s := &Server{}
	c := make(chan struct{})
	s.changed.Store(&c)
	if v2 {
		s.keys = keys.NewStore(s.Client)
	}
	s.cfg = func(g *guard) *embed.Config {
		e := cfg(g)
		if s.keys != nil {
			e.UserHandlers = s.keys.Handlers()
		}
		return e
	}
	return s
}

// Client calls the member that is running as one would over the network. It is
// of no use any more when the member stops.
func (s *Server) Client() (*clientv3.Client, error) {
	if c := s.client.Load(); c != nil {
		return c, nil
	}
	return nil, errDown
}

func (s *Server) set(e *etcdserver.EtcdServer) {
	s.running.Store(e)
	c := make(chan struct{})
	close(*s.changed.Swap(&c))
}

// closePatience bounds the stopping of a member whose own parts have failed.
const closePatience = 10 * time.Second

// Run serves until ctx ends or the member fails. The data directory is free
// again when it returns.
func (s *Server) Run(ctx context.Context) error {
	fatal := make(chan string, 16)
	g := &guard{failed: func(msg string) {
		select {
		case fatal <- msg:
		default:
		}
	}}
	e, err := start(ctx, s.cfg(g), fatal)
	if err != nil {
		return fmt.Errorf("etcd: start: %w", err)
	}
	defer s.close(ctx, e)
	defer g.ending.Store(true)
	defer s.serve(ctx, e)()
	lctx, led := context.WithCancel(ctx)
	defer led()
	run.Detach(lctx, "etcd lead", func(ctx context.Context) { lead(ctx, e.Server) })
	rctx, deposed := context.WithCancel(ctx)
	defer deposed()
	run.Detach(rctx, "etcd leaders", func(ctx context.Context) { s.reigns(ctx, e.Server) })
	select {
	case <-e.Server.ReadyNotify():
		led()
		s.set(e.Server)
	case msg := <-fatal:
		return fmt.Errorf("etcd: start: %s", msg)
	case err := <-e.Err():
		return fmt.Errorf("etcd: start: %w", err)
	case <-e.Server.StopNotify():
		return errors.New("etcd: start: the member stopped")
	case <-ctx.Done():
		return ctx.Err()
	}
	select {
	case msg := <-fatal:
		return fmt.Errorf("etcd: %s", msg)
	case err := <-e.Err():
		return fmt.Errorf("etcd: serve: %w", err)
	case <-e.Server.StopNotify():
		return errors.New("etcd: the member stopped, or was removed from its cluster")
	case <-ctx.Done():
		return ctx.Err()
	}
}

// serve makes the member's client, which its listeners may ask for as soon as
// the member is ready, and returns what ends it.
func (s *Server) serve(ctx context.Context, e *embed.Etcd) (end func()) {
	c := v3client.New(e.Server)
	s.client.Store(c)
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan struct{})
	run.Detach(ctx, "etcd expiry", func(ctx context.Context) {
		defer close(done)
		select {
		case <-e.Server.ReadyNotify():
		case <-ctx.Done():
			return
		}
		if s.keys != nil {
			s.keys.Expire(ctx, c, slog.Default())
		}
	})
	return func() {
		s.client.Store(nil)
		cancel()
		<-done
		_ = c.Close() // it has no connection
	}
}

// start calls embed.StartEtcd where its fatal errors, which end the goroutine,
// can do no harm.
func start(ctx context.Context, cfg *embed.Config, fatal <-chan string) (*embed.Etcd, error) {
	var e *embed.Etcd
	err := errors.New("ended early")
	done := make(chan struct{})
	run.Detach(context.WithoutCancel(ctx), "etcd start", func(context.Context) {
		defer close(done)
		e, err = embed.StartEtcd(cfg)
	})
	<-done
	if e == nil {
		select {
		case msg := <-fatal:
			return nil, errors.New(msg)
		default:
			return nil, err
		}
	}
	return e, err
}

// lead makes a member that is alone its own leader at once, instead of after an
// election timeout: it is told what a resigning leader tells its successor,
// until it has applied enough of its log to listen.
func lead(ctx context.Context, e *etcdserver.EtcdServer) {
	for e.Leader() == 0 && ctx.Err() == nil {
		if len(e.Cluster().Members()) == 1 && caughtUp(uint64(e.MemberID())) {
			id := uint64(e.MemberID())
			_ = e.Process(ctx, &raftpb.Message{Type: raftpb.MsgTimeoutNow.Enum(), From: &id, To: &id})
		}
		_ = clock.Sleep(ctx, time.Millisecond) // ended: the loop ends too
	}
}

// caughtUp says whether Raft knows that everything committed was applied. A
// member that campaigns before that looks through its log for changes of
// membership, where what was applied may be compacted already, and panics. What
// Raft knows is published as a variable only, of one member per process; of
// another nothing is known, and it waits for its ordinary election.
func caughtUp(id uint64) bool {
	v, ok := expvar.Get("raft.status").(expvar.Func)
	if !ok {
		return false
	}
	st, ok := v.Value().(raft.Status)
	return ok && st.ID == id && st.HardState != nil && st.Applied >= st.HardState.GetCommit()
}

func (s *Server) close(ctx context.Context, e *embed.Etcd) {
	s.set(nil)
	done := make(chan struct{})
	run.Detach(context.WithoutCancel(ctx), "etcd close", func(context.Context) {
		defer close(done)
		e.Close()
	})
	t := clock.NewTimer(closePatience)
	defer t.Stop()
	select {
	case <-done:
	case <-t.C:
		slog.Error("etcd did not stop in time", "patience", closePatience)
	}
}

// Ready returns when the member serves reads and writes.
func (s *Server) Ready(ctx context.Context) error {
	for {
		changed := *s.changed.Load()
		if s.running.Load() != nil {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return fmt.Errorf("etcd: ready: %w", ctx.Err())
		}
	}
}

// Healthy says whether the member, with its cluster, can serve consistent reads.
func (s *Server) Healthy(ctx context.Context) error {
	e := s.running.Load()
	if e == nil {
		return errDown
	}
	for _, a := range e.Alarms() {
		return fmt.Errorf("etcd: alarm %s", a.Alarm)
	}
	if err := e.LinearizableReadNotify(ctx); err != nil {
		return fmt.Errorf("etcd: %w", err)
	}
	return nil
}

// DBSize is the size of the database file in bytes; 0 while not running.
func (s *Server) DBSize() int64 {
	if e := s.running.Load(); e != nil {
		return e.Backend().Size()
	}
	return 0
}
