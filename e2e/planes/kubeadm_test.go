package planes

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/sampan-dev/sampan/e2e/lab"
)

// mixed is a cluster of machines that kubeadm manages and of servers.
type mixed struct {
	*lab.Lab
	speak func(args ...string) (string, error) // kubectl, where it is sure to be answered
}

// images gives a machine's server the archives of nginx and busybox.
func images(m *lab.Machine) string {
	m.Helper()
	for _, a := range lab.Images(m) {
		text, err := os.ReadFile(a)
		if err != nil {
			m.Fatal(err)
		}
		m.File("images/"+filepath.Base(a), string(text))
	}
	m.Sh("mkdir -p /run/cni && mkdir -p /opt/cni/bin && mount --bind /run/cni /opt/cni/bin") // the computer's is not the machine's
	return "--import-images=/run/hand/images"
}

// flannel is the manifest that a server applies for nodes that kubeadm manages,
// for all nodes: of kube-flannel's well-known shape.
func flannel(t testing.TB) string {
	t.Helper()
	text, err := os.ReadFile("../../bootstrap/addons/kube-flannel.yaml")
	if err != nil {
		t.Fatal(err)
	}
	return regexp.MustCompile(`\n.*sampan.dev/built-in\n.*`).ReplaceAllString(strings.NewReplacer("{{.ClusterCIDR}}", "10.244.0.0/16", "{{.Backend}}", "vxlan").Replace(string(text)), "")
}

// web runs nginx on every node behind a service.
const web = `
apiVersion: apps/v1
kind: DaemonSet
metadata: {name: web}
spec:
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      tolerations: [{operator: Exists}]
      terminationGracePeriodSeconds: 0
      containers: [{name: web, image: "nginx:1.25", imagePullPolicy: IfNotPresent}]
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec:
  selector: {app: web}
  ports: [{port: 80}]
`

// sees waits until kubectl shows all of the patterns.
func (m *mixed) sees(patterns []string, args ...string) {
	m.Helper()
	lab.Within(m, 4*lab.Limit, "kubectl "+strings.Join(args, " "), func() error {
		out, err := m.speak(args...)
		if err != nil {
			return fmt.Errorf("%w: %s", err, out)
		}
		for _, p := range patterns {
			if !regexp.MustCompile(p).MatchString(out) {
				return fmt.Errorf("no %q in:\n%s", p, out)
			}
		}
		return nil
	})
}

// get is what kubectl prints.
func (m *mixed) get(args ...string) (out string) {
	m.Helper()
	lab.Within(m, 2*lab.Limit, "kubectl "+strings.Join(args, " "), func() (err error) {
		if out, err = m.speak(args...); err == nil && out == "" {
			err = fmt.Errorf("nothing yet")
		}
		return err
	})
	return out
}

// spread waits until every node is Ready and runs a pod that every machine
// reaches, at its address and by the service.
func (m *mixed) spread(all ...*lab.Machine) {
	m.Helper()
	var ready []string
	for _, o := range all {
		ready = append(ready, o.Host+` +Ready`)
	}
	m.sees(ready, "get", "nodes")
	all[0].File("web.yaml", web)
	m.get("apply", "-f", all[0].File("web.yaml", web))
	m.sees([]string{fmt.Sprintf(`^%d$`, len(all))}, "get", "daemonset", "web", "-o", "jsonpath={.status.numberReady}")
	at := strings.Fields(m.get("get", "pods", "-l", "app=web", "-o", "jsonpath={.items[*].status.podIP}"))
	at = append(at, m.get("get", "service", "web", "-o", "jsonpath={.spec.clusterIP}"))
	for _, o := range all {
		for _, ip := range at {
			o.Answers("http://"+ip+"/", "Welcome to nginx")
		}
	}
}

// A cluster that kubeadm began takes a server as a node and servers as control
// planes: they take its ranges, its network and its proxy, share its virtual
// address, and go on when the master is lost.
func TestServersJoinKubeadmsCluster(t *testing.T) {
	if testing.Short() {
		t.Skip("several machines: make e2e")
	}
	l := lab.New(t)
	master := l.Computer("master")
	m := &mixed{l, master.Kubectl}
	master.Sh("mkdir -p /etc/kubernetes/manifests && " + lab.InBin + " vip --vip " + virtual + " --node-ip " + master.Addr.String() + " --manifest > /etc/kubernetes/manifests/sampan-vip.yaml")
	// Until the kubelet runs nothing runs the pod: the address is put on by hand once.
	master.Do("ip", "addr", "add", virtual+"/32", "dev", "eth0", "valid_lft", "120", "preferred_lft", "120")
	said := master.Do("kubeadm", "init", "--control-plane-endpoint", virtual+":6443", "--upload-certs", "--pod-network-cidr=10.244.0.0/16", "--service-cidr=10.98.0.0/16", "--ignore-preflight-errors=DirAvailable--etc-kubernetes-manifests")
	find := func(pattern string) string {
		found := regexp.MustCompile(pattern).FindStringSubmatch(said)
		if found == nil {
			t.Fatalf("init printed no %s:\n%s", pattern, said)
		}
		return found[1]
	}
	join := []string{lab.InBin, "server", "--join=https://" + virtual + ":6443", "--token=" + find(`--token (\S+)`), "--discovery-token-ca-cert-hash=" + find(`(sha256:\S+)`)}
	plane := append(join[:len(join):len(join)], "--control-plane", "--certificate-key="+find(`--certificate-key (\S+)`), "--vip="+virtual)
	m.get("apply", "-f", master.File("kube-flannel.yml", flannel(t)))

	node := l.Machine("node")
	node.Start("server", append(join, images(node))...)
	one := &server{Machine: l.Machine("one")}
	one.argv = append(plane, images(one.Machine))
	one.run()
	t.Logf("a server joined as a control plane after %.1f s", one.ready().Seconds())
	two := &server{Machine: l.Machine("two"), argv: append(plane, "--disable-node")}
	two.run()
	two.ready()
	one.members("master", "one", "two")
	m.spread(master.Machine, node, one.Machine)
	if at := m.get("get", "service", "web", "-o", "jsonpath={.spec.clusterIP}"); !strings.HasPrefix(at, "10.98.") {
		t.Errorf("the service is at %s", at)
	}
	m.sees([]string{`100.64.0.2:6443,100.64.0.4:6443,100.64.0.5:6443`}, "get", "endpoints", "kubernetes")
	m.sees([]string{`kube-proxy-\S+ +1/1 +Running.* node `, `kube-proxy-\S+ +1/1 +Running.* one `}, "get", "pods", "-n", "kube-system", "-o", "wide")
	m.sees([]string{`^2$`}, "get", "deployment", "coredns", "-n", "kube-system", "-o", "jsonpath={.spec.replicas}") // kubeadm's, untouched
	if out := one.Sh("ls /etc/cni/net.d"); strings.Contains(out, "sampan") {
		t.Errorf("the server's own network is in the way: %s", out)
	}

	master.PowerOff()
	m.speak = func(args ...string) (string, error) {
		return two.Try(append([]string{lab.InBin, "kubectl", conf, "--server=https://" + virtual + ":6443", "--request-timeout=5s"}, args...)...)
	}
	took := lab.Within(t, 2*lab.Limit, "a write by the address", func() error {
		if out, err := m.speak("create", "namespace", "later"); err != nil && !strings.Contains(out, "already exists") {
			return fmt.Errorf("%w: %s", err, out)
		}
		return nil
	})
	promised(t, "the master lost its power: a write by the virtual address", took, 8*time.Second)
	took = lab.Within(t, 4*lab.Limit, "the controllers act", func() error {
		out, err := m.speak("get", "serviceaccount", "default", "-n", "later")
		if err != nil {
			return fmt.Errorf("%w: %s", err, out)
		}
		return nil
	})
	// Kubeadm's controllers say that they need 15 s, which is upstream's.
	promised(t, "and its controllers' work is gone on with, after that", took, 20*time.Second)
}

// A cluster that servers began takes machines by kubeadm join, as nodes and as
// masters: they get the network and the proxy that servers have by themselves.
func TestKubeadmJoinsServersCluster(t *testing.T) {
	if testing.Short() {
		t.Skip("several machines: make e2e")
	}
	l := lab.New(t)
	first := &server{Machine: l.Machine("first")}
	first.argv = []string{lab.InBin, "server", "--cluster-init", "--token", token, "--certificate-key", key, "--vip", virtual, images(first.Machine)}
	first.run()
	first.ready()
	m := &mixed{l, first.kubectl}
	out := first.Sh("openssl x509 -pubkey -noout -in /var/lib/sampan/pki/ca.crt | openssl pkey -pubin -outform der | sha256sum")
	s := &servers{Lab: l, first: first, hash: "sha256:" + strings.Fields(out)[0], more: []string{"--disable-node", "--vip", virtual}}

	join := []string{"kubeadm", "join", first.Addr.String() + ":6443", "--token", token, "--discovery-token-ca-cert-hash", s.hash}
	node, master := l.Computer("node"), l.Computer("master")
	node.Says(node.Do(join...), "This node has joined the cluster")
	master.Says(master.Do(append(join, "--control-plane", "--certificate-key", key)...), "This node has joined the cluster and a new control plane instance was created:",
		"* A new etcd member was added to the local/stacked etcd cluster.")
	more := s.join(l.Machine("more"))
	first.members("first", "master", "more")
	m.spread(first.Machine, node.Machine, master.Machine)
	m.sees([]string{`^2$`}, "get", "daemonset", "kube-proxy", "-n", "kube-system", "-o", "jsonpath={.status.numberReady}")
	m.sees([]string{`^2$`}, "get", "daemonset", "kube-flannel-ds", "-n", "kube-flannel", "-o", "jsonpath={.status.desiredNumberScheduled}")
	m.sees([]string{`kube-apiserver-master +1/1 +Running`, `etcd-master +1/1 +Running`}, "get", "pods", "-n", "kube-system")
	if out := node.Sh("cat /etc/kubernetes/kubelet.conf"); !strings.Contains(out, "server: https://"+virtual+":6443") {
		t.Errorf("the node does not speak to the cluster's address:\n%s", out)
	}

	first.PowerOff()
	m.speak = func(args ...string) (string, error) {
		return more.Try(append([]string{lab.InBin, "kubectl", conf, "--server=https://" + virtual + ":6443", "--request-timeout=5s"}, args...)...)
	}
	took := lab.Within(t, 2*lab.Limit, "a write by the address", func() error {
		if out, err := m.speak("create", "configmap", "later"); err != nil && !strings.Contains(out, "already exists") {
			return fmt.Errorf("%w: %s", err, out)
		}
		return nil
	})
	promised(t, "the first server lost its power: a write by the virtual address", took, 8*time.Second)
	m.sees([]string{`"?later"?`}, "get", "configmap", "later", "-o", "name", "--server=https://"+master.Addr.String()+":6443")
	// The node's kubelet has followed the address: a pod bound to it runs.
	m.get("run", "after", "--image=nginx:1.25", "--image-pull-policy=IfNotPresent", `--overrides={"spec":{"nodeName":"node"}}`)
	m.sees([]string{`after +1/1 +Running`}, "get", "pods")
}
