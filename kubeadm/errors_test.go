package kubeadm

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sampan-dev/sampan/client"
	"github.com/sampan-dev/sampan/client/fake"
	"github.com/sampan-dev/sampan/kit/pki"
	"github.com/sampan-dev/sampan/kubeadm/config"
)

// joining is a join that has found its cluster, which is c.
func joining(t *testing.T, c client.Interface) *joinRun {
	t.Helper()
	cfg := &config.Join{Discovery: config.Discovery{BootstrapToken: &config.BootstrapTokenDiscovery{Token: placeholder, APIServerEndpoint: "api.example:6443", UnsafeSkipCAVerification: true}}}
	var out strings.Builder
	r, err := prepareJoin(cfg, config.Host{Name: "node1", CRISocket: "unix:///run/containerd/containerd.sock"}, &out)
	if err != nil {
		t.Fatal(err)
	}
	r.boot, r.paths = c, paths{conf: t.TempDir(), kubelet: t.TempDir()}
	return r
}

func TestUsedNameIsRefused(t *testing.T) {
	node := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "node1"}, Status: corev1.NodeStatus{Conditions: []corev1.NodeCondition{{Type: corev1.NodeReady, Status: corev1.ConditionTrue}}}}
	r := joining(t, fake.New(node))
	if err := r.nameFree(t.Context()); err == nil || !strings.Contains(err.Error(), `a Node with name "node1" and status "Ready" already exists in the cluster`) || !strings.Contains(err.Error(), "kubectl delete node node1") || !strings.Contains(err.Error(), "--node-name") {
		t.Errorf("a used name: %v", err)
	}
	r.resumed = true
	if err := r.nameFree(t.Context()); err != nil {
		t.Errorf("its own name, after half a join: %v", err)
	}
	lost := node.DeepCopy()
	lost.Status.Conditions[0].Status = corev1.ConditionUnknown
	if err := joining(t, fake.New(lost)).nameFree(t.Context()); err != nil {
		t.Errorf("the name of a lost node: %v", err)
	}
}

// A token that ended between discovery and the reading of the configuration.
func TestExpiredTokenIsNamed(t *testing.T) {
	ca, err := pki.NewCA("kubernetes", "")
	if err != nil {
		t.Fatal(err)
	}
	text, err := client.Kubeconfig{Server: "https://api.example:6443", CA: ca.CertPEM()}.Encode()
	if err != nil {
		t.Fatal(err)
	}
	info := signInfo(text, placeholder)
	delete(info.Data, "jws-kubeconfig-abcdef") // the signer takes it away when a token ends
	if err := explain(signedBy(info, placeholder), &config.BootstrapTokenDiscovery{}); err == nil || !strings.Contains(err.Error(), "has expired; on a control plane, `kubeadm token create --print-join-command` makes another") {
		t.Errorf("an expired token at discovery: %v", err)
	}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(http.StatusUnauthorized)
		_, _ = w.Write([]byte(`{"kind": "Status", "apiVersion": "v1", "status": "Failure", "message": "Unauthorized", "reason": "Unauthorized", "code": 401}`))
	}))
	defer server.Close()
	c, err := client.New(client.Config{Servers: []string{server.URL}, JSON: true})
	if err != nil {
		t.Fatal(err)
	}
	r := joining(t, c)
	if err := r.read(t.Context()); err == nil || !strings.Contains(err.Error(), "the cluster refuses the token") || !strings.Contains(err.Error(), "kubeadm token create --print-join-command") {
		t.Errorf("an expired token later: %v", err)
	}
}

func TestClocksThatDisagreeAreNamed(t *testing.T) {
	ca, err := pki.NewCA("kubernetes", "")
	if err != nil {
		t.Fatal(err)
	}
	if err := clocks(ca.Cert, ca.Cert.NotBefore.Add(-time.Hour)); err == nil || !strings.Contains(err.Error(), "one of the machines' clocks is wrong; start an NTP client") {
		t.Errorf("an hour behind: %v", err)
	}
	if err := clocks(ca.Cert, ca.Cert.NotAfter.Add(time.Hour)); err == nil || !strings.Contains(err.Error(), "expired on") {
		t.Errorf("after the authority's end: %v", err)
	}
	if err := clocks(ca.Cert, ca.Cert.NotBefore.Add(time.Hour)); err != nil {
		t.Error(err)
	}
}

func TestControlPlaneNeedsAnEndpoint(t *testing.T) {
	r := joining(t, fake.New())
	r.cfg.ControlPlane = &config.JoinControlPlane{}
	r.cluster = &config.Cluster{}
	if err := r.canServe(t.Context(), nil); err == nil || !strings.Contains(err.Error(), "doesn't have a stable controlPlaneEndpoint address") || !strings.Contains(err.Error(), "kubeadm init phase upload-config kubeadm --config FILE") {
		t.Errorf("without an endpoint: %v", err)
	}
	r.cluster.ControlPlaneEndpoint, r.cluster.CertificatesDir, r.cluster.Etcd.Local = "api.example:6443", t.TempDir(), &config.LocalEtcd{}
	if err := r.canServe(t.Context(), nil); err == nil || !strings.Contains(err.Error(), "failure loading") || !strings.Contains(err.Error(), "pass --certificate-key as `kubeadm init phase upload-certs --upload-certs` prints it") {
		t.Errorf("without certificates: %v", err)
	}
}

func TestResetConfiguration(t *testing.T) {
	c := &config.Reset{UnmountFlags: []string{"MNT_FORCE", "MNT_DETACH"}}
	c.Default(config.Host{})
	if err := c.Check(); err != nil || unmountFlags(c.UnmountFlags) != 3 {
		t.Errorf("flags %d, %v", unmountFlags(c.UnmountFlags), err)
	}
	for _, tc := range []struct {
		flags []string
		want  string
	}{
		{[]string{"MNT_NOW"}, `unmountFlags[0]: Unsupported value: "MNT_NOW"`},
		{[]string{"MNT_EXPIRE", "MNT_FORCE"}, "MNT_EXPIRE cannot be used together with"},
	} {
		c.UnmountFlags = tc.flags
		if err := c.Check(); err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%v: %v, want %q", tc.flags, err, tc.want)
		}
	}
}
