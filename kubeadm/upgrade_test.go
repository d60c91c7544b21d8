package kubeadm

import (
	"crypto/x509"
	"encoding/pem"
	"os"
	"path/filepath"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sampan-dev/sampan/client"
	"github.com/sampan-dev/sampan/client/fake"
	"github.com/sampan-dev/sampan/kit/pki"
	"github.com/sampan-dev/sampan/kubeadm/config"
)

func TestVersionsToUpgradeTo(t *testing.T) {
	for _, tc := range []struct{ from, to, want string }{
		{"v1.36.1", "v1.37.2", ""},
		{"v1.37.2", "v1.37.2", ""},
		{"v1.37.2", "v1.38.0", "is higher than the kubeadm version \"v1.37.2\". Upgrade kubeadm first"},
		{"v1.37.2", "v1.37.1", "is lower than the current cluster version \"v1.37.2\""},
		{"v1.35.0", "v1.37.2", "is too high; kubeadm can upgrade only 1 minor version at a time"},
		{"v1.36.0", "v1.36.9", "the only one that it deploys. Run: kubeadm upgrade apply v1.37.2"},
		{"v1.37.2", "vlatest", "couldn't parse version"},
	} {
		err := judge(tc.from, tc.to, "v1.37.2")
		if (err == nil) != (tc.want == "") || (err != nil && !strings.Contains(err.Error(), tc.want)) {
			t.Errorf("%s to %s: %v, want %q", tc.from, tc.to, err, tc.want)
		}
	}
}

func TestUpgradeKeepsWhatTheMachineIs(t *testing.T) {
	r := fresh(t, "")
	if err := run(t, r, "control-plane"); err != nil {
		t.Fatal(err)
	}
	joined := etcdMember(r.machine(), []member{{"m0", "https://100.64.0.9:2380"}, {"master1", "https://100.64.0.2:2380"}})
	if err := r.patches.manifest(r.manifests(), joined, r.say); err != nil {
		t.Fatal(err)
	}
	local, err := servesAt(r.manifests())
	if err != nil || local.HostPort() != "100.64.0.2:6443" {
		t.Errorf("the API server serves at %v, %v", local, err)
	}
	yes := true
	u := &upgradeRun{printer: r.printer, paths: r.paths, cluster: r.cluster, node: r.cfg.NodeRegistration, local: local, cfg: config.UpgradeNode{EtcdUpgrade: &yes}}
	list, err := u.planned()
	if err != nil || len(list) != 4 || list[0].name != "etcd" {
		t.Fatalf("planned %d, %v; want etcd and then the three who use it", len(list), err)
	}
	for _, c := range list {
		if text, err := u.patches.pod(c, u.say); err != nil || unified(c.name, "new", read(t, filepath.Join(r.manifests(), c.name+".yaml")), string(text), 3) != "" {
			t.Errorf("%s would change without a reason: %v", c.name, err)
		}
	}
	dir, address, err := ownMember(r.manifests())
	if dir != "/var/lib/etcd" || address != "100.64.0.2" || err != nil {
		t.Errorf("the member is at %s, its data at %s, %v", address, dir, err)
	}
}

func read(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func TestPlanReadsImages(t *testing.T) {
	pod := func(name, node, image string, labels map[string]string) *corev1.Pod {
		return &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: metav1.NamespaceSystem, Labels: labels}, Spec: corev1.PodSpec{NodeName: node, Containers: []corev1.Container{{Image: image}}}}
	}
	static := func(c string) map[string]string { return map[string]string{"component": c, "tier": "control-plane"} }
	var out strings.Builder
	u := &upgradeRun{printer: printer{&out}, from: "v1.36.0", conn: fake.New(
		&corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "m1"}, Status: corev1.NodeStatus{NodeInfo: corev1.NodeSystemInfo{KubeletVersion: "v1.36.0"}}},
		pod("kube-apiserver-m1", "m1", "localhost:5000/kube-apiserver:v1.36.0", static("kube-apiserver")),
		pod("etcd-m1", "m1", "registry.k8s.io/etcd:3.5.0-0", static("etcd")),
		pod("kube-proxy-1", "m1", "registry.k8s.io/kube-proxy:v1.36.0", map[string]string{"k8s-app": "kube-proxy"}),
		pod("kube-proxy-2", "m2", "registry.k8s.io/kube-proxy:v1.36.0", map[string]string{"k8s-app": "kube-proxy"}),
	)}
	if err := u.plan(t.Context(), Version()); err != nil {
		t.Fatal(err)
	}
	got := strings.Join(strings.Fields(out.String()), " ")
	for _, want := range []string{"kubelet m1 v1.36.0 " + Version(), "kube-apiserver m1 v1.36.0 " + Version() + " kube-proxy v1.36.0 " + Version() + " etcd m1 3.5.0-0 " + EtcdTag, "kubeadm upgrade apply " + Version()} {
		if !strings.Contains(got, want) {
			t.Errorf("no %q in\n%s", want, out.String())
		}
	}
}

func TestDiff(t *testing.T) {
	from := "a\nb\nc\nd\ne\nf\ng\nh\n"
	to := "a\nb\nC\nd\ne\nf\ng\nh\ni\n"
	want := "--- old\n+++ new\n@@ -2,3 +2,3 @@\n b\n-c\n+C\n d\n@@ -8,1 +8,2 @@\n h\n+i\n"
	if got := unified("old", "new", from, to, 1); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	if got := unified("old", "new", from, from, 3); got != "" {
		t.Errorf("equal texts differ: %s", got)
	}
	if got := unified("old", "new", "a\n", "b\n", 0); got != "--- old\n+++ new\n@@ -1,1 +1,1 @@\n-a\n+b\n" {
		t.Errorf("without context: %s", got)
	}
}

func TestUpgradeConfigurationIsRead(t *testing.T) {
	f, err := config.Read([]byte("apiVersion: kubeadm.k8s.io/v1beta4\nkind: UpgradeConfiguration\napply: {kubernetesVersion: v1.37.2, certificateRenewal: false, skipPhases: [addon]}\nnode: {etcdUpgrade: false}\ndiff: {contextLines: 7}\n"))
	if err != nil {
		t.Fatal(err)
	}
	o := &upgradeFlags{}
	c := upgradeApply()
	file := filepath.Join(t.TempDir(), "u.yaml")
	text, err := config.Write(f.Upgrade)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, text, 0o600); err != nil {
		t.Fatal(err)
	}
	o.file = file
	var out strings.Builder
	u, err := o.read(c, printer{&out})
	if err != nil || *u.Apply.CertificateRenewal || !*u.Apply.EtcdUpgrade || *u.Node.EtcdUpgrade || *u.Diff.ContextLines != 7 || u.Apply.SkipPhases[0] != "addon" || u.Apply.KubernetesVersion != "v1.37.2" {
		t.Errorf("read %+v, %v", u, err)
	}
	if err := os.WriteFile(file, []byte("apiVersion: kubeadm.k8s.io/v1beta4\nkind: ClusterConfiguration\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := o.read(c, printer{&out}); err == nil || !strings.Contains(err.Error(), "kubeadm init phase upload-config kubeadm --config") {
		t.Errorf("a ClusterConfiguration for an upgrade: %v", err)
	}
}

func TestRequestsForAnAuthorityElsewhere(t *testing.T) {
	r := fresh(t, "")
	if err := requests(r.machine(), r.conf, r.say); err != nil {
		t.Fatal(err)
	}
	before := digest(t, r.conf)
	text := read(t, filepath.Join(r.cluster.CertificatesDir, "apiserver.csr"))
	block, _ := pem.Decode([]byte(text))
	csr, err := x509.ParseCertificateRequest(block.Bytes)
	if err != nil || csr.Subject.CommonName != "kube-apiserver" || len(csr.IPAddresses) < 2 || csr.CheckSignature() != nil {
		t.Errorf("request %+v, %v", csr, err)
	}
	if _, err := pki.LoadSigner(filepath.Join(r.cluster.CertificatesDir, "etcd/server.key")); err != nil {
		t.Error(err)
	}
	conf := read(t, filepath.Join(r.conf, "controller-manager.conf"))
	if !strings.Contains(conf, "client-key-data") || strings.Contains(conf, "client-certificate-data") {
		t.Errorf("a kubeconfig without its certificate is\n%s", conf)
	}
	// A second run keeps the keys, to which requests may have been signed already.
	if err := requests(r.machine(), r.conf, r.say); err != nil {
		t.Fatal(err)
	}
	keys := func(d string) (out []string) {
		for line := range strings.Lines(d) {
			if strings.Contains(line, ".key ") || strings.Contains(line, ".conf ") {
				out = append(out, line)
			}
		}
		return out
	}
	if a, b := strings.Join(keys(before), ""), strings.Join(keys(digest(t, r.conf)), ""); a != b {
		t.Errorf("keys changed:\n%s\n%s", a, b)
	}
}

func TestKubeconfigOfAUser(t *testing.T) {
	r := fresh(t, "apiVersion: kubeadm.k8s.io/v1beta4\nkind: ClusterConfiguration\ncontrolPlaneEndpoint: api.example:8443")
	if err := run(t, r, "certs"); err != nil {
		t.Fatal(err)
	}
	text, err := userConf(r.machine(), "ann", "", []string{"dev"}, 3600e9)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "ann.conf")
	if err := os.WriteFile(path, text, 0o600); err != nil {
		t.Fatal(err)
	}
	cert, err := kubeconfigCert(path)
	if server, _, _ := client.ClusterOf(text); err != nil || cert.Subject.CommonName != "ann" || cert.Subject.Organization[0] != "dev" || server != "https://api.example:8443" {
		t.Errorf("%v at %s, %v", cert, server, err)
	}
	if text, err = userConf(r.machine(), "ann", "abc", nil, 0); err != nil || !strings.Contains(string(text), "token: abc") || strings.Contains(string(text), "client-") {
		t.Errorf("by a token: %s, %v", text, err)
	}
}
