// Package authn says who sends a request.
//
// Job: client certificates, front proxies, bearer tokens of all kinds, the
// anonymous user, impersonation, and the issuing of service account tokens
// with the key set that others verify them by.
//
// Not its job: what a user may do (authz), the TLS handshake (root), the
// TokenRequest and TokenReview endpoints (stream, virtual).
//
// Invariants: the reason a credential was refused is never told to its
// bearer; a token is honoured at most cacheLife after what it is bound to is
// gone, and never after it expired.
package authn

import (
	"context"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sampan-dev/sampan/apiserver/request"
	"github.com/sampan-dev/sampan/kit/clock"
)

// CredentialID is the extra key that names the credential used.
const CredentialID = "authentication.kubernetes.io/credential-id"

// Pool is a set of authorities that can be replaced while in use.
type Pool struct{ p atomic.Pointer[authorities] }

type authorities struct {
	certs []*x509.Certificate
	pool  *x509.CertPool
}

// NewPool returns a pool of certs.
func NewPool(certs ...*x509.Certificate) *Pool {
	p := &Pool{}
	p.Set(certs...)
	return p
}

// Set replaces the authorities.
func (p *Pool) Set(certs ...*x509.Certificate) {
	pool := x509.NewCertPool()
	for _, c := range certs {
		pool.AddCert(c)
	}
	p.p.Store(&authorities{slices.Clone(certs), pool})
}

// Certs are the authorities, not to be modified.
func (p *Pool) Certs() []*x509.Certificate { return p.p.Load().certs }

func (p *Pool) verify(r *http.Request) (*x509.Certificate, error) {
	chain := r.TLS.PeerCertificates
	between := x509.NewCertPool()
	for _, c := range chain[1:] {
		between.AddCert(c)
	}
	_, err := chain[0].Verify(x509.VerifyOptions{
		Roots: p.p.Load().pool, Intermediates: between, CurrentTime: clock.Now(), KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	})
	return chain[0], err
}

func hasCert(r *http.Request) bool { return r.TLS != nil && len(r.TLS.PeerCertificates) > 0 }

// Config chooses the ways to authenticate; nil ones are off.
type Config struct {
	RequestHeader *RequestHeader
	ClientCA      *Pool
	Tokens        []TokenAuthenticator // in order
	Anonymous     bool
	// AnonymousPaths limits anonymous requests to these paths; nil is all.
	AnonymousPaths []string
	// Issuers, when they say something of anonymous requests, have the last word.
	Issuers *Issuers
	// Metrics counts; may be nil.
	Metrics *Metrics
}

// TokenAuthenticator knows one kind of token. ok is false for other kinds.
type TokenAuthenticator interface {
	Token(ctx context.Context, token string, audiences []string) (u *request.User, matched []string, ok bool, err error)
}

// Union is all ways to authenticate, in upstream's order.
type Union struct {
	c      Config
	tokens *tokens
	certs  certs
}

// New returns the union of what c chooses.
func New(c Config) *Union { return &Union{c: c, tokens: newTokens(c.Tokens, c.Metrics)} }

// Authenticate says who sent r. Not ok without error means that no credential
// was shown and anonymous requests are off.
func (u *Union) Authenticate(r *http.Request) (*request.User, bool, error) {
	start := clock.Now()
	user, ok, err := u.authenticate(r)
	u.c.Metrics.asked(user, err, clock.Since(start))
	return user, ok, err
}

func (u *Union) authenticate(r *http.Request) (*request.User, bool, error) {
	var errs []error
	for _, try := range []func(*http.Request) (*request.User, bool, error){u.proxy, u.cert, u.bearer} {
		user, ok, err := try(r)
		if err != nil {
			errs = append(errs, err)
		}
		if ok {
			return authenticated(user), true, nil
		}
	}
	if len(errs) > 0 {
		return nil, false, errors.Join(errs...)
	}
	enabled, paths := u.c.Anonymous, u.c.AnonymousPaths
	if u.c.Issuers != nil {
		if says, e, p := u.c.Issuers.Anonymous(); says {
			enabled, paths = e, p
		}
	}
	if !enabled || paths != nil && !slices.Contains(paths, r.URL.Path) {
		return nil, false, nil
	}
	return &request.User{Name: request.Anonymous, Groups: []string{request.Unauthenticated}}, true, nil
}

// authenticated adds the group of all who showed a credential.
func authenticated(u *request.User) *request.User {
	if slices.Contains(u.Groups, request.Authenticated) || slices.Contains(u.Groups, request.Unauthenticated) {
		return u
	}
	c := *u
	c.Groups = append(slices.Clone(u.Groups), request.Authenticated)
	return &c
}

// Review says whom a token belongs to, for TokenReview.
func (u *Union) Review(ctx context.Context, token string, audiences []string) (*request.User, []string, bool, error) {
	user, matched, ok, err := u.tokens.Token(ctx, token, audiences)
	if ok {
		user = authenticated(user)
	}
	return user, matched, ok, err
}

func (u *Union) cert(r *http.Request) (*request.User, bool, error) {
	if u.c.ClientCA == nil || !hasCert(r) {
		return nil, false, nil
	}
	now := clock.Now()
	if user := u.certs.find(r.TLS.PeerCertificates[0], u.c.ClientCA.p.Load().pool, now); user != nil {
		return user, true, nil
	}
	pool := u.c.ClientCA.p.Load().pool
	c, err := u.c.ClientCA.verify(r)
	if err != nil {
		return nil, false, fmt.Errorf("verifying certificate SN=%d, SKID=%s, AKID=%s failed: %w", c.SerialNumber, hexColons(c.SubjectKeyId), hexColons(c.AuthorityKeyId), err)
	}
	if c.Subject.CommonName == "" {
		return nil, false, nil
	}
	sum := sha256.Sum256(c.Raw)
	user := authenticated(&request.User{
		Name: c.Subject.CommonName, Groups: c.Subject.Organization,
		Extra: map[string][]string{CredentialID: {"X509SHA256=" + hex.EncodeToString(sum[:])}},
	})
	u.certs.keep(c, pool, user, now)
	return user, true, nil
}

// hexColons writes a key's id as other tools do.
func hexColons(b []byte) string {
	parts := make([]string, len(b))
	for i, c := range b {
		parts[i] = fmt.Sprintf("%02X", c)
	}
	return strings.Join(parts, ":")
}

// certs remembers whose certificates were verified: a client sends hundreds of
// requests over one connection, and a verification costs more than most of them.
type certs struct {
	mu    sync.RWMutex
	pool  *x509.CertPool // what the entries were verified by
	known map[string]knownCert
}

type knownCert struct {
	user  *request.User
	until time.Time
}

// certLife bounds how long a verification counts, for authorities within the
// chain that expire before the certificate.
const certLife = time.Minute

func (k *certs) find(c *x509.Certificate, pool *x509.CertPool, now time.Time) *request.User {
	k.mu.RLock()
	defer k.mu.RUnlock()
	if e, ok := k.known[string(c.Raw)]; ok && k.pool == pool && now.Before(e.until) {
		return e.user
	}
	return nil
}

func (k *certs) keep(c *x509.Certificate, pool *x509.CertPool, user *request.User, now time.Time) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.pool != pool || len(k.known) >= cacheSize {
		k.pool, k.known = pool, map[string]knownCert{}
	}
	until := now.Add(certLife)
	if c.NotAfter.Before(until) {
		until = c.NotAfter
	}
	k.known[string(c.Raw)] = knownCert{user, until}
}

// webSocketToken is the subprotocol that carries a bearer token for browsers.
const webSocketToken = "base64url.bearer.authorization.k8s.io."

func (u *Union) bearer(r *http.Request) (*request.User, bool, error) {
	scheme, token, _ := strings.Cut(strings.TrimSpace(r.Header.Get("Authorization")), " ")
	token = strings.TrimSpace(token)
	if strings.EqualFold(scheme, "basic") {
		return nil, false, errors.New("basic authentication was removed in v1.19: use a token or a client certificate")
	}
	if strings.EqualFold(scheme, "bearer") && token != "" {
		user, _, ok, err := u.tokens.Token(r.Context(), token, nil)
		if ok {
			r.Header.Del("Authorization") // nobody behind needs to see it
		}
		if !ok && err == nil {
			err = errors.New("invalid bearer token")
		}
		return user, ok, err
	}
	return u.socket(r)
}

func (u *Union) socket(r *http.Request) (*request.User, bool, error) {
	if !strings.EqualFold(r.Header.Get("Upgrade"), "websocket") {
		return nil, false, nil
	}
	var token string
	var rest []string
	for _, line := range r.Header.Values("Sec-WebSocket-Protocol") {
		for p := range strings.SplitSeq(line, ",") {
			p = strings.TrimSpace(p)
			coded, is := strings.CutPrefix(p, webSocketToken)
			if !is {
				rest = append(rest, p)
				continue
			}
			if token != "" {
				return nil, false, errors.New("multiple base64.bearer.authorization tokens specified")
			}
			raw, err := base64.RawURLEncoding.DecodeString(coded)
			if err != nil {
				return nil, false, errors.New("invalid base64.bearer.authorization token encoding")
			}
			token = string(raw)
		}
	}
	if token == "" {
		return nil, false, nil
	}
	if len(rest) == 0 {
		return nil, false, errors.New("missing additional subprotocol")
	}
	user, _, ok, err := u.tokens.Token(r.Context(), token, nil)
	if !ok && err == nil {
		err = errors.New("invalid bearer token")
	}
	if ok {
		r.Header.Set("Sec-WebSocket-Protocol", strings.Join(rest, ","))
	}
	return user, ok, err
}

// RequestHeader trusts a front proxy, known by its certificate, to name users.
type RequestHeader struct {
	CA                          *Pool
	AllowedNames                []string // common names; empty allows all
	UserHeaders, UIDHeaders     []string
	GroupHeaders, ExtraPrefixes []string
}

func (u *Union) proxy(r *http.Request) (*request.User, bool, error) {
	h := u.c.RequestHeader
	if h == nil || !hasCert(r) {
		return nil, false, nil
	}
	// Looked at first: nearly nobody is a front proxy, and a chain costs 80 µs to verify.
	name := firstOf(r.Header, h.UserHeaders)
	if name == "" {
		return nil, false, nil
	}
	c, err := h.CA.verify(r)
	if err != nil {
		return nil, false, nil // not a front proxy; perhaps a client of ours
	}
	if len(h.AllowedNames) > 0 && !slices.Contains(h.AllowedNames, c.Subject.CommonName) {
		return nil, false, fmt.Errorf("x509: subject with cn=%s is not in the allowed list", c.Subject.CommonName)
	}
	user := &request.User{Name: name, UID: firstOf(r.Header, h.UIDHeaders), Extra: map[string][]string{}}
	for _, k := range h.GroupHeaders {
		user.Groups = append(user.Groups, r.Header.Values(k)...)
	}
	for _, prefix := range h.ExtraPrefixes {
		readExtra(r.Header, prefix, user.Extra)
	}
	for _, k := range slices.Concat(h.UserHeaders, h.UIDHeaders, h.GroupHeaders) {
		r.Header.Del(k)
	}
	for k := range r.Header {
		if slices.ContainsFunc(h.ExtraPrefixes, func(p string) bool { return hasPrefixFold(k, p) }) {
			delete(r.Header, k)
		}
	}
	return user, true, nil
}

func firstOf(h http.Header, keys []string) string {
	for _, k := range keys {
		if v := h.Get(k); v != "" {
			return v
		}
	}
	return ""
}

func hasPrefixFold(s, prefix string) bool {
	return len(s) >= len(prefix) && strings.EqualFold(s[:len(prefix)], prefix)
}

// readExtra collects the headers below prefix; their names are lower-cased and
// percent-decoded.
func readExtra(h http.Header, prefix string, into map[string][]string) {
	for k, v := range h {
		if !hasPrefixFold(k, prefix) {
			continue
		}
		name := strings.ToLower(k[len(prefix):])
		if plain, err := url.PathUnescape(name); err == nil {
			name = plain
		}
		into[name] = append(into[name], v...)
	}
}
