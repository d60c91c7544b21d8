package kubeadm

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sampan-dev/sampan/bootstrap"
	"github.com/sampan-dev/sampan/client"
	"github.com/sampan-dev/sampan/client/fake"
	"github.com/sampan-dev/sampan/kit/clock"
	"github.com/sampan-dev/sampan/kit/pki"
	"github.com/sampan-dev/sampan/kubeadm/config"
)

func TestTokensComeBackAsTheyWere(t *testing.T) {
	c := fake.New()
	token, err := newToken()
	if err != nil || !config.TokenForm.MatchString(token) {
		t.Fatalf("token %q, %v", token, err)
	}
	never := &metav1.Duration{}
	given := []config.BootstrapToken{
		{Token: token, TTL: never, Usages: []string{"authentication", "signing"}, Groups: []string{config.DefaultNodeGroup}, Description: "for nodes"},
		{Token: "abcdef.0123456789abcdef", TTL: &metav1.Duration{Duration: time.Hour}, Usages: []string{"signing"}},
	}
	if err := createTokens(t.Context(), c, given, false); err != nil {
		t.Fatal(err)
	}
	if err := createTokens(t.Context(), c, given[1:], false); err == nil || !strings.Contains(err.Error(), `a token with id "abcdef" already exists`) {
		t.Errorf("the same token again: %v", err)
	}
	got, bad := listTokens(t.Context(), c)
	if bad != nil || len(got) != 2 {
		t.Fatalf("tokens %v, %v", got, bad)
	}
	for _, g := range got {
		if g.Token == token && (g.Expires != nil || g.Description != "for nodes" || len(g.Usages) != 2 || len(g.Groups) != 1) {
			t.Errorf("read back %+v", g)
		}
		if g.Token != token && (g.Expires == nil || g.Expires.Before(&metav1.Time{Time: clock.Now().Add(59 * time.Minute)})) {
			t.Errorf("expires %v, want in an hour", g.Expires)
		}
	}
}

func TestCertificatesTravelEncrypted(t *testing.T) {
	c := fake.New()
	from, to := fresh(t, ""), fresh(t, "")
	if err := run(t, from, "certs"); err != nil {
		t.Fatal(err)
	}
	key, err := bootstrap.NewCertificateKey()
	if err != nil || !config.IsCertificateKey(key) {
		t.Fatalf("key %q, %v", key, err)
	}
	if err := uploadCerts(t.Context(), c, from.cluster, key); err != nil {
		t.Fatal(err)
	}
	s, err := client.Of[corev1.Secret](c, metav1.NamespaceSystem).Get(t.Context(), certsSecretName)
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(s.Data["ca.key"]), "PRIVATE KEY") || len(s.OwnerReferences) != 1 {
		t.Errorf("the secret shows its keys, or outlives its token: %v", s.OwnerReferences)
	}
	wrong, _ := bootstrap.NewCertificateKey()
	for given, want := range map[string]string{wrong: "--certificate-key is not the one", "abc": "want 64 hexadecimal digits"} {
		if err := downloadCerts(t.Context(), c, to.cluster, given); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("key %s: %v, want %q", given, err, want)
		}
	}
	if err := downloadCerts(t.Context(), c, to.cluster, wrong); err == nil || !strings.Contains(err.Error(), "`kubeadm init phase upload-certs --upload-certs` on a control plane") {
		t.Errorf("a wrong key: %v, want what mends it", err)
	}
	if _, err := os.Stat(to.cluster.CertificatesDir); err == nil {
		t.Error("a wrong key left files")
	}
	if err := downloadCerts(t.Context(), c, to.cluster, key); err != nil {
		t.Fatal(err)
	}
	for name, path := range sharedFiles(to.cluster) {
		a, err := os.ReadFile(path)
		b, _ := os.ReadFile(sharedFiles(from.cluster)[name])
		if err != nil || string(a) != string(b) {
			t.Errorf("%s: %v; not what was uploaded", name, err)
		}
	}
	if st, err := os.Stat(filepath.Join(to.cluster.CertificatesDir, "ca.key")); err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("ca.key: %v, %v", st, err)
	}
	// Another upload takes the place of the first; two hours later it is gone.
	if err := uploadCerts(t.Context(), c, from.cluster, wrong); err != nil {
		t.Fatal(err)
	}
	if err := downloadCerts(t.Context(), c, fresh(t, "").cluster, wrong); err != nil {
		t.Errorf("by the newer key: %v", err)
	}
	if err := client.Of[corev1.Secret](c, metav1.NamespaceSystem).Delete(t.Context(), "kubeadm-certs", nil); err != nil {
		t.Fatal(err)
	}
	if err := downloadCerts(t.Context(), c, fresh(t, "").cluster, wrong); err == nil || !strings.Contains(err.Error(), "This Secret might have expired: `kubeadm init phase upload-certs --upload-certs`") {
		t.Errorf("after two hours: %v", err)
	}
	// What came over is enough to make this machine's own leaves.
	if err := run(t, to, "certs"); err != nil {
		t.Error(err)
	}
}

func TestConfigurationComesBack(t *testing.T) {
	c := fake.New()
	r := fresh(t, "apiVersion: kubeadm.k8s.io/v1beta4\nkind: ClusterConfiguration\ncontrolPlaneEndpoint: api.example:8443\nnetworking: {podSubnet: 10.244.0.0/16}")
	if err := uploadConfig(t.Context(), c, r.cluster); err != nil {
		t.Fatal(err)
	}
	if err := uploadConfig(t.Context(), c, r.cluster); err != nil {
		t.Errorf("a second time: %v", err)
	}
	got, err := fetchCluster(t.Context(), c)
	if err != nil || got.ControlPlaneEndpoint != "api.example:8443" || got.Networking.PodSubnet != "10.244.0.0/16" {
		t.Errorf("read back %+v, %v", got, err)
	}
}

// signer signs as the bootstrap signer does.
func signInfo(kubeconfig []byte, token string) *corev1.ConfigMap {
	id, secret, _ := strings.Cut(token, ".")
	enc := base64.RawURLEncoding.EncodeToString
	head := enc([]byte(`{"alg":"HS256","kid":"` + id + `"}`))
	mac := hmac.New(sha256.New, []byte(secret))
	mac.Write([]byte(head + "." + enc(kubeconfig)))
	return &corev1.ConfigMap{Data: map[string]string{"kubeconfig": string(kubeconfig), "jws-kubeconfig-" + id: head + ".." + enc(mac.Sum(nil))}}
}

func TestDiscovery(t *testing.T) {
	const token = "abcdef.0123456789abcdef"
	ca, err := pki.NewCA("kubernetes", "")
	if err != nil {
		t.Fatal(err)
	}
	text, err := client.Kubeconfig{Server: "https://api.example:6443", CA: ca.CertPEM()}.Encode()
	if err != nil {
		t.Fatal(err)
	}
	info := signInfo(text, token)
	server := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/api/v1/namespaces/kube-public/configmaps/cluster-info" || r.Header.Get("Authorization") != "" {
			t.Errorf("asked %s with %q", r.URL, r.Header.Get("Authorization"))
		}
		_ = json.NewEncoder(w).Encode(info)
	}))
	defer server.Close()
	endpoint := strings.TrimPrefix(server.URL, "https://")
	// An error is known only when the wait for better is over: long enough for one
	// answer of a busy computer.
	wait := time.Minute
	try := func(token, endpoint string, hashes ...string) (*found, error) {
		d := config.Discovery{BootstrapToken: &config.BootstrapTokenDiscovery{Token: token, APIServerEndpoint: endpoint, CACertHashes: hashes}}
		return discover(t.Context(), d, wait, func(string, ...any) {})
	}
	if f, err := try(token, endpoint, pki.Hash(ca.Cert)); err != nil || f.server != "https://api.example:6443" {
		t.Errorf("found %+v, %v", f, err)
	}
	wait = 4 * time.Second
	t.Run("refused", func(t *testing.T) {
		for name, tc := range map[string]struct{ token, endpoint, hash, want string }{
			"unknown token":     {"zzzzzz.0123456789abcdef", endpoint, "", "unknown there or has expired; on a control plane, `kubeadm token create"},
			"wrong second half": {"abcdef.0000000000000000", endpoint, "", "can't trust this API Server"},
			"wrong hash":        {token, endpoint, "sha256:" + strings.Repeat("0", 64), "none of the public keys"},
			"nobody there":      {token, "127.0.0.1:1", "", "cannot reach the API server at 127.0.0.1:1"},
		} {
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				var hashes []string
				if tc.hash != "" {
					hashes = append(hashes, tc.hash)
				}
				if _, err := try(tc.token, tc.endpoint, hashes...); err == nil || !strings.Contains(err.Error(), tc.want) {
					t.Errorf("%v, want %q", err, tc.want)
				}
			})
		}
	})
	info.Data["kubeconfig"] += "#"
	if _, err := try(token, endpoint); err == nil || errors.Is(err, errNoSignature) {
		t.Errorf("changed contents: %v, want that the signature does not fit", err)
	}
}

func TestControlPlaneIsMarkedOnce(t *testing.T) {
	c := fake.New(&corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "master1"}})
	for range 2 {
		if err := markControlPlane(t.Context(), c, "master1", []corev1.Taint{config.ControlPlaneTaint()}); err != nil {
			t.Fatal(err)
		}
	}
	n, err := client.Of[corev1.Node](c, "").Get(t.Context(), "master1")
	if err != nil || len(n.Spec.Taints) != 1 || len(n.Labels) != 2 {
		t.Errorf("node %v %v, %v", n.Labels, n.Spec.Taints, err)
	}
}
