// Package certs keeps a node's certificates from running out.
//
// Job: asking the cluster to sign a client certificate for the node agent and
// one for its endpoint, when there is none or most of its life has passed, and
// putting it in the old one's place.
//
// Not its job: the first client certificate, which a bootstrap token gets
// (bootstrap); approving and signing (controllers).
//
// Invariants: an old certificate stays until its successor is on disk; a
// cluster that does not sign stops nothing.
package certs

import (
	"bytes"
	"context"
	"crypto"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"path/filepath"
	"slices"
	"time"

	certificatesv1 "k8s.io/api/certificates/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sampan-dev/sampan/client"
	"github.com/sampan-dev/sampan/kit/clock"
	"github.com/sampan-dev/sampan/kit/pki"
	"github.com/sampan-dev/sampan/kit/run"
)

// Config says what is kept fresh.
type Config struct {
	Node string
	IPs  []string // in the serving certificate, beside the name
	// Serving is the file of the endpoint's certificate and key; "" asks for none.
	Serving string
	// ClientCert and ClientKey are the files of the agent's own certificate, which
	// may be one; "" rotates none.
	ClientCert, ClientKey string
}

// ServingFile is where the endpoint's certificate is kept below dir.
func ServingFile(dir string) string { return filepath.Join(dir, "kubelet-server-current.pem") }

// Rotator renews certificates. Make one with New.
type Rotator struct {
	cfg     Config
	c       client.Interface
	log     *slog.Logger
	serving func() (*tls.Certificate, error)
}

// New returns a rotator that has not started.
func New(cfg Config, c client.Interface, log *slog.Logger) *Rotator {
	return &Rotator{cfg: cfg, c: c, log: log, serving: pki.Reloaded(cfg.Serving, cfg.Serving)}
}

// Serving returns the endpoint's certificate as it is now.
func (r *Rotator) Serving() (*tls.Certificate, error) {
	c, err := r.serving()
	if errors.Is(err, fs.ErrNotExist) {
		return nil, errors.New("no serving certificate available for the kubelet")
	}
	return c, err
}

// kind is one certificate.
type kind struct {
	name      string
	cert, key string
	signer    string
	usage     certificatesv1.KeyUsage
	request   x509.CertificateRequest
}

func (r *Rotator) kinds() []kind {
	subject := pkix.Name{CommonName: "system:node:" + r.cfg.Node, Organization: []string{"system:nodes"}}
	var out []kind
	if r.cfg.Serving != "" {
		k := kind{"serving", r.cfg.Serving, r.cfg.Serving, certificatesv1.KubeletServingSignerName, certificatesv1.UsageServerAuth, x509.CertificateRequest{Subject: subject, DNSNames: []string{r.cfg.Node}}}
		for _, s := range r.cfg.IPs {
			if ip := net.ParseIP(s); ip != nil {
				k.request.IPAddresses = append(k.request.IPAddresses, ip)
			}
		}
		out = append(out, k)
	}
	if r.cfg.ClientCert != "" {
		out = append(out, kind{"client", r.cfg.ClientCert, r.cfg.ClientKey, certificatesv1.KubeAPIServerClientKubeletSignerName, certificatesv1.UsageClientAuth, x509.CertificateRequest{Subject: subject}})
	}
	return out
}

// Run renews until ctx ends.
func (r *Rotator) Run(ctx context.Context) error {
	g := run.New(ctx)
	for _, k := range r.kinds() {
		g.Go(k.name, func(ctx context.Context) error { return r.keep(ctx, k) })
	}
	return g.Wait()
}

// Tries that fail are repeated after this.
const retry = 10 * time.Second

// keep renews one certificate whenever it is due.
func (r *Rotator) keep(ctx context.Context, k kind) error {
	for {
		if clock.Sleep(ctx, max(clock.Until(r.due(k)), 0)) != nil {
			return nil
		}
		err := r.renew(ctx, k)
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			r.log.Warn("a certificate was not renewed", "certificate", k.name, "err", err)
			if clock.Sleep(ctx, clock.Jitter(retry, 1)) != nil {
				return nil
			}
			continue
		}
		r.log.Info("a certificate was renewed", "certificate", k.name, "file", k.cert)
	}
}

// due is when a certificate shall be renewed: after seven to nine tenths of its
// life, so that a fleet does not come at once.
func (r *Rotator) due(k kind) time.Time {
	p, err := pki.LoadFiles(k.cert, k.key)
	if err != nil || !r.covers(k, p.Cert) {
		return time.Time{}
	}
	life := p.Cert.NotAfter.Sub(p.Cert.NotBefore)
	return p.Cert.NotBefore.Add(clock.Jitter(life*7/10, 2.0/7))
}

// covers says whether a certificate still names all that it shall.
func (r *Rotator) covers(k kind, c *x509.Certificate) bool {
	for _, ip := range k.request.IPAddresses {
		if !slices.ContainsFunc(c.IPAddresses, ip.Equal) {
			return false
		}
	}
	return c.Subject.CommonName == k.request.Subject.CommonName
}

func (r *Rotator) renew(ctx context.Context, k kind) error {
	key, err := pki.NewKey("")
	if err != nil {
		return err
	}
	der, err := x509.CreateCertificateRequest(rand.Reader, &k.request, key)
	if err != nil {
		return err
	}
	cert, err := Sign(ctx, r.c, pki.EncodeRequest(der), k.signer, k.usage)
	if err != nil {
		return err
	}
	return store(k, cert, key)
}

// store puts the pair in the old one's place.
func store(k kind, cert []byte, key crypto.Signer) error {
	text, err := pki.EncodeKey(key)
	if err != nil {
		return err
	}
	if _, err := tls.X509KeyPair(cert, text); err != nil {
		return fmt.Errorf("the certificate that was signed does not fit: %w", err)
	}
	if k.cert == k.key {
		return pki.WriteFile(k.cert, append(bytes.TrimRight(cert, "\n"), append([]byte("\n"), text...)...), 0o600)
	}
	if err := pki.WriteFile(k.key, text, 0o600); err != nil {
		return err
	}
	return pki.WriteFile(k.cert, cert, 0o644)
}

// signWait bounds the wait for an approval; then a new request is made.
const signWait = 15 * time.Minute

// Sign posts a request and waits for its certificate.
func Sign(ctx context.Context, c client.Interface, request []byte, signer string, usage certificatesv1.KeyUsage) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, signWait)
	defer cancel()
	requests := client.Of[certificatesv1.CertificateSigningRequest](c, "")
	fresh := &certificatesv1.CertificateSigningRequest{
		ObjectMeta: metav1.ObjectMeta{GenerateName: "csr-"},
		Spec: certificatesv1.CertificateSigningRequestSpec{
			Request: request, SignerName: signer, Usages: []certificatesv1.KeyUsage{certificatesv1.UsageDigitalSignature, usage},
		},
	}
	fresh.APIVersion, fresh.Kind = "certificates.k8s.io/v1", "CertificateSigningRequest"
	made, err := requests.Create(ctx, fresh)
	if err != nil {
		return nil, fmt.Errorf("cannot create certificate signing request: %w", err)
	}
	for ctx.Err() == nil {
		if cert, err := await(ctx, c, made.Name); err != nil || cert != nil {
			return cert, err
		}
	}
	return nil, fmt.Errorf("certificate request %s was not signed: %w", made.Name, ctx.Err())
}

// await follows one request until it is decided or the watch ends.
func await(ctx context.Context, c client.Interface, name string) ([]byte, error) {
	o := &metav1.ListOptions{FieldSelector: "metadata.name=" + name}
	gvr := client.Resource[certificatesv1.CertificateSigningRequest]()
	l, err := c.List(ctx, gvr, "", o)
	if err != nil {
		return nil, clock.Sleep(ctx, time.Second)
	}
	for _, obj := range l.Items {
		if cert, err := decided(obj); err != nil || cert != nil {
			return cert, err
		}
	}
	o.ResourceVersion = l.ResourceVersion
	events, err := c.Watch(ctx, gvr, "", o)
	if err != nil {
		return nil, clock.Sleep(ctx, time.Second)
	}
	defer events.Stop()
	for {
		e, err := events.Next(ctx)
		if err != nil {
			return nil, clock.Sleep(ctx, 100*time.Millisecond) // watches end: begin again
		}
		if cert, err := decided(e.Object); err != nil || cert != nil {
			return cert, err
		}
	}
}

// decided returns the certificate, or why there will be none; nil of both when
// the request waits.
func decided(obj any) ([]byte, error) {
	csr, ok := obj.(*certificatesv1.CertificateSigningRequest)
	if !ok {
		return nil, nil
	}
	for _, cond := range csr.Status.Conditions {
		if cond.Type == certificatesv1.CertificateDenied || cond.Type == certificatesv1.CertificateFailed {
			return nil, fmt.Errorf("certificate signing request %s: %s: %s", csr.Name, cond.Type, cond.Message)
		}
	}
	if len(bytes.TrimSpace(csr.Status.Certificate)) > 0 {
		return csr.Status.Certificate, nil
	}
	return nil, nil
}
