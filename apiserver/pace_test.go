package apiserver

import (
	"context"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sampan-dev/sampan/kit/run"
)

// Of many long answers so many are written at once as there are turns, each of
// them comes to its turn, and one whose client does not read keeps nobody waiting.
func TestTurns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &pace{free: 2}
		var writing, most atomic.Int32
		steps := make([]atomic.Int32, 20)
		stuck := p.join()
		stuck.take(t.Context()) // and then does nothing for good
		g := run.New(t.Context())
		for i := range steps {
			g.Go("answer", func(ctx context.Context) error {
				a := p.join()
				defer a.end()
				for range 50 {
					a.take(ctx)
					if n := writing.Add(1); n > most.Load() {
						most.Store(n)
					}
					time.Sleep(300 * time.Microsecond)
					writing.Add(-1)
					steps[i].Add(1)
				}
				return nil
			})
		}
		time.Sleep(60 * time.Millisecond)
		synctest.Wait()
		for i := range steps {
			if n := steps[i].Load(); n == 0 || n == 50 {
				t.Errorf("answer %d has made %d steps of 50 while others waited", i, n)
			}
		}
		if err := g.Wait(); err != nil {
			t.Fatal(err)
		}
		if most.Load() != 2 {
			t.Errorf("%d were written at once", most.Load())
		}
		if !stuck.slow || p.free != 2 || len(p.line) != 0 {
			t.Errorf("at the end: %d turns, %d wait, the stuck one lost its own: %v", p.free, len(p.line), stuck.slow)
		}
		stuck.take(t.Context()) // waits for its client alone
		if stuck.has {
			t.Error("one whose client is slow took a turn")
		}
		if stuck.take(t.Context()); !stuck.has {
			t.Error("one whose client reads again took none")
		}
		stuck.end()
	})
}

// Who is no longer asked for does not wait.
func TestTurnsOfTheGone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &pace{free: 1}
		one, two, three := p.join(), p.join(), p.join()
		one.take(t.Context())
		ctx, cancel := context.WithCancel(t.Context())
		g := run.New(t.Context())
		g.Go("two", func(context.Context) error { two.take(ctx); return nil })
		synctest.Wait()
		g.Go("three", func(ctx context.Context) error { three.take(ctx); return nil })
		synctest.Wait()
		cancel()
		synctest.Wait()
		one.end()
		if err := g.Wait(); err != nil {
			t.Fatal(err)
		}
		if !three.has || two.has || p.free != 0 || len(p.line) != 0 {
			t.Errorf("two %v, three %v, %d turns, %d wait", two.has, three.has, p.free, len(p.line))
		}
		three.end()
	})
}
