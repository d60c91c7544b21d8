package etcd

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/sampan-dev/sampan/kit/run"
)

func TestFlags(t *testing.T) {
	p, err := parse(strings.Fields("--name etcd0 --data-dir /d --listen-client-urls https://127.0.0.1:2379,unix:///s "+
		"--advertise-client-urls https://127.0.0.1:2379 --listen-peer-urls https://127.0.0.1:2380 "+
		"--initial-advertise-peer-urls https://127.0.0.1:2380 --initial-cluster etcd0=https://127.0.0.1:2380 "+
		"--initial-cluster-token tok --initial-cluster-state existing --cert-file c --key-file k --trusted-ca-file a "+
		"--client-cert-auth --peer-cert-file pc --peer-key-file pk --peer-trusted-ca-file pa --peer-client-cert-auth=true "+
		"--snapshot-count 10000 --listen-metrics-urls http://127.0.0.1:2381"), nil)
	if err != nil {
		t.Fatal(err)
	}
	cfg := p.cfg
	if cfg.Name != "etcd0" || cfg.Dir != "/d" || cfg.ClusterState != "existing" || cfg.InitialClusterToken != "tok" ||
		len(cfg.ListenClientUrls) != 2 || cfg.ListenMetricsUrls[0].Host != "127.0.0.1:2381" ||
		!cfg.ClientTLSInfo.ClientCertAuth || cfg.PeerTLSInfo.TrustedCAFile != "pa" || cfg.SnapshotCount != 10000 {
		t.Errorf("read %+v", cfg)
	}
	if p, err = parse([]string{"--name", "x"}, nil); err != nil || p.cfg.InitialCluster != "x=http://localhost:2380" {
		t.Errorf("initial cluster is %q, %v", p.cfg.InitialCluster, err)
	}
	for _, bad := range []string{"--no-such-flag", "word", "--initial-cluster-state=old"} {
		if _, err := parse([]string{bad}, nil); err == nil || errors.Is(err, flag.ErrHelp) {
			t.Errorf("%s: error is %v", bad, err)
		}
	}
	var out bytes.Buffer
	if _, err := parse([]string{"--help"}, &out); !errors.Is(err, flag.ErrHelp) || !strings.Contains(out.String(), "-listen-client-urls") {
		t.Errorf("help: %v\n%s", err, out.String())
	}
}

// The program serves clients until it is told to end.
func TestMainServes(t *testing.T) {
	dir := t.TempDir()
	url := "unix://" + filepath.Join(dir, "c")
	ctx, stop := context.WithCancel(t.Context())
	code := make(chan int, 1)
	run.Detach(ctx, "etcd", func(ctx context.Context) {
		code <- Main(ctx, []string{
			"--data-dir", filepath.Join(dir, "d"), "--listen-client-urls", url, "--advertise-client-urls", url,
			"--listen-peer-urls", "unix://" + filepath.Join(dir, "p"),
		})
	})
	s, err := NewRemote([]string{url}, TLS{})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	patience, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	for err = s.Healthy(patience); err != nil && patience.Err() == nil; {
		err = s.Healthy(patience)
	}
	if _, err := s.Create(t.Context(), "/registry/a", []byte("1"), 0); err != nil {
		t.Error(err)
	}
	stop()
	if got := <-code; got != 0 {
		t.Errorf("exit code %d", got)
	}
	if got := Main(t.Context(), []string{"--no-such-flag"}); got != 2 {
		t.Errorf("exit code of a wrong flag is %d", got)
	}
}
