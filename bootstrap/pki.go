package bootstrap

import (
	"crypto"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/sampan-dev/sampan/client"
	"github.com/sampan-dev/sampan/kit/clock"
	"github.com/sampan-dev/sampan/kit/pki"
)

// PKI is a control plane's keys and certificates, laid out as kubeadm's
// /etc/kubernetes/pki.
type PKI struct {
	Dir                  string
	CA, FrontProxyCA     *pki.Pair
	APIServer            *pki.Pair
	KubeletClient        *pki.Pair // by which the API server speaks to kubelets
	FrontProxyClient     *pki.Pair
	ServiceAccountSigner crypto.Signer
}

// Certificate file names, kubeadm's.
const (
	caName           = "ca"
	frontProxyCAName = "front-proxy-ca"
	apiServerName    = "apiserver"
	kubeletClient    = "apiserver-kubelet-client"
	frontProxyClient = "front-proxy-client"
	serviceAccount   = "sa"
)

// renewBefore is how much of a leaf's life may be left before it is made anew.
const renewBefore = pki.LeafLife / 3

// EnsurePKI reads the PKI in dir and makes what is missing or about to expire.
// hosts are the names and addresses of the API server.
func EnsurePKI(dir string, hosts []string) (*PKI, error) {
	p := &PKI{Dir: dir}
	var err error
	if p.CA, err = pki.LoadOrMake(dir, caName, func() (*pki.Pair, error) { return pki.NewCA("kubernetes", "") }); err != nil {
		return nil, fmt.Errorf("pki: %w", err)
	}
	if p.FrontProxyCA, err = pki.LoadOrMake(dir, frontProxyCAName, func() (*pki.Pair, error) { return pki.NewCA("front-proxy-ca", "") }); err != nil {
		return nil, fmt.Errorf("pki: %w", err)
	}
	if p.ServiceAccountSigner, err = ensureSigner(dir); err != nil {
		return nil, fmt.Errorf("pki: %w", err)
	}
	for _, leaf := range []struct {
		into *(*pki.Pair)
		ca   *pki.Pair
		name string
		req  pki.Request
	}{
		{&p.APIServer, p.CA, apiServerName, pki.Request{CommonName: "kube-apiserver", Server: true, Hosts: hosts}},
		{&p.KubeletClient, p.CA, kubeletClient, pki.Request{CommonName: "kube-apiserver-kubelet-client", Organizations: []string{"system:masters"}, Client: true}},
		{&p.FrontProxyClient, p.FrontProxyCA, frontProxyClient, pki.Request{CommonName: "front-proxy-client", Client: true}},
	} {
		if *leaf.into, err = EnsureLeaf(dir, leaf.name, leaf.ca, leaf.req); err != nil {
			return nil, err
		}
	}
	return p, nil
}

func ensureSigner(dir string) (crypto.Signer, error) {
	key, err := pki.LoadSigner(filepath.Join(dir, serviceAccount+".key"))
	if !errors.Is(err, fs.ErrNotExist) {
		return key, err
	}
	if key, err = pki.NewKey(""); err != nil {
		return nil, err
	}
	return key, pki.SaveSigner(key, dir, serviceAccount)
}

// EnsureLeaf reads a certificate, and makes a new one where there is none, it
// nears its end, it lacks a host, or another authority signed it.
func EnsureLeaf(dir, name string, ca *pki.Pair, req pki.Request) (*pki.Pair, error) {
	p, err := pki.Load(dir, name)
	if err == nil && clock.Until(p.Cert.NotAfter) > renewBefore && covers(p, req.Hosts) && p.Cert.CheckSignatureFrom(ca.Cert) == nil {
		return p, nil
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("pki: %s: %w", name, err)
	}
	if p, err = ca.Issue(req); err != nil {
		return nil, fmt.Errorf("pki: %s: %w", name, err)
	}
	return p, p.Save(dir, name)
}

func covers(p *pki.Pair, hosts []string) bool {
	return !slices.ContainsFunc(hosts, func(h string) bool { return h != "" && p.Cert.VerifyHostname(h) != nil })
}

// adminLife is the administrator's certificate's, as kubeadm's.
const adminLife = 365 * 24 * time.Hour

// EnsureAdmin writes the administrator's kubeconfig unless there is one that
// still fits.
func (p *PKI) EnsureAdmin(path, server string) error {
	admin, err := EnsureLeaf(p.Dir, "admin", p.CA, pki.Request{
		CommonName: "kubernetes-admin", Organizations: []string{"system:masters"}, Client: true, Life: adminLife,
	})
	if err != nil {
		return err
	}
	key, err := admin.KeyPEM()
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	return client.Kubeconfig{
		Cluster: "kubernetes", User: "kubernetes-admin", Server: server,
		CA: p.CA.CertPEM(), Cert: admin.CertPEM(), Key: key,
	}.Write(path)
}

// File returns the path of a certificate or key file, "ca.crt" or "sa.pub".
func (p *PKI) File(name string) string { return filepath.Join(p.Dir, name) }
