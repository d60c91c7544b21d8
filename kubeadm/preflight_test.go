package kubeadm

import (
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sampan-dev/sampan/kit/clock"
	"github.com/sampan-dev/sampan/kubeadm/config"
)

// sound is a machine with which nothing is wrong.
func sound(t *testing.T) ground {
	t.Helper()
	g := ground{
		root: t.TempDir(), cpus: 2, synced: func() bool { return true },
		find:   func(string) (string, error) { return "/usr/sbin/runc", nil },
		lookup: func(context.Context, string) error { return nil },
		driver: func(context.Context, string) string { return "cgroupfs" },
	}
	g.put(t, "/proc/swaps", "Filename\t\t\t\tType\t\tSize\n")
	g.put(t, "/proc/sys/net/ipv4/ip_forward", "1\n")
	g.put(t, "/proc/sys/net/bridge/bridge-nf-call-iptables", "1\n")
	return g
}

func (g ground) put(t *testing.T, path, text string) {
	t.Helper()
	path = filepath.Join(g.root, path)
	if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(text), 0o600)); err != nil {
		t.Fatal(err)
	}
}

// Each thing that is wrong with a machine is named, with what mends it.
func TestChecksNameTheRemedy(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	for name, tc := range map[string]struct {
		spoil   func(t *testing.T, g *ground, n *config.NodeRegistration)
		warning bool
		check   string
		want    []string
	}{
		"sound":    {spoil: func(*testing.T, *ground, *config.NodeRegistration) {}},
		"not root": {func(_ *testing.T, g *ground, _ *config.NodeRegistration) { g.uid = 1000 }, false, "IsPrivilegedUser", []string{"not running as root", "sudo"}},
		"one CPU":  {func(_ *testing.T, g *ground, _ *config.NodeRegistration) { g.cpus = 1 }, true, "NumCPU", []string{"less than the recommended 2"}},
		"swap": {func(t *testing.T, g *ground, _ *config.NodeRegistration) {
			g.put(t, "/proc/swaps", "Filename\tType\tSize\n/dev/sda2 partition 100\n")
		}, true, "Swap", []string{"swap", "swapoff -a"}},
		"no forwarding": {func(t *testing.T, g *ground, _ *config.NodeRegistration) {
			g.put(t, "/proc/sys/net/ipv4/ip_forward", "0\n")
		}, false, "FileContent--proc-sys-net-ipv4-ip_forward", []string{"sysctl -w net.ipv4.ip_forward=1"}},
		"no br_netfilter": {func(t *testing.T, g *ground, _ *config.NodeRegistration) {
			if err := os.RemoveAll(filepath.Join(g.root, "proc/sys/net/bridge")); err != nil {
				t.Fatal(err)
			}
		}, true, "FileContent--proc-sys-net-bridge-bridge-nf-call-iptables", []string{"modprobe br_netfilter"}},
		"br_netfilter off": {func(t *testing.T, g *ground, _ *config.NodeRegistration) {
			g.put(t, "/proc/sys/net/bridge/bridge-nf-call-iptables", "0\n")
		}, true, "FileContent--proc-sys-net-bridge-bridge-nf-call-iptables", []string{"sysctl -w net.bridge.bridge-nf-call-iptables=1"}},
		"host name": {func(_ *testing.T, g *ground, _ *config.NodeRegistration) {
			g.lookup = func(_ context.Context, h string) error { return errors.New("no such host " + h) }
		}, true, "Hostname", []string{`hostname "node1" could not be reached`, "/etc/hosts"}},
		"no runc": {func(_ *testing.T, g *ground, _ *config.NodeRegistration) {
			g.find = func(string) (string, error) { return "", os.ErrNotExist }
		}, true, "FileExisting-runc", []string{"runc not found", "apt-get install runc"}},
		"no runtime": {func(_ *testing.T, _ *ground, n *config.NodeRegistration) {
			n.CRISocket = "unix:///nowhere/containerd.sock"
		}, false, "CRI", []string{"container runtime is not running", "--cri-socket"}},
		"clock": {func(_ *testing.T, g *ground, _ *config.NodeRegistration) { g.synced = func() bool { return false } }, true, "ClockSkew", []string{"not synchronised", "systemctl enable --now systemd-timesyncd"}},
		"runtime by systemd": {func(_ *testing.T, g *ground, _ *config.NodeRegistration) {
			g.driver = func(context.Context, string) string { return "systemd" }
		}, false, "CgroupDriver", []string{"set SystemdCgroup = false", "/etc/containerd/config.toml"}},
		"runtime by systemd, pods without groups": {spoil: func(_ *testing.T, g *ground, n *config.NodeRegistration) {
			g.driver = func(context.Context, string) string { return "systemd" }
			n.KubeletExtraArgs = []config.Arg{{Name: "cgroups-per-qos", Value: "false"}}
		}},
		"kubelet by systemd": {func(_ *testing.T, _ *ground, n *config.NodeRegistration) {
			n.KubeletExtraArgs = []config.Arg{{Name: "cgroup-driver", Value: "systemd"}}
		}, false, "CgroupDriver", []string{`kubelet cgroup driver: "systemd" is different`, "leave cgroup-driver out of kubeletExtraArgs"}},
	} {
		t.Run(name, func(t *testing.T) {
			g, n := sound(t), config.NodeRegistration{Name: "node1", CRISocket: "unix://" + socket}
			tc.spoil(t, &g, &n)
			var out strings.Builder
			err := preflight(t.Context(), printer{&out}, g.checks(n), nil)
			said := out.String()
			if err != nil {
				said += err.Error()
			}
			if strings.Count(said, "[WARNING")+strings.Count(said, "[ERROR") != min(len(tc.want), 1) || (err == nil) != (tc.warning || len(tc.want) == 0) {
				t.Errorf("said %s", said)
			}
			for _, want := range append(slices.Clone(tc.want), tc.check) {
				if !strings.Contains(said, want) {
					t.Errorf("said %s\nwant %q", said, want)
				}
			}
			// By its name, in any case, or by "all", it stops nobody.
			for _, ignore := range []string{strings.ToLower(tc.check), "all", "ALL"} {
				if err := preflight(t.Context(), printer{&out}, g.checks(n), []string{ignore}); err != nil {
					t.Errorf("with --ignore-preflight-errors=%s: %v", ignore, err)
				}
			}
		})
	}
	if err := preflight(t.Context(), printer{&strings.Builder{}}, nil, []string{"all", "Swap"}); err == nil || !strings.Contains(err.Error(), "don't specify individual checks if 'all' is used") {
		t.Errorf("all and one: %v", err)
	}
}

func TestPortsAndFilesInTheWay(t *testing.T) {
	l, err := net.Listen("tcp", ":0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	dir := t.TempDir()
	file := filepath.Join(dir, "kubelet.conf")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		check
		want string
	}{
		{portFree(l.Addr().(*net.TCPAddr).Port), "ss -ltnp sport = :"}, {fileFree(file), "kubeadm reset takes it out"}, {dirEmpty(dir), "kubeadm reset removes it"},
	} {
		if _, e := c.run(t.Context()); len(e) != 1 || !strings.Contains(e[0], c.want) {
			t.Errorf("%s: %v, want %q", c.name, e, c.want)
		}
	}
	for _, c := range []check{fileFree(file + "2"), dirEmpty(filepath.Join(dir, "none"))} {
		if _, e := c.run(t.Context()); len(e) > 0 {
			t.Errorf("%s: %v", c.name, e)
		}
	}
	var have []string
	r := fresh(t, "")
	for _, c := range initChecks(r.machine(), r.manifests()) {
		have = append(have, c.name)
	}
	for _, want := range []string{"Port-6443", "Port-10259", "Port-10257", "Port-10250", "Port-2379", "Port-2380", "DirAvailable--var-lib-etcd"} {
		if !slices.Contains(have, want) {
			t.Errorf("init does not look at %s, only at %v", want, have)
		}
	}
}

func TestExternallyManaged(t *testing.T) {
	r := fresh(t, "")
	if err := run(t, r, "certs", "kubeconfig"); err != nil {
		t.Fatal(err)
	}
	rows := func() map[string][]string {
		t.Helper()
		var out strings.Builder
		leaves, authorities := expirations(r.cluster.CertificatesDir, r.conf)
		if err := tellExpirations(&out, leaves, authorities); err != nil {
			t.Fatal(err)
		}
		rows := map[string][]string{}
		for line := range strings.Lines(out.String()) {
			if f := strings.Fields(line); len(f) > 0 {
				rows[f[0]] = f
			}
		}
		return rows
	}
	for name, f := range rows() {
		if name != "CERTIFICATE" && f[len(f)-1] != "no" {
			t.Errorf("with all keys: %v", f)
		}
	}
	// Who signs is elsewhere: its key is not here.
	if err := os.Remove(filepath.Join(r.cluster.CertificatesDir, "front-proxy-ca.key")); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(filepath.Join(r.cluster.CertificatesDir, "etcd", "peer.crt")); err != nil {
		t.Fatal(err)
	}
	for name, f := range rows() {
		want := "no"
		if strings.HasPrefix(name, "front-proxy-") {
			want = "yes"
		}
		if name != "CERTIFICATE" && name != "!MISSING!" && f[len(f)-1] != want {
			t.Errorf("without front-proxy-ca.key: %v, want %s", f, want)
		}
	}
	if f := rows()["!MISSING!"]; !slices.Equal(f, []string{"!MISSING!", "etcd-peer", "etcd-ca"}) {
		t.Errorf("a certificate that is missing: %v", f)
	}
	leaves, _ := expirations(r.cluster.CertificatesDir, r.conf)
	if x := leaves[0]; x.Name != "admin.conf" || x.CA != "ca" || x.Expires.Before(clock.Now().Add(364*24*time.Hour)) || x.Seconds < 364*24*3600 {
		t.Errorf("admin.conf: %+v", x)
	}
}

func TestNodesHaveImagesUnderTheirClustersNames(t *testing.T) {
	c := &config.Cluster{ImageRepository: "example.com/google_containers/"}
	c.Default(Version())
	got := nodeImages(c)
	want := []string{"example.com/google_containers/kube-proxy:" + Version(), "example.com/google_containers/coredns:", "example.com/google_containers/pause:"}
	if len(got) != len(want) {
		t.Fatalf("images of a node: %v", got)
	}
	for i := range want {
		if !strings.HasPrefix(got[i], want[i]) {
			t.Errorf("images of a node: %v, want %v", got, want)
		}
	}
	if got := namesIn(c, []string{"registry.k8s.io/kube-proxy:v1"}); !slices.Equal(got, []string{"registry.k8s.io/kube-proxy:v1", "example.com/google_containers/kube-proxy:v1"}) {
		t.Errorf("names of kube-proxy: %v", got)
	}
	c.DNS.ImageRepository = "example.org/dns"
	if got := namesIn(c, []string{"registry.k8s.io/coredns/coredns:v1"}); !slices.Equal(got, []string{"registry.k8s.io/coredns/coredns:v1", "example.org/dns/coredns:v1"}) {
		t.Errorf("names of CoreDNS: %v", got)
	}
	c = &config.Cluster{}
	c.Default(Version())
	if got := namesIn(c, []string{"registry.k8s.io/pause:3"}); len(got) != 1 {
		t.Errorf("names where nobody asks for another: %v", got)
	}
}

func TestResetTakesItsOwnLinksAndTables(t *testing.T) {
	for name, want := range map[string]bool{"cni0": true, "flannel.1": true, "flannel0": true, "eth0": false, "lo": false, "cni0x": false, "docker0": false, "flannelx": false} {
		if isPodLink(name) != want {
			t.Errorf("link %s: taken %v, want %v", name, !want, want)
		}
	}
	for name, want := range map[string]bool{"sampan-proxy": true, "sampan-masquerade": true, "sampan-masquerade-cni0": true, "sampan-hostports": true, "filter": false, "firewalld": false, "sampan-vm": false} {
		if isNodeTable(name) != want {
			t.Errorf("table %s: taken %v, want %v", name, !want, want)
		}
	}
	if err := deleteLink(1 << 30); !errors.Is(err, unix.ENODEV) && !errors.Is(err, unix.EPERM) {
		t.Errorf("a link that is not there: %v", err)
	}
}
