package certs

import (
	"context"
	"log/slog"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	certificatesv1 "k8s.io/api/certificates/v1"

	"github.com/sampan-dev/sampan/client"
	fakeclient "github.com/sampan-dev/sampan/client/fake"
	"github.com/sampan-dev/sampan/kit/pki"
	"github.com/sampan-dev/sampan/kit/run"
)

// signer is a cluster that signs what it is asked to, for an hour.
func signer(t *testing.T, ctx context.Context, api *fakeclient.Server) {
	ca, err := pki.NewCA("test", "")
	if err != nil {
		t.Error(err)
		return
	}
	for ctx.Err() == nil {
		list, err := client.Of[certificatesv1.CertificateSigningRequest](api, "").List(ctx, nil)
		if err != nil {
			return
		}
		for _, r := range list {
			if len(r.Status.Certificate) > 0 {
				continue
			}
			req, err := pki.DecodeRequest(r.Spec.Request)
			if err != nil {
				t.Error(err)
				return
			}
			p, err := ca.Issue(pki.Request{CommonName: req.Subject.CommonName, Hosts: []string{"n1", "192.0.2.1"}, Server: true})
			if err != nil {
				t.Error(err)
				return
			}
			leaf := *p.Cert
			leaf.NotBefore, leaf.NotAfter = time.Now(), time.Now().Add(time.Hour)
			signed, err := ca.SignRequest(req, &leaf)
			if err != nil {
				t.Error(err)
				return
			}
			r = r.DeepCopy()
			r.Status.Certificate = pki.EncodeCerts(signed)
			api.Put(r)
		}
		time.Sleep(time.Second)
	}
}

func TestCertificatesAreRenewedBeforeTheyRunOut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir, api := t.TempDir(), fakeclient.New()
		cfg := Config{
			Node: "n1", IPs: []string{"192.0.2.1"}, Serving: ServingFile(dir),
			ClientCert: filepath.Join(dir, "client.crt"), ClientKey: filepath.Join(dir, "client.key"),
		}
		r := New(cfg, api, slog.New(slog.DiscardHandler))
		if _, err := r.Serving(); err == nil || err.Error() != "no serving certificate available for the kubelet" {
			t.Errorf("before any was signed: %v", err)
		}
		g := run.New(t.Context())
		g.Go("signer", func(ctx context.Context) error { signer(t, ctx, api); return nil })
		g.Go("rotator", r.Run)
		for range 30 { // five hours
			time.Sleep(10 * time.Minute)
			for _, files := range [][2]string{{cfg.Serving, cfg.Serving}, {cfg.ClientCert, cfg.ClientKey}} {
				p, err := pki.LoadFiles(files[0], files[1])
				if err != nil {
					t.Fatal(err)
				}
				if left := time.Until(p.Cert.NotAfter); left < 5*time.Minute {
					t.Fatalf("%s has %s left", files[0], left)
				}
			}
		}
		c, err := r.Serving()
		if err != nil || c.Leaf.VerifyHostname("192.0.2.1") != nil || c.Leaf.Subject.CommonName != "system:node:n1" {
			t.Errorf("serving certificate %v, %v", c, err)
		}
		list, err := client.Of[certificatesv1.CertificateSigningRequest](api, "").List(t.Context(), nil)
		if err != nil || len(list) < 10 || len(list) > 18 {
			t.Errorf("%d requests in five hours for two certificates of an hour, %v", len(list), err)
		}
		g.Stop()
		if err := g.Wait(); err != nil {
			t.Error(err)
		}
	})
}

func TestADeniedRequestIsToldAbout(t *testing.T) {
	_, err := decided(&certificatesv1.CertificateSigningRequest{Status: certificatesv1.CertificateSigningRequestStatus{
		Conditions: []certificatesv1.CertificateSigningRequestCondition{{Type: certificatesv1.CertificateDenied, Message: "no"}},
	}})
	if err == nil {
		t.Error("a denied request is waited for")
	}
}
