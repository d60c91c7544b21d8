package etcd

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"go.etcd.io/etcd/api/v3/version"
	"go.etcd.io/etcd/pkg/v3/flags"
	"go.etcd.io/etcd/server/v3/embed"

	"github.com/sampan-dev/sampan/kit/words"
)

// program is what the etcd program was told.
type program struct {
	cfg      *embed.Config
	v2       bool
	backup   Backup
	warnings []string
}

// renamed are flags of earlier releases with their names of today. What 3.6
// called experimental is found by rule.
var renamed = map[string]string{
	"ca-file": "trusted-ca-file", "peer-ca-file": "peer-trusted-ca-file",
	"quota-backend": "quota-backend-bytes", "warning-unary-request": "warning-unary-request-duration",
}

// gated are flags of earlier releases that are feature gates today.
var gated = map[string]string{
	"experimental-initial-corrupt-check": "InitialCorruptCheck", "experimental-compact-hash-check-enabled": "CompactHashCheck",
	"experimental-txn-mode-write-with-shared-buffer": "TxnModeWriteWithSharedBuffer", "experimental-enable-lease-checkpoint": "LeaseCheckpoint",
	"experimental-enable-lease-checkpoint-persist": "LeaseCheckpointPersist", "experimental-stop-grpc-service-on-defrag": "StopGRPCServiceOnDefrag",
}

// retired are flags of earlier releases with the reason why they do nothing.
var retired = map[string]string{
	"proxy": "a member is no proxy any more; clients balance over the members themselves", "proxy-failure-wait": "", "proxy-refresh-interval": "",
	"proxy-dial-timeout": "", "proxy-write-timeout": "", "proxy-read-timeout": "",
	"discovery": "discovery of the second version is gone; --discovery-token and --discovery-endpoints are the third's", "discovery-fallback": "", "discovery-proxy": "",
	"debug": "--log-level=debug is its successor", "log-package-levels": "--log-level is its successor", "logger": "there is one logger, zap", "log-output": "--log-outputs is its successor",
	"v2-deprecation": "the keys of the second version are kept in the third", "experimental-enable-v2v3": "the keys of the second version are kept in the third",
	"experimental-enable-distributed-tracing": "--enable-distributed-tracing is its successor",
	"cluster-active-size":                     "", "cluster-remove-delay": "", "cluster-sync-interval": "", "config": "--config-file is its successor", "force": "",
	"max-result-buffer": "", "max-retry-attempts": "", "peer-heartbeat-interval": "--heartbeat-interval is its successor",
	"peer-election-timeout": "--election-timeout is its successor", "retry-interval": "", "snapshot": "--snapshot-count is its successor", "v": "--log-level is its successor", "vv": "--log-level is its successor",
}

// switches are the retired flags that stand alone.
var switches = []string{"debug", "force", "snapshot", "v", "vv", "experimental-enable-v2v3", "experimental-enable-distributed-tracing"}

// discarded is the value of a flag that does nothing.
type discarded struct{ alone bool }

func (discarded) String() string     { return "" }
func (discarded) Set(string) error   { return nil }
func (d discarded) IsBoolFlag() bool { return d.alone }

// parse reads arguments and variables as etcd does. Help and version are
// written to out and end in flag.ErrHelp.
func parse(args []string, out io.Writer) (*program, error) {
	p := &program{cfg: embed.NewConfig()}
	fs := flag.NewFlagSet("etcd", flag.ContinueOnError)
	fs.SetOutput(io.Discard)
	p.cfg.AddFlags(fs)
	file := fs.String("config-file", os.Getenv("ETCD_CONFIG_FILE"), "Path to the server configuration file; flags and variables that it could contain are ignored then.")
	state := flags.NewSelectiveStringValue(embed.ClusterStateFlagNew, embed.ClusterStateFlagExisting)
	fs.Var(state, "initial-cluster-state", "Initial cluster state ('new' or 'existing').")
	ver := fs.Bool("version", false, "Print the version and exit.")
	fs.BoolVar(&p.v2, "enable-v2", true, "Serve the keys API of the second version (/v2/keys, /v2/members), kept in the third.")
	fs.StringVar(&p.backup.Directory, "snapshot-directory", "", "Directory of snapshots taken on a schedule; none are taken without it.")
	fs.DurationVar(&p.backup.Interval, "snapshot-interval", BackupInterval, "Time between snapshots.")
	fs.IntVar(&p.backup.Keep, "snapshot-keep", BackupKeep, "Number of snapshots kept; older ones are removed.")
	ours := map[string]bool{}
	fs.VisitAll(func(f *flag.Flag) { ours[f.Name] = true })
	for name := range retired {
		if !ours[name] {
			fs.Var(discarded{slices.Contains(switches, name)}, name, "")
		}
	}
	switch err := fs.Parse(p.today(args, ours)); {
	case errors.Is(err, flag.ErrHelp):
		help(fs, ours, out)
		return nil, err
	case err != nil:
		return nil, unknown(err, ours)
	case fs.NArg() > 0:
		return nil, fmt.Errorf("%q is not a valid flag; flags begin with -- and take their value after a = or a space", fs.Arg(0))
	case *ver:
		fmt.Fprintf(out, "etcd Version: %s\nGit SHA: in sampan\n", version.Version)
		return nil, flag.ErrHelp
	}
	return p, p.finish(fs, ours, *file, state)
}

// today writes flags of earlier releases as today's.
func (p *program) today(args []string, ours map[string]bool) []string {
	out := make([]string, 0, len(args))
	for i, a := range args {
		name, value, has := strings.Cut(strings.TrimLeft(a, "-"), "=")
		if !strings.HasPrefix(a, "-") || name == "" || ours[name] {
			out = append(out, a)
			if a == "--" {
				return append(out, args[i+1:]...)
			}
			continue
		}
		now, ok := renamed[name], renamed[name] != ""
		if short := strings.TrimPrefix(name, "experimental-"); !ok && short != name && ours[short] {
			now, ok = short, true
		}
		switch gate := gated[name]; {
		case gate != "":
			on := true
			if has {
				on, _ = strconv.ParseBool(value)
			}
			out = append(out, fmt.Sprintf("--feature-gates=%s=%t", gate, on))
			p.warn("--%s is --feature-gates=%s=%t since 3.6", name, gate, on)
		case ok:
			p.warn("--%s is called --%s now", name, now)
			out = append(out, strings.Replace(a, name, now, 1))
			switch now { // an authority was enough to ask clients for certificates
			case "trusted-ca-file":
				out = slices.Insert(out, len(out)-1, "--client-cert-auth")
			case "peer-trusted-ca-file":
				out = slices.Insert(out, len(out)-1, "--peer-client-cert-auth")
			}
		default:
			out = append(out, a)
		}
	}
	return out
}

func (p *program) warn(format string, a ...any) {
	p.warnings = append(p.warnings, fmt.Sprintf(format, a...))
}

// unknown adds to an error about a flag the one that was perhaps meant.
func unknown(err error, ours map[string]bool) error {
	name, ok := strings.CutPrefix(err.Error(), "flag provided but not defined: -")
	if !ok {
		return err
	}
	err = fmt.Errorf("unknown flag: --%s", strings.TrimPrefix(name, "-"))
	if near := words.Nearest(strings.TrimPrefix(name, "-"), slices.Sorted(maps.Keys(ours))); near != "" {
		err = fmt.Errorf("%w; did you mean --%s?", err, near)
	}
	return fmt.Errorf("%w\nsee etcd --help", err)
}

// finish reads the variables and the configuration file.
func (p *program) finish(fs *flag.FlagSet, ours map[string]bool, file string, state *flags.SelectiveStringValue) error {
	fs.Visit(func(f *flag.Flag) {
		if !ours[f.Name] {
			why := retired[f.Name]
			if why == "" {
				why = "it is of a release long gone"
			}
			p.warn("--%s is ignored: %s", f.Name, why)
		}
	})
	if err := p.variables(fs); err != nil {
		return err
	}
	if err := p.backup.check(); err != nil {
		return err
	}
	if file != "" {
		cfg, err := embed.ConfigFromFile(file)
		if err != nil {
			return fmt.Errorf("--config-file %s: %w", file, err)
		}
		fs.Visit(func(f *flag.Flag) {
			if ours[f.Name] && !slices.Contains([]string{"config-file", "enable-v2", "snapshot-directory", "snapshot-interval", "snapshot-keep"}, f.Name) {
				p.warn("--%s is ignored: --config-file %s is what counts", f.Name, file)
			}
		})
		p.cfg = cfg
		return nil
	}
	fill(p.cfg, fs)
	p.cfg.ClusterState = state.String()
	return nil
}

// variables sets the flags that were not given from ETCD_ variables.
func (p *program) variables(fs *flag.FlagSet) error {
	given := map[string]bool{}
	fs.Visit(func(f *flag.Flag) { given[f.Name] = true })
	used := map[string]bool{"ETCD_CONFIG_FILE": true, "ETCD_VERSION": true}
	var errs []error
	fs.VisitAll(func(f *flag.Flag) {
		key := flags.FlagToEnv("ETCD", f.Name)
		used[key] = true
		val := os.Getenv(key)
		switch {
		case val == "":
		case given[f.Name]:
			if val != f.Value.String() {
				p.warn("variable %s is not used: --%s was given", key, f.Name)
			}
		default:
			if err := fs.Set(f.Name, val); err != nil {
				errs = append(errs, fmt.Errorf("invalid value %q for %s: %w", val, key, err))
			}
		}
	})
	for _, e := range os.Environ() {
		if key, _, _ := strings.Cut(e, "="); strings.HasPrefix(key, "ETCD_") && !used[key] {
			p.warn("unrecognized environment variable %s", key)
		}
	}
	slices.Sort(p.warnings)
	return errors.Join(errs...)
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
	byDefault := cfg.InitialCluster
	switch {
	case flags.IsSet(fs, "initial-cluster"):
		byDefault = ""
	case cfg.DNSCluster != "" || cfg.DNSClusterServiceName != "" || len(cfg.DiscoveryCfg.Endpoints) > 0:
		cfg.InitialCluster = ""
	}
	// An error means that no address was found for 0.0.0.0; it then stands.
	_, _ = cfg.UpdateDefaultClusterFromName(byDefault)
	fs.Visit(func(f *flag.Flag) { cfg.FlagsExplicitlySet[f.Name] = true })
}

func help(fs *flag.FlagSet, ours map[string]bool, out io.Writer) {
	fmt.Fprintf(out, "etcd %s, built into sampan: one member of an etcd cluster.\n\n", version.Version)
	fmt.Fprint(out, "Usage: etcd [flags]\nEvery flag can be given as a variable: --data-dir is ETCD_DATA_DIR.\n\n")
	shown := flag.NewFlagSet("etcd", flag.ContinueOnError)
	fs.VisitAll(func(f *flag.Flag) {
		if ours[f.Name] {
			shown.Var(f.Value, f.Name, f.Usage)
			shown.Lookup(f.Name).DefValue = f.DefValue
		}
	})
	shown.SetOutput(out)
	shown.PrintDefaults()
	fmt.Fprintf(out, "\nFlags of earlier releases, accepted with a warning:\n  --%s\n",
		strings.Join(slices.Sorted(maps.Keys(retired)), ", --"))
}

// Defaults of Backup.
const (
	BackupInterval = 6 * time.Hour
	BackupKeep     = 5
)
