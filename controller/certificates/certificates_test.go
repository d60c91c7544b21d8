package certificates

import (
	"context"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"net"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	authorizationv1 "k8s.io/api/authorization/v1"
	certificatesv1 "k8s.io/api/certificates/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/sampan-dev/sampan/api"
	"github.com/sampan-dev/sampan/client"
	"github.com/sampan-dev/sampan/client/fake"
	"github.com/sampan-dev/sampan/controller"
	"github.com/sampan-dev/sampan/kit/pki"
	"github.com/sampan-dev/sampan/kit/run"
)

var (
	clientUsages = []certificatesv1.KeyUsage{certificatesv1.UsageDigitalSignature, certificatesv1.UsageClientAuth}
	serverUsages = []certificatesv1.KeyUsage{certificatesv1.UsageDigitalSignature, certificatesv1.UsageServerAuth}
)

func nodeTemplate() *x509.CertificateRequest {
	return &x509.CertificateRequest{Subject: pkix.Name{CommonName: "system:node:n", Organization: []string{"system:nodes"}}}
}

func csr(t *testing.T, name, signer, user string, usages []certificatesv1.KeyUsage, tmpl *x509.CertificateRequest) *request {
	t.Helper()
	key, err := pki.NewKey(pki.ECDSA)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.CreateCertificateRequest(rand.Reader, tmpl, key)
	if err != nil {
		t.Fatal(err)
	}
	return &request{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: certificatesv1.CertificateSigningRequestSpec{
		Request: pki.EncodeRequest(der), SignerName: signer, Username: user, Usages: usages}}
}

func TestSignable(t *testing.T) {
	for name, c := range map[string]struct {
		signer string
		usages []certificatesv1.KeyUsage
		edit   func(*x509.CertificateRequest)
		known  bool
		err    error
	}{
		"kubelet client":      {certificatesv1.KubeAPIServerClientKubeletSignerName, clientUsages, nil, true, nil},
		"with encipherment":   {certificatesv1.KubeAPIServerClientKubeletSignerName, append(slices.Clone(clientUsages), certificatesv1.UsageKeyEncipherment), nil, true, nil},
		"organization":        {certificatesv1.KubeAPIServerClientKubeletSignerName, clientUsages, func(r *x509.CertificateRequest) { r.Subject.Organization = []string{"system:masters"} }, true, errOrganization},
		"name":                {certificatesv1.KubeAPIServerClientKubeletSignerName, clientUsages, func(r *x509.CertificateRequest) { r.Subject.CommonName = "admin" }, true, errCommonName},
		"hosts":               {certificatesv1.KubeAPIServerClientKubeletSignerName, clientUsages, func(r *x509.CertificateRequest) { r.DNSNames = []string{"n"} }, true, errDNS},
		"client that serves":  {certificatesv1.KubeAPIServerClientKubeletSignerName, serverUsages, nil, true, errUsages},
		"serving, no host":    {certificatesv1.KubeletServingSignerName, serverUsages, nil, true, errNoHost},
		"serving":             {certificatesv1.KubeletServingSignerName, serverUsages, func(r *x509.CertificateRequest) { r.DNSNames = []string{"n"} }, true, nil},
		"api client":          {certificatesv1.KubeAPIServerClientSignerName, clientUsages, nil, true, nil},
		"api client, serving": {certificatesv1.KubeAPIServerClientSignerName, serverUsages, nil, true, errUsages},
		"legacy":              {legacyUnknown, serverUsages, nil, true, nil},
		"somebody else's":     {"example.com/signer", serverUsages, nil, false, nil},
	} {
		r := nodeTemplate()
		if c.edit != nil {
			c.edit(r)
		}
		if known, err := signable(c.signer, r, c.usages); known != c.known || err != c.err {
			t.Errorf("%s: %v %v", name, known, err)
		}
	}
}

func TestClaims(t *testing.T) {
	n := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "n"}, Status: corev1.NodeStatus{Addresses: []corev1.NodeAddress{{Type: corev1.NodeInternalIP, Address: "10.1.2.3"}}}}
	serving := func(ip string) *x509.CertificateRequest {
		r := nodeTemplate()
		r.IPAddresses, r.DNSNames = []net.IP{net.ParseIP(ip)}, []string{"n"}
		return r
	}
	for name, c := range map[string]struct {
		signer, user string
		usages       []certificatesv1.KeyUsage
		r            *x509.CertificateRequest
		serving      bool
		want         int
	}{
		"first certificate":     {certificatesv1.KubeAPIServerClientKubeletSignerName, "system:bootstrap:abcdef", clientUsages, nodeTemplate(), false, 1},
		"renewal":               {certificatesv1.KubeAPIServerClientKubeletSignerName, "system:node:n", clientUsages, nodeTemplate(), false, 2},
		"another signer":        {certificatesv1.KubeAPIServerClientSignerName, "system:node:n", clientUsages, nodeTemplate(), true, 0},
		"serving, as upstream":  {certificatesv1.KubeletServingSignerName, "system:node:n", serverUsages, serving("10.1.2.3"), false, 0},
		"serving, local":        {certificatesv1.KubeletServingSignerName, "system:node:n", serverUsages, serving("10.1.2.3"), true, 1},
		"serving, not its host": {certificatesv1.KubeletServingSignerName, "system:node:n", serverUsages, serving("10.9.9.9"), true, 0},
		"serving, for another":  {certificatesv1.KubeletServingSignerName, "system:node:m", serverUsages, serving("10.1.2.3"), true, 0},
	} {
		got := claims(csr(t, "c", c.signer, c.user, c.usages, c.r), c.r, n, c.serving)
		if len(got) != c.want {
			t.Errorf("%s: %v", name, got)
		}
	}
}

func TestLife(t *testing.T) {
	sec := func(d time.Duration) *int32 { n := int32(d / time.Second); return &n }
	for _, c := range []struct {
		asked *int32
		want  time.Duration
	}{{nil, 24 * time.Hour}, {sec(time.Hour), time.Hour}, {sec(time.Minute), 10 * time.Minute}, {sec(48 * time.Hour), 24 * time.Hour}} {
		if got := life(c.asked, 24*time.Hour); got != c.want {
			t.Errorf("%v: %s", c.asked, got)
		}
	}
}

func TestStale(t *testing.T) {
	now := time.Now()
	ago := func(d time.Duration) metav1.Time { return metav1.NewTime(now.Add(-d)) }
	for name, c := range map[string]struct {
		made   time.Duration
		kind   certificatesv1.RequestConditionType
		at     time.Duration
		issued bool
		want   bool
	}{
		"pending":              {made: 23 * time.Hour},
		"pending long":         {made: 25 * time.Hour, want: true},
		"approved, not issued": {made: 30 * time.Hour, kind: certificatesv1.CertificateApproved, at: 2 * time.Hour},
		"issued":               {kind: certificatesv1.CertificateApproved, at: 50 * time.Minute, issued: true},
		"issued long ago":      {kind: certificatesv1.CertificateApproved, at: 61 * time.Minute, issued: true, want: true},
		"denied long ago":      {kind: certificatesv1.CertificateDenied, at: 61 * time.Minute, want: true},
		"failed long ago":      {kind: certificatesv1.CertificateFailed, at: 61 * time.Minute, want: true},
	} {
		r := &request{ObjectMeta: metav1.ObjectMeta{CreationTimestamp: ago(c.made)}}
		if c.kind != "" {
			r.Status.Conditions = []certificatesv1.CertificateSigningRequestCondition{{Type: c.kind, LastUpdateTime: ago(c.at)}}
		}
		if c.issued {
			r.Status.Certificate = []byte("x")
		}
		if got := stale(r, now); got != c.want {
			t.Errorf("%s: %v", name, got)
		}
	}
}

// judge answers access reviews, and is a server otherwise.
type judge struct {
	*fake.Server
	allow string // subresource
}

func (j *judge) Create(ctx context.Context, r schema.GroupVersionResource, ns, name, sub string, obj api.Object, o *metav1.CreateOptions) (api.Object, error) {
	if sar, ok := obj.(*authorizationv1.SubjectAccessReview); ok {
		out := sar.DeepCopy()
		out.Status.Allowed = sar.Spec.ResourceAttributes.Subresource == j.allow
		return out, nil
	}
	return j.Server.Create(ctx, r, ns, name, sub, obj, o)
}

func TestApprovedAndSigned(t *testing.T) {
	ca, err := pki.NewCA("test", pki.ECDSA)
	if err != nil {
		t.Fatal(err)
	}
	good := csr(t, "good", certificatesv1.KubeAPIServerClientKubeletSignerName, "system:bootstrap:abcdef", clientUsages, nodeTemplate())
	foreign := csr(t, "foreign", "example.com/other", "system:bootstrap:abcdef", clientUsages, nodeTemplate())
	bad := csr(t, "bad", certificatesv1.KubeAPIServerClientSignerName, "someone", serverUsages, nodeTemplate())
	bad.Status.Conditions = []certificatesv1.CertificateSigningRequestCondition{{Type: certificatesv1.CertificateApproved, Status: corev1.ConditionTrue, LastUpdateTime: metav1.Now()}}
	for allow, signed := range map[string]bool{"nodeclient": true, "": false} {
		synctest.Test(t, func(t *testing.T) {
			s := &judge{fake.New(good, foreign, bad), allow}
			d := controller.WithClient(s)
			// In a bubble it is the year 2000, before the authority begins.
			ca := &pki.Pair{Cert: ca.Cert, Key: ca.Key}
			ctx, stop := context.WithCancel(t.Context())
			g := run.New(ctx)
			loops := []controller.Controller{NewApprover(d, ApproverConfig{}), NewSigner(d, ca, 24*time.Hour), NewCleaner(d)}
			g.Go("mirrors", d.Mirrors.Run)
			for _, c := range loops {
				g.Go(c.Name(), c.Run)
			}
			synctest.Wait()
			get := func(name string) *request {
				r, err := client.Of[request](s, "").Get(ctx, name)
				if err != nil {
					t.Fatal(err)
				}
				return r
			}
			r := get("good")
			if (len(r.Status.Certificate) > 0) != signed {
				t.Fatalf("allowed %q: certificate %q, conditions %v", allow, r.Status.Certificate, r.Status.Conditions)
			}
			if signed {
				certs, err := pki.DecodeCerts(r.Status.Certificate)
				if err != nil {
					t.Fatal(err)
				}
				c := certs[0]
				if err := c.CheckSignatureFrom(ca.Cert); err != nil || c.Subject.CommonName != "system:node:n" || c.IsCA || !slices.Equal(c.ExtKeyUsage, []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}) {
					t.Errorf("certificate: %+v %v", c.Subject, err)
				}
				if got := c.NotAfter.Sub(c.NotBefore); got != 24*time.Hour {
					t.Errorf("good for %s", got)
				}
				if r.Status.Conditions[0].Reason != "AutoApproved" {
					t.Errorf("condition: %+v", r.Status.Conditions)
				}
			}
			if f := get("foreign"); len(f.Status.Certificate) > 0 || len(f.Status.Conditions) > 0 {
				t.Errorf("foreign: %+v", f.Status)
			}
			if b := get("bad"); len(b.Status.Certificate) > 0 || b.Status.Conditions[len(b.Status.Conditions)-1].Reason != "SignerValidationFailure" {
				t.Errorf("bad: %+v", b.Status)
			}
			stop()
			_ = g.Wait()
		})
	}
}
