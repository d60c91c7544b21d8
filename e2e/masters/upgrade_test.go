package masters

import (
	"strings"
	"testing"

	"github.com/sampan-dev/sampan/e2e/lab"
)

// TestUpgrade: a cluster whose configuration says an older version and one flag
// more is planned, compared, and upgraded; only what differs is restarted. Then
// its master is lost half-way through an init, which goes on.
func TestUpgrade(t *testing.T) {
	if testing.Short() {
		t.Skip("a whole control plane: make e2e")
	}
	l := lab.New(t)
	c := l.Computer("m1")
	patches := c.File("patches/kube-scheduler0+json.yaml", `[{"op": "add", "path": "/metadata/annotations", "value": {"who": "patched"}}]`)
	patches = patches[:strings.LastIndex(patches, "/")]

	ended := c.Start("init", "kubeadm", "init", "--pod-network-cidr=10.244.0.0/16", "--patches", patches)
	lab.Until(c, "init waits for the control plane", func() error {
		if !strings.Contains(c.Said("init"), "[control-plane-check] Checking kube-apiserver") {
			return errNotYet
		}
		return nil
	})
	c.Stop("init", "KILL")
	<-ended
	c.Says(c.Do("kubeadm", "init", "--pod-network-cidr=10.244.0.0/16", "--patches", patches), "[preflight] An init ended half-way here: going on with what it left",
		`[patches] Applied patch of type "application/json-patch+json" to target "kube-scheduler"`, "Your Kubernetes control-plane has initialized successfully!")
	c.Network("10.244.0.0/24")
	c.Sees([]string{`m1 +Ready`}, "get", "nodes")
	c.Sees([]string{`kube-scheduler-m1 +1/1 +Running`, `kube-controller-manager-m1 +1/1 +Running`, `coredns-\S+ +1/1 +Running`}, "get", "pods", "-n", "kube-system")
	version := strings.TrimSpace(c.Do("kubeadm", "version", "-o", "short"))
	c.Says(c.Do("kubeadm", "upgrade", "plan"), "[upgrade/versions] Cluster version: "+version[1:], "Awesome, you're up-to-date! Enjoy!")

	c.Sh(`set -e
export KUBECONFIG=/etc/kubernetes/admin.conf
kubectl get configmap kubeadm-config -n kube-system -o jsonpath='{.data.ClusterConfiguration}' > /root/cluster.yaml
sed -i 's/^kubernetesVersion: .*/kubernetesVersion: v1.37.0/; s/^scheduler: .*/scheduler: {extraArgs: [{name: v, value: "3"}]}/' /root/cluster.yaml
kubectl create configmap kubeadm-config -n kube-system --from-file=ClusterConfiguration=/root/cluster.yaml --dry-run=client -o yaml | kubectl apply --server-side --force-conflicts -f -`)
	c.Says(c.Do("kubeadm", "upgrade", "plan"), "Cluster version: 1.37.0", "Target version: "+version, "kubeadm upgrade apply "+version)
	c.Says(c.Do("kubeadm", "upgrade", "diff"), "--- /etc/kubernetes/manifests/kube-scheduler.yaml", "+    - --v=3")
	if out, err := c.Try("kubeadm", "upgrade", "apply", "v1.38.0", "-y"); err == nil || !strings.Contains(out, "is higher than the kubeadm version") {
		t.Errorf("upgrade to a version of tomorrow: %v\n%s", err, out)
	}
	if out, err := c.Try("sh", "-c", "echo n | kubeadm upgrade apply "+version); err == nil || !strings.Contains(out, "won't proceed") {
		t.Errorf("upgrade without consent: %v\n%s", err, out)
	}
	before := c.Do("cat", "/etc/kubernetes/pki/apiserver.crt")
	said := c.Do("kubeadm", "upgrade", "apply", version, "-y", "--patches", patches)
	c.Says(said, "Current and new manifests of kube-apiserver are equal, skipping upgrade", `Component "kube-scheduler" upgraded successfully!`,
		"The kubelet configuration for this node was successfully upgraded!", `[upgrade] SUCCESS! A control plane node of your cluster was upgraded to "`+version+`".`)
	if c.Do("cat", "/etc/kubernetes/pki/apiserver.crt") == before {
		t.Error("the certificates were not renewed")
	}
	c.Sees([]string{`--v=3`, `patched`}, "get", "pod", "kube-scheduler-m1", "-n", "kube-system", "-o", "jsonpath={.spec.containers[0].command} {.metadata.annotations.who}")
	c.Sh("ls /etc/kubernetes/tmp/kubeadm-backup-manifests-*/kube-scheduler.yaml /etc/kubernetes/tmp/kubeadm-kubelet-config-*/config.yaml")
	c.Says(c.Do("kubeadm", "upgrade", "node"), "The configuration for this node was successfully updated!")
	c.Says(c.Do("kubeadm", "upgrade", "plan"), "Awesome, you're up-to-date! Enjoy!")
	c.Says(c.K("get", "configmap", "kubeadm-config", "-n", "kube-system", "-o", "yaml"), "kubernetesVersion: "+version)

	c.StopKubelet()
	lab.Until(c, "the kubelet has ended", func() error {
		if _, err := c.Try("pidof", "kubelet"); err == nil {
			return errNotYet
		}
		return nil
	})
	c.Says(c.Do("kubeadm", "reset", "-f", "--cleanup-tmp-dir"), "there is nobody to leave to", "/etc/kubernetes/tmp", "[reset] Deleting the network link cni0", "[reset] Deleting the nftables table sampan-proxy")
	if out := c.Sh("ls -A /etc/kubernetes /var/lib/etcd /etc/kubernetes/tmp | grep -E 'conf$|member|backup|unfinished' || true"); out != "" {
		t.Errorf("reset left:\n%s", out)
	}
	if out := c.Sh("ls /sys/class/net; nft list tables; ls -A /var/lib/cni"); strings.Contains(out, "cni0") || strings.Contains(out, "sampan") {
		t.Errorf("reset left in the kernel:\n%s", out)
	}
}
