package bootstrap

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	certificatesv1 "k8s.io/api/certificates/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sampan-dev/sampan/client"
	"github.com/sampan-dev/sampan/kit/clock"
	"github.com/sampan-dev/sampan/kit/pki"
)

// ensureNodeCert returns the node's client certificate in dir, or asks the
// cluster for one by a certificate signing request under the bootstrap token,
// as a kubelet's TLS bootstrap does, and waits until it is signed.
func ensureNodeCert(ctx context.Context, server client.Config, c Config, dir string) error {
	if p, err := pki.Load(dir, "kubelet-client"); err == nil && clock.Until(p.Cert.NotAfter) > renewBefore {
		return nil
	}
	server.BearerToken, server.UserAgent = c.Token, "sampan-join"
	boot, err := client.New(server)
	if err != nil {
		return err
	}
	cert, key, err := requestNodeCert(ctx, boot, c.NodeName)
	if err != nil {
		return fmt.Errorf("join %s: %w", c.Join, err)
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	if err := pki.WriteFile(dir+"/kubelet-client.key", key, 0o600); err != nil {
		return err
	}
	return pki.WriteFile(dir+"/kubelet-client.crt", cert, 0o644)
}

// requestNodeCert gets a node's client certificate, and makes its key.
func requestNodeCert(ctx context.Context, boot client.Interface, node string) (cert, text []byte, err error) {
	key, err := pki.NewKey("")
	if err != nil {
		return nil, nil, err
	}
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{
		Subject: pkix.Name{CommonName: "system:node:" + node, Organization: []string{"system:nodes"}},
	}, key)
	if err != nil {
		return nil, nil, err
	}
	if cert, err = sign(ctx, boot, pki.EncodeRequest(der)); err != nil {
		return nil, nil, err
	}
	if text, err = pki.EncodeKey(key); err != nil {
		return nil, nil, err
	}
	if _, err := tls.X509KeyPair(cert, text); err != nil {
		return nil, nil, fmt.Errorf("the certificate signed for this node does not fit: %w", err)
	}
	return cert, text, nil
}

// NodeKubeconfig is a kubelet's TLS bootstrap: it gets the node's certificate
// by the token of one kubeconfig and writes another that uses it. Certificate and
// key are one file, kubelet-client-current.pem, as upstream's.
func NodeKubeconfig(ctx context.Context, from, to, certDir, node string) error {
	text, err := os.ReadFile(from)
	if err != nil {
		return fmt.Errorf("bootstrap kubeconfig: %w", err)
	}
	boot, err := client.FromKubeconfig(from, "")
	if err != nil {
		return err
	}
	cert, key, err := requestNodeCert(ctx, boot, node)
	if err != nil {
		return fmt.Errorf("TLS bootstrap: %w", err)
	}
	current := filepath.Join(certDir, "kubelet-client-current.pem")
	if err := os.MkdirAll(certDir, 0o700); err != nil {
		return err
	}
	if err := pki.WriteFile(current, slices.Concat(bytes.TrimRight(cert, "\n"), []byte("\n"), key), 0o600); err != nil {
		return err
	}
	server, ca, err := client.ClusterOf(text)
	if err != nil {
		return fmt.Errorf("bootstrap kubeconfig %s: %w", from, err)
	}
	return client.Kubeconfig{
		Cluster: "default-cluster", User: "default-auth", Server: server, CA: ca,
		CertFile: current, KeyFile: current,
	}.Write(to)
}

// sign posts a request and waits for its certificate.
func sign(ctx context.Context, c client.Interface, request []byte) ([]byte, error) {
	requests := client.Of[certificatesv1.CertificateSigningRequest](c, "")
	var made *certificatesv1.CertificateSigningRequest
	for {
		var err error
		made, err = requests.Create(ctx, &certificatesv1.CertificateSigningRequest{
			ObjectMeta: metav1.ObjectMeta{GenerateName: "csr-"},
			Spec: certificatesv1.CertificateSigningRequestSpec{
				Request: request, SignerName: certificatesv1.KubeAPIServerClientKubeletSignerName,
				Usages: []certificatesv1.KeyUsage{certificatesv1.UsageDigitalSignature, certificatesv1.UsageClientAuth},
			},
		})
		if err == nil {
			break
		}
		if clock.Sleep(ctx, time.Second) != nil { // the API server may still be on its way up
			return nil, err
		}
	}
	for {
		w, err := c.Watch(ctx, client.Resource[certificatesv1.CertificateSigningRequest](), "", &metav1.ListOptions{
			FieldSelector: "metadata.name=" + made.Name, ResourceVersion: made.ResourceVersion})
		if err != nil {
			return nil, err
		}
		for {
			e, err := w.Next(ctx)
			if err != nil {
				break
			}
			r, ok := e.Object.(*certificatesv1.CertificateSigningRequest)
			if !ok {
				continue
			}
			for _, cond := range r.Status.Conditions {
				if cond.Type == certificatesv1.CertificateDenied || cond.Type == certificatesv1.CertificateFailed {
					w.Stop()
					return nil, fmt.Errorf("certificate signing request %s: %s: %s", r.Name, cond.Type, cond.Message)
				}
			}
			if len(bytes.TrimSpace(r.Status.Certificate)) > 0 {
				w.Stop()
				return r.Status.Certificate, nil
			}
		}
		w.Stop()
		if err := ctx.Err(); err != nil {
			return nil, err
		}
	}
}
