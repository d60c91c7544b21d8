package etcd_test

import (
	"context"
	"fmt"
	"log/slog"
	"testing"
	"time"

	"github.com/sampan-dev/sampan/kit/run"
	"github.com/sampan-dev/sampan/storage/etcd"
)

// A member alone leads at once after each start, whatever is left in its log to
// be applied: it must not campaign before that was.
func TestRestartsWithALongLog(t *testing.T) {
	dir := t.TempDir()
	for round := range 8 {
		srv, err := etcd.NewServer(etcd.Config{Name: "test", DataDir: dir, NoFsync: true, Log: slog.New(slog.DiscardHandler)})
		if err != nil {
			t.Fatal(err)
		}
		g := run.New(context.Background())
		g.Go("etcd", srv.Run)
		ctx, cancel := context.WithTimeout(g.Context(), 30*time.Second)
		began := time.Now()
		if err := srv.Ready(ctx); err != nil {
			t.Fatalf("start %d: %v, %v", round, err, g.Wait())
		}
		t.Logf("start %d took %v", round, time.Since(began))
		s := etcd.NewLocal(srv)
		for i := range 600 {
			if _, err := s.Create(ctx, fmt.Sprintf("/registry/things/%d-%d", round, i), []byte("value"), 0); err != nil {
				t.Fatal(err)
			}
		}
		cancel()
		g.Stop()
		if err := g.Wait(); err != nil {
			t.Fatal(err)
		}
	}
}
