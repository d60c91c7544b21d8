package doctor

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"

	"github.com/sampan-dev/sampan/kit/clock"
	"github.com/sampan-dev/sampan/kit/nft"
	"github.com/sampan-dev/sampan/storage/etcd"
)

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// ownAddresses are this machine's, without loopback's.
func ownAddresses() (out []netip.Addr) {
	all, err := net.InterfaceAddrs()
	if err != nil {
		return nil
	}
	for _, a := range all {
		if p, err := netip.ParsePrefix(a.String()); err == nil && !p.Addr().IsLoopback() && !p.Addr().IsLinkLocalUnicast() {
			out = append(out, p.Addr())
		}
	}
	return out
}

// text is a file's, without the space around it; empty if it is not there.
func text(path string) string {
	b, _ := os.ReadFile(path) // the fact is then that nobody knows
	return strings.TrimSpace(string(b))
}

// number is the n-th word of a file.
func number(path string, n int) int64 {
	if f := strings.Fields(text(path)); n < len(f) {
		v, _ := strconv.ParseInt(f[n], 10, 64)
		return v
	}
	return 0
}

// kind says what made this machine a node, and whether it has a control plane.
func kind(dataDir string) (Kind, bool) {
	switch {
	case exists("/etc/kubernetes/kubelet.conf"):
		return Kubeadm, exists("/etc/kubernetes/manifests/kube-apiserver.yaml")
	case exists(filepath.Join(dataDir, "kubelet-pki")) || exists(filepath.Join(dataDir, "pki", "apiserver.crt")):
		return Server, exists(filepath.Join(dataDir, "pki", "apiserver.crt"))
	}
	return NoNode, false
}

func lookAtMachine(ctx context.Context, o Options) *Machine {
	host, _ := os.Hostname()
	m := &Machine{Hostname: host, Lacks: o.Lacks, Addresses: ownAddresses()}
	m.Kind, m.Plane = kind(o.DataDir)
	m.Forwarding, m.BridgeFilter = text("/proc/sys/net/ipv4/ip_forward"), text("/proc/sys/net/bridge/bridge-nf-call-iptables")
	m.Swap = strings.Count(text("/proc/swaps"), "\n") > 0
	m.SwapTaken = m.Kind == Server || strings.Contains(text("/var/lib/kubelet/config.yaml"), "failSwapOn: false")
	var t unix.Timex
	if state, err := unix.Adjtimex(&t); err == nil {
		m.Unsynced = state == unix.TIME_ERROR
	}
	if os.Geteuid() == 0 {
		m.NFTables = tables()
	}
	m.MaxInstances, m.MaxWatches = number("/proc/sys/fs/inotify/max_user_instances", 0), number("/proc/sys/fs/inotify/max_user_watches", 0)
	m.Instances = inotify()
	m.Tracked, m.MaxTracked = number("/proc/sys/net/netfilter/nf_conntrack_count", 0), number("/proc/sys/net/netfilter/nf_conntrack_max", 0)
	m.Tasks, m.MaxTasks = tasks(), number("/proc/sys/kernel/pid_max", 0)
	m.Files, m.MaxFiles = number("/proc/sys/fs/file-nr", 0), number("/proc/sys/fs/file-nr", 2)
	m.Memory, m.Available = memory(text("/proc/meminfo"))
	for _, path := range []string{"/", "/var/lib", o.DataDir, "/var/lib/kubelet", "/var/lib/containerd", "/var/lib/etcd", "/var/log"} {
		m.disk(path)
	}
	if m.Kind == NoNode {
		return m
	}
	m.ports()
	if slices.ContainsFunc(m.Ports, func(p Port) bool { return p.Number == kubeletPort && p.Ours }) {
		m.Kubelet = healthz(ctx, "http://127.0.0.1:10248/healthz", o.Timeout)
	}
	m.CNI = lookAtCNI("/etc/cni/net.d", []string{"/opt/cni/bin", "/usr/lib/cni", "/usr/libexec/cni"}, m.Kind)
	return m
}

// tables sees whether nf_tables answers.
func tables() error {
	c, err := nft.Open()
	if err != nil {
		return err
	}
	defer func() { _ = c.CloseLasting() }() // nothing was written
	_, err = c.ListTables()
	return err
}

// inotify counts this user's instances, as far as they can be seen.
func inotify() (n int64) {
	fds, _ := filepath.Glob("/proc/[0-9]*/fd/*")
	uid := uint32(os.Getuid())
	for _, fd := range fds {
		if to, err := os.Readlink(fd); err != nil || to != "anon_inode:inotify" {
			continue
		}
		var st unix.Stat_t
		if unix.Stat(filepath.Dir(filepath.Dir(fd)), &st) == nil && st.Uid == uid {
			n++
		}
	}
	return n
}

// tasks is how many there are: the last part of "… 2/431 12345".
func tasks() int64 {
	f := strings.Fields(text("/proc/loadavg"))
	if len(f) < 4 {
		return 0
	}
	_, all, _ := strings.Cut(f[3], "/")
	n, _ := strconv.ParseInt(all, 10, 64)
	return n
}

// memory reads /proc/meminfo.
func memory(info string) (total, available int64) {
	for line := range strings.Lines(info) {
		f := strings.Fields(line)
		if len(f) < 2 {
			continue
		}
		kib, _ := strconv.ParseInt(f[1], 10, 64)
		switch f[0] {
		case "MemTotal:":
			total = kib << 10
		case "MemAvailable:":
			available = kib << 10
		}
	}
	return total, available
}

// disk adds the file system of a path, once.
func (m *Machine) disk(path string) {
	var st unix.Statfs_t
	if unix.Statfs(path, &st) != nil || st.Blocks == 0 {
		return
	}
	d := Disk{path, st.Bavail * uint64(st.Bsize), st.Blocks * uint64(st.Bsize), st.Ffree, st.Files, st.Flags&unix.ST_RDONLY != 0}
	if !slices.ContainsFunc(m.Disks, func(o Disk) bool { return o.Size == d.Size && o.Free == d.Free && o.AllInodes == d.AllInodes }) {
		m.Disks = append(m.Disks, d)
	}
}

// Ports of a node.
const (
	kubeletPort = 10250
	apiPort     = 6443
)

// programs are those whom such a port may belong to: this binary by any name, or
// upstream's.
var programs = []string{"sampan", "kubelet", "kube-apiserver"}

func (m *Machine) ports() {
	want := []Port{{Number: kubeletPort, What: "the kubelet"}}
	if m.Plane {
		want = append(want, Port{Number: apiPort, What: "the API server"})
	}
	for _, p := range want {
		if inode := listener(p.Number, text("/proc/net/tcp"), text("/proc/net/tcp6")); inode != "" {
			p.Holder = holder(inode)
			p.Ours = p.Holder == unseen || slices.Contains(programs, p.Holder)
		}
		m.Ports = append(m.Ports, p)
	}
}

// listener is the inode of the socket that listens at a port, by the tables of
// /proc/net: local address, remote, state 0A … inode.
func listener(port int, tables ...string) string {
	for _, t := range tables {
		for line := range strings.Lines(t) {
			f := strings.Fields(line)
			if len(f) < 10 || f[3] != "0A" {
				continue
			}
			if _, hex, _ := strings.Cut(f[1], ":"); strings.EqualFold(hex, fmt.Sprintf("%04X", port)) {
				return f[9]
			}
		}
	}
	return ""
}

// unseen is a holder whose process cannot be seen from here.
const unseen = "another process"

// holder names the program that has a socket.
func holder(inode string) string {
	fds, _ := filepath.Glob("/proc/[0-9]*/fd/*")
	for _, fd := range fds {
		if to, err := os.Readlink(fd); err == nil && to == "socket:["+inode+"]" {
			return orElse(text(filepath.Join(filepath.Dir(filepath.Dir(fd)), "comm")), unseen)
		}
	}
	return unseen
}

func healthz(ctx context.Context, url string, timeout time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	answer, err := http.DefaultClient.Do(r)
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	if answer.StatusCode != http.StatusOK {
		return fmt.Errorf("%s: %s", url, answer.Status)
	}
	return nil
}

// lookAtCNI reads the configurations as a runtime does: the first by name is used.
func lookAtCNI(dir string, bins []string, kind Kind) CNI {
	c := CNI{Dir: dir, Bad: map[string]string{}, Subnet: exists("/run/flannel/subnet.env")}
	entries, _ := os.ReadDir(dir)
	for _, e := range entries {
		if !slices.Contains([]string{".conf", ".conflist", ".json"}, filepath.Ext(e.Name())) {
			continue
		}
		types, err := plugins(filepath.Join(dir, e.Name()))
		if err != nil {
			c.Bad[filepath.Join(dir, e.Name())] = err.Error()
			continue
		}
		if c.Files = append(c.Files, filepath.Join(dir, e.Name())); len(c.Files) > 1 {
			continue
		}
		c.Flannel = slices.Contains(types, "flannel")
		for _, t := range types {
			found := slices.ContainsFunc(bins, func(b string) bool { return exists(filepath.Join(b, t)) })
			if !found && !(t == "sampan-cni" && kind == Server) { // which has its own beside it
				c.Missing = append(c.Missing, t)
			}
		}
	}
	return c
}

// plugins are the types that a configuration names.
func plugins(path string) ([]string, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	var conf struct {
		Type    string
		Plugins []struct {
			Type string
			IPAM struct{ Type string }
		}
	}
	if err := json.Unmarshal(b, &conf); err != nil {
		return nil, err
	}
	var out []string
	for _, p := range conf.Plugins {
		out = append(out, p.Type)
		if p.IPAM.Type != "" {
			out = append(out, p.IPAM.Type)
		}
	}
	if conf.Type != "" {
		out = append(out, conf.Type)
	}
	if len(out) == 0 {
		return nil, errors.New("it names no plugin")
	}
	return out, nil
}

// ask has this node ask cluster DNS, as its pods do.
func (m *Machine) ask(ctx context.Context, c *Cluster, timeout time.Duration) {
	i := slices.IndexFunc(c.Services, func(s *corev1.Service) bool {
		return s.Namespace == "kube-system" && s.Labels["k8s-app"] == "kube-dns"
	})
	if i < 0 || c.ready("kube-system", c.Services[i].Name) == 0 {
		return
	}
	server := net.JoinHostPort(c.Services[i].Spec.ClusterIP, "53")
	r := &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, network, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, network, server)
	}}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	start := clock.Now()
	_, err := r.LookupNetIP(ctx, "ip4", "kubernetes.default.svc.cluster.local.")
	var dns *net.DNSError
	if errors.As(err, &dns) && dns.IsNotFound { // of another domain: it was answered
		err = nil
	}
	m.DNS, m.DNSErr = clock.Since(start), err
}

// members asks etcd, where this machine holds what etcd wants to see.
func members(ctx context.Context, o Options) (out []Member, database int64) {
	for _, dir := range []string{filepath.Join(o.DataDir, "etcd"), "/var/lib/etcd"} {
		if st, err := os.Stat(filepath.Join(dir, "member", "snap", "db")); err == nil {
			database = max(database, st.Size())
		}
	}
	for _, dir := range []string{"/etc/kubernetes/pki/etcd", filepath.Join(o.DataDir, "pki", "etcd")} {
		at := func(name string) string { return filepath.Join(dir, name) }
		if exists(at("healthcheck-client.crt")) {
			return ofEtcd(ctx, "https://127.0.0.1:2379", etcd.TLS{CA: at("ca.crt"), Cert: at("healthcheck-client.crt"), Key: at("healthcheck-client.key")}, o.Timeout), database
		}
	}
	return nil, database
}

func ofEtcd(ctx context.Context, first string, t etcd.TLS, timeout time.Duration) []Member {
	m, err := etcd.OpenMembers([]string{first}, t)
	if err != nil {
		return []Member{{Endpoint: first, Err: err}}
	}
	defer m.Close()
	try, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	list, err := m.List(try)
	if err != nil {
		list = nil // without a majority: then at least the member here
	}
	if len(list) == 0 {
		list = []etcd.Member{{ClientURLs: []string{first}}}
	}
	var out []Member
	for _, one := range list {
		if len(one.ClientURLs) == 0 {
			out = append(out, Member{Name: orElse(one.Name, strings.Join(one.PeerURLs, ",")), Err: fs.ErrNotExist})
			continue
		}
		try, cancel := context.WithTimeout(ctx, timeout)
		s, err := m.Status(try, one.ClientURLs[0])
		cancel()
		out = append(out, Member{one.Name, one.ClientURLs[0], err, s.Size, s.InUse, s.Quota, s.Alarms, s.Learner, s.Leader})
	}
	return out
}
