package bootstrap

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/sampan-dev/sampan/kit/run"
	"github.com/sampan-dev/sampan/storage/etcd"
)

// recoverPatience bounds the start of a member that becomes the only one.
const recoverPatience = 2 * time.Minute

// alone makes this machine's member of etcd the only one of its cluster, and
// ends: what other members had and this one had not heard of is lost, so it is
// never done by the way.
func (s *session) alone(ctx context.Context) error {
	if !s.member() {
		return fmt.Errorf("--force-new-cluster: %s holds no data of etcd", s.path("etcd"))
	}
	if err := s.certificates(); err != nil {
		return err
	}
	cfg, err := s.stacked()
	if err != nil {
		return err
	}
	cfg.ForceNewCluster = true
	e, err := etcd.NewServer(*cfg)
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
	if err = errors.Join(err, g.Wait()); err != nil {
		return fmt.Errorf("--force-new-cluster: %w", err)
	}
	s.log.Warn("this machine's member of etcd is now the only one of its cluster: start the server without --force-new-cluster; on the other control planes remove DATA-DIR/etcd, and start them to have them join again")
	return nil
}
