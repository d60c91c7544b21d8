package lab

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
)

// Computer is a machine as guides have it before kubeadm runs: the programs in
// their places, a container runtime, a kubelet that its init system keeps alive.
type Computer struct{ *Machine }

// ContainerdConfig is written as an administrator would, for this kernel.
const ContainerdConfig = `version = 3
root = "/var/lib/containerd"
state = "/run/containerd"
[grpc]
address = "/run/containerd/containerd.sock"
[plugins."io.containerd.cri.v1.runtime"]
restrict_oom_score_adj = true
disable_apparmor = true
[plugins."io.containerd.cri.v1.runtime".cni]
bin_dirs = ["/opt/cni/bin"]
conf_dir = "/etc/cni/net.d"
use_internal_loopback = true
[plugins."io.containerd.cri.v1.images".pinned_images]
sandbox = "registry.k8s.io/pause:3.10.2"
`

// kubeletUnit is the kubelet's unit as kubeadm's packages have it: it ends until
// its configuration is there, and is started again.
const kubeletUnit = `while :; do
	if [ -f /var/lib/kubelet/config.yaml ]; then
		. /var/lib/kubelet/kubeadm-flags.env
		/usr/local/bin/kubelet --bootstrap-kubeconfig=/etc/kubernetes/bootstrap-kubelet.conf --kubeconfig=/etc/kubernetes/kubelet.conf \
			--config=/var/lib/kubelet/config.yaml --eviction-hard="memory.available<1Mi" $KUBELET_KUBEADM_ARGS
	fi
	sleep 0.3
done
`

// Computer starts a computer at the next address, with nginx and busybox among
// its images.
func (l *Lab) Computer(name string) *Computer {
	l.Helper()
	return l.ComputerAt(name, l.last+1)
}

// ComputerAt is Computer at 100.64.0.HOST.
func (l *Lab) ComputerAt(name string, host byte) *Computer {
	l.Helper()
	c := &Computer{l.MachineAt(name, host)}
	l.Cleanup(func() {
		if l.Failed() {
			out, _ := c.Try("sh", "-c", "tail -n 8 /var/log/pods/kube-system_*/*/*.log")
			l.Logf("%s: its static pods' last words:\n%s", name, out)
		}
	})
	c.furnish()
	c.StartServices()
	for _, a := range Images(l) {
		c.Import(a)
	}
	return c
}

// furnish installs the programs. The machine's own directories are used, not
// those of the computer under test; a reboot empties them.
func (c *Computer) furnish() {
	c.Helper()
	c.Sh("mkdir -p /run/usrlocalbin && mount --bind /run/usrlocalbin /usr/local/bin && mkdir -p /run/cni && mkdir -p /opt/cni/bin && mount --bind /run/cni /opt/cni/bin")
	c.Do(InBin, "install")
	c.Sh("echo 1 > /proc/sys/net/ipv4/ip_forward; grep -q " + c.Host + " /etc/hosts || echo '" + c.Addr.String() + " " + c.Host + "' >> /etc/hosts")
}

// StartServices starts containerd and the kubelet, as an init system does.
func (c *Computer) StartServices() {
	c.Helper()
	conf := c.File("containerd.toml", ContainerdConfig)
	c.Start("containerd", "env", "PATH=/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "/usr/local/bin/containerd", "--config", conf)
	c.StartKubelet()
	Until(c, "containerd answers", func() error {
		_, err := c.Try(InBin, "image", "system", "--address=/run/containerd/containerd.sock")
		return err
	})
}

// StartKubelet starts the kubelet as `systemctl start kubelet` does.
func (c *Computer) StartKubelet() {
	c.Helper()
	c.Start("kubelet", "sh", c.File("kubelet.sh", kubeletUnit))
}

// StopKubelet stops the kubelet as `systemctl stop kubelet` does.
func (c *Computer) StopKubelet() {
	c.Helper()
	c.Stop("kubelet", "KILL")
	c.Sh("kill $(pidof kubelet) 2>/dev/null; true")
}

// Reboot ends the computer as pulling its plug does and starts it again, with
// its services.
func (c *Computer) Reboot() {
	c.Helper()
	c.PowerOff()
	c.PowerOn()
}

// PowerOn starts a computer that PowerOff ended, with its services.
func (c *Computer) PowerOn() {
	c.Helper()
	c.Boot()
	c.furnish()
	c.StartServices()
}

// Import loads an image archive into the container runtime.
func (c *Computer) Import(archive string) {
	c.Helper()
	text, err := os.ReadFile(archive)
	if err != nil {
		c.Fatal(err)
	}
	c.Do(InBin, "image", "import", "--address=/run/containerd/containerd.sock", c.File(filepath.Base(archive), string(text)))
}

// Kubectl speaks as the administrator, on the computer.
func (c *Computer) Kubectl(args ...string) (string, error) {
	return c.Try(append([]string{"env", "HOME=/root", "KUBECONFIG=/etc/kubernetes/admin.conf", InBin, "kubectl"}, args...)...)
}

// K is Kubectl for what must succeed.
func (c *Computer) K(args ...string) string {
	c.Helper()
	out, err := c.Kubectl(args...)
	if err != nil {
		c.Fatalf("kubectl %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return out
}

// Sees waits until kubectl shows what fits each of the expressions.
func (c *Computer) Sees(texts []string, args ...string) string {
	c.Helper()
	var out string
	Until(c, "kubectl "+strings.Join(args, " "), func() error {
		var err error
		if out, err = c.Kubectl(args...); err != nil {
			return fmt.Errorf("%w: %s", err, out)
		}
		for _, text := range texts {
			if !regexp.MustCompile(text).MatchString(out) {
				return fmt.Errorf("no %q in:\n%s", text, out)
			}
		}
		return nil
	})
	return out
}

// Says checks that an output has all of texts.
func (m *Machine) Says(out string, texts ...string) {
	m.Helper()
	for _, text := range texts {
		if !strings.Contains(out, text) {
			m.Errorf("%s: %q is missing in:\n%s", m.Host, text, out)
		}
	}
}

// Network puts a CNI configuration in place, as a network add-on would.
func (c *Computer) Network(subnet string) {
	c.Helper()
	file := c.File("10-net.conflist", `{"cniVersion": "1.0.0", "name": "net", "plugins": [{"type": "sampan-cni", "bridge": "cni0", "subnet": "`+subnet+`", "capabilities": {"portMappings": true}}]}`)
	c.Sh("mkdir -p /etc/cni/net.d && cp " + file + " /etc/cni/net.d/")
}
