package bootstrap

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/sampan-dev/sampan/kit/clock"
	"github.com/sampan-dev/sampan/kit/run"
	"github.com/sampan-dev/sampan/storage/etcd"
)

// recoverPatience bounds the start of a member that becomes the only one.
const recoverPatience = 2 * time.Minute

// restoreBump is added to the revision that a snapshot had: whoever has seen a
// later one since is told that it is gone, and asks anew, instead of waiting for it.
const restoreBump = 1_000_000_000

// alone makes this machine's member of etcd the only one of its cluster, and
// ends: what other members had and this one had not heard of is lost, so it is
// never done by the way. With a snapshot the data becomes the snapshot's.
func (s *session) alone(ctx context.Context) error {
	flag := "--force-new-cluster"
	if s.RestoreSnapshot != "" {
		flag = "--restore-snapshot"
	}
	if err := s.recall(ctx); err != nil {
		return err
	}
	if err := s.certificates(); err != nil {
		return err
	}
	cfg, err := s.ownMember()
	if err != nil {
		return err
	}
	undo := func() error { return nil }
	if s.RestoreSnapshot != "" {
		if undo, err = s.restore(cfg); err != nil {
			return fmt.Errorf("%s: %w", flag, errors.Join(err, undo()))
		}
	} else if !s.member() {
		return fmt.Errorf("%s: %s holds no data of etcd", flag, s.path("etcd"))
	}
	cfg.ForceNewCluster = s.ForceNewCluster
	if err := serveOnce(ctx, *cfg); err != nil {
		return fmt.Errorf("%s: %w", flag, errors.Join(err, undo()))
	}
	s.log.Warn("this machine's member of etcd is now the only one of its cluster: start the server without " + flag + "; on the other control planes remove DATA-DIR/etcd, and start them to have them join again")
	return nil
}

// ownMember describes this machine's member.
func (s *session) ownMember() (*etcd.Config, error) {
	if s.several() {
		return s.stacked()
	}
	return s.single(), nil
}

// single is the member of a control plane that nobody can join.
func (s *session) single() *etcd.Config {
	return &etcd.Config{Name: s.NodeName, DataDir: s.path("etcd"), Log: s.log}
}

// restore makes the data that of a snapshot. What was there is kept beside it,
// and undo puts it back.
func (s *session) restore(cfg *etcd.Config) (undo func() error, err error) {
	undo = func() error { return nil }
	if err := etcd.Verify(s.RestoreSnapshot); err != nil {
		return undo, err
	}
	if _, err := os.Stat(cfg.DataDir); err == nil {
		aside := cfg.DataDir + ".before-" + clock.Now().UTC().Format("20060102T150405Z")
		if err := os.Rename(cfg.DataDir, aside); err != nil {
			return undo, err
		}
		undo = func() error { return errors.Join(os.RemoveAll(cfg.DataDir), os.Rename(aside, cfg.DataDir)) }
		s.log.Info("what was there is kept", "directory", aside)
	}
	return undo, etcd.Restore{Snapshot: s.RestoreSnapshot, DataDir: cfg.DataDir, Name: cfg.Name, PeerURLs: cfg.AdvertisePeer, RevisionBump: restoreBump}.Do()
}

// serveOnce starts a member, sees that it serves, and stops it.
func serveOnce(ctx context.Context, cfg etcd.Config) error {
	e, err := etcd.NewServer(cfg)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, recoverPatience)
	defer cancel()
	g := run.New(ctx)
	g.Go("etcd", e.Run)
	if err = e.Ready(g.Context()); err == nil {
		err = e.Healthy(ctx)
	}
	g.Stop()
	return errors.Join(err, g.Wait())
}

// snapshots are taken on the schedule that flags ask for; nil for none.
func (s *session) snapshots(member *etcd.Server) *etcd.Backup {
	if s.Snapshots.Directory == "" || member == nil {
		return nil
	}
	b := s.Snapshots
	b.Server, b.Log, b.Metrics = member, s.log, s.metrics
	return &b
}
