package kubeadm

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	goruntime "runtime"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
	"k8s.io/apimachinery/pkg/util/version"

	"github.com/sampan-dev/sampan/kit/clock"
	"github.com/sampan-dev/sampan/kubeadm/config"
	kubecri "github.com/sampan-dev/sampan/kubelet/cri"
)

// check is one thing to look at before anything is changed. Its errors stop the
// command unless its name is ignored; every message names the remedy.
type check struct {
	name string
	run  func(ctx context.Context) (warnings, errs []string)
}

// preflight runs the checks and says what they found.
func preflight(ctx context.Context, p printer, checks []check, ignore []string) error {
	ignored := func(name string) bool {
		return slices.ContainsFunc(ignore, func(i string) bool { return strings.EqualFold(i, name) || strings.EqualFold(i, "all") })
	}
	if ignored("all") && slices.ContainsFunc(ignore, func(i string) bool { return !strings.EqualFold(i, "all") }) {
		return fmt.Errorf("ignore-preflight-errors: Invalid value: %q: don't specify individual checks if 'all' is used, use only 'all'", strings.Join(ignore, ","))
	}
	var fatal []string
	for _, c := range checks {
		warnings, errs := c.run(ctx)
		if ignored(c.name) {
			warnings, errs = append(warnings, errs...), nil
		}
		for _, w := range warnings {
			p.say("\t[WARNING %s]: %s", c.name, w)
		}
		for _, e := range errs {
			fatal = append(fatal, fmt.Sprintf("\t[ERROR %s]: %s", c.name, e))
		}
	}
	if len(fatal) == 0 {
		return nil
	}
	return errors.New("[preflight] Some fatal errors occurred:\n" + strings.Join(fatal, "\n") +
		"\n[preflight] If you know what you are doing, you can make a check non-fatal with `--ignore-preflight-errors=...`")
}

func one(text string) []string { return []string{text} }

func privileged() check { return thisMachine().privileged() }

// ground is the machine that checks look at.
type ground struct {
	root   string // of its files
	uid    int
	cpus   int
	find   func(program string) (string, error)
	lookup func(ctx context.Context, host string) error
	// synced says whether the clock follows others'.
	synced func() bool
	// driver is who makes the runtime's control groups: "systemd", "cgroupfs", or ""
	// when it does not say.
	driver func(ctx context.Context, socket string) string
}

func thisMachine() ground {
	return ground{
		root: "/", uid: os.Geteuid(), cpus: goruntime.NumCPU(), find: exec.LookPath, synced: clockSynced, driver: runtimeDriver,
		lookup: func(ctx context.Context, host string) error {
			_, err := net.DefaultResolver.LookupHost(ctx, host)
			return err
		},
	}
}

func (g ground) privileged() check {
	return check{"IsPrivilegedUser", func(context.Context) (w, e []string) {
		if g.uid != 0 {
			return nil, one("user is not running as root: run it with sudo")
		}
		return nil, nil
	}}
}

// clockSynced asks the kernel.
func clockSynced() bool {
	var t unix.Timex
	state, err := unix.Adjtimex(&t)
	return err != nil || state != 5 // TIME_ERROR
}

// runtimeDriver asks the container runtime.
func runtimeDriver(ctx context.Context, socket string) string {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	r, _, err := kubecri.Connect(ctx, socket)
	if err != nil {
		return ""
	}
	c, err := r.RuntimeConfig(ctx)
	if err != nil || c.GetLinux() == nil {
		return ""
	}
	return strings.ToLower(c.Linux.CgroupDriver.String())
}

// file reads one of the machine's files.
func (g ground) file(path string) (string, error) {
	text, err := os.ReadFile(filepath.Join(g.root, path))
	return strings.TrimSpace(string(text)), err
}

// checks look at the machine, which is to be a node.
func (g ground) checks(node config.NodeRegistration) []check {
	return []check{
		g.privileged(),
		{"NumCPU", func(context.Context) (w, e []string) {
			if g.cpus < 2 {
				return one(fmt.Sprintf("the number of available CPUs %d is less than the recommended 2", g.cpus)), nil
			}
			return nil, nil
		}},
		{"Swap", func(context.Context) (w, e []string) {
			text, err := g.file("/proc/swaps")
			if err == nil && strings.Contains(text, "\n") {
				return one("swap is supported for cgroup v2 only. The kubelet must be properly configured to use swap, or swap turned off: swapoff -a"), nil
			}
			return nil, nil
		}},
		{"FileContent--proc-sys-net-ipv4-ip_forward", func(context.Context) (w, e []string) {
			if text, err := g.file("/proc/sys/net/ipv4/ip_forward"); err != nil || text != "1" {
				return nil, one("/proc/sys/net/ipv4/ip_forward contents are not set to 1: pods could not reach other machines; run: sysctl -w net.ipv4.ip_forward=1")
			}
			return nil, nil
		}},
		{"FileContent--proc-sys-net-bridge-bridge-nf-call-iptables", func(context.Context) (w, e []string) {
			text, err := g.file("/proc/sys/net/bridge/bridge-nf-call-iptables")
			switch {
			case err != nil:
				return one("/proc/sys/net/bridge/bridge-nf-call-iptables does not exist: a network add-on that filters bridged packets with iptables needs the kernel module: modprobe br_netfilter"), nil
			case text != "1":
				return one("/proc/sys/net/bridge/bridge-nf-call-iptables is not 1: sysctl -w net.bridge.bridge-nf-call-iptables=1"), nil
			}
			return nil, nil
		}},
		{"Hostname", func(ctx context.Context) (w, e []string) {
			if err := g.lookup(ctx, node.Name); err != nil {
				return one(fmt.Sprintf("hostname %q could not be reached: %v; add it to /etc/hosts", node.Name, err)), nil
			}
			return nil, nil
		}},
		{"FileExisting-runc", func(context.Context) (w, e []string) {
			if _, err := g.find("runc"); err != nil {
				return one("runc not found in system path: the runtime built in needs it (Debian: apt-get install runc)"), nil
			}
			return nil, nil
		}},
		{"CRI", func(ctx context.Context) (w, e []string) {
			path := strings.TrimPrefix(node.CRISocket, "unix://")
			ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
			defer cancel()
			conn, err := (&net.Dialer{}).DialContext(ctx, "unix", path)
			if err != nil {
				return nil, one(fmt.Sprintf("container runtime is not running: %s: %v; start containerd (sampan containerd), or say where it listens with --cri-socket", node.CRISocket, err))
			}
			conn.Close()
			return nil, nil
		}},
		{"CgroupDriver", func(ctx context.Context) (w, e []string) { return nil, g.drivers(ctx, node) }},
		{"ClockSkew", func(context.Context) (w, e []string) {
			if !g.synced() {
				return one("this machine's clock is not synchronised: certificates of one machine may not be valid yet on another; start an NTP client: systemctl enable --now systemd-timesyncd"), nil
			}
			return nil, nil
		}},
	}
}

// drivers says what keeps the kubelet and the runtime from agreeing on who makes
// the pods' control groups: the kubelet would refuse to start.
func (g ground) drivers(ctx context.Context, node config.NodeRegistration) []string {
	var asked string
	for _, a := range node.KubeletExtraArgs {
		switch {
		case a.Name == "cgroups-per-qos" && a.Value == "false": // pods have none
			return nil
		case a.Name == "cgroup-driver":
			asked = a.Value
		}
	}
	switch has := g.driver(ctx, node.CRISocket); {
	case has == "systemd":
		return one("the container runtime has systemd make its containers' control groups, and the kubelet makes those of pods itself, as cgroupfs does: " +
			"set SystemdCgroup = false in containerd's configuration (/etc/containerd/config.toml) and restart it")
	case has == "cgroupfs" && asked == "systemd":
		return one(`kubelet cgroup driver: "systemd" is different from the container runtime's: "cgroupfs"; leave cgroup-driver out of kubeletExtraArgs`)
	}
	return nil
}

// forgiven is how far clocks may differ: certificates begin that much before they
// are made.
const forgiven = 5 * time.Minute

// skewed compares this machine's clock with that of the API server it asked.
func skewed(f *found) check {
	return check{"ClockSkew", func(context.Context) (w, e []string) {
		if f.skew.Abs() <= forgiven {
			return nil, nil
		}
		how := "ahead of"
		if f.skew < 0 {
			how = "behind"
		}
		return nil, one(fmt.Sprintf("this machine's clock is %s %s that of the API server %s: certificates made on one are not valid on the other; "+
			"start an NTP client on both (systemctl enable --now systemd-timesyncd), or set this clock: date -u -s @%d",
			f.skew.Abs().Round(time.Second), how, f.server, clock.Now().Add(-f.skew).Unix()))
	}}
}

// portFree checks that nothing listens on a port yet.
func portFree(port int) check {
	return check{"Port-" + strconv.Itoa(port), func(context.Context) (w, e []string) {
		l, err := net.Listen("tcp", ":"+strconv.Itoa(port))
		if err != nil {
			return nil, one(fmt.Sprintf("Port %d is in use: a control plane may run here already (kubeadm reset takes it away), or another program listens: ss -ltnp sport = :%d", port, port))
		}
		l.Close()
		return nil, nil
	}}
}

// fileFree checks that a file is not there yet.
func fileFree(path string) check {
	return check{"FileAvailable-" + strings.ReplaceAll(path, "/", "-"), func(context.Context) (w, e []string) {
		if _, err := os.Stat(path); err == nil {
			return nil, one(path + " already exists: this machine belongs to a cluster; kubeadm reset takes it out")
		}
		return nil, nil
	}}
}

// dirEmpty checks that a directory holds nothing yet.
func dirEmpty(path string) check {
	return check{"DirAvailable-" + strings.ReplaceAll(path, "/", "-"), func(context.Context) (w, e []string) {
		if list, err := os.ReadDir(path); err == nil && len(list) > 0 {
			return nil, one(path + " is not empty: it may hold another cluster's data; kubeadm reset removes it")
		}
		return nil, nil
	}}
}

// initChecks are those of a first control plane.
func initChecks(m machine, manifests string) []check {
	return append(append(thisMachine().checks(m.node), portFree(kubeletPort)), controlPlaneChecks(m, manifests, true)...)
}

// controlPlaneChecks look whether a control plane can be put here. The files for
// an external etcd may be still to come.
func controlPlaneChecks(m machine, manifests string, asked bool) []check {
	checks := []check{portFree(int(m.local.BindPort)), portFree(schedulerPort), portFree(controllerManager)}
	for _, name := range []string{"kube-apiserver", "kube-controller-manager", "kube-scheduler", "etcd"} {
		checks = append(checks, fileFree(filepath.Join(manifests, name+".yaml")))
	}
	if m.cluster.Etcd.Local != nil {
		return append(checks, portFree(etcdClient), portFree(etcdPeer), dirEmpty(m.cluster.Etcd.Local.DataDir))
	}
	if !asked {
		return checks
	}
	x := m.cluster.Etcd.External
	return append(checks, check{"ExternalEtcdVersion", func(ctx context.Context) (w, e []string) {
		if err := etcdAnswers(ctx, x); err != nil {
			return nil, one(err.Error())
		}
		return nil, nil
	}})
}

// joinChecks are those of a machine that joins.
func joinChecks(node config.NodeRegistration, p paths, caFile string, serves bool) []check {
	checks := append(thisMachine().checks(node), fileFree(p.file("kubelet.conf")), fileFree(p.bootstrap()))
	if serves { // its authority may have been copied here
		return checks
	}
	return append(checks, dirEmpty(p.manifests()), portFree(kubeletPort), fileFree(caFile))
}

// versionChecks look whether a program of version mine may join a cluster.
func versionChecks(cluster, mine string, serves bool) []check {
	c, errC := version.ParseGeneric(cluster)
	m, errM := version.ParseGeneric(mine)
	if errC != nil || errM != nil {
		return nil
	}
	return []check{{"KubeletVersion", func(context.Context) (w, e []string) {
		switch {
		case m.Major() > c.Major() || m.Minor() > c.Minor():
			return nil, one(fmt.Sprintf("the kubelet version is higher than the control plane version. This is not a supported version skew and may lead to a malfunctional cluster. Kubelet version: %q Control plane version: %q. "+
				"Upgrade the cluster first (kubeadm upgrade apply %s on a control plane), or install %s here", m, c, mine, cluster))
		case m.Minor()+3 < c.Minor():
			return nil, one(fmt.Sprintf("Kubelet version %q is lower than kubeadm can support: the control plane is %q, and a kubelet may be three minor versions older. Install %s here", m, c, cluster))
		}
		return nil, nil
	}}, {"KubernetesVersion", func(context.Context) (w, e []string) {
		if !serves || m.EqualTo(c) {
			return nil, nil
		}
		return nil, one(fmt.Sprintf("this kubeadm deploys control planes of version %s and the cluster is %s. Upgrade the cluster first (kubeadm upgrade apply %[1]s on a control plane), or install %[2]s here", mine, cluster))
	}}}
}
