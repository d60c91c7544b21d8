// Package trim gives back memory that only starting, or a burst of work, needed.
//
// Job: once a program that runs for good has settled, and whenever it rests after
// work that took memory, return the heap's free pages, and forget the pages of the
// program's own file that were only read to start or to work: tables of packages
// that initialised, programs that were unpacked. The kernel reads those again from
// the page cache when they are wanted after all.
//
// Not its job: a limit. Nothing is refused for want of memory.
//
// Invariants: only mappings that cannot be written are forgotten, so no data of
// the process can be lost.
package trim

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"runtime/debug"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sampan-dev/sampan/kit/clock"
	"github.com/sampan-dev/sampan/kit/run"
)

// Settled is when a cluster's programs have done what starting asks of them.
const Settled = 20 * time.Second

// After trims once d has passed, unless ctx ends first.
func After(ctx context.Context, d time.Duration) {
	run.Detach(ctx, "trim memory", func(ctx context.Context) {
		if clock.Sleep(ctx, d) == nil {
			_ = Now()
		}
	})
}

// Now trims at once.
func Now() error {
	debug.FreeOSMemory()
	ranges, err := programPages()
	if err != nil {
		return fmt.Errorf("trim memory: %w", err)
	}
	for _, r := range ranges {
		// By number: these are the kernel's addresses, no pointers of Go's.
		if _, _, errno := unix.Syscall(unix.SYS_MADVISE, r.from, r.to-r.from, unix.MADV_DONTNEED); errno != 0 {
			return fmt.Errorf("trim memory: %w", errno)
		}
	}
	return nil
}

type span struct{ from, to uintptr }

// programPages are the mappings of this program's file that nobody can write.
func programPages() ([]span, error) {
	self, err := os.Readlink("/proc/self/exe")
	if err != nil {
		return nil, err
	}
	f, err := os.Open("/proc/self/maps")
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var all []span
	for lines := bufio.NewScanner(f); lines.Scan(); {
		if s, ok := readOnly(lines.Text(), self); ok {
			all = append(all, s)
		}
	}
	return all, nil
}

// readOnly reads a line of /proc/PID/maps, "00400000-01bd1000 r-xp 00000000
// fe:00 1234 /path": ok for a private mapping of self that cannot be written.
func readOnly(line, self string) (s span, ok bool) {
	fields := strings.Fields(line)
	if len(fields) < 6 || fields[5] != self || (fields[1] != "r-xp" && fields[1] != "r--p") {
		return s, false
	}
	_, err := fmt.Sscanf(fields[0], "%x-%x", &s.from, &s.to)
	return s, err == nil && s.from < s.to
}
