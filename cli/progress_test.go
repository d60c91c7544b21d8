package cli

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"regexp"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"
)

// terminal is a pseudo terminal of a width and what was written to it.
func terminal(t *testing.T, columns uint16) (tty *os.File, shown func() string) {
	t.Helper()
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Skip("no pseudo terminals here: ", err)
	}
	t.Cleanup(func() { master.Close() })
	if err := unix.IoctlSetPointerInt(int(master.Fd()), unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	n, err := unix.IoctlGetInt(int(master.Fd()), unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.IoctlSetWinsize(int(master.Fd()), unix.TIOCSWINSZ, &unix.Winsize{Row: 24, Col: columns}); err != nil {
		t.Fatal(err)
	}
	tty, err = os.OpenFile(fmt.Sprint("/dev/pts/", n), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { tty.Close() })
	var mu sync.Mutex
	var all bytes.Buffer
	go func() {
		buf := make([]byte, 4096)
		for {
			n, err := master.Read(buf)
			mu.Lock()
			all.Write(buf[:n])
			mu.Unlock()
			if err != nil {
				return
			}
		}
	}()
	return tty, func() string {
		mu.Lock()
		defer mu.Unlock()
		return all.String()
	}
}

func until(t *testing.T, what string, fn func() bool) {
	t.Helper()
	for range 60_000 {
		if fn() {
			return
		}
		unix.Nanosleep(&unix.Timespec{Nsec: 1e6}, nil)
	}
	t.Fatal("not after a minute: ", what)
}

// On a terminal one line moves while a step is under way and stays, with its
// time, when it is done; a long name does not wrap.
func TestProgressOnATerminal(t *testing.T) {
	tty, shown := terminal(t, 30)
	p := newProgress(tty)
	err := p.step(t.Context(), "start node with-a-name-that-is-very-long", func(context.Context) error {
		until(t, "the line moves", func() bool {
			s := shown()
			return strings.Contains(s, "⠋ start") && strings.Contains(s, "⠹ start")
		})
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.SplitSeq(shown(), "\r\033[K") {
		if len([]rune(line)) >= 30 && !strings.Contains(line, "✓") {
			t.Errorf("a moving line of %d columns on a terminal of 30: %q", len([]rune(line)), line)
		}
	}
	if err := p.step(t.Context(), "wait", func(context.Context) error { return errors.New("no") }); err == nil {
		t.Error("the step's error was lost")
	}
	until(t, "the steps' ends", func() bool {
		s := shown()
		return strings.Contains(s, "\r\033[K ✓ start node with-a-name-that-is-very-long (") && strings.Contains(s, "\r\033[K ✗ wait (")
	})
}

// Elsewhere there are plain lines and nothing that moves.
func TestProgressInAFile(t *testing.T) {
	var out bytes.Buffer
	p := newProgress(&out)
	_ = p.step(t.Context(), "start", func(context.Context) error { return nil })
	_ = p.step(t.Context(), "wait", func(context.Context) error { return errors.New("no") })
	if got := out.String(); !regexp.MustCompile(`^start \(\d+\.\ds\)\nfailed: wait \(\d+\.\ds\)\n$`).MatchString(got) {
		t.Errorf("said %q", got)
	}
}
