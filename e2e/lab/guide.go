package lab

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"

	"github.com/sampan-dev/sampan/machine"
)

// Guided is a machine as the readers of a guide have it before its first line:
// the operating system's own directories may be written to, an init system runs
// unit files, and the system's own commands that a laboratory must not carry out
// are there by name.
type Guided struct{ *Computer }

// ownDirectories are those that guides write to and that are the computer's
// below. What is written is kept with the machine's other files.
const ownDirectories = `
own=/var/lib/own
for d in usr/bin usr/sbin usr/lib/systemd/system; do
	mkdir -p $own/$d/upper $own/$d/work
	mount -t overlay overlay -o lowerdir=/$d,upperdir=$own/$d/upper,workdir=$own/$d/work /$d
done
for d in usr/local/bin usr/local/sbin; do
	mkdir -p $own/$d
	mount --bind $own/$d /$d
done
mkdir -p /etc/systemd/system/multi-user.target.wants /etc/sysconfig /etc/selinux /etc/yum.repos.d /etc/docker /run/cni /opt/cni/bin
mount --bind /run/cni /opt/cni/bin
if [ ! -e $own/first ]; then
	touch $own/first
	rm -f /etc/systemd/system/multi-user.target.wants/*
	echo SELINUX=enforcing > /etc/selinux/config
	echo SELINUX=enforcing > /etc/sysconfig/selinux
	: > /etc/sysctl.conf
	: > /etc/fstab
	echo 'shopt -s expand_aliases' > /root/.bashrc
fi
echo 1 > /proc/sys/net/ipv4/ip_forward
for p in systemctl yum dnf rpm yum-config-manager; do ln -sf /run/sampan/sampan /usr/local/sbin/$p; done
for p in setenforce swapoff modprobe reboot hostnamectl wget sysctl sestatus firewall-cmd sudo lsmod; do ln -sf /run/sampan/sampan /usr/local/sbin/$p; done
`

// standIns are the system's commands that the laboratory plays. Some would change
// the whole computer (swapoff, modprobe), some would need a network that leads
// somewhere (yum, wget), some are of another distribution.
var standIns = map[string]string{
	"setenforce": "", "swapoff": "", "modprobe": "", "reboot": "", "hostnamectl": "", "wget": "", "sysctl": "", "lsmod": "", "yum-config-manager": "",
	"sestatus":     "SELinux status:                 disabled\n",
	"firewall-cmd": "not running\n",
}

// stand is the laboratory's side of a command by the name it was called by; done
// is false for a name it does not play.
func stand(argv []string) (code int, done bool) {
	name, args := filepath.Base(argv[0]), argv[1:]
	if says, ok := standIns[name]; ok {
		fmt.Print(says)
		return 0, true
	}
	switch name {
	case "systemctl":
		return systemctl(args, os.Stdout), true
	case "yum", "dnf", "rpm":
		if err := yum(args); err != nil {
			fmt.Println("Error:", err)
			return 1, true
		}
		fmt.Println("Complete!")
		return 0, true
	case "sudo":
		return do(args), true
	}
	return 0, false
}

// Guided starts a machine for the reader of a guide at 100.64.0.HOST.
func (l *Lab) Guided(name string, host byte) *Guided {
	l.Helper()
	g := &Guided{&Computer{l.MachineAt(name, host)}}
	l.Cleanup(func() {
		if l.Failed() {
			out, _ := g.Try("sh", "-c", "tail -n 12 /var/log/units/*.log /mnt/logs/*.log /var/log/pods/kube-*_*/*/*.log 2>/dev/null")
			l.Logf("%s: the services' last words:\n%s", name, out)
		}
	})
	g.Sh(ownDirectories)
	return g
}

// Reboot ends the machine as pulling its plug does, and boots it.
func (g *Guided) Reboot() {
	g.Helper()
	g.PowerOff()
	g.PowerOn()
}

// PowerOn boots a machine that PowerOff ended: the services that are enabled start.
func (g *Guided) PowerOn() {
	g.Helper()
	g.Boot()
	g.Sh(ownDirectories)
	g.Run("systemctl default")
}

// Bash runs a script as root does in a terminal, and returns what it printed and
// whether it went well. What it leaves running in the background runs on.
func (g *Guided) Bash(script string) (string, error) {
	file := "/run/said-" + strings.ReplaceAll(g.Name(), "/", "-")
	var out bytes.Buffer
	ctx, cancel := context.WithTimeout(context.Background(), 5*Limit)
	defer cancel()
	err := g.m.Exec(ctx, []string{"bash", "-c", `exec > "$0" 2>&1 < /dev/null; cd; . ~/.bashrc; eval "$1"`, file, script}, machine.Stdio{})
	_ = g.m.Exec(ctx, []string{"cat", file}, machine.Stdio{Out: &out})
	return out.String(), err
}

// Run is Bash for what must go well.
func (g *Guided) Run(script string) string {
	g.Helper()
	out, err := g.Bash(script)
	if err != nil {
		g.Fatalf("%s: %s: %v\n%s", g.Host, script, err, out)
	}
	return out
}

// Shows repeats a script until what it prints fits each of the expressions.
func (g *Guided) Shows(script string, expressions ...string) string {
	g.Helper()
	var out string
	Until(g, g.Host+": "+script, func() error {
		var err error
		out, err = g.Bash(script)
		for _, e := range expressions {
			if !regexp.MustCompile("(?m)" + e).MatchString(out) {
				return fmt.Errorf("no %q in (%v):\n%s", e, err, out)
			}
		}
		return err
	})
	return out
}

// Copy is scp -r: a path of this machine becomes the same path of another.
func (g *Guided) Copy(to *Guided, path string) {
	g.Helper()
	var archive bytes.Buffer
	ctx, cancel := context.WithTimeout(context.Background(), Limit)
	defer cancel()
	err := g.m.Exec(ctx, []string{"tar", "-C", "/", "-cf", "-", strings.TrimPrefix(path, "/")}, machine.Stdio{Out: &archive})
	if err == nil {
		err = to.m.Exec(ctx, []string{"tar", "-C", "/", "-xf", "-"}, machine.Stdio{In: &archive})
	}
	if err != nil {
		g.Fatalf("copy %s from %s to %s: %v", path, g.Host, to.Host, err)
	}
}

// Containers starts the container runtime, which the guides call docker, and
// gives it the images that a registry would have.
func (g *Guided) Containers() {
	g.Helper()
	g.Run("yum install -y docker && systemctl enable docker && systemctl start docker")
	Until(g, "containerd answers", func() error {
		_, err := g.Try(InBin, "image", "system", "--address=/run/containerd/containerd.sock")
		return err
	})
	for _, a := range Images(g) {
		g.Import(a)
	}
}

// yum installs what a distribution's packages would bring of ours, with the units.
func yum(args []string) error {
	for _, a := range args {
		for name, p := range packages {
			if a != name && !strings.HasPrefix(a, name+"-1.") {
				continue
			}
			for _, program := range p.programs {
				path := filepath.Join("/usr/bin", program)
				_ = os.Remove(path)
				if err := os.Symlink(InBin, path); err != nil {
					return err
				}
			}
			for path, text := range p.files {
				if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
					return err
				}
				if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
					return err
				}
			}
			for _, u := range p.units {
				if out, err := exec.Command(InBin, "config", "units", "--dir=/usr/lib/systemd/system", "--bin-dir=/usr/bin", u).CombinedOutput(); err != nil {
					return fmt.Errorf("%w: %s", err, out)
				}
			}
		}
	}
	return nil
}

// do carries out a command in this one's place.
func do(argv []string) int {
	if len(argv) == 0 {
		return 1
	}
	cmd := exec.Command(argv[0], argv[1:]...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	if err := cmd.Run(); err != nil && cmd.ProcessState == nil {
		fmt.Println("sudo:", err)
		return 1
	}
	return cmd.ProcessState.ExitCode()
}

// bundle is what a distribution's package brings: links to the binary under test,
// files, and units that `sampan config units` writes.
type bundle struct {
	programs []string
	files    map[string]string
	units    []string
}

var packages = map[string]bundle{
	"kubectl": {programs: []string{"kubectl"}},
	"kubeadm": {programs: []string{"kubeadm", "kubelet", "kubectl"}, files: map[string]string{"/usr/lib/systemd/system/kubelet.service": kubeletService}},
	"kubelet": {programs: []string{"kubelet"}, files: map[string]string{"/usr/lib/systemd/system/kubelet.service": kubeletService}},
	"etcd":    {programs: []string{"etcd", "etcdctl"}, files: map[string]string{"/etc/etcd/etcd.conf": "", "/var/lib/etcd/.keep": ""}, units: []string{"etcd"}},
	"flannel": {programs: []string{"flanneld"}, files: map[string]string{"/etc/sysconfig/flanneld": "FLANNEL_ETCD_ENDPOINTS=\"http://127.0.0.1:2379\"\nFLANNEL_ETCD_PREFIX=\"/atomic.io/network\"\n"}, units: []string{"flanneld"}},
	// keepalived is ready for nobody but systemd itself, and says things to a syslog.
	"keepalived": {files: map[string]string{"/etc/systemd/system/keepalived.service.d/lab.conf": "[Service]\nType=simple\n", "/etc/default/keepalived": "DAEMON_ARGS=\"-D --log-console\"\n"}},
	"docker": {files: map[string]string{"/etc/containerd.toml": ContainerdConfig, "/usr/lib/systemd/system/docker.service": `[Unit]
Description=Containers
[Service]
Environment=PATH=/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
ExecStartPre=` + InBin + ` install
ExecStart=/usr/local/bin/containerd --config /etc/containerd.toml
Restart=always
[Install]
WantedBy=multi-user.target
`}},
	"kubernetes-master": {programs: []string{"kube-apiserver", "kube-controller-manager", "kube-scheduler", "kubectl"}, units: []string{"kube-apiserver", "kube-controller-manager", "kube-scheduler"}},
	"kubernetes-node":   {programs: []string{"kubelet", "kube-proxy", "kubectl"}, units: []string{"kubelet", "kube-proxy"}},
}

// kubeletService is the kubelet's unit and drop-in as kubeadm's packages have
// them: it ends until its configuration is there, and is started again.
const kubeletService = `[Unit]
Description=kubelet: The Kubernetes Node Agent
[Service]
Environment="KUBELET_KUBECONFIG_ARGS=--bootstrap-kubeconfig=/etc/kubernetes/bootstrap-kubelet.conf --kubeconfig=/etc/kubernetes/kubelet.conf"
Environment="KUBELET_CONFIG_ARGS=--config=/var/lib/kubelet/config.yaml"
Environment="KUBELET_LAB_ARGS=--eviction-hard=memory.available<1Mi"
EnvironmentFile=-/var/lib/kubelet/kubeadm-flags.env
ExecStart=/usr/bin/kubelet $KUBELET_KUBECONFIG_ARGS $KUBELET_CONFIG_ARGS $KUBELET_LAB_ARGS $KUBELET_KUBEADM_ARGS $KUBELET_EXTRA_ARGS
Restart=always
RestartSec=1
[Install]
WantedBy=multi-user.target
`
