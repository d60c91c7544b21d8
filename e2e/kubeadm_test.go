package e2e

import (
	"strings"
	"testing"

	"github.com/sampan-dev/sampan/e2e/lab"
)

// TestKubeadm is the way of the guides: init with a file of 2018, a node joins by
// the line that init prints, and reset leaves nothing.
func TestKubeadm(t *testing.T) {
	t.Parallel()
	l := lab.New(t)
	master := l.Computer("master1")
	file := master.File("kubeadm.yaml", `apiVersion: kubeadm.k8s.io/v1alpha1
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
	said := master.Do("kubeadm", "init", "--config", file)
	master.Says(said, "[init] Using Kubernetes version: v1.37", "[certs] Generating \"apiserver\" certificate and key", "Your Kubernetes control-plane has initialized successfully!",
		"mkdir -p $HOME/.kube", "Then you can join any number of worker nodes")
	master.Sees([]string{`master1 +NotReady +control-plane`}, "get", "nodes")
	master.Sees([]string{"cni plugin not initialized|cni config uninitialized|network plugin is not ready"}, "describe", "node", "master1")
	master.Sees([]string{`coredns-\S+ +0/1 +Pending`, `etcd-master1 +1/1 +Running`, `kube-apiserver-master1 +1/1 +Running`, `kube-controller-manager-master1 +1/1 +Running`,
		`kube-proxy-\S+ +1/1 +Running`, `kube-scheduler-master1 +1/1 +Running`}, "get", "pods", "-n", "kube-system")
	master.Sees([]string{`scheduler +Healthy`, `controller-manager +Healthy`, `etcd-0 +Healthy`}, "get", "cs")
	master.Network("10.244.0.0/24")
	master.Sees([]string{`master1 +Ready`}, "get", "nodes")
	master.Sees([]string{`coredns-\S+ +1/1 +Running`}, "get", "pods", "-n", "kube-system")

	// A component is restarted when its manifest changes.
	master.Do("sed", "-i", "s/--leader-elect=true/--leader-elect=true\\n    - --v=2/", "/etc/kubernetes/manifests/kube-scheduler.yaml")
	master.Sees([]string{`--v=2`}, "get", "pod", "kube-scheduler-master1", "-n", "kube-system", "-o", "jsonpath={.spec.containers[0].command}")
	master.Sees([]string{`kube-scheduler-master1 +1/1 +Running`}, "get", "pods", "-n", "kube-system")

	master.Says(master.Do("kubeadm", "token", "list"), "authentication,signing", "system:bootstrappers:kubeadm:default-node-token")
	master.Says(master.Do("kubeadm", "certs", "check-expiration"), "apiserver-etcd-client", "front-proxy-ca")
	if out, err := master.Try("kubeadm", "init", "--config", file); err == nil || !strings.Contains(out, "[ERROR Port-6443]") || !strings.Contains(out, "kubeadm reset takes it away") {
		t.Errorf("init on a control plane: %v\n%s", err, out)
	}

	node := l.Computer("node3")
	if out, err := node.Try("kubeadm", "join", "100.64.0.2:6443", "--token", "zzzzzz.0123456789abcdef", "--discovery-token-unsafe-skip-ca-verification", "--config", node.File("short.yaml",
		"apiVersion: kubeadm.k8s.io/v1beta4\nkind: JoinConfiguration\ndiscovery: {bootstrapToken: {token: zzzzzz.0123456789abcdef, apiServerEndpoint: '100.64.0.2:6443', unsafeSkipCAVerification: true}}\ntimeouts: {discovery: 5s}\n")); err == nil || !strings.Contains(out, "has expired; on a control plane") {
		t.Errorf("join with an unknown token: %v\n%s", err, out)
	}
	line := strings.Fields(strings.ReplaceAll(strings.TrimSpace(master.Do("kubeadm", "token", "create", "--print-join-command", "--ttl=0")), "\\\n", " "))
	node.Says(node.Do(line...), "This node has joined the cluster")
	node.Network("10.244.1.0/24")
	master.Sees([]string{`master1 +Ready +control-plane`, `node3 +Ready +<none>`}, "get", "nodes")
	if out, err := master.Kubectl("create", "deployment", "nginx", "--image=nginx:1.25", "--replicas=2"); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	master.Sees([]string{`nginx-\S+ +1/1 +Running .* node3 `}, "get", "pods", "-o", "wide")

	// The machine's init system stops the kubelet, which is the box's own here.
	node.StopKubelet()
	node.Says(node.Do("kubeadm", "reset", "-f"), "Deleting contents of directories")
	if out, err := node.Try("sh", "-c", "ls /etc/kubernetes/pki /etc/kubernetes/kubelet.conf /var/lib/kubelet/pods 2>/dev/null | grep -v ':$'"); err == nil && strings.TrimSpace(out) != "" {
		t.Errorf("reset left:\n%s", out)
	}
	master.Sees([]string{`node3 +NotReady`}, "get", "nodes")
}
