package kubeadm

import (
	"crypto/x509"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/sampan-dev/sampan/client"
	"github.com/sampan-dev/sampan/kit/pki"
	"github.com/sampan-dev/sampan/kubeadm/config"
)

// fresh is an init of a machine called master1, writing into temporary directories.
func fresh(t *testing.T, text string) *initRun {
	t.Helper()
	f := &config.File{}
	if text != "" {
		var err error
		if f, err = config.Read([]byte(text)); err != nil {
			t.Fatal(err)
		}
	}
	var out strings.Builder
	r, err := prepareInit(f, config.Host{Name: "master1", Addr: netip.MustParseAddr("100.64.0.2"), CRISocket: "unix:///run/containerd/containerd.sock"}, &out)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	r.paths = paths{conf: dir, kubelet: filepath.Join(dir, "kubelet")}
	r.cluster.CertificatesDir = filepath.Join(dir, "pki")
	// RSA keys take seconds to make; their kind is nothing to these tests.
	r.cluster.EncryptionAlgorithm = string(pki.ECDSA)
	r.out = &out
	return r
}

func run(t *testing.T, r *initRun, phases ...string) error {
	t.Helper()
	for _, name := range phases {
		at := slices.IndexFunc(initPhases(), func(p phase[*initRun]) bool { return p.name == name })
		if err := runPhases(t.Context(), initPhases()[at:at+1], r, nil, ""); err != nil {
			return err
		}
	}
	return nil
}

func TestFilesOfAControlPlane(t *testing.T) {
	r := fresh(t, "apiVersion: kubeadm.k8s.io/v1beta4\nkind: ClusterConfiguration\ncontrolPlaneEndpoint: api.example:8443\napiServer: {certSANs: [100.64.0.240]}")
	if err := run(t, r, "certs", "kubeconfig"); err != nil {
		t.Fatal(err)
	}
	for _, c := range certificates {
		if _, err := pki.Load(r.cluster.CertificatesDir, c.base); err != nil {
			t.Errorf("%s: %v", c.base, err)
		}
	}
	api, err := readCert(r.cluster.CertificatesDir, "apiserver")
	if err != nil {
		t.Fatal(err)
	}
	for _, host := range []string{"master1", "kubernetes.default.svc.cluster.local", "10.96.0.1", "100.64.0.2", "api.example", "100.64.0.240"} {
		if err := api.VerifyHostname(host); err != nil {
			t.Errorf("API server's certificate: %v", err)
		}
	}
	for file, want := range map[string]struct{ name, group, server string }{
		"admin.conf":              {"kubernetes-admin", adminGroup, "https://api.example:8443"},
		"super-admin.conf":        {"kubernetes-super-admin", "system:masters", "https://api.example:8443"},
		"kubelet.conf":            {"system:node:master1", "system:nodes", "https://100.64.0.2:6443"},
		"controller-manager.conf": {"system:kube-controller-manager", "", "https://100.64.0.2:6443"},
		"scheduler.conf":          {"system:kube-scheduler", "", "https://100.64.0.2:6443"},
	} {
		path := filepath.Join(r.conf, file)
		cert, err := kubeconfigCert(path)
		if err != nil {
			t.Fatal(err)
		}
		text, _ := os.ReadFile(path)
		server, _, err := client.ClusterOf(text)
		if err != nil || server != want.server || cert.Subject.CommonName != want.name || strings.Join(cert.Subject.Organization, ",") != want.group {
			t.Errorf("%s: %s of %v at %s, %v; want %+v", file, cert.Subject.CommonName, cert.Subject.Organization, server, err, want)
		}
		if st, _ := os.Stat(path); st.Mode().Perm() != 0o600 {
			t.Errorf("%s has mode %v", file, st.Mode())
		}
	}
}

func TestSecondRunUsesWhatIsThere(t *testing.T) {
	r := fresh(t, "")
	if err := run(t, r, "certs", "kubeconfig"); err != nil {
		t.Fatal(err)
	}
	before := digest(t, r.conf)
	if err := run(t, r, "certs", "kubeconfig"); err != nil {
		t.Fatal(err)
	}
	if after := digest(t, r.conf); after != before {
		t.Errorf("the second run changed files:\n%s\nbefore\n%s", after, before)
	}
	// A leaf that does not fit is not replaced behind the user's back.
	r.cluster.APIServer.CertSANs = []string{"other.example"}
	if err := run(t, r, "certs"); err == nil || !strings.Contains(err.Error(), "not valid for other.example; remove it") {
		t.Errorf("a certificate without a wanted name: %v", err)
	}
}

func digest(t *testing.T, dir string) string {
	var b strings.Builder
	err := filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		text, err := os.ReadFile(path)
		fmt.Fprintf(&b, "%s %d %x\n", path, len(text), text[:min(200, len(text))])
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func TestAuthorityWithoutItsKey(t *testing.T) {
	r := fresh(t, "")
	ca, err := pki.NewCA("mine", "")
	if err != nil {
		t.Fatal(err)
	}
	if err := save(ca, r.cluster.CertificatesDir, "ca"); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(filepath.Join(r.cluster.CertificatesDir, "ca.key")); err != nil {
		t.Fatal(err)
	}
	if err := run(t, r, "certs"); err == nil || !strings.Contains(err.Error(), "ca.key, with which it would be signed") {
		t.Errorf("certs = %v; want what is missing", err)
	}
	// With the leaves that the key's owner signed it goes on.
	for _, c := range certificates {
		if c.ca != "ca" {
			continue
		}
		req, err := c.make(r.machine())
		if err != nil {
			t.Fatal(err)
		}
		leaf, err := ca.Issue(req)
		if err != nil {
			t.Fatal(err)
		}
		if err := save(leaf, r.cluster.CertificatesDir, c.base); err != nil {
			t.Fatal(err)
		}
	}
	if err := run(t, r, "certs"); err != nil {
		t.Errorf("with every leaf there: %v", err)
	}
	if got := strings.Join(controllers(r.machine(), r.conf).command, " "); strings.Contains(got, "cluster-signing") {
		t.Errorf("controllers without a key would sign: %s", got)
	}
}

func TestManifests(t *testing.T) {
	r := fresh(t, `
apiVersion: kubeadm.k8s.io/v1alpha1
kind: MasterConfiguration
networking: {podSubnet: 10.244.0.0/16}
controllerManagerExtraArgs: {node-monitor-grace-period: 10s, bind-address: 0.0.0.0}
apiServerExtraArgs: {runtime-config: "api/all=true"}
`)
	m := r.machine()
	for name, want := range map[string][]string{
		strings.Join(apiServer(m).command, " "): {"--advertise-address=100.64.0.2", "--runtime-config=api/all=true", "--etcd-servers=https://127.0.0.1:2379", "--secure-port=6443",
			"--service-cluster-ip-range=10.96.0.0/12"},
		strings.Join(controllers(m, r.conf).command, " "): {"--node-monitor-grace-period=10s", "--bind-address=0.0.0.0", "--allocate-node-cidrs=true", "--cluster-cidr=10.244.0.0/16"},
		strings.Join(scheduling(m, r.conf).command, " "):  {"--leader-elect=true"},
		strings.Join(etcdMember(m, nil).command, " "):     {"--initial-cluster=master1=https://100.64.0.2:2380", "--data-dir=/var/lib/etcd"},
		strings.Join(etcdMember(m, []member{{"a", "https://100.64.0.9:2380"}, {"master1", "https://100.64.0.2:2380"}}).command, " "): {
			"--initial-cluster=a=https://100.64.0.9:2380,master1=https://100.64.0.2:2380", "--initial-cluster-state=existing"},
	} {
		for _, w := range want {
			if !strings.Contains(name+" ", w+" ") {
				t.Errorf("%s\nlacks %s", name, w)
			}
		}
	}
	if got := strings.Join(controllers(m, r.conf).command, " "); strings.Contains(got, "--bind-address=127.0.0.1") {
		t.Errorf("the user's flag did not win: %s", got)
	}
	p := apiServer(m).pod()
	if p.Spec.PriorityClassName != "system-node-critical" || !p.Spec.HostNetwork || p.Spec.Containers[0].LivenessProbe.HTTPGet.Path != "/livez" {
		t.Errorf("pod %+v", p.Spec)
	}
	dir := filepath.Join(r.conf, "manifests")
	if err := r.patches.manifest(dir, apiServer(m), r.say); err != nil {
		t.Fatal(err)
	}
	if list, err := os.ReadDir(dir); err != nil || len(list) != 1 || list[0].Name() != "kube-apiserver.yaml" {
		t.Errorf("manifests: %v, %v; want one file and no half-written one beside it", list, err)
	}
}

func TestRenewalKeepsNames(t *testing.T) {
	r := fresh(t, "")
	if err := run(t, r, "certs", "kubeconfig"); err != nil {
		t.Fatal(err)
	}
	old, err := readCert(r.cluster.CertificatesDir, "apiserver")
	if err != nil {
		t.Fatal(err)
	}
	c := certsCommand()
	var out strings.Builder
	c.SetOut(&out)
	c.SetArgs([]string{"renew", "all", "--cert-dir", r.cluster.CertificatesDir, "--kubeconfig-dir", r.conf})
	if err := c.ExecuteContext(t.Context()); err != nil {
		t.Fatal(err)
	}
	now, err := readCert(r.cluster.CertificatesDir, "apiserver")
	if err != nil {
		t.Fatal(err)
	}
	if now.SerialNumber.Cmp(old.SerialNumber) == 0 || !slices.Equal(now.DNSNames, old.DNSNames) || len(now.IPAddresses) != len(old.IPAddresses) || !slices.Contains(now.ExtKeyUsage, x509.ExtKeyUsageServerAuth) {
		t.Errorf("renewed for %v %v, was for %v %v", now.DNSNames, now.IPAddresses, old.DNSNames, old.IPAddresses)
	}
	if !strings.Contains(out.String(), "Done renewing certificates") {
		t.Errorf("said %s", out.String())
	}
	out.Reset()
	c.SetArgs([]string{"check-expiration", "--cert-dir", r.cluster.CertificatesDir, "--kubeconfig-dir", r.conf})
	if err := c.ExecuteContext(t.Context()); err != nil || !strings.Contains(out.String(), "apiserver-etcd-client") || strings.Contains(out.String(), "MISSING") {
		t.Errorf("check-expiration: %v\n%s", err, out.String())
	}
}

func TestSkippingUnknownPhase(t *testing.T) {
	if err := checkSkips(initPhases(), []string{"addon/kube-proxy", "mark-control-plane"}); err != nil {
		t.Error(err)
	}
	if err := checkSkips(initPhases(), []string{"addons"}); err == nil || !strings.Contains(err.Error(), "invalid phase name: addons") {
		t.Errorf("unknown phase: %v", err)
	}
}

func TestKubeletsConfigFollowsRotation(t *testing.T) {
	r := fresh(t, "")
	if err := run(t, r, "certs", "kubeconfig", "kubelet-finalize"); err != nil {
		t.Fatal(err)
	}
	conf := r.file("kubelet.conf")
	if text, _ := os.ReadFile(conf); !strings.Contains(string(text), "client-certificate-data") {
		t.Error("without a rotated certificate the one of init was dropped")
	}
	current := filepath.Join(r.kubelet, "pki", "kubelet-client-current.pem")
	if err := os.MkdirAll(filepath.Dir(current), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(current, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := run(t, r, "kubelet-finalize"); err != nil {
		t.Fatal(err)
	}
	text, _ := os.ReadFile(conf)
	if !strings.Contains(string(text), "client-certificate: "+current) || strings.Contains(string(text), "client-certificate-data") {
		t.Errorf("kubelet.conf is\n%s\nwant it to name %s", text, current)
	}
}

func TestFieldsWithoutEffectAreNamed(t *testing.T) {
	r := fresh(t, "apiVersion: kubeadm.k8s.io/v1beta4\nkind: ClusterConfiguration\nfeatureGates: {X: true}\ncaCertificateValidityPeriod: 24h0m0s")
	if got := strings.Join(idle(r.cfg, r.cluster), " "); got != "caCertificateValidityPeriod featureGates" {
		t.Errorf("named %q", got)
	}
	if got := idle(fresh(t, "").cfg, fresh(t, "").cluster); got != nil {
		t.Errorf("defaults are named: %q", got)
	}
}
