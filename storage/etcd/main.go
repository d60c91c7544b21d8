package etcd

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"

	"go.etcd.io/etcd/api/v3/version"
	"go.etcd.io/etcd/pkg/v3/flags"
	"go.etcd.io/etcd/server/v3/embed"
	"go.uber.org/zap"

	"github.com/sampan-dev/sampan/kit/notify"
	"github.com/sampan-dev/sampan/kit/run"
)

// Main is the etcd program: upstream's flags and ETCD_ variables, one member,
// until ctx ends.
func Main(ctx context.Context, args []string) int {
	cfg, err := parse(args, os.Stdout)
	if errors.Is(err, flag.ErrHelp) {
		return 0
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "etcd:", err)
		return 2
	}
	s := newServer(func(g *guard) *embed.Config {
		c := *cfg
		c.ZapLoggerBuilder = embed.NewZapLoggerBuilder(bridge(slog.Default().With("room", "etcd"), g))
		return &c
	})
	run.Detach(ctx, "readiness", func(ctx context.Context) {
		if s.Ready(ctx) != nil {
			return // it ended instead
		}
		if err := notify.Ready(); err != nil {
			slog.Warn("the init system was not told", "err", err)
		}
	})
	if err := s.Run(ctx); err != nil && ctx.Err() == nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

// parse reads arguments as etcd does. Help and version are written to out and
// end in flag.ErrHelp.
func parse(args []string, out io.Writer) (*embed.Config, error) {
	cfg := embed.NewConfig()
	fs := flag.NewFlagSet("etcd", flag.ContinueOnError)
	fs.SetOutput(io.Discard)
	cfg.AddFlags(fs)
	file := fs.String("config-file", "", "Path to the server configuration file; other flags and variables are ignored then.")
	state := flags.NewSelectiveStringValue(embed.ClusterStateFlagNew, embed.ClusterStateFlagExisting)
	fs.Var(state, "initial-cluster-state", "Initial cluster state ('new' or 'existing').")
	ver := fs.Bool("version", false, "Print the version and exit.")
	switch err := fs.Parse(args); {
	case errors.Is(err, flag.ErrHelp):
		help(fs, out)
		return nil, err
	case err != nil:
		return nil, err
	case fs.NArg() > 0:
		return nil, fmt.Errorf("%q is not a valid flag", fs.Arg(0))
	case *ver:
		fmt.Fprintf(out, "etcd Version: %s (in sampan)\n", version.Version)
		return nil, flag.ErrHelp
	case *file != "":
		return embed.ConfigFromFile(*file)
	}
	if err := flags.SetFlagsFromEnv(zap.NewNop(), "ETCD", fs); err != nil {
		return nil, err
	}
	fill(cfg, fs)
	cfg.ClusterState = state.String()
	return cfg, nil
}

// fill copies the flags that AddFlags leaves in the flag set.
func fill(cfg *embed.Config, fs *flag.FlagSet) {
	cfg.ListenPeerUrls = flags.UniqueURLsFromFlag(fs, "listen-peer-urls")
	cfg.AdvertisePeerUrls = flags.UniqueURLsFromFlag(fs, "initial-advertise-peer-urls")
	cfg.ListenClientUrls = flags.UniqueURLsFromFlag(fs, "listen-client-urls")
	cfg.ListenClientHttpUrls = flags.UniqueURLsFromFlag(fs, "listen-client-http-urls")
	cfg.AdvertiseClientUrls = flags.UniqueURLsFromFlag(fs, "advertise-client-urls")
	cfg.ListenMetricsUrls = flags.UniqueURLsFromFlag(fs, "listen-metrics-urls")
	cfg.DiscoveryCfg.Endpoints = flags.UniqueStringsFromFlag(fs, "discovery-endpoints")
	cfg.CORS = flags.UniqueURLsMapFromFlag(fs, "cors")
	cfg.HostWhitelist = flags.UniqueStringsMapFromFlag(fs, "host-whitelist")
	cfg.ClientTLSInfo.AllowedHostnames = flags.StringsFromFlag(fs, "client-cert-allowed-hostname")
	cfg.PeerTLSInfo.AllowedCNs = flags.StringsFromFlag(fs, "peer-cert-allowed-cn")
	cfg.PeerTLSInfo.AllowedHostnames = flags.StringsFromFlag(fs, "peer-cert-allowed-hostname")
	cfg.CipherSuites = flags.StringsFromFlag(fs, "cipher-suites")
	cfg.MaxConcurrentStreams = flags.Uint32FromFlag(fs, "max-concurrent-streams")
	cfg.LogOutputs = flags.UniqueStringsFromFlag(fs, "log-outputs")
	if flags.IsSet(fs, "listen-client-urls") && !flags.IsSet(fs, "advertise-client-urls") {
		cfg.AdvertiseClientUrls = nil // etcd then says what is missing
	}
	if !flags.IsSet(fs, "initial-cluster") {
		switch {
		case cfg.DNSCluster != "" || cfg.DNSClusterServiceName != "" || len(cfg.DiscoveryCfg.Endpoints) > 0:
			cfg.InitialCluster = ""
		default:
			cfg.InitialCluster = cfg.InitialClusterFromName(cfg.Name)
		}
	}
	fs.Visit(func(f *flag.Flag) { cfg.FlagsExplicitlySet[f.Name] = true })
}

func help(fs *flag.FlagSet, out io.Writer) {
	fmt.Fprintf(out, "etcd %s, built into sampan: one member of an etcd cluster.\n\n", version.Version)
	fmt.Fprint(out, "Usage: etcd [flags]\nEvery flag can be given as a variable: --data-dir is ETCD_DATA_DIR.\n"+
		"Logging flags are accepted; warnings and errors go to standard error.\n\n")
	fs.SetOutput(out)
	fs.PrintDefaults()
}
