// Package watchfile tells when files change.
//
// Job: call a function when one of some files was written, replaced or removed,
// also when a directory on the way is a link that is changed, as those of mounted
// secrets are.
//
// Not its job: reading the files, deciding whether they changed in substance.
//
// Invariants: nothing is polled; several changes at once are one call. What
// changed between a caller's own first reading and the beginning of the watch is
// not missed: the function is called once when the watch stands.
package watchfile

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sampan-dev/sampan/kit/clock"
)

// settle is how long changes are collected: files that belong together, such as
// a certificate and its key, are written one after the other.
const settle = 100 * time.Millisecond

// Run calls fn once as soon as no change can be missed any more, and then after
// changes of the files, until ctx ends.
func Run(ctx context.Context, fn func(), files ...string) error {
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		return fmt.Errorf("watch files: %w", err)
	}
	f := os.NewFile(uintptr(fd), "inotify")
	defer f.Close()
	defer context.AfterFunc(ctx, func() { f.Close() })()
	const events = unix.IN_CLOSE_WRITE | unix.IN_DELETE | unix.IN_MOVED_FROM | unix.IN_MOVED_TO | unix.IN_CREATE
	dirs := map[string]bool{}
	for _, name := range files {
		dirs[filepath.Dir(name)] = true
		if real, err := filepath.EvalSymlinks(name); err == nil {
			dirs[filepath.Dir(real)] = true
		}
	}
	for dir := range dirs {
		if _, err := unix.InotifyAddWatch(fd, dir, events); err != nil {
			return fmt.Errorf("watch files: %s: %w", dir, err)
		}
	}
	last := stamp(files)
	fn()
	buf := make([]byte, 64<<10)
	for {
		if _, err := f.Read(buf); err != nil {
			return ctx.Err()
		}
		if err := clock.Sleep(ctx, settle); err != nil {
			return err
		}
		if now := stamp(files); now != last {
			last = now
			fn()
		}
	}
}

// stamp says, for comparison, which versions of the files there are.
func stamp(files []string) string {
	s := ""
	for _, name := range files {
		st, err := os.Stat(name)
		if err != nil {
			s += name + " gone\n"
			continue
		}
		ino := uint64(0)
		var raw unix.Stat_t
		if unix.Stat(name, &raw) == nil {
			ino = raw.Ino
		}
		s += fmt.Sprintln(name, st.Size(), st.ModTime().UnixNano(), ino)
	}
	return s
}
