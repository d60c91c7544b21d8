package etcd_test

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sampan-dev/sampan/kit/clock"
	"github.com/sampan-dev/sampan/kit/run"
	"github.com/sampan-dev/sampan/storage/etcd"
)

// patience bounds every wait of these tests.
const patience = 120 * time.Second

// fleet is members of one cluster, whose connections with each other go
// through doors that can be shut.
type fleet struct {
	t   *testing.T
	dir string
	all []*peer    // the test's own; others ask peers
	mu  sync.Mutex // while it grows
}

// peer is one member: its door has an address for as long as the test lasts,
// its own listener is behind it.
type peer struct {
	f      *fleet
	name   string
	door   net.Listener
	dir    string
	serves []string     // where clients reach it; nowhere by default
	life   sync.RWMutex // of the next three, which a restart changes
	server *etcd.Server
	store  *etcd.Store
	group  *run.Group

	mu   sync.Mutex
	id   string              // how it calls itself to others
	cut  bool                // nobody reaches it, and it reaches nobody
	open map[net.Conn]string // connections through its door, with who made them
}

func newFleet(t *testing.T) *fleet {
	f := &fleet{t: t, dir: t.TempDir()}
	t.Cleanup(func() {
		for _, p := range f.all {
			p.stop()
			p.door.Close()
		}
	})
	return f
}

func (f *fleet) peer() *peer {
	f.t.Helper()
	door, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		f.t.Fatal(err)
	}
	n := len(f.all)
	p := &peer{f: f, name: fmt.Sprintf("m%d", n), door: door, dir: filepath.Join(f.dir, fmt.Sprintf("d%d", n)), open: map[net.Conn]string{}}
	f.mu.Lock()
	f.all = append(f.all, p)
	f.mu.Unlock()
	run.Detach(context.Background(), "door", func(context.Context) {
		for {
			c, err := door.Accept()
			if err != nil {
				return
			}
			run.Detach(context.Background(), "passage", func(context.Context) { p.pass(c) })
		}
	})
	return p
}

func (p *peer) url() string { return "http://" + p.door.Addr().String() }

// behind is an address that nothing else on the computer uses as long as the
// door is there, whose port is its own.
func behind(door net.Listener) string {
	port := door.Addr().(*net.TCPAddr).Port
	return fmt.Sprintf("127.%d.%d.1:2380", port>>8, port&255)
}

// pass carries one connection through the door, if nobody shut it.
func (p *peer) pass(in net.Conn) {
	defer in.Close()
	var seen bytes.Buffer
	req, err := http.ReadRequest(bufio.NewReader(io.TeeReader(in, &seen)))
	if err != nil {
		return
	}
	from := req.Header.Get("X-Server-From")
	if !p.let(in, from) {
		return
	}
	defer func() { p.mu.Lock(); delete(p.open, in); p.mu.Unlock() }()
	out, err := net.Dial("tcp", behind(p.door))
	if err != nil {
		return
	}
	defer out.Close()
	back := make(chan struct{})
	run.Detach(context.Background(), "back", func(context.Context) {
		defer close(back)
		_, _ = io.Copy(in, out)
		in.Close()
	})
	_, _ = io.Copy(out, io.MultiReader(&seen, in))
	out.Close()
	<-back
}

// peers are all there are now, for who does not add any.
func (f *fleet) peers() []*peer {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.all)
}

// let says whether from may come in, and remembers it.
func (p *peer) let(c net.Conn, from string) bool {
	for _, o := range p.f.peers() {
		if o.isCut() && (o == p || o.called(from)) {
			return false
		}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.open[c] = from
	return true
}

func (p *peer) isCut() bool { p.mu.Lock(); defer p.mu.Unlock(); return p.cut }

func (p *peer) called(id string) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return id != "" && id == p.id
}

// setCut shuts or opens the door for a member, either way.
func (p *peer) setCut(cut bool) {
	p.mu.Lock()
	p.cut = cut
	id := p.id
	p.mu.Unlock()
	for _, o := range p.f.all {
		o.mu.Lock()
		for c, from := range o.open {
			if cut && (o == p || from == id) {
				c.Close()
			}
		}
		o.mu.Unlock()
	}
}

// start runs the member; initial is its cluster, unless it has been of it.
func (p *peer) start(initial string, existing, force bool) {
	p.f.t.Helper()
	s, err := etcd.NewServer(etcd.Config{
		Name: p.name, DataDir: p.dir, NoFsync: true, Log: slog.New(slog.DiscardHandler),
		ListenPeer: []string{"http://" + behind(p.door)}, AdvertisePeer: []string{p.url()},
		InitialCluster: initial, Existing: existing, ForceNewCluster: force, ListenClient: p.serves,
		Tick: 20 * time.Millisecond, Election: 200 * time.Millisecond,
	})
	if err != nil {
		p.f.t.Fatal(err)
	}
	p.life.Lock()
	defer p.life.Unlock()
	p.server, p.store, p.group = s, etcd.NewLocal(s), run.New(context.Background())
	p.group.Go("etcd", func(ctx context.Context) error {
		for { // as whoever keeps a member running does
			err := s.Run(ctx)
			if ctx.Err() != nil {
				return ctx.Err()
			}
			p.f.t.Logf("%s ended: %v", p.name, err)
			if clock.Sleep(ctx, 100*time.Millisecond) != nil {
				return ctx.Err()
			}
		}
	})
}

// ready waits for the member, and learns how it calls itself.
func (p *peer) ready(ctx context.Context) {
	p.f.t.Helper()
	if err := p.server.Ready(ctx); err != nil {
		p.f.t.Fatalf("%s: %v, %v", p.name, err, p.group.Wait())
	}
	for _, m := range p.f.members(ctx, p) {
		if m.Name == p.name {
			p.mu.Lock()
			p.id = fmt.Sprintf("%x", m.ID)
			p.mu.Unlock()
		}
	}
}

func (p *peer) stop() {
	if p.group != nil {
		p.group.Stop()
		_ = p.group.Wait() // a member that was removed ends in an error
		p.group = nil
	}
}

// members asks p for all members, until it answers.
func (f *fleet) members(ctx context.Context, p *peer) []etcd.Member {
	f.t.Helper()
	var all []etcd.Member
	f.until(ctx, "the list of members", func(ctx context.Context) error {
		ms, err := p.server.Members()
		if err == nil {
			all, err = ms.List(ctx)
		}
		return err
	})
	return all
}

// until repeats fn until it succeeds.
func (f *fleet) until(ctx context.Context, what string, fn func(context.Context) error) {
	f.t.Helper()
	for {
		try, cancel := context.WithTimeout(ctx, 10*time.Second)
		err := fn(try)
		cancel()
		if err == nil {
			return
		}
		select {
		case <-ctx.Done():
			f.t.Fatalf("%s: %v", what, err)
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// cluster starts n members of a new cluster.
func cluster(ctx context.Context, t *testing.T, n int) *fleet {
	t.Helper()
	f := newFleet(t)
	var initial []string
	for range n {
		p := f.peer()
		initial = append(initial, p.name+"="+p.url())
	}
	for _, p := range f.all {
		p.start(strings.Join(initial, ","), false, false)
	}
	for _, p := range f.all {
		p.ready(ctx)
	}
	return f
}

// join adds a member by way of another: as a learner, then with a vote.
func (f *fleet) join(ctx context.Context, via *peer, replaced uint64) *peer {
	f.t.Helper()
	ms, err := via.server.Members()
	if err != nil {
		f.t.Fatal(err)
	}
	p := f.peer()
	var all []etcd.Member
	f.until(ctx, "add a member", func(ctx context.Context) (err error) { // the cluster may not be settled yet
		if replaced != 0 {
			all, err = ms.Replace(ctx, replaced, p.url())
		} else {
			all, err = ms.Add(ctx, p.url())
		}
		return err
	})
	p.start(etcd.InitialCluster(all, p.name, p.url()), true, false)
	for _, m := range all {
		if len(m.PeerURLs) > 0 && m.PeerURLs[0] == p.url() {
			if !m.Learner {
				f.t.Errorf("%s has a vote before it has the data", p.name)
			}
			if err := ms.PromoteWhenInSync(ctx, m.ID); err != nil {
				f.t.Fatal(err)
			}
		}
	}
	p.ready(ctx)
	return p
}

// write creates keys, each until it is acknowledged by one of the members, and
// returns them.
func (f *fleet) write(ctx context.Context, at []*peer, prefix string, n int) []string {
	f.t.Helper()
	var keys []string
	for i := range n {
		key := fmt.Sprintf("/registry/%s/%d", prefix, i)
		f.until(ctx, "write "+key, func(ctx context.Context) error {
			_, err := at[i%len(at)].store.Create(ctx, key, []byte(key), 0)
			if err != nil {
				if _, there := at[i%len(at)].store.Get(ctx, key, 0); there == nil {
					return nil // it was made, and the answer was lost
				}
			}
			return err
		})
		keys = append(keys, key)
	}
	return keys
}

// has checks that every key is read from every one of the members.
func (f *fleet) has(ctx context.Context, at []*peer, keys []string) {
	f.t.Helper()
	for _, p := range at {
		for _, k := range keys {
			f.until(ctx, fmt.Sprintf("%s: read %s", p.name, k), func(ctx context.Context) error {
				r, err := p.store.Get(ctx, k, 0)
				if err == nil && string(r.Value) != k {
					return errors.New("another value")
				}
				return err
			})
		}
	}
}
