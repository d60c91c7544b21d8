package podcertificate

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"testing"
	"time"

	certificatesv1 "k8s.io/api/certificates/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
)

// issue makes a request's bytes and a certificate for its key.
func issue(t *testing.T, ca bool, from, to time.Time) (request []byte, chain string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	if request, err = x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, key); err != nil {
		t.Fatal(err)
	}
	c := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "x"}, NotBefore: from, NotAfter: to, IsCA: ca, BasicConstraintsValid: true}
	der, err := x509.CreateCertificate(rand.Reader, c, c, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	return request, string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
}

func TestBundles(t *testing.T) {
	now := time.Now()
	_, ca := issue(t, true, now, now.Add(time.Hour))
	_, leaf := issue(t, false, now, now.Add(time.Hour))
	for name, c := range map[string]struct{ name, signer, text, want string }{
		"plain":       {"roots", "", ca, ""},
		"signed":      {"example.com:s:roots", "example.com/s", ca, ""},
		"named wrong": {"roots", "example.com/s", ca, `metadata.name: Invalid value: "roots": ClusterTrustBundle for signerName example.com/s must be named with prefix example.com:s:`},
		"not plain":   {"a:b", "", ca, `metadata.name: Invalid value: "a:b": ClusterTrustBundle without signer name must not have ":" in its name`},
		"leaf":        {"roots", "", leaf, `spec.trustBundle: Invalid value: "<value omitted>": entry 0 does not have the CA bit set`},
		"twice":       {"roots", "", ca + ca, `spec.trustBundle: Invalid value: "<value omitted>": duplicate trust anchor (indices [0 1])`},
		"empty":       {"roots", "", "", `spec.trustBundle: Invalid value: "<value omitted>": at least one trust anchor must be provided`},
	} {
		b := &bundle{ObjectMeta: metav1.ObjectMeta{Name: c.name}, Spec: certificatesv1.ClusterTrustBundleSpec{SignerName: c.signer, TrustBundle: c.text}}
		got := ""
		if errs := validateBundle(b, nil); len(errs) > 0 {
			got = errs.ToAggregate().Error()
		}
		if got != c.want {
			t.Errorf("%s: %s", name, got)
		}
	}
}

func TestRequests(t *testing.T) {
	from := time.Now().Truncate(time.Second)
	to := from.Add(2 * time.Hour)
	der, chain := issue(t, false, from, to)
	r := &request{Spec: certificatesv1.PodCertificateRequestSpec{SignerName: "example.com/s", PodName: "p", PodUID: "1", ServiceAccountName: "sa", ServiceAccountUID: "2",
		NodeName: "n", NodeUID: "3", MaxExpirationSeconds: ptr.To[int32](86400), StubPKCS10Request: der}}
	if errs := validateRequest(r, nil); len(errs) != 0 {
		t.Error(errs)
	}
	long := r.DeepCopy()
	long.Spec.SignerName, long.Spec.MaxExpirationSeconds = "kubernetes.io/kube-apiserver-client-pod", ptr.To[int32](86401)
	if errs := validateRequest(long, nil); len(errs) != 1 || errs[0].Error() != "spec.maxExpirationSeconds: Invalid value: 86401: must be in the range [3600, 86400]" {
		t.Error(errs)
	}
	issued := r.DeepCopy()
	issued.Status = certificatesv1.PodCertificateRequestStatus{CertificateChain: chain, NotBefore: ptr.To(metav1.NewTime(from)), NotAfter: ptr.To(metav1.NewTime(to)), BeginRefreshAt: ptr.To(metav1.NewTime(from.Add(time.Hour))),
		Conditions: []metav1.Condition{{Type: "Issued", Status: metav1.ConditionTrue, Reason: "Issued", LastTransitionTime: metav1.NewTime(from)}}}
	if errs := validateStatus(issued, r); len(errs) != 0 {
		t.Error(errs)
	}
	if outcome(issued) != "Issued" {
		t.Error(outcome(issued))
	}
	again := issued.DeepCopy()
	again.Status.Conditions[0].Reason = "Other"
	if errs := validateStatus(again, issued); len(errs) != 1 {
		t.Error(errs)
	}
	_, foreign := issue(t, false, from, to)
	stolen := issued.DeepCopy()
	stolen.Status.CertificateChain = foreign
	if errs := validateStatus(stolen, r); len(errs) != 1 {
		t.Error(errs)
	}
}
