package e2e

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/sampan-dev/sampan/client"
	"github.com/sampan-dev/sampan/e2e/lab"
	"github.com/sampan-dev/sampan/kit/pki"
)

// hand is a cluster put together from its components, each a process with flags
// and files of its own, as in the guides from before there were tools.
type hand struct {
	*lab.Machine
	*world
	ca    *pki.Pair
	admin string // the administrator's kubeconfig, as this computer sees it
}

// Errorf and the like exist in both; the test's own are meant.
func (h *hand) Fatal(args ...any)                 { h.Machine.Fatal(args...) }
func (h *hand) Fatalf(format string, args ...any) { h.Machine.Fatalf(format, args...) }
func (h *hand) Errorf(format string, args ...any) { h.Machine.Errorf(format, args...) }
func (h *hand) Helper()                           { h.Machine.Helper() }

func TestAssembledByHand(t *testing.T) {
	w := beside(t)
	h := &hand{Machine: lab.New(t).Machine("hand"), world: w}
	h.certificates()
	h.programs()
	h.controlPlane()
	h.node()
	h.scene()
	h.pages()
	h.oldTimes()
}

// issue makes a certificate NAME.crt with NAME.key.
func (h *hand) issue(name string, r pki.Request) *pki.Pair {
	h.Helper()
	p, err := h.ca.Issue(r)
	if err == nil {
		err = p.Save(h.Dir, name)
	}
	if err != nil {
		h.Fatal(err)
	}
	return p
}

// conf writes a kubeconfig for a user with a certificate.
func (h *hand) conf(name, user, server string, groups ...string) string {
	h.Helper()
	p := h.issue(name, pki.Request{CommonName: user, Organizations: groups, Client: true})
	key, err := p.KeyPEM()
	if err == nil {
		err = client.Kubeconfig{Cluster: "hand", User: user, Server: server, CA: h.ca.CertPEM(), Cert: p.CertPEM(), Key: key}.Write(filepath.Join(h.Dir, name+".conf"))
	}
	if err != nil {
		h.Fatal(err)
	}
	return "/run/hand/" + name + ".conf"
}

const inside = "https://100.64.0.2:6443"

func (h *hand) certificates() {
	var err error
	if h.ca, err = pki.NewCA("hand-ca", ""); err == nil {
		err = h.ca.Save(h.Dir, "ca")
	}
	if err != nil {
		h.Fatal(err)
	}
	here := []string{"127.0.0.1", "localhost", "100.64.0.2", "hand", "kubernetes", "kubernetes.default.svc", "10.96.0.1"}
	h.issue("etcd", pki.Request{CommonName: "etcd", Server: true, Client: true, Hosts: here})
	h.issue("apiserver", pki.Request{CommonName: "kube-apiserver", Server: true, Hosts: here})
	h.issue("apiserver-etcd", pki.Request{CommonName: "kube-apiserver", Client: true})
	h.issue("apiserver-kubelet", pki.Request{CommonName: "kube-apiserver", Organizations: []string{"system:masters"}, Client: true})
	key, err := pki.NewKey("")
	if err == nil {
		err = pki.SaveSigner(key, h.Dir, "sa")
	}
	if err != nil {
		h.Fatal(err)
	}
	h.conf("scheduler", "system:kube-scheduler", inside)
	h.conf("controllers", "system:kube-controller-manager", inside)
	h.conf("proxy", "system:kube-proxy", inside)
	h.conf("coredns", "coredns", inside)
	h.conf("admin", "kubernetes-admin", "https://"+h.Port, "system:masters")
	h.admin = filepath.Join(h.Dir, "admin.conf")
	h.world = &world{h.Machine.T, append(h.kubectl[:len(h.kubectl):len(h.kubectl)], "--kubeconfig="+h.admin)}
	h.File("token.csv", "0123456789abcdef,kubelet-bootstrap,10001,\"system:kubelet-bootstrap\"\n")
	err = client.Kubeconfig{Cluster: "kubernetes", User: "kubelet-bootstrap", Server: inside, CA: h.ca.CertPEM(), Token: "0123456789abcdef"}.Write(filepath.Join(h.Dir, "bootstrap.kubeconfig"))
	if err != nil {
		h.Fatal(err)
	}
}

// programs puts the components where the guides have them.
func (h *hand) programs() {
	h.says(h.Do(lab.InBin, "install", "--bin-dir=/run/bin", "--cni-bin-dir=/opt/cni/bin"), "/run/bin/kubelet", "/run/bin/etcd", "containerd-shim-runc-v2", "/opt/cni/bin/sampan-cni")
}

func (h *hand) controlPlane() {
	h.Start("etcd", "/run/bin/etcd", "--name=hand", "--data-dir=/var/lib/etcd",
		"--listen-client-urls=https://127.0.0.1:2379", "--advertise-client-urls=https://127.0.0.1:2379",
		"--listen-peer-urls=http://127.0.0.1:2380", "--initial-advertise-peer-urls=http://127.0.0.1:2380", "--initial-cluster=hand=http://127.0.0.1:2380",
		"--cert-file=/run/hand/etcd.crt", "--key-file=/run/hand/etcd.key", "--client-cert-auth", "--trusted-ca-file=/run/hand/ca.crt", "--listen-metrics-urls=http://127.0.0.1:2381")
	h.Answers("http://127.0.0.1:2381/health", `"health":"true"`)
	h.Start("kube-apiserver", "/run/bin/kube-apiserver", "--etcd-servers=https://127.0.0.1:2379", "--etcd-cafile=/run/hand/ca.crt",
		"--etcd-certfile=/run/hand/apiserver-etcd.crt", "--etcd-keyfile=/run/hand/apiserver-etcd.key",
		"--service-cluster-ip-range=10.96.0.0/16", "--advertise-address=100.64.0.2", "--allow-privileged=true", "--anonymous-auth=true",
		"--authorization-mode=Node,RBAC", "--client-ca-file=/run/hand/ca.crt", "--tls-cert-file=/run/hand/apiserver.crt", "--tls-private-key-file=/run/hand/apiserver.key",
		"--service-account-key-file=/run/hand/sa.pub", "--service-account-signing-key-file=/run/hand/sa.key", "--service-account-issuer=api",
		"--kubelet-client-certificate=/run/hand/apiserver-kubelet.crt", "--kubelet-client-key=/run/hand/apiserver-kubelet.key",
		"--token-auth-file=/run/hand/token.csv", "--enable-bootstrap-token-auth",
		"--admission-control=NamespaceLifecycle,LimitRanger,ServiceAccount,ResourceQuota", "--insecure-port=9090", "--insecure-bind-address=0.0.0.0",
		"--logtostderr=false", "--log-dir=/mnt/logs/k8s-kube-apiserver/", "--v=2")
	h.Answers(inside+"/readyz", "ok")
	h.says(h.k("get", "cs"), "Unhealthy")
	h.Start("kube-controller-manager", "/run/bin/kube-controller-manager", "--kubeconfig=/run/hand/controllers.conf", "--master="+inside,
		"--use-service-account-credentials", "--allocate-node-cidrs", "--cluster-cidr=10.244.0.0/16", "--service-account-private-key-file=/run/hand/sa.key", "--root-ca-file=/run/hand/ca.crt",
		"--cluster-signing-cert-file=/run/hand/ca.crt", "--cluster-signing-key-file=/run/hand/ca.key", "--client-ca-file=/run/hand/ca.crt", "--address=0.0.0.0", "--v=2")
	h.Start("kube-scheduler", "/run/bin/kube-scheduler", "--kubeconfig=/run/hand/scheduler.conf", "--address=0.0.0.0", "--client-ca-file=/run/hand/ca.crt", "--logtostderr=false", "--log-dir=/mnt/logs/", "--v=2")
	h.until("the components are healthy", func() error {
		out, err := h.world.try("", "get", "cs", "--no-headers")
		if err != nil || strings.Contains(out, "Unhealthy") {
			return fmt.Errorf("%v: %s", err, out)
		}
		return nil
	})
	for _, c := range []string{"kube-apiserver", "kube-controller-manager", "kube-scheduler"} {
		h.says(h.Said(c), "has been deprecated")
	}
	h.says(h.Said("kube-apiserver"), "served on 127.0.0.1 only")
}

func (h *hand) node() {
	conf := h.File("containerd.toml", lab.ContainerdConfig)
	h.Start("containerd", "env", "PATH=/run/bin:/usr/sbin:/usr/bin:/sbin:/bin", "/run/bin/containerd", "--config", conf)
	h.until("containerd answers", func() error {
		_, err := h.Machine.Try(lab.InBin, "image", "system", "--address=/run/containerd/containerd.sock")
		return err
	})
	for _, a := range mustGlob(h.Machine, filepath.Join(home, "images", "*.tar")) {
		text, err := os.ReadFile(a)
		if err != nil {
			h.Fatal(err)
		}
		h.Do(lab.InBin, "image", "import", "--address=/run/containerd/containerd.sock", h.File(filepath.Base(a), string(text)))
	}
	h.File("10-hand.conflist", `{"cniVersion": "1.0.0", "name": "hand", "plugins": [{"type": "sampan-cni", "bridge": "cni0", "subnet": "10.244.0.0/24", "capabilities": {"portMappings": true}}]}`)
	h.Do("sh", "-c", "mkdir -p /etc/cni/net.d && cp /run/hand/10-hand.conflist /etc/cni/net.d/ && echo 1 > /proc/sys/net/ipv4/ip_forward")

	// The kubelet asks for its certificate by a token, and the administrator agrees.
	h.k("create", "clusterrolebinding", "kubelet-bootstrap", "--clusterrole=system:node-bootstrapper", "--user=kubelet-bootstrap")
	h.Start("kubelet", "/run/bin/kubelet", "--experimental-bootstrap-kubeconfig=/run/hand/bootstrap.kubeconfig", "--kubeconfig=/var/lib/kubelet/kubeconfig",
		"--hostname-override=node-by-hand", "--node-ip=100.64.0.2", "--cluster-dns=100.64.0.2", "--cluster-domain=cluster.local", "--client-ca-file=/run/hand/ca.crt",
		"--pod-infra-container-image=registry.access.redhat.com/rhel7/pod-infrastructure:latest", "--cgroup-driver=cgroupfs",
		"--runtime-cgroups=/systemd/system.slice", "--kubelet-cgroups=/systemd/system.slice", "--fail-swap-on=false", "--eviction-hard=memory.available<1Mi", "--v=2")
	var request string
	h.until("the kubelet asks for a certificate", func() error {
		var err error
		if request, err = h.world.try("", "get", "csr", "-o", "jsonpath={.items[*].metadata.name}"); err != nil || request == "" {
			return fmt.Errorf("%v: %q", err, request)
		}
		return nil
	})
	h.says(h.k("get", "csr"), "Pending", "kubelet-bootstrap")
	h.says(h.k("certificate", "approve", request), "approved")
	h.shows([]string{"node-by-hand", " Ready "}, "get", "nodes")

	h.Start("kube-proxy", "/run/bin/kube-proxy", "--kubeconfig=/run/hand/proxy.conf", "--hostname-override=node-by-hand", "--proxy-mode=ipvs", "--masquerade-all", "--v=2")
	h.k("create", "clusterrole", "coredns", "--verb=list,watch", "--resource=endpointslices.discovery.k8s.io,services,pods,namespaces")
	h.k("create", "clusterrolebinding", "coredns", "--clusterrole=coredns", "--user=coredns")
	corefile := h.File("Corefile", "cluster.local:53 {\n  bind 100.64.0.2\n  errors\n  ready 127.0.0.1:8181\n  kubernetes cluster.local {\n    kubeconfig /run/hand/coredns.conf\n  }\n}\n")
	h.Start("coredns", "/run/bin/coredns", "-conf", corefile)
	h.Answers("http://127.0.0.1:8181/ready", "OK")
}

func mustGlob(b *lab.Machine, pattern string) []string {
	files, err := filepath.Glob(pattern)
	if err != nil || len(files) == 0 {
		b.Fatalf("%s: %v %v", pattern, files, err)
	}
	return files
}

// scene runs pods and a service on what was put together.
func (h *hand) scene() {
	h.shows([]string{"default"}, "get", "serviceaccounts")
	h.world.in(strings.ReplaceAll(byHandManifest, "\t", "  "), "create", "-f", "-")
	h.running("default", "app=web", 2)
	h.k("wait", "--for=condition=Ready", "pod/client", "--timeout=60s")
	for _, host := range []string{"web", "web.default.svc.cluster.local"} {
		h.until("curl "+host, func() error {
			out, err := h.world.try("", "exec", "client", "--", "curl", "-sS", "--max-time", "5", "http://"+host)
			if err != nil || !strings.Contains(out, "Welcome to nginx!") {
				return fmt.Errorf("%v: %s", err, out)
			}
			return nil
		})
	}
	h.says(h.k("logs", "client"), "ahoy")
}

const byHandManifest = `
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  replicas: 2
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      containers: [{name: nginx, image: nginx, imagePullPolicy: IfNotPresent}]
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec: {selector: {app: web}, ports: [{port: 80}]}
---
apiVersion: v1
kind: Pod
metadata: {name: client}
spec:
  terminationGracePeriodSeconds: 0
  containers: [{name: c, image: nginx, imagePullPolicy: IfNotPresent, command: [sh, -c, echo ahoy; sleep 3600]}]
`

// pages asks every component for its health, metrics and settings on upstream's ports.
func (h *hand) pages() {
	cert := []string{"--cert", "/run/hand/admin.crt", "--key", "/run/hand/admin.key"}
	for _, p := range []struct {
		url, want string
		with      []string
	}{
		{"https://127.0.0.1:10257/healthz", "ok", nil}, {"https://127.0.0.1:10257/metrics", "workqueue_depth", cert}, {"https://127.0.0.1:10257/configz", "cluster-cidr", cert},
		{"https://127.0.0.1:10257/metrics", "forbidden", nil},
		{"https://127.0.0.1:10259/livez", "ok", nil}, {"https://127.0.0.1:10259/metrics", "scheduler_", cert}, {"https://127.0.0.1:10259/configz", "leader-elect", cert},
		{"http://127.0.0.1:10248/healthz", "ok", nil}, {"https://127.0.0.1:10250/healthz", "ok", cert}, {"https://127.0.0.1:10250/metrics", "kubelet_", cert}, {"https://127.0.0.1:10250/configz", "kubeletconfig", cert},
		{"http://127.0.0.1:10256/healthz", "ok", nil}, {"http://127.0.0.1:10249/metrics", "kubeproxy_", nil}, {"http://127.0.0.1:10249/configz", "cluster-cidr", nil}, {"http://127.0.0.1:10249/proxyMode", "nftables", nil},
		{"http://127.0.0.1:2381/metrics", "etcd_server_has_leader 1", nil},
		{inside + "/livez", "ok", nil}, {inside + "/metrics", "apiserver_request_total", cert},
	} {
		h.Answers(p.url, p.want, p.with...)
	}
}

// oldTimes speaks to the insecure port, from the machine itself only.
func (h *hand) oldTimes() {
	out := h.Do("env", "HOME=/tmp", lab.InBin, "kubectl", "-s", "http://localhost:9090", "get", "cs,nodes")
	h.says(out, "componentstatus/scheduler", "Healthy", "node/node-by-hand", "Ready")
	if out, err := h.Machine.Try("curl", "-sS", "--max-time", "5", "http://"+net.JoinHostPort("100.64.0.2", "9090")+"/healthz"); err == nil {
		h.Errorf("the insecure port answers beyond loopback: %s", out)
	}
}
