package certificatesigningrequest

import (
	"bytes"
	"crypto/ed25519"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"strings"
	"testing"
	"time"

	certificatesv1 "k8s.io/api/certificates/v1"
	certificatesv1beta1 "k8s.io/api/certificates/v1beta1"

	"github.com/sampan-dev/sampan/resource"
)

func request(t *testing.T) []byte {
	t.Helper()
	key := ed25519.NewKeyFromSeed(make([]byte, ed25519.SeedSize))
	der, err := x509.CreateCertificateRequest(bytes.NewReader(nil), &x509.CertificateRequest{}, key)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der})
}

func good(t *testing.T, change func(*certificatesv1.CertificateSigningRequestSpec)) *csr {
	c := &csr{Spec: certificatesv1.CertificateSigningRequestSpec{
		Request: request(t), SignerName: "example.com/signer", Usages: []certificatesv1.KeyUsage{"client auth"},
	}}
	change(&c.Spec)
	return c
}

func TestWhoAsksIsWrittenDown(t *testing.T) {
	c := good(t, func(s *certificatesv1.CertificateSigningRequestSpec) { s.Username = "root" })
	c.Status.Conditions = []certificatesv1.CertificateSigningRequestCondition{{Type: "Approved", Status: "True"}}
	Kind().Prepare(&resource.Request{User: "me", UID: "7", Groups: []string{"g"}, Extra: map[string][]string{"k": {"v"}}}, c, nil)
	if c.Spec.Username != "me" || c.Spec.UID != "7" || c.Spec.Groups[0] != "g" || c.Spec.Extra["k"][0] != "v" || len(c.Status.Conditions) != 0 {
		t.Errorf("got %+v", c)
	}
}

func TestCreateRules(t *testing.T) {
	type spec = certificatesv1.CertificateSigningRequestSpec
	for want, change := range map[string]func(*spec){
		"": func(*spec) {},
		"PEM block type must be CERTIFICATE REQUEST":                                   func(s *spec) { s.Request = []byte("x") },
		"spec.usages: Required value":                                                  func(s *spec) { s.Usages = nil },
		`spec.usages[0]: Unsupported value: "x": supported values: "any", "cert sign"`: func(s *spec) { s.Usages[0] = "x" },
		`spec.usages[1]: Duplicate value: "any"`:                                       func(s *spec) { s.Usages = []certificatesv1.KeyUsage{"any", "any"} },
		"spec.signerName: Required value":                                              func(s *spec) { s.SignerName = "" },
		`spec.signerName: Invalid value: "signer": must be a fully qualified domain and path of the form "example.com/signer-name"`: func(s *spec) { s.SignerName = "signer" },
		`spec.signerName: Invalid value: "local": should be a domain with at least two segments separated by dots`:                  func(s *spec) { s.SignerName = "local/x" },
		"spec.expirationSeconds: Invalid value: 60: may not specify a duration less than 600 seconds (10 minutes)":                  func(s *spec) { s.ExpirationSeconds = new(int32(60)) },
		`spec.signerName: Invalid value: "kubernetes.io/legacy-unknown": the legacy signerName is not allowed via this API version`: func(s *spec) { s.SignerName = "kubernetes.io/legacy-unknown" },
	} {
		err := Kind().ValidateAs(&resource.Request{Version: certificatesv1.SchemeGroupVersion}, good(t, change), nil).ToAggregate()
		if want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("got %v, want %q", err, want)
		}
	}
	old := good(t, func(s *spec) { s.SignerName = "kubernetes.io/legacy-unknown" })
	if errs := Kind().ValidateAs(&resource.Request{Version: certificatesv1beta1.SchemeGroupVersion}, old, nil); len(errs) > 0 {
		t.Error(errs)
	}
}

func TestDecisions(t *testing.T) {
	with := func(types ...string) *csr {
		c := good(t, func(*certificatesv1.CertificateSigningRequestSpec) {})
		for _, name := range types {
			c.Status.Conditions = append(c.Status.Conditions, certificatesv1.CertificateSigningRequestCondition{Type: certificatesv1.RequestConditionType(name), Status: "True"})
		}
		return c
	}
	for _, c := range []struct {
		sub        string
		next, prev *csr
		want       string
	}{
		{"approval", with("Approved"), with(), ""},
		{"approval", with("Approved", "Denied"), with(), `status.conditions[1].type: Invalid value: "Denied": Approved and Denied conditions are mutually exclusive`},
		{"approval", with(), with("Denied"), `status.conditions: Forbidden: updates may not remove a condition of type "Denied"`},
		{"status", with("Failed"), with(), ""},
		{"status", with("Approved"), with(), `status.conditions: Forbidden: updates may not add a condition of type "Approved"`},
	} {
		sub, _ := Kind().Sub(c.sub)
		sub.Prepare(&resource.Request{Now: time.Unix(5, 0)}, c.next, c.prev)
		got := ""
		if err := sub.Validate(c.next, c.prev).ToAggregate(); err != nil {
			got = err.Error()
		}
		if got != c.want {
			t.Errorf("%s: got %q, want %q", c.sub, got, c.want)
		}
		for _, cond := range c.next.Status.Conditions {
			if cond.LastUpdateTime.Unix() != 5 {
				t.Errorf("the time of %+v is not filled in", cond)
			}
		}
	}
	issued := with("Approved")
	issued.Spec.ExpirationSeconds, issued.Spec.Username, issued.Status.Certificate, issued.Name = new(int32(3600)), "me", []byte("x"), "c"
	if got := strings.Trim(fmt.Sprint(Kind().Cells(issued, time.Unix(9, 0))), "[]"); got != "c <unknown> example.com/signer me 60m Approved,Issued" {
		t.Errorf("got %q", got)
	}
}
