package etcd_test

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/sampan-dev/sampan/kit/run"
	"github.com/sampan-dev/sampan/storage/etcd"
)

// Three members: what one acknowledged the others show at once, and two go on
// when one, whichever it is, goes away.
func TestCluster(t *testing.T) {
	const n = 3
	var urls, initial []string
	for i := range n {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { l.Close() })
		urls = append(urls, "http://"+behind(l))
		initial = append(initial, fmt.Sprintf("m%d=%s", i, urls[i]))
	}
	groups, stores := make([]*run.Group, n), make([]*etcd.Store, n)
	servers := make([]*etcd.Server, n)
	for i := range n {
		s, err := etcd.NewServer(etcd.Config{
			Name: fmt.Sprintf("m%d", i), DataDir: t.TempDir(), NoFsync: true, Log: slog.New(slog.DiscardHandler),
			ListenPeer: []string{urls[i]}, InitialCluster: strings.Join(initial, ","),
			Tick: 20 * time.Millisecond, Election: 200 * time.Millisecond,
		})
		if err != nil {
			t.Fatal(err)
		}
		g := run.New(context.Background())
		g.Go("etcd", s.Run)
		t.Cleanup(func() { g.Stop(); _ = g.Wait() })
		groups[i], servers[i], stores[i] = g, s, etcd.NewLocal(s)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
	defer cancel()
	for _, s := range servers {
		if err := s.Ready(ctx); err != nil {
			t.Fatal(err)
		}
	}
	for i := range 60 {
		r, err := stores[i%n].Create(ctx, fmt.Sprintf("/registry/%d", i), []byte("x"), 0)
		if err != nil {
			t.Fatal(err)
		}
		reader := stores[(i+1)%n]
		if rev, err := reader.Rev(ctx); err != nil || rev < r.Rev {
			t.Fatalf("another member is at %d (%v) after %d was acknowledged", rev, err, r.Rev)
		}
		if got, err := reader.Get(ctx, r.Key, 0); err != nil || got.Rev != r.Rev {
			t.Fatalf("another member shows %+v, %v", got, err)
		}
	}
	groups[0].Stop()
	_ = groups[0].Wait()
	for i := 0; ; i++ { // an election may have to pass
		_, err := stores[1].Create(ctx, fmt.Sprintf("/registry/then/%d", i), []byte("x"), 0)
		if err == nil {
			break
		}
		if ctx.Err() != nil {
			t.Fatalf("two members of three do not go on: %v", err)
		}
	}
	if err := stores[2].Healthy(ctx); err != nil {
		t.Fatal(err)
	}
	if err := stores[0].Healthy(ctx); err == nil {
		t.Fatal("the member that stopped is healthy")
	}
}
