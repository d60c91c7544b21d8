package etcd_test

import (
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/sampan-dev/sampan/kit/run"
	"github.com/sampan-dev/sampan/storage/etcd"
)

func snapshots(t *testing.T, dir string) []string {
	t.Helper()
	out, err := filepath.Glob(filepath.Join(dir, "etcd-*.db*"))
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// A snapshot has what was there when it was taken; the newest are kept.
func TestBackup(t *testing.T) {
	s, stop := member(t, etcd.Config{DataDir: t.TempDir(), NoFsync: true})
	defer stop()
	st := etcd.NewLocal(s)
	if _, err := st.Create(t.Context(), "/registry/a", []byte("1"), 0); err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(t.TempDir(), "new", "snapshots")
	b := &etcd.Backup{Server: s, Directory: dir, Keep: 2}
	var files []string
	for range 4 {
		f, err := b.Take(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		files = append(files, f)
		time.Sleep(2 * time.Millisecond) // their names are times
	}
	if _, err := st.Create(t.Context(), "/registry/b", []byte("2"), 0); err != nil {
		t.Fatal(err)
	}
	for _, other := range []string{"etcd-by-hand.db", "notes"} {
		if err := os.WriteFile(filepath.Join(dir, other), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	half := filepath.Join(dir, "etcd-20200101T000000.000Z.db.partial") // of a crash
	if err := os.WriteFile(half, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	last, err := b.Take(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if got := strings.Join(snapshots(t, dir), " "); got != strings.Join([]string{files[3], last, filepath.Join(dir, "etcd-by-hand.db")}, " ") {
		t.Errorf("kept: %s", got)
	}
	for _, f := range []string{files[3], last} {
		if err := etcd.Verify(f); err != nil {
			t.Error(err)
		}
	}
	data := filepath.Join(t.TempDir(), "d")
	if err := (etcd.Restore{Snapshot: files[3], DataDir: data, Name: "test"}).Do(); err != nil {
		t.Fatal(err)
	}
	if err := (etcd.Restore{Snapshot: files[3], DataDir: data}).Do(); err == nil || !strings.Contains(err.Error(), "is there already") {
		t.Errorf("restored over data: %v", err)
	}
	again, end := member(t, etcd.Config{DataDir: data, NoFsync: true, ListenPeer: nil})
	defer end()
	old := etcd.NewLocal(again)
	if r, err := old.Get(t.Context(), "/registry/a", 0); err != nil || string(r.Value) != "1" {
		t.Errorf("/registry/a: %+v, %v", r, err)
	}
	if _, err := old.Get(t.Context(), "/registry/b", 0); err == nil {
		t.Error("what came after the snapshot was restored, too")
	}
}

// What is damaged or cut off is refused, and nothing is left of the attempt.
func TestDamagedSnapshots(t *testing.T) {
	s, stop := member(t, etcd.Config{DataDir: t.TempDir(), NoFsync: true})
	defer stop()
	dir := t.TempDir()
	good := filepath.Join(dir, "good")
	if err := s.Snapshot(t.Context(), good); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(good)
	if err != nil {
		t.Fatal(err)
	}
	flipped := append([]byte{}, text...)
	flipped[len(flipped)/2] ^= 1
	for name, c := range map[string]struct {
		text []byte
		want string
	}{
		"flipped": {flipped, "the hash is not that of the data; the file is damaged"},
		"cut":     {text[:len(text)-100], "it has no hash: not a snapshot, or cut off"},
		"hashes":  {text[:len(text)-32], "it has no hash"},
		"empty":   {nil, "it has no hash"},
	} {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, c.text, 0o600); err != nil {
			t.Fatal(err)
		}
		data := filepath.Join(dir, name+".d")
		err := etcd.Restore{Snapshot: path, DataDir: data}.Do()
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %s", name, err, c.want)
		}
		if _, err := os.Stat(data); !os.IsNotExist(err) {
			t.Errorf("%s: data is left: %v", name, err)
		}
	}
	if err := s.Snapshot(t.Context(), filepath.Join(dir, "nowhere", "f")); err == nil {
		t.Error("a snapshot in no directory")
	}
}

// On the schedule the first is taken at once; one that fails is counted, and
// nothing else ends.
func TestBackupSchedule(t *testing.T) {
	s, stop := member(t, etcd.Config{DataDir: t.TempDir(), NoFsync: true})
	defer stop()
	dir, file := filepath.Join(t.TempDir(), "s"), filepath.Join(t.TempDir(), "f")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	metrics, broken := prometheus.NewRegistry(), prometheus.NewRegistry()
	g := run.New(context.Background())
	quiet := slog.New(slog.DiscardHandler)
	g.Go("snapshots", (&etcd.Backup{Server: s, Directory: dir, Interval: time.Hour, Metrics: metrics, Log: quiet}).Run)
	g.Go("broken", (&etcd.Backup{Server: s, Directory: file, Interval: time.Hour, Metrics: broken, Log: quiet}).Run)
	value := func(r *prometheus.Registry, name string) float64 {
		all, err := r.Gather()
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range all {
			if m.GetName() == name {
				return m.Metric[0].GetGauge().GetValue() + m.Metric[0].GetCounter().GetValue()
			}
		}
		return 0
	}
	end := time.Now().Add(patience)
	for value(metrics, "sampan_etcd_snapshot_last_timestamp_seconds") == 0 || value(broken, "sampan_etcd_snapshot_failures_total") == 0 {
		if time.Now().After(end) {
			t.Fatal("no snapshot was taken, or no failure counted")
		}
		time.Sleep(5 * time.Millisecond)
	}
	g.Stop()
	if err := g.Wait(); err != nil {
		t.Error(err)
	}
	if got := snapshots(t, dir); len(got) != 1 {
		t.Errorf("snapshots: %v", got)
	}
	if err := (&etcd.Backup{Server: s, Directory: dir, Interval: time.Millisecond}).Run(t.Context()); err == nil || !strings.Contains(err.Error(), "--snapshot-interval 1ms: want at least 1s") {
		t.Errorf("too often: %v", err)
	}
}
