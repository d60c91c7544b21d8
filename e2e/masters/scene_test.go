package masters

import (
	"errors"
	"fmt"
	"regexp"
	"strings"
	"testing"

	"github.com/sampan-dev/sampan/e2e/lab"
)

// errNotYet is what a wait waits out.
var errNotYet = errors.New("not yet")

// masters are the control planes of one cluster, m1 the first.
type masters struct {
	*lab.Lab
	all []*lab.Computer
	// line joins a control plane, worker a node.
	line, worker []string
}

// three is a lab with a computer each for m1, m2 and m3, of which the first is a
// cluster. Its address is everybody's endpoint.
func three(t *testing.T, init ...string) *masters {
	t.Helper()
	if testing.Short() {
		t.Skip("several machines: make e2e")
	}
	m := &masters{Lab: lab.New(t)}
	for _, name := range []string{"m1", "m2", "m3"} {
		m.all = append(m.all, m.Computer(name))
	}
	said := m.all[0].Do(append([]string{"kubeadm", "init", "--control-plane-endpoint", "100.64.0.2:6443", "--upload-certs", "--pod-network-cidr=10.244.0.0/16"}, init...)...)
	m.all[0].Says(said, "Your Kubernetes control-plane has initialized successfully!",
		"You can now join any number of the control-plane node running the following command on each as root:",
		"Please note that the certificate-key gives access to cluster sensitive data, keep it secret!",
		"As a safeguard, uploaded-certs will be deleted in two hours; If necessary, you can use",
		"\"kubeadm init phase upload-certs --upload-certs\" to reload certs afterward.",
		"Then you can join any number of worker nodes by running the following on each as root:")
	lines := regexp.MustCompile(`kubeadm join (?:[^\n]*\\\n)*[^\n]*`).FindAllString(said, -1)
	if len(lines) != 2 {
		t.Fatalf("init printed %d lines to join by:\n%s", len(lines), said)
	}
	m.line, m.worker = words(lines[0]), words(lines[1])
	m.all[0].Network("10.244.0.0/24")
	return m
}

// words are a shell line's, which may go over several lines.
func words(line string) []string { return strings.Fields(strings.ReplaceAll(line, "\\\n", " ")) }

// join makes the computers with these numbers control planes, one by one.
func (m *masters) join(numbers ...int) {
	m.Helper()
	for _, n := range numbers {
		c := m.all[n-1]
		c.Says(c.Do(m.line...), "This node has joined the cluster and a new control plane instance was created:",
			"* Certificate signing request was sent to apiserver and approval was received.", "* The Kubelet was informed of the new secure connection details.",
			"* Control plane label and taint were applied to the new node.", "* The Kubernetes control plane instances scaled up.",
			"* A new etcd member was added to the local/stacked etcd cluster.", "sudo cp -i /etc/kubernetes/admin.conf $HOME/.kube/config")
		c.Network(fmt.Sprintf("10.244.%d.0/24", n-1))
	}
}

// whole waits until the control planes with these numbers are there whole, as
// each of them tells.
func (m *masters) whole(numbers ...int) {
	m.Helper()
	var nodes, pods []string
	for _, n := range numbers {
		nodes = append(nodes, fmt.Sprintf(`m%d +Ready +control-plane`, n))
		for _, name := range []string{"etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler"} {
			pods = append(pods, fmt.Sprintf(`kube-system +%s-m%d +1/1 +Running`, name, n))
		}
	}
	for _, n := range numbers {
		m.all[n-1].Sees(nodes, "get", "nodes", "-s", m.endpoint(n))
		m.all[n-1].Sees(pods, "get", "pods", "-A", "-s", m.endpoint(n))
	}
}

func (m *masters) endpoint(n int) string { return "https://" + m.all[n-1].Addr.String() + ":6443" }

// members are etcd's, as a member tells: their names, learners marked.
func (m *masters) members(n int) string {
	m.Helper()
	out := m.all[n-1].Do(append([]string{lab.InBin, "etcdctl"}, append(etcdFlags(), "member", "list")...)...)
	var names []string
	for line := range strings.Lines(out) {
		f := strings.Split(strings.TrimSpace(line), ", ")
		if len(f) < 6 {
			m.Fatalf("member list: %s", out)
		}
		name := f[2]
		if f[5] == "true" {
			name += " (learner)"
		}
		names = append(names, name)
	}
	return strings.Join(names, " ")
}

func etcdFlags() []string {
	const pki = "/etc/kubernetes/pki/etcd/"
	return []string{"--endpoints=https://127.0.0.1:2379", "--cacert=" + pki + "ca.crt", "--cert=" + pki + "healthcheck-client.crt", "--key=" + pki + "healthcheck-client.key"}
}

// doors are the ways to every control plane.
func (m *masters) doors() []*lab.Door {
	m.Helper()
	admin := m.all[0].Do("cat", "/etc/kubernetes/admin.conf")
	var out []*lab.Door
	for _, c := range m.all {
		out = append(out, c.Door(admin))
	}
	return out
}
