package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// computer is a machine of a cluster made by kubeadm: a box with a containerd
// and a kubelet that its init system keeps alive.
type computer struct {
	*box
	*world
}

func (c *computer) Fatalf(format string, args ...any) { c.box.Fatalf(format, args...) }
func (c *computer) Errorf(format string, args ...any) { c.box.Errorf(format, args...) }
func (c *computer) Helper()                           { c.box.Helper() }

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

// newComputer is a machine as the guides have it before kubeadm runs: programs
// in their places, a container runtime, a kubelet that waits for its files.
func newComputer(w *world, base, name string, host byte) *computer {
	w.Helper()
	t := w.T
	c := &computer{box: newBoxAt(t, base, name, host), world: w}
	t.Cleanup(func() {
		if t.Failed() {
			out, _ := c.box.try("sh", "-c", "tail -n 8 /var/log/pods/kube-system_*/*/*.log")
			t.Logf("%s: its static pods' last words:\n%s", name, out)
		}
	})
	// The machine's programs are its own, not the computer's under test.
	c.do("sh", "-c", "mkdir -p /run/usrlocalbin && mount --bind /run/usrlocalbin /usr/local/bin && mkdir -p /run/cni && mkdir -p /opt/cni/bin && mount --bind /run/cni /opt/cni/bin")
	c.do(inBin, "install")
	conf := c.file("containerd.toml", containerdConfig)
	c.start("containerd", "env", "PATH=/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "/usr/local/bin/containerd", "--config", conf)
	c.do("sh", "-c", "echo 1 > /proc/sys/net/ipv4/ip_forward; echo '100.64.0.2 master1\n100.64.0.3 node3' >> /etc/hosts")
	c.start("kubelet", "sh", c.file("kubelet.sh", kubeletUnit))
	c.until("containerd answers", func() error {
		_, err := c.box.try(inBin, "image", "system", "--address=/run/containerd/containerd.sock")
		return err
	})
	for _, a := range mustGlob(c.box, filepath.Join(home, "images", "*.tar")) {
		text, err := os.ReadFile(a)
		if err != nil {
			t.Fatal(err)
		}
		c.do(inBin, "image", "import", "--address=/run/containerd/containerd.sock", c.file(filepath.Base(a), string(text)))
	}
	return c
}

// kubectl speaks as the administrator, on the machine.
func (c *computer) kubectl(args ...string) (string, error) {
	return c.box.try(append([]string{"env", "HOME=/root", "KUBECONFIG=/etc/kubernetes/admin.conf", inBin, "kubectl"}, args...)...)
}

// sees waits until kubectl shows the texts.
func (c *computer) sees(texts []string, args ...string) {
	c.Helper()
	c.until("kubectl "+strings.Join(args, " "), func() error {
		out, err := c.kubectl(args...)
		if err != nil {
			return fmt.Errorf("%v: %s", err, out)
		}
		for _, text := range texts {
			if !regexp.MustCompile(text).MatchString(out) {
				return fmt.Errorf("no %q in:\n%s", text, out)
			}
		}
		return nil
	})
}

// network puts a CNI configuration in place, as a network add-on would.
func (c *computer) network(subnet string) {
	c.Helper()
	file := c.file("10-net.conflist", `{"cniVersion": "1.0.0", "name": "net", "plugins": [{"type": "sampan-cni", "bridge": "cni0", "subnet": "`+subnet+`", "capabilities": {"portMappings": true}}]}`)
	c.do("sh", "-c", "mkdir -p /etc/cni/net.d && cp "+file+" /etc/cni/net.d/")
}

// TestKubeadm is the way of the guides: init with a file of 2018, a node joins by
// the line that init prints, and reset leaves nothing.
func TestKubeadm(t *testing.T) {
	w, base := beside(t), boxBase(t)
	master := newComputer(w, base, "master1", 2)
	file := master.file("kubeadm.yaml", `apiVersion: kubeadm.k8s.io/v1alpha1
kind: MasterConfiguration
controllerManagerExtraArgs:
  horizontal-pod-autoscaler-use-rest-clients: "true"
  horizontal-pod-autoscaler-sync-period: "10s"
  node-monitor-grace-period: "10s"
apiServerExtraArgs:
  runtime-config: "api/all=true"
networking:
  podSubnet: 10.244.0.0/16
kubernetesVersion: "1.23.1"
`)
	said := master.do("kubeadm", "init", "--config", file)
	master.says(said, "[init] Using Kubernetes version: v1.37", "[certs] Generating \"apiserver\" certificate and key", "Your Kubernetes control-plane has initialized successfully!",
		"mkdir -p $HOME/.kube", "Then you can join any number of worker nodes")
	master.sees([]string{`master1 +NotReady +control-plane`}, "get", "nodes")
	master.sees([]string{"cni plugin not initialized|cni config uninitialized|network plugin is not ready"}, "describe", "node", "master1")
	master.sees([]string{`coredns-\S+ +0/1 +Pending`, `etcd-master1 +1/1 +Running`, `kube-apiserver-master1 +1/1 +Running`, `kube-controller-manager-master1 +1/1 +Running`,
		`kube-proxy-\S+ +1/1 +Running`, `kube-scheduler-master1 +1/1 +Running`}, "get", "pods", "-n", "kube-system")
	master.sees([]string{`scheduler +Healthy`, `controller-manager +Healthy`, `etcd-0 +Healthy`}, "get", "cs")
	master.network("10.244.0.0/24")
	master.sees([]string{`master1 +Ready`}, "get", "nodes")
	master.sees([]string{`coredns-\S+ +1/1 +Running`}, "get", "pods", "-n", "kube-system")

	// A component is restarted when its manifest changes.
	master.do("sed", "-i", "s/--leader-elect=true/--leader-elect=true\\n    - --v=2/", "/etc/kubernetes/manifests/kube-scheduler.yaml")
	master.sees([]string{`--v=2`}, "get", "pod", "kube-scheduler-master1", "-n", "kube-system", "-o", "jsonpath={.spec.containers[0].command}")
	master.sees([]string{`kube-scheduler-master1 +1/1 +Running`}, "get", "pods", "-n", "kube-system")

	master.says(master.do("kubeadm", "token", "list"), "authentication,signing", "system:bootstrappers:kubeadm:default-node-token")
	master.says(master.do("kubeadm", "certs", "check-expiration"), "apiserver-etcd-client", "front-proxy-ca")
	if out, err := master.box.try("kubeadm", "init", "--config", file); err == nil || !strings.Contains(out, "[ERROR Port-6443]") || !strings.Contains(out, "kubeadm reset takes it away") {
		t.Errorf("init on a control plane: %v\n%s", err, out)
	}

	node := newComputer(w, base, "node3", 3)
	if out, err := node.box.try("kubeadm", "join", "100.64.0.2:6443", "--token", "zzzzzz.0123456789abcdef", "--discovery-token-unsafe-skip-ca-verification", "--config", node.file("short.yaml",
		"apiVersion: kubeadm.k8s.io/v1beta4\nkind: JoinConfiguration\ndiscovery: {bootstrapToken: {token: zzzzzz.0123456789abcdef, apiServerEndpoint: '100.64.0.2:6443', unsafeSkipCAVerification: true}}\ntimeouts: {discovery: 5s}\n")); err == nil || !strings.Contains(out, "has expired; on a control plane") {
		t.Errorf("join with an unknown token: %v\n%s", err, out)
	}
	line := strings.Fields(strings.ReplaceAll(strings.TrimSpace(master.do("kubeadm", "token", "create", "--print-join-command", "--ttl=0")), "\\\n", " "))
	node.says(node.do(line...), "This node has joined the cluster")
	node.network("10.244.1.0/24")
	master.sees([]string{`master1 +Ready +control-plane`, `node3 +Ready +<none>`}, "get", "nodes")
	if out, err := master.kubectl("create", "deployment", "nginx", "--image=nginx:1.25", "--replicas=2"); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	master.sees([]string{`nginx-\S+ +1/1 +Running .* node3 `}, "get", "pods", "-o", "wide")

	// The machine's init system stops the kubelet, which is the box's own here.
	node.stop("kubelet", "KILL")
	node.do("sh", "-c", "kill $(pidof kubelet)")
	node.says(node.do("kubeadm", "reset", "-f"), "Deleting contents of directories")
	if out, err := node.box.try("sh", "-c", "ls /etc/kubernetes/pki /etc/kubernetes/kubelet.conf /var/lib/kubelet/pods 2>/dev/null | grep -v ':$'"); err == nil && strings.TrimSpace(out) != "" {
		t.Errorf("reset left:\n%s", out)
	}
	master.sees([]string{`node3 +NotReady`}, "get", "nodes")
}
