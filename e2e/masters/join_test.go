package masters

import (
	"fmt"
	"strings"
	"testing"

	"github.com/sampan-dev/sampan/e2e/lab"
)

// TestJoinAndReset: two machines become control planes by the line that init
// prints; one leaves, and comes again; one whose join is killed half-way joins by
// the same line. When the two hours of the uploaded certificates are over, who
// joins is told how they are uploaded again.
func TestJoinAndReset(t *testing.T) {
	m := three(t)
	m1, m3 := m.all[0], m.all[2]
	m.join(2)

	m.expired(m3)

	// The join ends when etcd has heard of the new member, by nobody's will.
	ended := m3.Start("join", m.line...)
	lab.Until(m3, "the join reaches etcd", func() error {
		if !strings.Contains(m3.Said("join"), "[etcd] Announced new etcd member") {
			return errNotYet
		}
		return nil
	})
	m3.Stop("join", "KILL")
	if err := <-ended; err == nil {
		t.Fatalf("the join was over before it was killed:\n%s", m3.Said("join"))
	}
	said := m3.Do(m.line...)
	m3.Says(said, "[preflight] A join ended half-way here: going on with what it left", "This node has joined the cluster and a new control plane instance was created:")
	m3.Network("10.244.2.0/24")
	m.whole(1, 2, 3)
	if got := m.members(1); strings.Count(got, "m") != 3 || strings.Contains(got, "learner") {
		t.Errorf("etcd's members are %s", got)
	}
	m1.Says(m1.K("get", "node", "m3", "-o", "jsonpath={.metadata.labels} {.spec.taints}"), "node-role.kubernetes.io/control-plane", "node.kubernetes.io/exclude-from-external-load-balancers",
		`"key":"node-role.kubernetes.io/control-plane"`)
	m1.Sees([]string{`100.64.0.2:6443,100.64.0.3:6443,100.64.0.4:6443`}, "get", "endpoints", "kubernetes")
	if out := m3.Do("cat", "/etc/kubernetes/kubelet.conf"); !strings.Contains(out, "server: https://100.64.0.4:6443") {
		t.Errorf("the kubelet does not speak to the API server of its own machine:\n%s", out)
	}
	if out, err := m3.Try(m.line...); err == nil || !strings.Contains(out, "[ERROR FileAvailable--etc-kubernetes-kubelet.conf]") || strings.Contains(out, "half-way") {
		t.Errorf("join again where one went well: %v\n%s", err, out)
	}

	m3.StopKubelet()
	m3.Says(m3.Do("kubeadm", "reset", "-f"), "[reset] Removed the etcd member of this machine", `[reset] Deleted the Node "m3"`, "/var/lib/etcd")
	if got := m.members(1); strings.Contains(got, "m3") {
		t.Errorf("after reset of m3 etcd's members are %s", got)
	}
	if out, err := m1.Kubectl("get", "node", "m3"); err == nil || !strings.Contains(out, `nodes "m3" not found`) {
		t.Errorf("after reset of m3: %v %s", err, out)
	}
	if out := m3.Sh("ls -A /var/lib/etcd /etc/kubernetes/pki /etc/kubernetes/manifests | grep -v : | grep . || true"); out != "" {
		t.Errorf("reset left:\n%s", out)
	}
	m3.StartKubelet()
	m.join(3)
	m.whole(1, 2, 3)
}

// expired makes the two hours of the uploaded certificates over, and another
// upload of them by the command that a join names; c is not yet of the cluster.
func (m *masters) expired(c *lab.Computer) {
	m.Helper()
	m1 := m.all[0]
	name := strings.TrimSpace(m1.K("get", "secret", "kubeadm-certs", "-n", "kube-system", "-o", "jsonpath={.metadata.ownerReferences[0].name}"))
	m1.Says(m1.Do("kubeadm", "token", "list"), strings.TrimPrefix(name, "bootstrap-token-"), "Proxy for managing TTL for the kubeadm-certs secret")
	m1.K("patch", "secret", name, "-n", "kube-system", "-p", `{"stringData": {"expiration": "2020-01-01T00:00:00Z"}}`)
	lab.Until(m1, "the certificates are gone with their token", func() error {
		if out, err := m1.Kubectl("get", "secret", "kubeadm-certs", "-n", "kube-system"); err == nil || !strings.Contains(out, "NotFound") {
			return fmt.Errorf("%v %s", err, out)
		}
		return nil
	})
	if out, err := c.Try(m.line...); err == nil || !strings.Contains(out, `Secret "kubeadm-certs" was not found`) || !strings.Contains(out, "kubeadm init phase upload-certs --upload-certs") {
		m.Errorf("join when the certificates are gone: %v\n%s", err, out)
	}
	said := words(m1.Do("kubeadm", "init", "phase", "upload-certs", "--upload-certs"))
	if out, err := c.Try(m.line...); err == nil || !strings.Contains(out, "the --certificate-key is not the one the certificates were uploaded with") || !strings.Contains(out, "kubeadm init phase upload-certs --upload-certs") {
		m.Errorf("join by the key of an earlier upload: %v\n%s", err, out)
	}
	m.line[len(m.line)-1] = said[len(said)-1]
}
