package masters

import (
	"fmt"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/sampan-dev/sampan/e2e/lab"
)

// TestRotation: certificates of a kubelet that live for three minutes are renewed
// before they end, the client's by itself and the server's once an administrator
// has approved it; and a static pod is restarted when its manifest is edited.
func TestRotation(t *testing.T) {
	if testing.Short() {
		t.Skip("a whole control plane: make e2e")
	}
	l := lab.New(t)
	c := l.Computer("m1")
	file := c.File("kubeadm.yaml", `apiVersion: kubeadm.k8s.io/v1beta4
kind: ClusterConfiguration
networking: {podSubnet: 10.244.0.0/16}
controllerManager: {extraArgs: [{name: cluster-signing-duration, value: 3m}]}
---
apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
serverTLSBootstrap: true
`)
	c.Do("kubeadm", "init", "--config", file)
	c.Network("10.244.0.0/24")
	c.Sees([]string{`m1 +Ready`}, "get", "nodes")
	node := l.Computer("node2")
	node.Says(node.Do(words(strings.TrimSpace(c.Do("kubeadm", "token", "create", "--print-join-command")))...), "This node has joined the cluster")
	node.Network("10.244.1.0/24")

	// The server's certificate waits for an administrator, the client's for nobody.
	approve := func() {
		t.Helper()
		c.Sees([]string{`kubernetes.io/kubelet-serving +system:node:node2 +\S+ +Pending`, `kubernetes.io/kube-apiserver-client-kubelet +system:bootstrap:\S+ +\S+ +Approved,Issued`}, "get", "csr")
		c.Sh("export KUBECONFIG=/etc/kubernetes/admin.conf; kubectl certificate approve $(kubectl get csr -o go-template='{{range .items}}{{if not .status.conditions}}{{.metadata.name}} {{end}}{{end}}')")
	}
	approve()
	const server = "/var/lib/kubelet/pki/kubelet-server-current.pem"
	const user = "/var/lib/kubelet/pki/kubelet-client-current.pem"
	read := func(path string) string {
		out, _ := node.Try("sh", "-c", "sed -n '/BEGIN CERT/,/END CERT/p' "+path)
		return out
	}
	lab.Until(c, "the kubelet serves by a certificate of the cluster's", func() error {
		out, err := node.Try("curl", "-sS", "--cacert", "/etc/kubernetes/pki/ca.crt", "https://node2:10250/healthz")
		if err != nil || !strings.Contains(out, "Unauthorized") {
			return fmt.Errorf("%v %s", err, out)
		}
		return nil
	})
	before := map[string]string{server: read(server), user: read(user)}
	// Seven to nine tenths of their life, of which five minutes are over when it
	// begins, pass within two minutes and a half.
	lab.Within(c, 5*time.Minute, "the client's certificate is another", func() error { return renewed(before, read, user) })
	lab.Within(c, 5*time.Minute, "another serving certificate is asked for", func() error {
		out, err := c.Kubectl("get", "csr")
		if err != nil || !regexp.MustCompile(`kubelet-serving +system:node:node2 +\S+ +Pending`).MatchString(out) {
			return fmt.Errorf("%v %s", err, out)
		}
		return nil
	})
	approve()
	lab.Until(c, "the serving certificate is another", func() error { return renewed(before, read, server) })
	c.Sees([]string{`node2 +Ready`}, "get", "nodes")
	node.Says(node.Do("grep", "client-certificate", "/etc/kubernetes/kubelet.conf"), user)

	id := func() string {
		out, _ := c.Kubectl("get", "pod", "kube-scheduler-m1", "-n", "kube-system", "-o", "jsonpath={.status.containerStatuses[0].containerID} {.spec.containers[0].command}")
		return out
	}
	old, _, _ := strings.Cut(id(), " ")
	c.Sh(`sed -i 's/    - --leader-elect=true/&\n    - --v=2/' /etc/kubernetes/manifests/kube-scheduler.yaml`)
	lab.Until(c, "the scheduler is another container with another flag", func() error {
		if now := id(); now == "" || strings.HasPrefix(now, old) || !strings.Contains(now, "--v=2") {
			return fmt.Errorf("%s", now)
		}
		return nil
	})
	c.Sees([]string{`kube-scheduler-m1 +1/1 +Running`}, "get", "pods", "-n", "kube-system")
}

// renewed says whether a certificate is another than before.
func renewed(before map[string]string, read func(string) string, path string) error {
	if now := read(path); now == "" || now == before[path] {
		return fmt.Errorf("%s is what it was", path)
	}
	return nil
}
