package cli

import (
	"context"
	"fmt"
	"io"
	"os"
	"sync"
	"time"

	"golang.org/x/term"

	"github.com/sampan-dev/sampan/kit/clock"
	"github.com/sampan-dev/sampan/kit/run"
)

// progress tells a waiting person what is being done and how long it took: a
// moving line on a terminal, plain lines elsewhere.
type progress struct {
	w   io.Writer
	tty bool
}

func newProgress(w io.Writer) *progress {
	f, ok := w.(*os.File)
	return &progress{w: w, tty: ok && term.IsTerminal(int(f.Fd()))}
}

var spinner = []rune("⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏")

// step runs fn under a name.
func (p *progress) step(ctx context.Context, name string, fn func(ctx context.Context) error) error {
	start := clock.Now()
	stop := p.spin(ctx, name, start)
	err := fn(ctx)
	stop()
	took := clock.Since(start)
	switch {
	case err != nil && p.tty:
		fmt.Fprintf(p.w, "\r\033[K ✗ %s (%s)\n", name, seconds(took))
	case err != nil:
		fmt.Fprintf(p.w, "failed: %s (%s)\n", name, seconds(took))
	case p.tty:
		fmt.Fprintf(p.w, "\r\033[K ✓ %s (%s)\n", name, seconds(took))
	default:
		fmt.Fprintf(p.w, "%s (%s)\n", name, seconds(took))
	}
	return err
}

// spin draws the moving line until the returned function is called.
func (p *progress) spin(ctx context.Context, name string, start time.Time) (stop func()) {
	if !p.tty {
		return func() {}
	}
	ctx, cancel := context.WithCancel(ctx)
	var done sync.WaitGroup
	done.Add(1)
	run.Detach(ctx, "progress", func(ctx context.Context) {
		defer done.Done()
		for i := 0; ctx.Err() == nil; i++ {
			fmt.Fprintf(p.w, "\r\033[K%s", p.fit(fmt.Sprintf(" %c %s %s", spinner[i%len(spinner)], name, seconds(clock.Since(start)))))
			_ = clock.Sleep(ctx, 100*time.Millisecond)
		}
	})
	return func() { cancel(); done.Wait() }
}

// fit cuts a line to the terminal's width: one that wraps cannot be drawn over.
func (p *progress) fit(line string) string {
	f, ok := p.w.(*os.File)
	if !ok {
		return line
	}
	width, _, err := term.GetSize(int(f.Fd()))
	if text := []rune(line); err == nil && width > 0 && len(text) >= width {
		return string(text[:width-1])
	}
	return line
}

func seconds(d time.Duration) string { return fmt.Sprintf("%.1fs", d.Seconds()) }
