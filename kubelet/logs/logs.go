// Package logs reads and rotates the files in which the runtime keeps what
// containers say.
//
// Job: CRI's log format, reading with all options of the API, rotation.
//
// Not its job: which file is whose (kubelet).
//
// Invariants: a follower loses no line over a rotation; a line is never cut but
// by a byte limit.
package logs

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/sampan-dev/sampan/kit/clock"
)

// Line is one entry of a log.
type Line struct {
	At      time.Time
	Stream  string
	Partial bool
	Text    []byte
}

// Parse reads "TIME STREAM TAGS TEXT".
func Parse(b []byte) (Line, error) {
	at, rest, ok := bytes.Cut(b, []byte{' '})
	stream, rest, ok2 := bytes.Cut(rest, []byte{' '})
	tags, text, ok3 := bytes.Cut(rest, []byte{' '})
	if !ok || !ok2 || !ok3 {
		return Line{}, fmt.Errorf("log line: bad format: %q", b)
	}
	t, err := time.Parse(time.RFC3339Nano, string(at))
	if err != nil {
		return Line{}, fmt.Errorf("log line: %w", err)
	}
	partial := bytes.HasPrefix(tags, []byte("P"))
	if partial {
		text = bytes.TrimSuffix(text, []byte{'\n'})
	}
	return Line{t, string(stream), partial, text}, nil
}

// poll is how often a follower looks for more.
const poll = 200 * time.Millisecond

// Read writes the log at path to stdout and stderr as o asks. alive says
// whether more may come, for followers.
func Read(ctx context.Context, path string, o *corev1.PodLogOptions, alive func() bool, stdout, stderr io.Writer) error {
	f, err := os.Open(path)
	if err != nil {
		return fmt.Errorf("failed to try resolving symlinks in path %q: %w", path, err)
	}
	defer func() { _ = f.Close() }()
	since := time.Time{}
	if o.SinceSeconds != nil {
		since = clock.Now().Add(-time.Duration(*o.SinceSeconds) * time.Second)
	} else if o.SinceTime != nil {
		since = o.SinceTime.Time
	}
	if o.TailLines != nil {
		if err := tail(f, *o.TailLines); err != nil {
			return err
		}
	}
	out := &limited{left: -1}
	if o.LimitBytes != nil {
		out.left = *o.LimitBytes
	}
	stream := ""
	if o.Stream != nil && *o.Stream != corev1.LogStreamAll {
		stream = strings.ToLower(*o.Stream)
	}
	r := bufio.NewReaderSize(f, 32<<10)
	var held []byte // an unfinished line
	for {
		b, err := r.ReadBytes('\n')
		held = append(held, b...)
		if err == nil {
			done, werr := emit(held, o.Timestamps, since, stream, out, stdout, stderr)
			held = held[:0]
			if done || werr != nil {
				return werr
			}
			continue
		}
		if !errors.Is(err, io.EOF) {
			return err
		}
		if !o.Follow {
			return nil
		}
		more := alive()
		if err := clock.Sleep(ctx, poll); err != nil {
			return nil
		}
		next, err := moved(f, path)
		switch {
		case err != nil:
			return err
		case next != nil:
			// What was written before the rotation is still in the old file.
			rest, err := io.ReadAll(r)
			if err != nil {
				return err
			}
			for l := range bytes.Lines(append(held, rest...)) {
				if done, err := emit(l, o.Timestamps, since, stream, out, stdout, stderr); done || err != nil {
					return err
				}
			}
			held = nil
			_ = f.Close()
			f = next
			r.Reset(f)
		case !more:
			if _, err := r.Peek(1); err != nil {
				return nil
			}
		}
	}
}

// moved opens the file at path if it is not f any more.
func moved(f *os.File, path string) (*os.File, error) {
	a, err := f.Stat()
	if err != nil {
		return nil, err
	}
	b, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil || os.SameFile(a, b) {
		return nil, err
	}
	return os.Open(path)
}

type limited struct{ left int64 }

func emit(raw []byte, stamps bool, since time.Time, stream string, lim *limited, stdout, stderr io.Writer) (done bool, err error) {
	l, err := Parse(raw)
	if err != nil {
		return false, nil // not the runtime's: leave it out
	}
	if l.At.Before(since) || stream != "" && stream != l.Stream {
		return false, nil
	}
	text := l.Text
	if stamps {
		text = append([]byte(l.At.Format("2006-01-02T15:04:05.000000000Z07:00")+" "), text...)
	}
	if lim.left >= 0 && int64(len(text)) >= lim.left {
		text, done = text[:lim.left], true
	}
	if lim.left >= 0 {
		lim.left -= int64(len(text))
	}
	w := stdout
	if l.Stream == "stderr" {
		w = stderr
	}
	_, err = w.Write(text)
	return done, err
}

// tail moves f to its last n lines.
func tail(f *os.File, n int64) error {
	end, err := f.Seek(0, io.SeekEnd)
	if err != nil || n <= 0 {
		return err
	}
	const block = 8 << 10
	buf := make([]byte, block)
	at, found := end, int64(0)
	for at > 0 {
		size := min(at, block)
		at -= size
		if _, err := f.ReadAt(buf[:size], at); err != nil && !errors.Is(err, io.EOF) {
			return err
		}
		for i := size - 1; i >= 0; i-- {
			if buf[i] != '\n' || at+i == end-1 {
				continue
			}
			if found++; found == n {
				_, err := f.Seek(at+i+1, io.SeekStart)
				return err
			}
		}
	}
	_, err = f.Seek(0, io.SeekStart)
	return err
}

// Rotate moves the log at path aside when it is larger than size and keeps at
// most files of it, the older ones compressed. reopen makes the runtime write
// to a new file.
func Rotate(path string, size int64, files int, reopen func() error) error {
	info, err := os.Stat(path)
	if err != nil || info.Size() < size || size <= 0 {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		return err
	}
	old, err := filepath.Glob(path + ".*")
	if err != nil {
		return err
	}
	slices.Sort(old)
	for i, f := range old {
		switch {
		case strings.HasSuffix(f, ".tmp") || len(old)-i > max(files-2, 0):
			err = os.Remove(f)
		case !strings.HasSuffix(f, ".gz"):
			err = pack(f)
		}
		if err != nil {
			return fmt.Errorf("rotate: %w", err)
		}
	}
	aside := path + "." + clock.Now().Format("20060102-150405")
	if err := os.Rename(path, aside); err != nil {
		return fmt.Errorf("rotate: %w", err)
	}
	if err := reopen(); err != nil {
		return errors.Join(fmt.Errorf("rotate: %s: %w", path, err), os.Rename(aside, path))
	}
	return nil
}

func pack(path string) (err error) {
	in, err := os.Open(path)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.OpenFile(path+".tmp", os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o640)
	if err != nil {
		return err
	}
	z := gzip.NewWriter(out)
	_, err = io.Copy(z, in)
	if err = errors.Join(err, z.Close(), out.Close()); err != nil {
		return err
	}
	if err := os.Rename(path+".tmp", path+".gz"); err != nil {
		return err
	}
	return os.Remove(path)
}
