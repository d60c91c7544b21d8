package kubeadm

import (
	"bytes"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"time"

	"github.com/sampan-dev/sampan/client"
	"github.com/sampan-dev/sampan/kit/clock"
	"github.com/sampan-dev/sampan/kit/pki"
	"github.com/sampan-dev/sampan/kubeadm/config"
)

// certificate is one file pair below the certificates' directory.
type certificate struct {
	name  string // as phases and `certs renew` call it
	base  string // the files, without extension
	ca    string // the base of who signs it; empty for an authority
	about string
	make  func(m machine) (pki.Request, error)
}

// machine is what a certificate may depend on.
type machine struct {
	cluster *config.Cluster
	node    config.NodeRegistration
	local   config.APIEndpoint
}

// certificates are all of them, each authority before what it signs.
var certificates = []certificate{
	{name: "ca", base: "ca", about: "the self-signed Kubernetes CA to provision identities for other Kubernetes components"},
	{name: "apiserver", base: "apiserver", ca: "ca", about: "the certificate for serving the Kubernetes API", make: apiServerRequest},
	{name: "apiserver-kubelet-client", base: "apiserver-kubelet-client", ca: "ca", about: "the certificate for the API server to connect to kubelet",
		make: clientRequest("kube-apiserver-kubelet-client", adminGroup)},
	{name: "front-proxy-ca", base: "front-proxy-ca", about: "the self-signed CA to provision identities for front proxy"},
	{name: "front-proxy-client", base: "front-proxy-client", ca: "front-proxy-ca", about: "the certificate for the front proxy client",
		make: clientRequest("front-proxy-client")},
	{name: "etcd-ca", base: "etcd/ca", about: "the self-signed CA to provision identities for etcd"},
	{name: "etcd-server", base: "etcd/server", ca: "etcd/ca", about: "the certificate for serving etcd", make: etcdRequest(func(e *config.LocalEtcd) []string { return e.ServerCertSANs })},
	{name: "etcd-peer", base: "etcd/peer", ca: "etcd/ca", about: "the certificate for etcd nodes to communicate with each other", make: etcdRequest(func(e *config.LocalEtcd) []string { return e.PeerCertSANs })},
	{name: "etcd-healthcheck-client", base: "etcd/healthcheck-client", ca: "etcd/ca", about: "the certificate for liveness probes to healthcheck etcd", make: clientRequest("kube-etcd-healthcheck-client")},
	{name: "apiserver-etcd-client", base: "apiserver-etcd-client", ca: "etcd/ca", about: "the certificate the apiserver uses to access etcd", make: clientRequest("kube-apiserver-etcd-client")},
}

// adminGroup are those whom kubeadm binds to cluster-admin.
const adminGroup = "kubeadm:cluster-admins"

// authorities are the self-signed ones, for messages.
var authorityName = map[string]string{"ca": "kubernetes", "front-proxy-ca": "front-proxy-ca", "etcd/ca": "etcd-ca"}

func (c certificate) ofEtcd() bool { return c.ca == "etcd/ca" || c.base == "etcd/ca" }

func clientRequest(name string, groups ...string) func(machine) (pki.Request, error) {
	return func(machine) (pki.Request, error) {
		return pki.Request{CommonName: name, Organizations: groups, Client: true}, nil
	}
}

func apiServerRequest(m machine) (pki.Request, error) {
	first, err := m.cluster.ServiceAddress(1)
	if err != nil {
		return pki.Request{}, err
	}
	hosts := []string{
		m.node.Name, "kubernetes", "kubernetes.default", "kubernetes.default.svc", "kubernetes.default.svc." + m.cluster.Networking.DNSDomain,
		first.String(), m.local.AdvertiseAddress,
	}
	if host, _, err := net.SplitHostPort(m.cluster.Endpoint(m.local)); err == nil {
		hosts = append(hosts, host)
	}
	return pki.Request{CommonName: "kube-apiserver", Server: true, Hosts: unique(append(hosts, m.cluster.APIServer.CertSANs...))}, nil
}

func etcdRequest(sans func(*config.LocalEtcd) []string) func(machine) (pki.Request, error) {
	return func(m machine) (pki.Request, error) {
		hosts := []string{m.node.Name, "localhost", m.local.AdvertiseAddress, "127.0.0.1", "::1"}
		if m.cluster.Etcd.Local != nil {
			hosts = append(hosts, sans(m.cluster.Etcd.Local)...)
		}
		return pki.Request{CommonName: m.node.Name, Server: true, Client: true, Hosts: unique(hosts)}, nil
	}
}

// unique drops doubles, keeping the order.
func unique(list []string) []string {
	seen := map[string]bool{}
	var out []string
	for _, s := range list {
		if s != "" && !seen[s] {
			seen[s] = true
			out = append(out, s)
		}
	}
	return out
}

// wanted are the certificates that a control plane of this configuration has.
func wanted(cluster *config.Cluster) []certificate {
	var out []certificate
	for _, c := range certificates {
		if cluster.Etcd.External == nil || !c.ofEtcd() {
			out = append(out, c)
		}
	}
	return out
}

// ensure makes the certificate unless it is there and fits; it says what it did
// in kubeadm's words.
func (c certificate) ensure(m machine, say func(string, ...any)) error {
	dir := m.cluster.CertificatesDir
	if c.ca == "" {
		return c.ensureAuthority(m, say)
	}
	req, err := c.make(m)
	if err != nil {
		return err
	}
	req.Life, req.Algorithm = m.cluster.CertificateValidityPeriod.Duration, pki.Algorithm(m.cluster.EncryptionAlgorithm)
	ca, err := readCert(dir, c.ca)
	if err != nil {
		return fmt.Errorf("certificate %s: its authority: %w", c.base, err)
	}
	have, err := pki.Load(dir, c.base)
	if err == nil {
		if err := fits(have.Cert, ca, req.Hosts); err != nil {
			return fmt.Errorf("certificate %s is there and cannot be used: %w; remove it and its key to have it made anew", filepath.Join(dir, c.base+".crt"), err)
		}
		say("[certs] Using existing %s certificate and key on disk", c.base)
		return nil
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	signer, err := pki.Load(dir, c.ca)
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("certificate %s is missing, and so is %s.key, with which it would be signed", c.base, filepath.Join(dir, c.ca))
	}
	if err != nil {
		return err
	}
	return c.issue(signer, req, dir, say)
}

func (c certificate) issue(signer *pki.Pair, req pki.Request, dir string, say func(string, ...any)) error {
	p, err := signer.Issue(req)
	if err != nil {
		return err
	}
	say("[certs] Generating %q certificate and key", c.base)
	if len(req.Hosts) > 0 && req.Server {
		say("[certs] %s serving cert is signed for DNS names %v and IPs %v", c.base, p.Cert.DNSNames, p.Cert.IPAddresses)
	}
	return save(p, dir, c.base)
}

func save(p *pki.Pair, dir, base string) error {
	return p.Save(filepath.Join(dir, filepath.Dir(base)), filepath.Base(base))
}

// ensureAuthority uses an authority that is there, even without its key: then
// whoever has the key signs what is needed.
func (c certificate) ensureAuthority(m machine, say func(string, ...any)) error {
	dir := m.cluster.CertificatesDir
	cert, err := readCert(dir, c.base)
	if err == nil {
		if !cert.IsCA {
			return fmt.Errorf("%s is not a certificate authority", filepath.Join(dir, c.base+".crt"))
		}
		if _, err := os.Stat(filepath.Join(dir, c.base+".key")); err != nil {
			say("[certs] External %s mode: %s.key is not here, so nothing will be signed by it", c.base, c.base)
		} else {
			say("[certs] Using existing %s certificate authority", c.base)
		}
		return nil
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	say("[certs] Generating %q certificate and key", c.base)
	p, err := pki.NewCA(authorityName[c.base], pki.Algorithm(m.cluster.EncryptionAlgorithm))
	if err != nil {
		return err
	}
	return save(p, dir, c.base)
}

// readCert reads one certificate; its key need not be there.
func readCert(dir, base string) (*x509.Certificate, error) {
	text, err := os.ReadFile(filepath.Join(dir, base+".crt"))
	if err != nil {
		return nil, err
	}
	certs, err := pki.DecodeCerts(text)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", filepath.Join(dir, base+".crt"), err)
	}
	return certs[0], nil
}

// fits says what is wrong with a certificate that should serve hosts.
func fits(cert, ca *x509.Certificate, hosts []string) error {
	if clock.Now().After(cert.NotAfter) {
		return fmt.Errorf("it expired on %s", cert.NotAfter.Format(time.RFC3339))
	}
	if clock.Now().Before(cert.NotBefore) {
		return fmt.Errorf("it is not valid before %s; is this machine's clock right?", cert.NotBefore.Format(time.RFC3339))
	}
	if err := cert.CheckSignatureFrom(ca); err != nil {
		return fmt.Errorf("it is not signed by %s: %w", ca.Subject.CommonName, err)
	}
	for _, h := range hosts {
		if err := cert.VerifyHostname(h); err != nil {
			return fmt.Errorf("it is not valid for %s", h)
		}
	}
	return nil
}

// ensureAccounts makes the key pair that signs service accounts' tokens.
func ensureAccounts(cluster *config.Cluster, say func(string, ...any)) error {
	file := filepath.Join(cluster.CertificatesDir, "sa.key")
	if _, err := pki.LoadSigner(file); err == nil {
		say("[certs] Using the existing %q key", "sa")
		return nil
	} else if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	say("[certs] Generating %q key and public key", "sa")
	key, err := pki.NewKey(pki.Algorithm(cluster.EncryptionAlgorithm))
	if err != nil {
		return err
	}
	return pki.SaveSigner(key, cluster.CertificatesDir, "sa")
}

// identity is one kubeconfig of /etc/kubernetes.
type identity struct {
	file, about string
	user        func(node string) string
	groups      []string
	// local talks to this machine's own API server, whatever the shared
	// endpoint is, so that two versions do not meet during an upgrade.
	local bool
}

func always(name string) func(string) string { return func(string) string { return name } }

// identities are the kubeconfigs of a control plane.
var identities = []identity{
	{"admin.conf", "a kubeconfig file for the admin to use and for kubeadm itself", always("kubernetes-admin"), []string{adminGroup}, false},
	{"super-admin.conf", "a kubeconfig file for the super-admin", always("kubernetes-super-admin"), []string{"system:masters"}, false},
	{"kubelet.conf", "a kubeconfig file for the kubelet to use *only* for cluster bootstrapping purposes", func(n string) string { return "system:node:" + n }, []string{"system:nodes"}, true},
	{"controller-manager.conf", "a kubeconfig file for the controller manager to use", always("system:kube-controller-manager"), nil, true},
	{"scheduler.conf", "a kubeconfig file for the scheduler to use", always("system:kube-scheduler"), nil, true},
}

// phase is the identity's name among phases.
func (i identity) phase() string { return i.file[:len(i.file)-len(".conf")] }

func (i identity) server(m machine) string {
	if i.local {
		return "https://" + m.local.HostPort()
	}
	return "https://" + m.cluster.Endpoint(m.local)
}

// ensure writes the kubeconfig unless one is there that fits.
func (i identity) ensure(dir string, m machine, say func(string, ...any)) error {
	path, pkiDir := filepath.Join(dir, i.file), m.cluster.CertificatesDir
	ca, err := readCert(pkiDir, "ca")
	if err != nil {
		return err
	}
	if text, err := os.ReadFile(path); err == nil {
		server, have, err := client.ClusterOf(text)
		if err != nil {
			return fmt.Errorf("%s: %w", path, err)
		}
		if certs, err := pki.DecodeCerts(have); err != nil || !bytes.Equal(certs[0].Raw, ca.Raw) {
			return fmt.Errorf("a kubeconfig file %q exists already but has got the wrong CA cert", path)
		}
		if server != i.server(m) {
			say("[kubeconfig] WARNING: a kubeconfig file %q exists already but has an unexpected API Server URL: expected: %s, got: %s", path, i.server(m), server)
		}
		say("[kubeconfig] Using existing kubeconfig file: %q", path)
		return nil
	}
	say("[kubeconfig] Writing %q kubeconfig file", i.file)
	return i.write(path, m)
}

func (i identity) write(path string, m machine) error {
	ca, err := pki.Load(m.cluster.CertificatesDir, "ca")
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%s is missing, and so is ca.key, with which its certificate would be signed", path)
	}
	if err != nil {
		return err
	}
	return writeKubeconfig(path, i.server(m), m.cluster, ca, pki.Request{
		CommonName: i.user(m.node.Name), Organizations: i.groups, Client: true,
		Life: m.cluster.CertificateValidityPeriod.Duration, Algorithm: pki.Algorithm(m.cluster.EncryptionAlgorithm),
	})
}

func writeKubeconfig(path, server string, cluster *config.Cluster, ca *pki.Pair, req pki.Request) error {
	leaf, err := ca.Issue(req)
	if err != nil {
		return err
	}
	key, err := leaf.KeyPEM()
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	return client.Kubeconfig{Cluster: cluster.ClusterName, User: req.CommonName, Server: server, CA: ca.CertPEM(), Cert: leaf.CertPEM(), Key: key}.Write(path)
}
