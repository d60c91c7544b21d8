package etcd

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/sampan-dev/sampan/kit/pki"
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

// Command lines and variables of any age are understood, and what is passed
// over is told.
func TestFlagsOfEarlierReleases(t *testing.T) {
	t.Setenv("ETCD_NAME", "of-the-file")
	t.Setenv("ETCD_NODES", "a=b")
	t.Setenv("ETCD_DATA_DIR", "/var/lib/etcd/default.etcd")
	p, err := parse(strings.Fields("--name=given --ca-file /ca.pem --peer-ca-file=/peer.pem --proxy off --experimental-initial-corrupt-check=true "+
		"--experimental-watch-progress-notify-interval=5s --debug --enable-v2=false --snapshot-directory /s --snapshot-interval 1h --snapshot-keep 3"), nil)
	if err != nil {
		t.Fatal(err)
	}
	c := p.cfg
	if c.Name != "given" || c.Dir != "/var/lib/etcd/default.etcd" || c.ClientTLSInfo.TrustedCAFile != "/ca.pem" || !c.ClientTLSInfo.ClientCertAuth ||
		c.PeerTLSInfo.TrustedCAFile != "/peer.pem" || c.WatchProgressNotifyInterval != 5*time.Second || p.v2 ||
		p.backup.Directory != "/s" || p.backup.Interval != time.Hour || p.backup.Keep != 3 {
		t.Errorf("read %+v, %+v", c, p)
	}
	told := strings.Join(p.warnings, "\n")
	for _, want := range []string{
		"--ca-file is called --trusted-ca-file now", "--peer-ca-file is called --peer-trusted-ca-file now", "--proxy is ignored: a member is no proxy any more",
		"--experimental-initial-corrupt-check is --feature-gates=InitialCorruptCheck=true since 3.6", "--debug is ignored: --log-level=debug is its successor",
		"--experimental-watch-progress-notify-interval is called --watch-progress-notify-interval now",
		"variable ETCD_NAME is not used: --name was given", "unrecognized environment variable ETCD_NODES",
	} {
		if !strings.Contains(told, want) {
			t.Errorf("nobody is told that %s; but\n%s", want, told)
		}
	}
	if p, err := parse(nil, nil); err != nil || !p.v2 || p.cfg.Name != "of-the-file" || p.backup.Directory != "" {
		t.Errorf("from variables alone: %+v, %v", p, err)
	}
	for line, want := range map[string]string{
		"--data-dri /x":         "unknown flag: --data-dri; did you mean --data-dir?\nsee etcd --help",
		"--listen-client-url x": "did you mean --listen-client-urls?",
		"--quite-another":       "unknown flag: --quite-another\nsee etcd --help",
		"start":                 `"start" is not a valid flag; flags begin with --`,
		"--snapshot-interval 1ms --snapshot-directory x": "--snapshot-interval 1ms: want at least 1s",
		"--snapshot-keep=-1":                             "--snapshot-keep -1: want at least 1",
		"--config-file /nowhere":                         "--config-file /nowhere: ",
		"--heartbeat-interval soon":                      "heartbeat-interval",
		"--initial-cluster-state=old":                    "initial-cluster-state",
		"--listen-client-urls 127.0.0.1:2379":            "127.0.0.1:2379",
	} {
		if _, err := parse(strings.Fields(line), nil); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("etcd %s: %v, want %s", line, err, want)
		}
	}
	t.Setenv("ETCD_SNAPSHOT_COUNT", "many")
	if _, err := parse(nil, nil); err == nil || !strings.Contains(err.Error(), `invalid value "many" for ETCD_SNAPSHOT_COUNT`) {
		t.Errorf("a variable that is wrong: %v", err)
	}
	t.Setenv("ETCD_SNAPSHOT_COUNT", "")
	p, err = parse(strings.Fields("--listen-client-urls http://127.0.0.1:2379"), nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := p.check(); err == nil || !strings.Contains(err.Error(), "--advertise-client-urls says where clients reach this member") {
		t.Errorf("no word where it is reached: %v", err)
	}
}

func TestConfigFile(t *testing.T) {
	file := filepath.Join(t.TempDir(), "etcd.yml")
	if err := os.WriteFile(file, []byte("name: m1\ndata-dir: /d\nlisten-client-urls: http://127.0.0.1:2379\nadvertise-client-urls: http://127.0.0.1:2379\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, args := range []string{"--config-file " + file + " --name x", ""} {
		p, err := parse(strings.Fields(args), nil)
		if err != nil || p.cfg.Name != "m1" || p.cfg.Dir != "/d" || !p.v2 {
			t.Errorf("%s: %+v, %v", args, p, err)
		}
		if args != "" && !strings.Contains(strings.Join(p.warnings, "\n"), "--name is ignored: --config-file "+file+" is what counts") {
			t.Errorf("warnings %q", p.warnings)
		}
		t.Setenv("ETCD_CONFIG_FILE", file)
	}
}

// The program serves http and https at once, all of its pages, and clients of
// both versions, and tells the init system, until it is told to end.
func TestMainServes(t *testing.T) {
	dir, err := os.MkdirTemp("", "etcd") // short: the names of sockets are bounded
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	notified, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: filepath.Join(dir, "n"), Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer notified.Close()
	t.Setenv("NOTIFY_SOCKET", filepath.Join(dir, "n"))
	door, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer door.Close()
	port := door.Addr().(*net.TCPAddr).Port
	host := fmt.Sprintf("127.%d.%d.2", port>>8, port&255) // nobody else's, as long as the port is ours
	ca := writeCerts(t, dir, host)
	plain, secure, log := "http://"+host+":2379", "https://"+host+":2479", filepath.Join(dir, "log")
	ctx, stop := context.WithCancel(t.Context())
	code := make(chan int, 1)
	run.Detach(ctx, "etcd", func(ctx context.Context) {
		code <- Main(ctx, []string{
			"--data-dir", filepath.Join(dir, "d"), "--listen-client-urls", secure + "," + plain, "--advertise-client-urls", secure,
			"--cert-file", filepath.Join(dir, "etcd.pem"), "--key-file", filepath.Join(dir, "etcd-key.pem"), "--trusted-ca-file", filepath.Join(dir, "ca.pem"),
			"--listen-peer-urls", "http://" + host + ":2380", "--initial-advertise-peer-urls", "http://" + host + ":2380", "--initial-cluster", "default=http://" + host + ":2380",
			"--log-outputs", log, "--snapshot-directory", filepath.Join(dir, "s"),
		})
	})
	_ = notified.SetReadDeadline(time.Now().Add(60 * time.Second))
	word := make([]byte, 100)
	n, err := notified.Read(word)
	if err != nil || string(word[:n]) != "READY=1" {
		t.Fatalf("the init system hears %q, %v; the log is %s", word[:n], err, readFile(log))
	}
	https := &http.Client{Transport: &http.Transport{TLSClientConfig: ca}}
	for _, c := range []struct {
		client     *http.Client
		base, path string
		want       string
	}{
		{http.DefaultClient, plain, "/health", `{"health":"true","reason":""}`},
		{http.DefaultClient, plain, "/readyz", "ok"},
		{http.DefaultClient, plain, "/livez", "ok"},
		{http.DefaultClient, plain, "/version", `"etcdserver":"3.7.3"`},
		{http.DefaultClient, plain, "/metrics", "etcd_server_has_leader 1"},
		{http.DefaultClient, plain, "/v2/members", `"clientURLs":["` + secure + `"]`},
		{https, secure, "/health", `{"health":"true","reason":""}`},
		{https, secure, "/v2/keys/", `{"action":"get","node":{"dir":true}}`},
	} {
		resp, err := c.client.Get(c.base + c.path)
		if err != nil {
			t.Errorf("%s%s: %v", c.base, c.path, err)
			continue
		}
		text, _ := io.ReadAll(resp.Body)
		resp.Body.Close()
		if resp.StatusCode != 200 || !strings.Contains(string(text), c.want) {
			t.Errorf("%s%s: %s %s", c.base, c.path, resp.Status, text)
		}
	}
	if _, err := (&http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: ca.RootCAs}}}).Get(secure + "/health"); err == nil {
		t.Error("who has no certificate is let in")
	}
	s, err := NewRemote([]string{plain}, TLS{})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if _, err := s.Create(t.Context(), "/registry/a", []byte("1"), 0); err != nil {
		t.Error(err)
	}
	stop()
	if got := <-code; got != 0 {
		t.Errorf("exit code %d", got)
	}
	for _, want := range []string{"ready to serve client requests", "serving the keys API of the second version; --enable-v2=false turns it off"} {
		if !strings.Contains(readFile(log), want) {
			t.Errorf("the log does not say %q", want)
		}
	}
	if got := Main(t.Context(), []string{"--no-such-flag"}); got != 2 {
		t.Errorf("exit code of a wrong flag is %d", got)
	}
}

func readFile(name string) string {
	text, _ := os.ReadFile(name)
	return string(text)
}

// writeCerts writes an authority and a certificate for a host to dir, and returns
// how a client uses them.
func writeCerts(t *testing.T, dir, host string) *tls.Config {
	t.Helper()
	ca, err := pki.NewCA("test", "")
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := ca.Issue(pki.Request{CommonName: "etcd", Hosts: []string{host}, Server: true, Client: true})
	if err != nil {
		t.Fatal(err)
	}
	key, err := leaf.KeyPEM()
	if err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string][]byte{"ca.pem": ca.CertPEM(), "etcd.pem": leaf.CertPEM(), "etcd-key.pem": key} {
		if err := os.WriteFile(filepath.Join(dir, name), text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return &tls.Config{RootCAs: ca.Pool(), Certificates: []tls.Certificate{leaf.TLS()}}
}
