package pki

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// PEM block types.
const (
	certBlock   = "CERTIFICATE"
	csrBlock    = "CERTIFICATE REQUEST"
	rsaBlock    = "RSA PRIVATE KEY"
	ecBlock     = "EC PRIVATE KEY"
	pkcs8Block  = "PRIVATE KEY"
	publicBlock = "PUBLIC KEY"
	rsaPubBlock = "RSA PUBLIC KEY"
)

// EncodeCerts returns certificates as PEM, in order.
func EncodeCerts(certs ...*x509.Certificate) []byte {
	var out []byte
	for _, c := range certs {
		out = append(out, pem.EncodeToMemory(&pem.Block{Type: certBlock, Bytes: c.Raw})...)
	}
	return out
}

// EncodeKey returns a private key as PEM, in the form kubeadm writes.
func EncodeKey(key crypto.Signer) ([]byte, error) {
	switch k := key.(type) {
	case *rsa.PrivateKey:
		return pem.EncodeToMemory(&pem.Block{Type: rsaBlock, Bytes: x509.MarshalPKCS1PrivateKey(k)}), nil
	case *ecdsa.PrivateKey:
		der, err := x509.MarshalECPrivateKey(k)
		if err != nil {
			return nil, fmt.Errorf("pki: encode key: %w", err)
		}
		return pem.EncodeToMemory(&pem.Block{Type: ecBlock, Bytes: der}), nil
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, fmt.Errorf("pki: encode key: %w", err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: pkcs8Block, Bytes: der}), nil
}

// EncodePublic returns a public key as PEM.
func EncodePublic(key crypto.PublicKey) ([]byte, error) {
	der, err := x509.MarshalPKIXPublicKey(key)
	if err != nil {
		return nil, fmt.Errorf("pki: encode public key: %w", err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: publicBlock, Bytes: der}), nil
}

// EncodeRequest returns a signing request for key as PEM.
func EncodeRequest(der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: csrBlock, Bytes: der})
}

// DecodeCerts reads all certificates of a PEM text; other blocks are skipped.
func DecodeCerts(text []byte) ([]*x509.Certificate, error) {
	var certs []*x509.Certificate
	for {
		var b *pem.Block
		if b, text = pem.Decode(text); b == nil {
			break
		}
		if b.Type != certBlock {
			continue
		}
		c, err := x509.ParseCertificate(b.Bytes)
		if err != nil {
			return nil, fmt.Errorf("pki: parse certificate: %w", err)
		}
		certs = append(certs, c)
	}
	if len(certs) == 0 {
		return nil, errors.New("pki: data does not contain any valid certificates")
	}
	return certs, nil
}

// DecodeRequest reads a certificate signing request.
func DecodeRequest(text []byte) (*x509.CertificateRequest, error) {
	b, _ := pem.Decode(text)
	if b == nil || b.Type != csrBlock {
		return nil, errors.New("PEM block type must be CERTIFICATE REQUEST")
	}
	return x509.ParseCertificateRequest(b.Bytes)
}

// DecodeKey reads the first private key of a PEM text.
func DecodeKey(text []byte) (crypto.Signer, error) {
	for {
		var b *pem.Block
		if b, text = pem.Decode(text); b == nil {
			return nil, errors.New("pki: data does not contain a valid private key")
		}
		switch b.Type {
		case rsaBlock:
			return x509.ParsePKCS1PrivateKey(b.Bytes)
		case ecBlock:
			return x509.ParseECPrivateKey(b.Bytes)
		case pkcs8Block:
			k, err := x509.ParsePKCS8PrivateKey(b.Bytes)
			if err != nil {
				return nil, fmt.Errorf("pki: parse key: %w", err)
			}
			if s, ok := k.(crypto.Signer); ok {
				return s, nil
			}
			return nil, fmt.Errorf("pki: parse key: %T cannot sign", k)
		}
	}
}

// DecodePublics reads all public keys of a PEM text; those of private keys and
// certificates count too, as upstream's --service-account-key-file reads them.
func DecodePublics(text []byte) ([]crypto.PublicKey, error) {
	var keys []crypto.PublicKey
	for {
		b, rest := pem.Decode(text)
		if b == nil {
			break
		}
		var k crypto.PublicKey
		var err error
		switch b.Type {
		case publicBlock:
			k, err = x509.ParsePKIXPublicKey(b.Bytes)
		case rsaPubBlock:
			k, err = x509.ParsePKCS1PublicKey(b.Bytes)
		case certBlock:
			var c *x509.Certificate
			if c, err = x509.ParseCertificate(b.Bytes); err == nil {
				k = c.PublicKey
			}
		case rsaBlock, ecBlock, pkcs8Block:
			var s crypto.Signer
			if s, err = DecodeKey(pem.EncodeToMemory(b)); err == nil {
				k = s.Public()
			}
		}
		if err != nil {
			return nil, fmt.Errorf("pki: parse public key: %w", err)
		}
		if k != nil {
			keys = append(keys, k)
		}
		text = rest
	}
	if len(keys) == 0 {
		return nil, errors.New("pki: data does not contain any valid RSA or ECDSA public keys")
	}
	return keys, nil
}

// Load reads NAME.crt and NAME.key in dir.
func Load(dir, name string) (*Pair, error) {
	return LoadFiles(filepath.Join(dir, name+".crt"), filepath.Join(dir, name+".key"))
}

// LoadFiles reads a pair from two files.
func LoadFiles(certFile, keyFile string) (*Pair, error) {
	certText, err := os.ReadFile(certFile)
	if err != nil {
		return nil, err
	}
	keyText, err := os.ReadFile(keyFile)
	if err != nil {
		return nil, err
	}
	certs, err := DecodeCerts(certText)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", certFile, err)
	}
	key, err := DecodeKey(keyText)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", keyFile, err)
	}
	p := &Pair{Cert: certs[0], Key: key}
	if err := p.Matches(); err != nil {
		return nil, fmt.Errorf("%s: %w", certFile, err)
	}
	return p, nil
}

// Save writes NAME.crt and NAME.key in dir, which is made if missing.
func (p *Pair) Save(dir, name string) error {
	key, err := p.KeyPEM()
	if err != nil {
		return err
	}
	if err := WriteFile(filepath.Join(dir, name+".key"), key, 0o600); err != nil {
		return err
	}
	return WriteFile(filepath.Join(dir, name+".crt"), p.CertPEM(), 0o644)
}

// LoadOrMake returns the pair saved as NAME in dir, or saves the one mk makes.
func LoadOrMake(dir, name string, mk func() (*Pair, error)) (*Pair, error) {
	p, err := Load(dir, name)
	if err == nil || !errors.Is(err, fs.ErrNotExist) {
		return p, err
	}
	if p, err = mk(); err != nil {
		return nil, err
	}
	return p, p.Save(dir, name)
}

// SaveSigner writes a bare key pair, as service account keys are kept: NAME.key and NAME.pub.
func SaveSigner(key crypto.Signer, dir, name string) error {
	private, err := EncodeKey(key)
	if err != nil {
		return err
	}
	public, err := EncodePublic(key.Public())
	if err != nil {
		return err
	}
	if err := WriteFile(filepath.Join(dir, name+".key"), private, 0o600); err != nil {
		return err
	}
	return WriteFile(filepath.Join(dir, name+".pub"), public, 0o644)
}

// LoadSigner reads a private key file.
func LoadSigner(file string) (crypto.Signer, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	k, err := DecodeKey(text)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	return k, nil
}

// WriteFile replaces a file at once; its directories are made when missing.
func WriteFile(file string, data []byte, mode fs.FileMode) error {
	dirMode := fs.FileMode(0o755)
	if err := os.MkdirAll(filepath.Dir(file), dirMode); err != nil {
		return err
	}
	f, err := os.CreateTemp(filepath.Dir(file), "."+filepath.Base(file)+".*")
	if err != nil {
		return err
	}
	tmp := f.Name()
	_, err = f.Write(data)
	err = errors.Join(err, f.Chmod(mode), f.Sync(), f.Close())
	if err == nil {
		err = os.Rename(tmp, file)
	}
	if err != nil {
		return errors.Join(err, os.Remove(tmp))
	}
	return nil
}

// Hash returns kubeadm's discovery-token-ca-cert-hash of a certificate.
func Hash(c *x509.Certificate) string {
	sum := sha256.Sum256(c.RawSubjectPublicKeyInfo)
	return "sha256:" + hex.EncodeToString(sum[:])
}

// KeyID names a public key in tokens and key sets, as upstream does.
func KeyID(key crypto.PublicKey) (string, error) {
	der, err := x509.MarshalPKIXPublicKey(key)
	if err != nil {
		return "", fmt.Errorf("pki: key id: %w", err)
	}
	sum := sha256.Sum256(der)
	return base64.RawURLEncoding.EncodeToString(sum[:]), nil
}
