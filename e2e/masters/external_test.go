package masters

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/sampan-dev/sampan/e2e/lab"
	"github.com/sampan-dev/sampan/kit/pki"
)

// TestSecondMasterByItsFiles is the way of 2018: an etcd with certificates of its
// own on both masters, init by a file on the first, the first one's certificates
// copied to the second, and init by the same file there. Their shared address
// moves from one to the other.
func TestSecondMasterByItsFiles(t *testing.T) {
	if testing.Short() {
		t.Skip("several machines: make e2e")
	}
	l := lab.New(t)
	m1, m2 := l.Computer("master1"), l.Computer("master2")
	members(t, m1, m2)
	const vip = "100.64.0.240"
	m1.Sh("ip address add " + vip + "/24 dev eth0")
	file := func(c *lab.Computer) string {
		return c.File("config.yml", fmt.Sprintf(`apiVersion: kubeadm.k8s.io/v1alpha1
kind: MasterConfiguration
etcd:
  endpoints:
  - https://%[1]s:2379
  - https://%[2]s:2379
  caFile: /etc/etcd/ssl/ca.pem
  certFile: /etc/etcd/ssl/etcd.pem
  keyFile: /etc/etcd/ssl/etcd-key.pem
  dataDir: /var/lib/etcd
networking:
  podSubnet: 10.244.0.0/16
kubernetesVersion: 1.9.6
api:
  advertiseAddress: "%[3]s"
token: "b99a00.a144ef80536d4344"
tokenTTL: "0s"
apiServerCertSANs:
- master1
- master2
- %[1]s
- %[2]s
- %[3]s
featureGates:
  CoreDNS: true
imageRepository: "example.com/google_containers"
`, m1.Addr, m2.Addr, vip))
	}
	said := m1.Do("kubeadm", "init", "--config", file(m1))
	m1.Says(said, "[certs] External etcd mode: Skipping etcd/ca certificate generation", "Your Kubernetes control-plane has initialized successfully!",
		"kubeadm join "+vip+":6443 --token b99a00.a144ef80536d4344")
	if strings.Contains(said, "Creating static Pod manifest for local etcd") {
		t.Error("an external etcd got a static pod")
	}
	m1.Network("10.244.0.0/24")

	m1.Do("tar", "-C", "/etc/kubernetes", "-cf", "/run/hand/pki.tar", "pki")
	archive, err := os.ReadFile(filepath.Join(m1.Dir, "pki.tar"))
	if err != nil {
		t.Fatal(err)
	}
	m2.Sh("mkdir -p /etc/kubernetes && tar -C /etc/kubernetes -xf " + m2.File("pki.tar", string(archive)))
	m2.Says(m2.Do("kubeadm", "init", "--config", file(m2)), "[certs] Using existing apiserver certificate and key on disk", `[certs] Using the existing "sa" key`,
		"Your Kubernetes control-plane has initialized successfully!")
	m2.Network("10.244.1.0/24")
	for _, c := range []*lab.Computer{m1, m2} {
		c.Sees([]string{`master1 +Ready +control-plane`, `master2 +Ready +control-plane`}, "get", "nodes", "-s", "https://"+c.Addr.String()+":6443")
		c.Sees([]string{`kube-apiserver-master1 +1/1 +Running`, `kube-apiserver-master2 +1/1 +Running`, `kube-scheduler-master2 +1/1 +Running`}, "get", "pods", "-n", "kube-system")
	}
	if out, err := m1.Kubectl("get", "pods", "-n", "kube-system"); err != nil || strings.Contains(out, "etcd-master") {
		t.Errorf("pods with an external etcd: %v\n%s", err, out)
	}
	m1.Sees([]string{`etcd-0 +Healthy`, `etcd-1 +Healthy`}, "get", "cs")

	node := l.Computer("node3")
	line := words(strings.TrimSpace(m1.Do("kubeadm", "token", "create", "--print-join-command", "--ttl=0")))
	node.Says(node.Do(line...), "This node has joined the cluster")
	node.Network("10.244.2.0/24")

	// The address moves, as keepalived moves it.
	m1.Sh("ip address del " + vip + "/24 dev eth0; mv /etc/kubernetes/manifests /etc/kubernetes/away")
	m2.Sh("ip address add " + vip + "/24 dev eth0")
	node.Sh("ip neighbour flush dev eth0")
	m2.Sees([]string{`master2 +Ready`, `node3 +Ready`}, "get", "nodes")
	lab.Until(m2, "a Deployment is taken", func() error {
		out, err := m2.Try("sh", "-c", "export KUBECONFIG=/etc/kubernetes/admin.conf; kubectl create deployment nginx --image=nginx:1.25 --dry-run=client -o yaml | kubectl apply -f -")
		if err != nil {
			return fmt.Errorf("%w: %s", err, out)
		}
		return nil
	})
	m2.Sees([]string{`nginx-\S+ +1/1 +Running .* node3 `}, "get", "pods", "-o", "wide")
	// Under the name that the file's repository makes of it, which no registry has.
	m2.Sees([]string{`kube-proxy-\S+ +1/1 +Running .* node3 `}, "get", "pods", "-n", "kube-system", "-o", "wide")
	m2.Says(m2.K("get", "daemonset", "kube-proxy", "-n", "kube-system", "-o", "jsonpath={.spec.template.spec.containers[0].image}"), "example.com/google_containers/kube-proxy:v1.37")
}

// members starts an etcd on each computer, whose certificates one authority
// signed that is not the cluster's.
func members(t *testing.T, all ...*lab.Computer) {
	t.Helper()
	ca, err := pki.NewCA("etcd", "")
	if err != nil {
		t.Fatal(err)
	}
	var hosts, cluster []string
	for _, c := range all {
		hosts = append(hosts, c.Host, c.Addr.String())
		cluster = append(cluster, c.Host+"=https://"+c.Addr.String()+":2380")
	}
	leaf, err := ca.Issue(pki.Request{CommonName: "etcd", Server: true, Client: true, Hosts: append(hosts, "127.0.0.1")})
	if err != nil {
		t.Fatal(err)
	}
	key, err := leaf.KeyPEM()
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range all {
		for name, text := range map[string][]byte{"ca.pem": ca.CertPEM(), "etcd.pem": leaf.CertPEM(), "etcd-key.pem": key} {
			c.Sh("mkdir -p /etc/etcd/ssl && cp " + c.File(name, string(text)) + " /etc/etcd/ssl/")
		}
		const ssl = "/etc/etcd/ssl/"
		at := "https://" + c.Addr.String()
		c.Start("etcd", lab.InBin, "etcd", "--name="+c.Host, "--data-dir=/var/lib/etcd", "--initial-cluster="+strings.Join(cluster, ","), "--initial-cluster-state=new",
			"--listen-peer-urls="+at+":2380", "--initial-advertise-peer-urls="+at+":2380", "--listen-client-urls="+at+":2379,https://127.0.0.1:2379", "--advertise-client-urls="+at+":2379",
			"--cert-file="+ssl+"etcd.pem", "--key-file="+ssl+"etcd-key.pem", "--trusted-ca-file="+ssl+"ca.pem", "--client-cert-auth=true",
			"--peer-cert-file="+ssl+"etcd.pem", "--peer-key-file="+ssl+"etcd-key.pem", "--peer-trusted-ca-file="+ssl+"ca.pem", "--peer-client-cert-auth=true")
	}
	for _, c := range all {
		c.Answers("https://127.0.0.1:2379/health", `"health":"true"`, "--cert", "/etc/etcd/ssl/etcd.pem", "--key", "/etc/etcd/ssl/etcd-key.pem")
	}
}
