package etcd_test

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/sampan-dev/sampan/kit/run"
)

// Whatever happens to one member of three, what was acknowledged is there, and
// the one that is cut off shows nothing as if it were new.
func TestNoAcknowledgedWriteIsLost(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 2*patience)
	defer cancel()
	f := cluster(ctx, t, 3)
	var mu sync.Mutex
	var acknowledged []string
	writing, stop := context.WithCancel(ctx)
	writers := run.New(ctx)
	for w := range 2 {
		writers.Go("writer", func(context.Context) error {
			for i := 0; writing.Err() == nil; i++ {
				time.Sleep(2 * time.Millisecond) // leave some of the computer to the members
				key := fmt.Sprintf("/registry/w%d/%d", w, i)
				f.writeOnce(writing, (w+i)%3, key, func() {
					mu.Lock()
					defer mu.Unlock()
					acknowledged = append(acknowledged, key)
				})
			}
			return nil
		})
	}
	count := func() int { mu.Lock(); defer mu.Unlock(); return len(acknowledged) }
	more := func(n int) {
		t.Helper()
		from := count()
		for count() < from+n {
			if ctx.Err() != nil {
				t.Fatalf("no more than %d writes since", count()-from)
			}
			time.Sleep(5 * time.Millisecond)
		}
	}
	more(50)
	began := time.Now()
	step := func(what string) { t.Logf("%v: %s", time.Since(began).Round(time.Millisecond), what) }
	for i, p := range f.all {
		p.setCut(true)
		more(10) // by the other two
		short, end := context.WithTimeout(ctx, 2*time.Second)
		if rev, err := p.store.Rev(short); err == nil {
			t.Errorf("%s is cut off and says that the newest revision is %d", p.name, rev)
		}
		end()
		step("refused")
		p.setCut(false)
		f.until(ctx, "the one that was cut off comes back", p.store.Healthy)
		step("back")

		next := f.all[(i+1)%3]
		f.restart(ctx, next, func() { more(10) })
		step("restarted")
	}
	stop()
	writers.Stop()
	if err := writers.Wait(); err != nil {
		t.Fatal(err)
	}
	t.Logf("%d writes were acknowledged", count())
	f.has(ctx, f.all, acknowledged)
}

// writeOnce writes through one member, and tells of it if that was acknowledged.
func (f *fleet) writeOnce(ctx context.Context, at int, key string, acknowledged func()) {
	ctx, cancel := context.WithTimeout(ctx, 300*time.Millisecond) // the next may do better
	defer cancel()
	f.all[at].life.RLock()
	store := f.all[at].store
	f.all[at].life.RUnlock()
	if _, err := store.Create(ctx, key, []byte(key), 0); err == nil {
		acknowledged()
	}
}

// restart stops a member, lets meanwhile happen, and starts it again.
func (f *fleet) restart(ctx context.Context, p *peer, meanwhile func()) {
	f.t.Helper()
	p.stop()
	meanwhile()
	p.start("", true, false)
	p.ready(ctx)
}

// One member becomes three, five, three and one again, and a lost one is
// replaced, with all data at each step.
func TestGrowAndShrink(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 2*patience)
	defer cancel()
	f := cluster(ctx, t, 1)
	keys := f.write(ctx, f.all, "alone", 20)
	for range 2 {
		f.join(ctx, f.all[0], 0)
	}
	f.has(ctx, f.all, keys)
	keys = append(keys, f.write(ctx, f.all, "three", 20)...)
	for range 2 {
		f.join(ctx, f.all[0], 0)
	}
	keys = append(keys, f.write(ctx, f.all, "five", 20)...)
	f.has(ctx, f.all, keys)

	id := func(p *peer) uint64 {
		for _, m := range f.members(ctx, f.all[0]) {
			if m.Name == p.name {
				return m.ID
			}
		}
		t.Fatalf("%s is no member", p.name)
		return 0
	}
	lost := f.all[4]
	lost.stop()
	f.join(ctx, f.all[0], id(lost)) // m5 in the place of m4
	left := append(append([]*peer{}, f.all[:4]...), f.all[5])
	keys = append(keys, f.write(ctx, left, "replaced", 20)...)
	f.has(ctx, left, keys)

	ms, err := f.all[0].server.Members()
	if err != nil {
		t.Fatal(err)
	}
	for len(left) > 1 {
		last := left[len(left)-1]
		who := id(last)
		f.until(ctx, "remove "+last.name, func(ctx context.Context) error { return ms.Remove(ctx, who) })
		last.stop()
		left = left[:len(left)-1]
		keys = append(keys, f.write(ctx, left, "without"+last.name, 5)...)
	}
	f.has(ctx, left, keys)
	if all := f.members(ctx, f.all[0]); len(all) != 1 {
		t.Errorf("members are %+v", all)
	}
	if err := ms.Remove(ctx, 12345); err == nil {
		t.Error("a member that never was can be removed")
	}
}

// Two of three are lost for good: the survivor becomes a cluster of its own
// with all data, and grows again.
func TestOneSurvivor(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 2*patience)
	defer cancel()
	f := cluster(ctx, t, 3)
	keys := f.write(ctx, f.all, "before", 50)
	f.has(ctx, f.all, keys)
	f.all[1].stop()
	f.all[2].stop()
	survivor := f.all[0]
	short, end := context.WithTimeout(ctx, 2*time.Second)
	if _, err := survivor.store.Create(short, "/registry/alone", nil, 0); err == nil {
		t.Error("one of three acknowledged a write")
	}
	end()
	survivor.stop()
	survivor.start("", true, true)
	survivor.ready(ctx)
	f.has(ctx, f.all[:1], keys)
	if all := f.members(ctx, survivor); len(all) != 1 || all[0].Name != survivor.name {
		t.Errorf("members are %+v", all)
	}
	survivor.stop()
	survivor.start("", true, false) // once was enough
	survivor.ready(ctx)
	for range 2 {
		f.join(ctx, survivor, 0)
	}
	again := []*peer{survivor, f.all[3], f.all[4]}
	keys = append(keys, f.write(ctx, again, "after", 20)...)
	f.has(ctx, again, keys)
}
