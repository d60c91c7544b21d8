package etcd

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/sampan-dev/sampan/kit/clock"
)

// Backup takes snapshots of a member on a schedule. Each is a file that
// `etcdctl snapshot restore` takes: complete and read back, or not there.
type Backup struct {
	Server    *Server
	Directory string
	Interval  time.Duration // BackupInterval when 0
	Keep      int           // BackupKeep when 0: how many are kept

	Log     *slog.Logger          // slog.Default() when nil
	Metrics prometheus.Registerer // none when nil

	taken  prometheus.Gauge
	failed prometheus.Counter
}

// backupRetry is the pause after a snapshot that failed.
const backupRetry = time.Minute

const (
	backupPrefix, backupSuffix = "etcd-", ".db"
	backupTime                 = "20060102T150405.000Z"
	partial                    = ".partial"
)

// check says what is wrong with the settings.
func (b *Backup) check() error {
	var errs []error
	if b.Interval < 0 || b.Interval > 0 && b.Interval < time.Second {
		errs = append(errs, fmt.Errorf("--snapshot-interval %v: want at least 1s", b.Interval))
	}
	if b.Keep < 0 {
		errs = append(errs, fmt.Errorf("--snapshot-keep %d: want at least 1", b.Keep))
	}
	return errors.Join(errs...)
}

// Run takes a snapshot when the newest is an interval old, until ctx ends. A
// failure is logged and tried again.
func (b *Backup) Run(ctx context.Context) error {
	if err := b.check(); err != nil {
		return err
	}
	log := cmp.Or(b.Log, slog.Default())
	b.metrics()
	wait := time.Duration(0)
	if err := b.Server.Ready(ctx); err != nil {
		return ctx.Err()
	}
	if old, err := b.list(); err == nil && len(old) > 0 {
		last := old[len(old)-1].at
		wait = last.Add(orElse(b.Interval, BackupInterval)).Sub(clock.Now())
		b.taken.Set(float64(last.Unix()))
	}
	for {
		if err := clock.Sleep(ctx, wait); err != nil {
			return err
		}
		wait = orElse(b.Interval, BackupInterval)
		path, err := b.Take(ctx)
		if err != nil {
			b.failed.Inc()
			wait = min(wait, backupRetry)
			log.Error("etcd snapshot failed", "directory", b.Directory, "err", err, "again in", wait)
			continue
		}
		b.taken.Set(float64(clock.Now().Unix()))
		log.Info("etcd snapshot taken", "file", path)
	}
}

func (b *Backup) metrics() {
	b.taken = prometheus.NewGauge(prometheus.GaugeOpts{Name: "sampan_etcd_snapshot_last_timestamp_seconds", Help: "When the newest snapshot on the schedule was taken."})
	b.failed = prometheus.NewCounter(prometheus.CounterOpts{Name: "sampan_etcd_snapshot_failures_total", Help: "Snapshots on the schedule that failed."})
	if b.Metrics != nil {
		// An error means that an earlier Run registered them, and they stand still.
		_, _ = b.Metrics.Register(b.taken), b.Metrics.Register(b.failed)
	}
}

// Take takes a snapshot now, returns its file, and removes those too many.
func (b *Backup) Take(ctx context.Context) (string, error) {
	if err := os.MkdirAll(b.Directory, 0o700); err != nil {
		return "", fmt.Errorf("snapshot: %w", err)
	}
	name := backupPrefix + clock.Now().UTC().Format(backupTime) + backupSuffix
	path := filepath.Join(b.Directory, name)
	if err := b.Server.Snapshot(ctx, path); err != nil {
		return "", err
	}
	return path, b.prune()
}

// Snapshot writes the member's data to a file, as `etcdctl snapshot save` does:
// with its hash at the end. The file is there when all of it is on the disk and
// was read back.
func (s *Server) Snapshot(ctx context.Context, path string) error {
	e := s.running.Load()
	if e == nil {
		return errDown
	}
	tmp := path + partial
	f, err := os.OpenFile(tmp, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return fmt.Errorf("snapshot: %w", err)
	}
	defer os.Remove(tmp)
	snap := e.Backend().Snapshot()
	h := sha256.New()
	_, err = snap.WriteTo(io.MultiWriter(f, h))
	err = errors.Join(err, snap.Close())
	if err == nil {
		_, err = f.Write(h.Sum(nil))
	}
	err = errors.Join(err, f.Sync(), f.Close(), ctx.Err())
	if err == nil {
		err = Verify(tmp)
	}
	if err == nil {
		err = os.Rename(tmp, path)
	}
	if err == nil {
		err = syncDir(filepath.Dir(path))
	}
	if err != nil {
		return fmt.Errorf("snapshot: %s: %w", path, err)
	}
	return nil
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// Verify says whether a snapshot is as it was written, by the hash at its end.
func Verify(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return fmt.Errorf("snapshot: %w", err)
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return fmt.Errorf("snapshot: %w", err)
	}
	// A database is a whole number of sectors, so that what is over is the hash.
	if st.Size()%512 != sha256.Size || st.Size() < 512 {
		return fmt.Errorf("snapshot: %s: it has no hash: not a snapshot, or cut off", path)
	}
	h := sha256.New()
	if _, err := io.CopyN(h, f, st.Size()-sha256.Size); err != nil {
		return fmt.Errorf("snapshot: %s: %w", path, err)
	}
	want, err := io.ReadAll(f)
	if err != nil {
		return fmt.Errorf("snapshot: %s: %w", path, err)
	}
	if !bytes.Equal(h.Sum(nil), want) {
		return fmt.Errorf("snapshot: %s: the hash is not that of the data; the file is damaged", path)
	}
	return nil
}

// dated is a snapshot on the schedule.
type dated struct {
	path string
	at   time.Time
}

// list is the snapshots in the directory, the oldest first.
func (b *Backup) list() ([]dated, error) {
	names, err := os.ReadDir(b.Directory)
	if err != nil {
		return nil, fmt.Errorf("snapshot: %w", err)
	}
	var out []dated
	for _, n := range names {
		stamp, ok := strings.CutPrefix(strings.TrimSuffix(n.Name(), backupSuffix), backupPrefix)
		if at, err := time.Parse(backupTime, stamp); ok && err == nil {
			out = append(out, dated{filepath.Join(b.Directory, n.Name()), at})
		}
	}
	slices.SortFunc(out, func(x, y dated) int { return x.at.Compare(y.at) })
	return out, nil
}

// prune removes the oldest snapshots that are too many, and the halves of
// those that a crash interrupted.
func (b *Backup) prune() error {
	all, err := b.list()
	if err != nil {
		return err
	}
	halves, _ := filepath.Glob(filepath.Join(b.Directory, backupPrefix+"*"+backupSuffix+partial))
	var errs []error
	for _, h := range halves {
		errs = append(errs, os.Remove(h))
	}
	for _, old := range all[:max(0, len(all)-orElse(b.Keep, BackupKeep))] {
		errs = append(errs, os.Remove(old.path))
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("snapshot: remove old ones: %w", err)
	}
	return nil
}
