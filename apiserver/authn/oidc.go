package authn

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/coreos/go-oidc/v3/oidc"
	apiserverconfig "k8s.io/apiserver/pkg/apis/apiserver"
	"k8s.io/apiserver/pkg/apis/apiserver/validation"
	authncel "k8s.io/apiserver/pkg/authentication/cel"

	"github.com/sampan-dev/sampan/apiserver/request"
	"github.com/sampan-dev/sampan/kit/backoff"
	"github.com/sampan-dev/sampan/kit/clock"
)

// SigningAlgorithms are all that OIDC tokens may be signed by.
func SigningAlgorithms() []string {
	return []string{
		oidc.RS256, oidc.RS384, oidc.RS512, oidc.ES256, oidc.ES384, oidc.ES512, oidc.PS256, oidc.PS384, oidc.PS512,
	}
}

// JWTOptions are what an issuer's tokens are verified with, beyond its own
// configuration.
type JWTOptions struct {
	Algorithms []string // "" is RS256 and all others
	// Disallowed are issuers that no configuration may name: the server's own.
	Disallowed []string
	// Dial reaches issuers; nil is the ordinary network.
	Dial func(ctx context.Context, network, address string) (net.Conn, error)
	Log  *slog.Logger
}

// JWT knows the tokens of one issuer of OpenID Connect.
type JWT struct {
	c      apiserverconfig.JWTAuthenticator
	cel    authncel.CELMapper
	need   map[string]string // claims that must have a value
	algs   []string
	client *http.Client
	log    *slog.Logger

	// provider is what the issuer said of itself, and its keys; nil until it answered.
	provider atomic.Pointer[oidc.Provider]
	failed   atomic.Pointer[error]
	others   sync.Map // of distributed claims' issuers: *oidc.Provider by URL
}

// NewJWT checks a configuration. Run makes it work.
func NewJWT(c apiserverconfig.JWTAuthenticator, o JWTOptions) (*JWT, error) {
	mapper, errs := validation.CompileAndValidateJWTAuthenticator(authncel.NewDefaultCompiler(), c, o.Disallowed)
	if err := errs.ToAggregate(); err != nil {
		return nil, err
	}
	if len(o.Algorithms) == 0 {
		o.Algorithms = SigningAlgorithms()
	}
	for _, alg := range o.Algorithms {
		if !slices.Contains(SigningAlgorithms(), alg) {
			return nil, fmt.Errorf("oidc: unsupported signing alg: %q", alg)
		}
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Dial == nil {
		o.Dial = (&net.Dialer{Timeout: issuerTimeout}).DialContext
	}
	a := &JWT{c: c, cel: mapper, need: map[string]string{}, algs: o.Algorithms, log: o.Log}
	for _, r := range c.ClaimValidationRules {
		if r.Claim != "" {
			a.need[r.Claim] = r.RequiredValue
		}
	}
	t := &http.Transport{
		DialContext: o.Dial, Proxy: http.ProxyFromEnvironment, TLSHandshakeTimeout: issuerTimeout, ForceAttemptHTTP2: true, MaxIdleConns: 2,
		IdleConnTimeout: time.Minute, TLSClientConfig: &tls.Config{MinVersion: tls.VersionTLS12},
	}
	if c.Issuer.CertificateAuthority != "" {
		pool := x509.NewCertPool()
		if !pool.AppendCertsFromPEM([]byte(c.Issuer.CertificateAuthority)) {
			return nil, errors.New("oidc: the issuer's certificate authority cannot be read")
		}
		t.TLSClientConfig.RootCAs = pool
	}
	a.client = &http.Client{Transport: t, Timeout: issuerTimeout}
	if c.Issuer.DiscoveryURL != "" {
		u, err := url.Parse(c.Issuer.DiscoveryURL)
		if err != nil {
			return nil, fmt.Errorf("oidc: discovery URL: %w", err)
		}
		a.client.Transport = &elsewhere{t, strings.TrimSuffix(c.Issuer.URL, "/") + wellKnown, u}
	}
	return a, nil
}

const (
	issuerTimeout = 30 * time.Second
	wellKnown     = "/.well-known/openid-configuration"
)

// elsewhere gets an issuer's description from another place than the standard's.
type elsewhere struct {
	http.RoundTripper
	usual string
	at    *url.URL
}

func (e *elsewhere) RoundTrip(r *http.Request) (*http.Response, error) {
	if r.Method == http.MethodGet && r.URL.String() == e.usual {
		r = r.Clone(r.Context())
		r.Host, r.URL = "", e.at
	}
	return e.RoundTripper.RoundTrip(r)
}

// Run asks the issuer to describe itself until it has; it keeps serving without.
func (a *JWT) Run(ctx context.Context) error {
	again := backoff.Policy{First: time.Second, Max: time.Minute}
	defer a.client.CloseIdleConnections()
	// The provider's keys are fetched with this context later on.
	keys := oidc.ClientContext(context.WithoutCancel(ctx), a.client)
	for n := 1; ; n++ {
		p, err := oidc.NewProvider(keys, a.c.Issuer.URL)
		if err == nil {
			a.provider.Store(p)
			a.failed.Store(nil)
			<-ctx.Done()
			return nil
		}
		a.failed.Store(&err)
		a.log.Warn("oidc: initializing verifier", "issuer", a.c.Issuer.URL, "err", err)
		if clock.Sleep(ctx, again.After(n)) != nil {
			return nil
		}
	}
}

// Healthy says whether the issuer has been reached.
func (a *JWT) Healthy() error {
	if a.provider.Load() != nil {
		return nil
	}
	if err := a.failed.Load(); err != nil {
		return fmt.Errorf("oidc: authenticator for issuer %q is not initialized: %w", a.c.Issuer.URL, *err)
	}
	return fmt.Errorf("oidc: authenticator for issuer %q is not initialized", a.c.Issuer.URL)
}

// issuerOf reads who a token says it is from, without believing it.
func issuerOf(token string) string {
	_, rest, ok := strings.Cut(token, ".")
	body, sig, ok2 := strings.Cut(rest, ".")
	if !ok || !ok2 || strings.Contains(sig, ".") {
		return ""
	}
	data, err := base64.RawURLEncoding.DecodeString(body)
	if err != nil {
		return ""
	}
	var c struct {
		Issuer string `json:"iss"`
	}
	if json.Unmarshal(data, &c) != nil {
		return ""
	}
	if c.Issuer == "accounts.google.com" { // as Google once wrote itself
		return "https://accounts.google.com"
	}
	return c.Issuer
}

// Token verifies a token of the issuer and maps its claims to a user.
func (a *JWT) Token(ctx context.Context, token string, audiences []string) (*request.User, []string, bool, error) {
	if issuerOf(token) != a.c.Issuer.URL {
		return nil, nil, false, nil
	}
	p := a.provider.Load()
	if p == nil {
		return nil, nil, false, errors.New("oidc: authenticator not initialized")
	}
	c, err := a.verify(ctx, p, token)
	if err != nil {
		return nil, nil, false, fmt.Errorf("oidc: verify token: %w", err)
	}
	if err := a.expand(ctx, c); err != nil {
		return nil, nil, false, fmt.Errorf("oidc: could not expand distributed claims: %w", err)
	}
	u, err := a.user(ctx, c)
	if err != nil {
		return nil, nil, false, fmt.Errorf("oidc: %w", err)
	}
	return u, audiences, true, nil
}

// verify checks signature, time and audience, and returns the claims.
func (a *JWT) verify(ctx context.Context, p *oidc.Provider, token string) (claimSet, error) {
	v := p.VerifierContext(oidc.ClientContext(ctx, a.client), &oidc.Config{SkipClientIDCheck: true, SupportedSigningAlgs: a.algs, Now: clock.Now})
	id, err := v.Verify(ctx, token)
	if err != nil {
		return nil, err
	}
	if !slices.ContainsFunc(id.Audience, func(s string) bool { return slices.Contains(a.c.Issuer.Audiences, s) }) {
		return nil, fmt.Errorf("oidc: expected audience in %q got %q", a.c.Issuer.Audiences, id.Audience)
	}
	var c claimSet
	if err := id.Claims(&c); err != nil {
		return nil, fmt.Errorf("oidc: parse claims: %w", err)
	}
	return c, nil
}

func (a *JWT) expires(token string) time.Time {
	parts := strings.Split(token, ".")
	if len(parts) != 3 {
		return time.Time{}
	}
	var c struct {
		Exp float64 `json:"exp"`
	}
	data, err := base64.RawURLEncoding.DecodeString(parts[1])
	if err != nil || json.Unmarshal(data, &c) != nil || c.Exp <= 0 {
		return time.Time{}
	}
	return time.Unix(int64(c.Exp), 0)
}

// claimSet are the claims of a token, each as it was written.
type claimSet map[string]json.RawMessage

func (c claimSet) read(name string, into any) error {
	raw, ok := c[name]
	if !ok {
		return errors.New("claim not present")
	}
	return json.Unmarshal(raw, into)
}

// texts reads a claim that is one text or several.
func (c claimSet) texts(name string) ([]string, error) {
	var many []string
	if err := c.read(name, &many); err == nil {
		return many, nil
	}
	var one string
	if err := c.read(name, &one); err != nil {
		return nil, err
	}
	return []string{one}, nil
}

// expand fetches the groups from where a token says they are.
func (a *JWT) expand(ctx context.Context, c claimSet) error {
	name := a.c.ClaimMappings.Groups.Claim
	if _, has := c[name]; has || name == "" {
		return nil
	}
	var names map[string]string
	var sources map[string]struct {
		URL         string `json:"endpoint"`
		AccessToken string `json:"access_token"`
	}
	if c["_claim_names"] == nil || c["_claim_sources"] == nil {
		return nil
	}
	if err := errors.Join(c.read("_claim_names", &names), c.read("_claim_sources", &sources)); err != nil {
		return fmt.Errorf("parsing distributed claims: %w", err)
	}
	src, ok := names[name]
	if !ok {
		return nil
	}
	from, ok := sources[src]
	if !ok {
		return fmt.Errorf("id token _claim_names contained a source %s missing in _claims_sources", src)
	}
	if from.URL == "" {
		return nil // an aggregated claim: not supported, as upstream
	}
	token, err := a.get(ctx, from.URL, from.AccessToken)
	if err != nil {
		return fmt.Errorf("while getting distributed claim %q: %w", name, err)
	}
	p, err := a.issuer(ctx, issuerOf(token))
	if err != nil {
		return err
	}
	got, err := a.verify(ctx, p, token)
	if err != nil {
		return fmt.Errorf("verify distributed claim token: %w", err)
	}
	value, ok := got[name]
	if !ok {
		return fmt.Errorf("jwt returned by distributed claim endpoint %q did not contain claim: %v", from.URL, name)
	}
	c[name] = value
	return nil
}

// issuer returns the provider of a distributed claim's issuer.
func (a *JWT) issuer(ctx context.Context, name string) (*oidc.Provider, error) {
	if name == a.c.Issuer.URL {
		return a.provider.Load(), nil
	}
	if p, ok := a.others.Load(name); ok {
		return p.(*oidc.Provider), nil
	}
	p, err := oidc.NewProvider(oidc.ClientContext(context.WithoutCancel(ctx), a.client), name)
	if err != nil {
		return nil, fmt.Errorf("verifying untrusted issuer %v failed: %w", name, err)
	}
	a.others.Store(name, p)
	return p, nil
}

// maxClaim bounds what is read of a distributed claim.
const maxClaim = 1 << 20

func (a *JWT) get(ctx context.Context, from, bearer string) (string, error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, from, nil)
	if err != nil {
		return "", err
	}
	if bearer != "" {
		r.Header.Set("Authorization", "Bearer "+bearer)
	}
	resp, err := a.client.Do(r)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	body, err := readLimited(resp.Body, maxClaim)
	if err != nil {
		return "", err
	}
	if resp.StatusCode < 200 || resp.StatusCode > 299 {
		return "", fmt.Errorf("error while getting distributed claim JWT: %v", resp.Status)
	}
	return string(body), nil
}
