package run

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
)

func TestTasksStopInReverseOrder(t *testing.T) {
	g := New(t.Context())
	var stopped []string
	for _, name := range []string{"store", "server", "controllers"} {
		g.Go(name, func(ctx context.Context) error {
			<-ctx.Done()
			stopped = append(stopped, name) // safe: Wait stops one task at a time
			return ctx.Err()
		})
	}
	g.Stop()
	if err := g.Wait(); err != nil {
		t.Fatal(err)
	}
	if want := []string{"controllers", "server", "store"}; !slices.Equal(stopped, want) {
		t.Errorf("stopped in order %v, want %v", stopped, want)
	}
}

func TestErrorStopsTheGroupAndNamesTheTask(t *testing.T) {
	g := New(t.Context())
	g.Go("steady", func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() })
	boom := errors.New("disk on fire")
	g.Go("etcd", func(context.Context) error { return boom })
	err := g.Wait()
	if !errors.Is(err, boom) || !strings.HasPrefix(err.Error(), "etcd: ") {
		t.Errorf("Wait = %v", err)
	}
}

func TestPanicIsAnErrorOfItsTask(t *testing.T) {
	g := New(t.Context())
	g.Go("kubelet", func(context.Context) error { panic("nil map") })
	if err := g.Wait(); err == nil || !strings.Contains(err.Error(), "kubelet: panic: nil map") {
		t.Errorf("Wait = %v", err)
	}
}

func TestWaitReturnsWhenAllTasksAreDone(t *testing.T) {
	g := New(t.Context())
	g.Go("short", func(context.Context) error {
		g.Go("started by a task", func(context.Context) error { return nil })
		return nil
	})
	if err := g.Wait(); err != nil {
		t.Error(err)
	}
}
