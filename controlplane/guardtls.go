package controlplane

import (
	"crypto/tls"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/sampan-dev/sampan/apiserver"
	"github.com/sampan-dev/sampan/kit/pki"
)

// TLS limits how clients may connect. The fields are flags of upstream's.
type TLS struct {
	MinVersion string   // VersionTLS10 … VersionTLS13; "" is 1.2
	Ciphers    []string // IANA names; none is Go's choice
	// SNI are further certificates, "cert,key" or "cert,key:name,*.name", for
	// clients that ask for a name; without names those in the certificate.
	SNI []string
}

var tlsVersions = map[string]uint16{
	"VersionTLS10": tls.VersionTLS10, "VersionTLS11": tls.VersionTLS11, "VersionTLS12": tls.VersionTLS12, "VersionTLS13": tls.VersionTLS13,
}

// apply puts the options into how the API is served.
func (t *TLS) apply(s *apiserver.Config) error {
	if t.MinVersion != "" {
		v, ok := tlsVersions[t.MinVersion]
		if !ok {
			return fmt.Errorf("--tls-min-version: unknown tls version %q, want one of %s", t.MinVersion, strings.Join(slices.Sorted(maps.Keys(tlsVersions)), ", "))
		}
		s.MinVersion = v
	}
	suites := map[string]uint16{}
	for _, c := range slices.Concat(tls.CipherSuites(), tls.InsecureCipherSuites()) {
		suites[c.Name] = c.ID
	}
	for _, name := range t.Ciphers {
		id, ok := suites[name]
		if !ok {
			return fmt.Errorf("--tls-cipher-suites: Cipher suite %s not supported or doesn't exist", name)
		}
		s.CipherSuites = append(s.CipherSuites, id)
	}
	return t.names(s)
}

// named certificate is shown to clients that ask for one of its names.
type namedCert struct {
	names []string // none: those in the certificate
	get   func() (*tls.Certificate, error)
}

func (t *TLS) names(s *apiserver.Config) error {
	var certs []namedCert
	for _, spec := range t.SNI {
		files, names, _ := strings.Cut(spec, ":")
		cert, key, ok := strings.Cut(files, ",")
		if !ok || cert == "" || key == "" || strings.Contains(key, ",") {
			return fmt.Errorf("--tls-sni-cert-key: %q: expected comma separated certificate and key file paths", spec)
		}
		n := namedCert{get: pki.Reloaded(cert, key)}
		if names != "" {
			n.names = strings.Split(names, ",")
		}
		if _, err := n.get(); err != nil {
			return fmt.Errorf("--tls-sni-cert-key: %w", err)
		}
		certs = append(certs, n)
	}
	if len(certs) == 0 {
		return nil
	}
	fallback := s.Certificate
	s.Certificate = func(h *tls.ClientHelloInfo) (*tls.Certificate, error) {
		if h.ServerName != "" {
			for _, n := range certs {
				if c, err := n.get(); err == nil && n.fits(c, h.ServerName) {
					return c, nil
				}
			}
		}
		return fallback(h)
	}
	return nil
}

// fits says whether the certificate is for a name.
func (n namedCert) fits(c *tls.Certificate, name string) bool {
	names := n.names
	if len(names) == 0 && c.Leaf != nil {
		names = c.Leaf.DNSNames
		if len(names) == 0 {
			names = []string{c.Leaf.Subject.CommonName}
		}
	}
	name = strings.ToLower(strings.TrimSuffix(name, "."))
	return slices.ContainsFunc(names, func(p string) bool {
		if rest, ok := strings.CutPrefix(p, "*."); ok {
			_, parent, _ := strings.Cut(name, ".")
			return parent == strings.ToLower(rest)
		}
		return strings.ToLower(p) == name
	})
}
