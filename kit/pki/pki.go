// Package pki makes and reads keys and certificates.
//
// Job: certificate authorities, leaves signed by them, self-signed roots, and
// their PEM files, laid out so that kubeadm and openssl read them.
//
// Not its job: who needs which certificate (bootstrap), what a certificate
// proves (apiserver/authn).
//
// Invariants: private keys are written with mode 0600 and appear whole or not
// at all; a certificate never outlives the authority that signed it.
package pki

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha1" //nolint:gosec // RFC 5280 key identifiers are SHA-1
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"math"
	"math/big"
	"net"
	"time"

	"github.com/sampan-dev/sampan/kit/clock"
)

// Algorithm is how a private key is made.
type Algorithm string

// The algorithms, named as kubeadm's encryptionAlgorithm does.
const (
	ECDSA   Algorithm = "ECDSA-P256" // the default: made in microseconds
	ECDSA3  Algorithm = "ECDSA-P384"
	RSA2048 Algorithm = "RSA-2048"
	RSA3072 Algorithm = "RSA-3072"
	RSA4096 Algorithm = "RSA-4096"
)

// Lifetimes as kubeadm's.
const (
	CALife   = 10 * 365 * 24 * time.Hour
	LeafLife = 365 * 24 * time.Hour
	// backdate forgives clocks that are a little behind.
	backdate = 5 * time.Minute
)

// NewKey makes a private key; "" means ECDSA.
func NewKey(a Algorithm) (crypto.Signer, error) {
	switch a {
	case "", ECDSA:
		return ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	case ECDSA3:
		return ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	case RSA2048:
		return rsa.GenerateKey(rand.Reader, 2048)
	case RSA3072:
		return rsa.GenerateKey(rand.Reader, 3072)
	case RSA4096:
		return rsa.GenerateKey(rand.Reader, 4096)
	}
	return nil, fmt.Errorf("pki: key: unknown algorithm %q", a)
}

// Pair is a certificate with its private key.
type Pair struct {
	Cert *x509.Certificate
	Key  crypto.Signer
}

// TLS returns the pair as crypto/tls wants it.
func (p *Pair) TLS() tls.Certificate {
	return tls.Certificate{Certificate: [][]byte{p.Cert.Raw}, PrivateKey: p.Key, Leaf: p.Cert}
}

// Pool returns a pool of the pair's certificate alone.
func (p *Pair) Pool() *x509.CertPool {
	pool := x509.NewCertPool()
	pool.AddCert(p.Cert)
	return pool
}

// CertPEM returns the certificate as PEM.
func (p *Pair) CertPEM() []byte { return EncodeCerts(p.Cert) }

// KeyPEM returns the private key as PEM.
func (p *Pair) KeyPEM() ([]byte, error) { return EncodeKey(p.Key) }

// NewCA makes a self-signed authority.
func NewCA(commonName string, a Algorithm) (*Pair, error) {
	key, err := NewKey(a)
	if err != nil {
		return nil, err
	}
	now := clock.Now().UTC()
	t := &x509.Certificate{
		Subject:               pkix.Name{CommonName: commonName},
		DNSNames:              []string{commonName},
		NotBefore:             now.Add(-backdate),
		NotAfter:              now.Add(CALife),
		KeyUsage:              x509.KeyUsageKeyEncipherment | x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
		BasicConstraintsValid: true,
		IsCA:                  true,
	}
	return sign(t, key, &Pair{Cert: t, Key: key})
}

// Request says what a leaf is for.
type Request struct {
	CommonName    string
	Organizations []string
	// Hosts are the names and addresses a server's certificate is valid for.
	Hosts          []string
	Server, Client bool
	Life           time.Duration // 0 is LeafLife
	Algorithm      Algorithm
	Key            crypto.Signer // nil makes one
}

// Issue signs a new leaf.
func (p *Pair) Issue(r Request) (*Pair, error) {
	if !p.Cert.IsCA {
		return nil, fmt.Errorf("pki: issue %s: %s is no authority", r.CommonName, p.Cert.Subject)
	}
	if r.Key == nil {
		var err error
		if r.Key, err = NewKey(r.Algorithm); err != nil {
			return nil, err
		}
	}
	if r.Life == 0 {
		r.Life = LeafLife
	}
	now := clock.Now().UTC()
	t := &x509.Certificate{
		Subject:               pkix.Name{CommonName: r.CommonName, Organization: r.Organizations},
		NotBefore:             now.Add(-backdate),
		NotAfter:              now.Add(r.Life),
		KeyUsage:              x509.KeyUsageDigitalSignature,
		BasicConstraintsValid: true,
	}
	if _, ok := r.Key.(*rsa.PrivateKey); ok {
		t.KeyUsage |= x509.KeyUsageKeyEncipherment
	}
	if r.Server {
		t.ExtKeyUsage = append(t.ExtKeyUsage, x509.ExtKeyUsageServerAuth)
	}
	if r.Client {
		t.ExtKeyUsage = append(t.ExtKeyUsage, x509.ExtKeyUsageClientAuth)
	}
	for _, h := range r.Hosts {
		if ip := net.ParseIP(h); ip != nil {
			t.IPAddresses = append(t.IPAddresses, ip)
		} else if h != "" {
			t.DNSNames = append(t.DNSNames, h)
		}
	}
	return sign(t, r.Key, p)
}

// SignRequest signs a certificate signing request as template says, taking only
// the public key from it.
func (p *Pair) SignRequest(csr *x509.CertificateRequest, template *x509.Certificate) (*x509.Certificate, error) {
	if err := csr.CheckSignature(); err != nil {
		return nil, fmt.Errorf("pki: sign request: %w", err)
	}
	return signPublic(template, csr.PublicKey, p)
}

// sign completes t and signs it for key with the authority by.
func sign(t *x509.Certificate, key crypto.Signer, by *Pair) (*Pair, error) {
	cert, err := signPublic(t, key.Public(), by)
	if err != nil {
		return nil, err
	}
	return &Pair{Cert: cert, Key: key}, nil
}

func signPublic(t *x509.Certificate, public crypto.PublicKey, by *Pair) (*x509.Certificate, error) {
	serial, err := rand.Int(rand.Reader, big.NewInt(math.MaxInt64-1))
	if err != nil {
		return nil, fmt.Errorf("pki: serial: %w", err)
	}
	t.SerialNumber = serial.Add(serial, big.NewInt(1))
	if t.SubjectKeyId, err = keyID(public); err != nil {
		return nil, err
	}
	if by.Cert != t && t.NotAfter.After(by.Cert.NotAfter) {
		t.NotAfter = by.Cert.NotAfter
	}
	der, err := x509.CreateCertificate(rand.Reader, t, by.Cert, public, by.Key)
	if err != nil {
		return nil, fmt.Errorf("pki: sign %s: %w", t.Subject, err)
	}
	return x509.ParseCertificate(der)
}

func keyID(public crypto.PublicKey) ([]byte, error) {
	der, err := x509.MarshalPKIXPublicKey(public)
	if err != nil {
		return nil, fmt.Errorf("pki: key id: %w", err)
	}
	sum := sha1.Sum(der) //nolint:gosec // not a signature
	return sum[:], nil
}

// Matches says whether the pair's two halves belong together.
func (p *Pair) Matches() error {
	type comparable interface{ Equal(crypto.PublicKey) bool }
	public, ok := p.Cert.PublicKey.(comparable)
	if !ok || !public.Equal(p.Key.Public()) {
		return errors.New("pki: private key does not match public key")
	}
	return nil
}
