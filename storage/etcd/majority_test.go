package etcd_test

import (
	"context"
	"net"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/sampan-dev/sampan/storage/etcd"
)

// Two of three members are lost: who writes or reads through the third is told so
// as soon as that knows, not when the request's minute is over; and goes on when
// one of the two is back.
func TestNoMajorityIsSaid(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 2*patience)
	defer cancel()
	f := newFleet(t)
	var initial []string
	for range 3 {
		p := f.peer()
		initial = append(initial, p.name+"="+p.url())
	}
	url := "unix://" + filepath.Join(f.dir, "s")
	f.all[0].serves = []string{url}
	store, err := etcd.NewRemote([]string{url}, etcd.TLS{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { store.Close() })
	for _, p := range f.all {
		p.start(strings.Join(initial, ","), false, false)
	}
	for _, p := range f.all {
		p.ready(ctx)
	}
	f.until(ctx, "a write over the network", func(ctx context.Context) error {
		_, err := store.Create(ctx, "/registry/before", []byte("x"), 0)
		return err
	})
	f.all[1].stop()
	f.all[2].stop()
	t.Run("lost", func(t *testing.T) {
		for name, ask := range map[string]func(context.Context) error{
			"write": func(ctx context.Context) error {
				_, err := store.Create(ctx, "/registry/refused", []byte("x"), 0)
				return err
			},
			"event": func(ctx context.Context) error {
				_, err := store.Create(ctx, "/registry/events/refused", []byte("x"), 3600)
				return err
			},
			"read": func(ctx context.Context) error { _, err := store.Get(ctx, "/registry/before", 0); return err },
			"local write": func(ctx context.Context) error {
				_, err := f.all[0].store.Create(ctx, "/registry/too", []byte("x"), 0)
				return err
			},
			"local health": f.all[0].store.Healthy,
		} {
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				minute, end := context.WithTimeout(ctx, time.Minute)
				defer end()
				began := time.Now()
				err := ask(minute)
				t.Logf("after %v: %v", time.Since(began).Round(time.Millisecond), err)
				if err == nil || !strings.Contains(err.Error(), "etcdserver: request timed out") || minute.Err() != nil {
					t.Errorf("%v; want that etcd has no leader, before the minute is over", err)
				}
			})
		}
	})
	f.all[1].start("", true, false)
	f.all[1].ready(ctx)
	f.until(ctx, "a write again", func(ctx context.Context) error {
		_, err := store.Create(ctx, "/registry/after", []byte("x"), 0)
		return err
	})
}

// Nobody has ever answered: the member may be starting, and is waited for.
func TestStartIsWaitedFor(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	f := newFleet(t)
	var initial []string
	for range 2 {
		p := f.peer()
		initial = append(initial, p.name+"="+p.url())
	}
	url := "unix://" + filepath.Join(f.dir, "s")
	f.all[0].serves = []string{url}
	store, err := etcd.NewRemote([]string{url}, etcd.TLS{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { store.Close() })
	f.all[0].start(strings.Join(initial, ","), false, false) // half of the members: no leader
	f.until(ctx, "somebody listens", func(context.Context) error {
		c, err := net.Dial("unix", filepath.Join(f.dir, "s"))
		if err == nil {
			c.Close()
		}
		return err
	})
	short, end := context.WithTimeout(ctx, 8*time.Second) // longer than a member's own time, 5.4 s
	defer end()
	if _, err := store.Create(short, "/registry/early", []byte("x"), 0); err == nil || short.Err() == nil {
		t.Errorf("a write to an etcd that starts: %v; want that it waits as long as the request lives", err)
	}
	f.all[1].start(strings.Join(initial, ","), false, false)
	for _, p := range f.all {
		p.ready(ctx)
	}
	f.until(ctx, "the first write", func(ctx context.Context) error {
		_, err := store.Create(ctx, "/registry/first", []byte("x"), 0)
		return err
	})
}
