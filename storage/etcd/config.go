package etcd

import (
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"strings"
	"time"

	"go.etcd.io/etcd/client/pkg/v3/transport"
	"go.etcd.io/etcd/server/v3/embed"
	"go.uber.org/zap"
)

// TLS names the files of one side of a connection.
type TLS struct {
	Cert, Key string
	CA        string // what the other side's certificate is judged by
	// RequireClient makes a server ask its clients for certificates of CA.
	RequireClient bool
}

// Config describes a member that runs in this process. Zero fields are defaults.
type Config struct {
	Name    string // "default"
	DataDir string // must be set

	// ListenClient are the URLs clients may use (http, https, unix, unixs); none
	// keeps the member private to the process. AdvertiseClient is ListenClient
	// when empty.
	ListenClient, AdvertiseClient []string
	ClientTLS                     TLS
	// ListenPeer are the URLs of Raft. A single member needs none; the URLs it
	// advertises then are only a name.
	ListenPeer, AdvertisePeer []string
	PeerTLS                   TLS
	// ListenMetrics are the URLs of /metrics and /health without certificates.
	ListenMetrics []string

	InitialCluster string // name=url,…; this member alone when empty
	ClusterToken   string // "etcd-cluster"
	Existing       bool   // the cluster is there already and expects this member
	// ForceNewCluster makes a cluster of this member alone out of the data of one
	// that has lost its majority. For one start only.
	ForceNewCluster bool
	// SecondVersion serves the keys API of etcd's second version on ListenClient.
	SecondVersion bool

	SnapshotCount uint64        // 10,000, as upstream
	QuotaBytes    int64         // 0 is etcd's own 2 GiB
	Tick          time.Duration // heartbeat; 500 ms alone, which saves idle work, else 100 ms
	Election      time.Duration // election timeout; 2.5 s alone, else 1 s
	// NoFsync loses acknowledged writes when the machine stops: for tests.
	NoFsync bool

	Log *slog.Logger // slog.Default() when nil
}

// Check says what is wrong with c.
func (c *Config) Check() error {
	var errs []error
	if c.DataDir == "" {
		errs = append(errs, errors.New("data directory is not set"))
	}
	if c.several() && len(c.ListenPeer) == 0 {
		errs = append(errs, errors.New("a member of a cluster must listen for its peers"))
	}
	if c.Election != 0 && c.Tick != 0 && c.Election < 5*c.Tick {
		errs = append(errs, fmt.Errorf("election timeout %v must be at least 5 times the tick %v", c.Election, c.Tick))
	}
	for _, list := range [][]string{c.ListenClient, c.AdvertiseClient, c.ListenPeer, c.AdvertisePeer, c.ListenMetrics} {
		if _, err := urls(list); err != nil {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// several says whether the member is to have peers.
func (c *Config) several() bool {
	return c.Existing || strings.Contains(c.InitialCluster, ",")
}

func urls(list []string) ([]url.URL, error) {
	var out []url.URL
	for _, s := range list {
		u, err := url.Parse(s)
		if err != nil {
			return nil, fmt.Errorf("url %q: %w", s, err)
		}
		out = append(out, *u)
	}
	return out, nil
}

// embedded translates c, which was checked, to etcd's own configuration.
func (c *Config) embedded(log *zap.Logger) *embed.Config {
	e := embed.NewConfig()
	e.Name = orElse(c.Name, embed.DefaultName)
	e.Dir = c.DataDir
	e.ListenClientUrls, _ = urls(c.ListenClient)
	e.AdvertiseClientUrls, _ = urls(c.AdvertiseClient)
	if len(c.AdvertiseClient) == 0 {
		e.AdvertiseClientUrls = e.ListenClientUrls
	}
	e.ListenPeerUrls, _ = urls(c.ListenPeer)
	if len(c.AdvertisePeer) > 0 {
		e.AdvertisePeerUrls, _ = urls(c.AdvertisePeer)
	} else if len(c.ListenPeer) > 0 {
		e.AdvertisePeerUrls = e.ListenPeerUrls
	}
	e.ListenMetricsUrls, _ = urls(c.ListenMetrics)
	e.ClientTLSInfo, e.PeerTLSInfo = c.ClientTLS.info(), c.PeerTLS.info()
	e.InitialCluster = orElse(c.InitialCluster, e.InitialClusterFromName(e.Name))
	e.InitialClusterToken = orElse(c.ClusterToken, e.InitialClusterToken)
	if c.Existing {
		e.ClusterState = embed.ClusterStateFlagExisting
	}
	e.ForceNewCluster = c.ForceNewCluster
	e.SnapshotCount = orElse(c.SnapshotCount, e.SnapshotCount)
	e.QuotaBackendBytes = c.QuotaBytes
	tick, election := 500*time.Millisecond, 2500*time.Millisecond
	if c.several() {
		tick, election = 100*time.Millisecond, time.Second
	}
	e.TickMs = uint(orElse(c.Tick, tick).Milliseconds())
	e.ElectionMs = uint(orElse(c.Election, max(election, 5*orElse(c.Tick, tick))).Milliseconds())
	e.UnsafeNoFsync = c.NoFsync
	e.EnableGRPCGateway = false
	e.AutoCompactionRetention = "0" // Compactor's job, so that servers agree
	e.ZapLoggerBuilder = embed.NewZapLoggerBuilder(log)
	return e
}

func (t TLS) info() transport.TLSInfo {
	return transport.TLSInfo{
		CertFile: t.Cert, KeyFile: t.Key, TrustedCAFile: t.CA, ClientCertAuth: t.RequireClient,
	}
}

func orElse[T comparable](v, def T) T {
	var zero T
	if v == zero {
		return def
	}
	return v
}
