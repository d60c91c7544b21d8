package etcd

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"os"

	"github.com/prometheus/client_golang/prometheus"
	"go.etcd.io/etcd/server/v3/embed"
	"go.uber.org/zap"

	"github.com/sampan-dev/sampan/kit/notify"
	"github.com/sampan-dev/sampan/kit/run"
)

// Main is the etcd program: upstream's flags and ETCD_ variables, one member,
// until ctx ends. Its log is upstream's.
func Main(ctx context.Context, args []string) int {
	p, err := parse(args, os.Stdout)
	if errors.Is(err, flag.ErrHelp) {
		return 0
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "etcd:", err)
		return 2
	}
	log, err := p.check()
	if err != nil {
		fmt.Fprintln(os.Stderr, "etcd:", err)
		return 1
	}
	defer func() { _ = log.Sync() }() // a terminal cannot
	for _, w := range p.warnings {
		log.Warn(w)
	}
	if p.v2 {
		log.Info("serving the keys API of the second version; --enable-v2=false turns it off", zap.String("path", "/v2/keys"))
	}
	s := newServer(p.v2, func(g *guard) *embed.Config {
		c := *p.cfg
		end := endGoroutine(g.failed)
		c.ZapLoggerBuilder = embed.NewZapLoggerBuilder(log.WithOptions(zap.WithFatalHook(end), zap.WithPanicHook(end)))
		return &c
	})
	g := run.New(ctx)
	g.Go("etcd", s.Run)
	g.Go("readiness", func(ctx context.Context) error {
		if s.Ready(ctx) != nil {
			return nil // it ended instead
		}
		if err := notify.Ready(); err != nil {
			log.Warn("the init system was not told", zap.Error(err))
		}
		return nil
	})
	if p.backup.Directory != "" {
		p.backup.Server = s
		p.backup.Log, p.backup.Metrics = slog.Default(), prometheus.DefaultRegisterer
		g.Go("snapshots", p.backup.Run)
	}
	if err := g.Wait(); err != nil && ctx.Err() == nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

// check judges the configuration and makes its logger.
func (p *program) check() (*zap.Logger, error) {
	cfg := p.cfg
	if cfg.Dir == "" {
		cfg.Dir = cfg.Name + ".etcd"
	}
	if err := cfg.Validate(); err != nil {
		if errors.Is(err, embed.ErrUnsetAdvertiseClientURLsFlag) {
			err = fmt.Errorf("%w; --advertise-client-urls says where clients reach this member", err)
		}
		return nil, err
	}
	log := cfg.GetLogger()
	if log == nil {
		log = zap.NewNop()
	}
	return log, nil
}
