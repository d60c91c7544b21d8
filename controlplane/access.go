package controlplane

import (
	"context"
	"crypto"
	"crypto/x509"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	apiserverconfig "k8s.io/apiserver/pkg/apis/apiserver"

	"github.com/sampan-dev/sampan/apiserver/authn"
	"github.com/sampan-dev/sampan/apiserver/authz"
	"github.com/sampan-dev/sampan/apiserver/request"
	"github.com/sampan-dev/sampan/client"
	"github.com/sampan-dev/sampan/controller"
	"github.com/sampan-dev/sampan/controller/serviceaccounttoken"
	"github.com/sampan-dev/sampan/kit/pki"
	"github.com/sampan-dev/sampan/kit/run"
)

// Access says who is believed and who decides, beyond the authorities and modes
// of Config. Zero fields mean upstream's defaults.
type Access struct {
	// Of service accounts' tokens: the first issuer signs, all are accepted.
	Issuers      []string
	AccountKeys  []crypto.PublicKey // accepted beside the signing key's
	Audiences    []string           // of this server; nil is the issuers
	JWKSURI      string
	MaxTokenLife time.Duration
	ExactTokens  bool // never give mounted tokens a longer life than asked for
	// NoBootstrapTokens does not know the tokens by which nodes join.
	NoBootstrapTokens bool

	// Of front proxies.
	FrontProxyCAs                         []*x509.Certificate // beside Config.FrontProxyCA
	AllowedNames                          []string            // nil is front-proxy-client; empty is any
	UserHeaders, UIDHeaders, GroupHeaders []string
	ExtraPrefixes                         []string

	// ClientCAs are accepted beside Config.ClientCA.
	ClientCAs []*x509.Certificate
	// ClientCAFile and FrontProxyCAFile are where these authorities come from; the
	// files are followed while the server runs.
	ClientCAFile, FrontProxyCAFile string

	OIDC OIDC
	// AuthenticationConfig is a file of kind AuthenticationConfiguration, followed
	// while the server runs.
	AuthenticationConfig string
	// TokenWebhook is a kubeconfig of a service that knows tokens.
	TokenWebhook        string
	TokenWebhookVersion string
	TokenWebhookTTL     time.Duration

	// AuthorizationConfig is a file of kind AuthorizationConfiguration, followed
	// while the server runs; it stands in for the modes.
	AuthorizationConfig                          string
	PolicyFile                                   string // of mode ABAC
	Webhook                                      string // kubeconfig, of mode Webhook
	WebhookVersion                               string
	WebhookAuthorizedTTL, WebhookUnauthorizedTTL *time.Duration

	// read are the contents of the files as they were first read.
	read struct{ authentication, authorization []byte }
	// Who signs certificates of clients and of front proxies, now.
	clients, proxies *authn.Pool
}

// OIDC is one issuer of OpenID Connect, as flags name it.
type OIDC struct {
	IssuerURL, ClientID, CAFile   string
	UsernameClaim, UsernamePrefix string
	GroupsClaim, GroupsPrefix     string
	Algorithms                    []string
	RequiredClaims                map[string]string
}

// issuers are those of service accounts' tokens.
func (c *Config) issuers() []string {
	if len(c.Access.Issuers) > 0 {
		return c.Access.Issuers
	}
	if c.ClusterDomain != "" {
		return []string{"https://kubernetes.default.svc." + c.ClusterDomain}
	}
	return []string{authn.DefaultIssuer}
}

// requestHeader says which front proxies are believed; nil when none is.
func (c *Config) requestHeader() *authn.RequestHeader {
	certs := slices.Clone(c.Access.FrontProxyCAs)
	if c.FrontProxyCA != nil {
		certs = append([]*x509.Certificate{c.FrontProxyCA.Cert}, certs...)
	}
	if len(certs) == 0 {
		return nil
	}
	or := func(list []string, usual string) []string {
		if list == nil {
			return []string{usual}
		}
		return list
	}
	a := &c.Access
	return &authn.RequestHeader{
		CA: authn.NewPool(certs...), AllowedNames: or(a.AllowedNames, "front-proxy-client"),
		UserHeaders: or(a.UserHeaders, "X-Remote-User"), UIDHeaders: or(a.UIDHeaders, "X-Remote-Uid"),
		GroupHeaders: or(a.GroupHeaders, "X-Remote-Group"), ExtraPrefixes: or(a.ExtraPrefixes, "X-Remote-Extra-"),
	}
}

// frontProxyPEM are the authorities of front proxies, for others to know.
func (c *Config) frontProxyPEM() []byte {
	certs := slices.Clone(c.Access.FrontProxyCAs)
	if c.FrontProxyCA != nil {
		certs = append([]*x509.Certificate{c.FrontProxyCA.Cert}, certs...)
	}
	return pki.EncodeCerts(certs...)
}

func (c *Config) clientCAs() []*x509.Certificate {
	return append([]*x509.Certificate{c.ClientCA.Cert}, c.Access.ClientCAs...)
}

// authenticators makes what tells who asks, in upstream's order.
func (g *gate) authenticators(cfg *Config, deps Deps) error {
	a := &cfg.Access
	metrics := authn.NewMetrics(deps.Metrics)
	var err error
	g.accounts, err = authn.NewAccounts(authn.AccountsConfig{
		Issuers: cfg.issuers(), Audiences: a.Audiences, Key: cfg.AccountKey, Verify: a.AccountKeys, JWKSURI: a.JWKSURI, Metrics: deps.Metrics,
	}, g.back)
	if err != nil {
		return err
	}
	audiences := g.accounts.Audiences()
	var tokens []authn.TokenAuthenticator
	if cfg.TokenFile != "" {
		static, err := staticTokens(cfg.TokenFile)
		if err != nil {
			return fmt.Errorf("--token-auth-file: %w", err)
		}
		tokens = append(tokens, authn.Agnostic(static, audiences))
	}
	tokens = append(tokens, g.accounts)
	if !a.NoBootstrapTokens {
		tokens = append(tokens, authn.Agnostic(&authn.Bootstrap{Back: g.back}, audiences))
	}
	if g.issuers, err = cfg.openID(deps, metrics); err != nil {
		return err
	}
	if g.issuers != nil {
		tokens = append(tokens, authn.Agnostic(g.issuers, audiences))
	}
	if a.TokenWebhook != "" {
		url, c, err := client.Webhook(a.TokenWebhook)
		if err != nil {
			return fmt.Errorf("--authentication-token-webhook-config-file: %w", err)
		}
		tokens = append(tokens, &authn.Webhook{URL: url, Client: c, Version: a.TokenWebhookVersion, TTL: a.TokenWebhookTTL, Audiences: audiences})
	}
	proxies := cfg.requestHeader()
	a.clients = authn.NewPool(cfg.clientCAs()...)
	if proxies != nil {
		a.proxies = proxies.CA
	}
	g.authn = authn.New(authn.Config{
		RequestHeader: proxies, ClientCA: a.clients, Tokens: tokens,
		Anonymous: cfg.Anonymous, Issuers: g.issuers, Metrics: metrics,
	})
	return nil
}

func staticTokens(path string) (*authn.Static, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return authn.ReadStatic(f)
}

// openID makes the issuers of OpenID Connect of a file or of flags; nil when
// there are neither.
func (c *Config) openID(deps Deps, metrics *authn.Metrics) (*authn.Issuers, error) {
	a := &c.Access
	o := authn.JWTOptions{Algorithms: a.OIDC.Algorithms, Disallowed: c.issuers(), Log: deps.Log}
	switch {
	case a.AuthenticationConfig != "" && a.OIDC.IssuerURL != "":
		return nil, errors.New("authentication-config file and oidc-* flags are mutually exclusive")
	case a.AuthenticationConfig != "":
		data, err := os.ReadFile(a.AuthenticationConfig)
		if err != nil {
			return nil, fmt.Errorf("--authentication-config: %w", err)
		}
		conf, err := authn.ReadConfiguration(data)
		if err != nil {
			return nil, fmt.Errorf("--authentication-config: %w", err)
		}
		o.Algorithms = nil
		issuers, err := authn.NewIssuers(conf, o, metrics)
		if err != nil {
			return nil, fmt.Errorf("--authentication-config: %w", err)
		}
		c.Access.read.authentication = data
		return issuers, nil
	case a.OIDC.IssuerURL != "":
		conf, err := a.OIDC.configuration()
		if err != nil {
			return nil, err
		}
		if len(o.Algorithms) == 0 {
			o.Algorithms = []string{"RS256"}
		}
		return authn.NewIssuers(conf, o, metrics)
	}
	return nil, nil
}

// CheckAnonymous refuses a configuration that speaks of anonymous requests beside
// the flag that does.
func CheckAnonymous(data []byte) error {
	conf, err := authn.ReadConfiguration(data)
	if err != nil {
		return fmt.Errorf("--authentication-config: %w", err)
	}
	if conf.Anonymous != nil {
		return errors.New("--anonymous-auth flag cannot be set when anonymous field is configured in authentication configuration file")
	}
	return nil
}

// configuration is what the flags stand for.
func (o *OIDC) configuration() (*apiserverconfig.AuthenticationConfiguration, error) {
	j := apiserverconfig.JWTAuthenticator{Issuer: apiserverconfig.Issuer{URL: o.IssuerURL, Audiences: []string{o.ClientID}}}
	if o.CAFile != "" {
		ca, err := os.ReadFile(o.CAFile)
		if err != nil {
			return nil, fmt.Errorf("--oidc-ca-file: %w", err)
		}
		j.Issuer.CertificateAuthority = string(ca)
	}
	claim := o.UsernameClaim
	if claim == "" {
		claim = "sub"
	}
	prefix := o.UsernamePrefix
	switch {
	case prefix == "-":
		prefix = ""
	case prefix == "" && claim != "email":
		prefix = o.IssuerURL + "#" // so that users of issuers do not pass as others
	}
	j.ClaimMappings.Username = apiserverconfig.PrefixedClaimOrExpression{Claim: claim, Prefix: &prefix}
	if o.GroupsClaim != "" {
		j.ClaimMappings.Groups = apiserverconfig.PrefixedClaimOrExpression{Claim: o.GroupsClaim, Prefix: &o.GroupsPrefix}
	}
	for _, name := range slices.Sorted(maps.Keys(o.RequiredClaims)) {
		j.ClaimValidationRules = append(j.ClaimValidationRules, apiserverconfig.ClaimValidationRule{Claim: name, RequiredValue: o.RequiredClaims[name]})
	}
	return &apiserverconfig.AuthenticationConfiguration{JWT: []apiserverconfig.JWTAuthenticator{j}}, nil
}

// authorizers makes what tells who may, of a file or of modes.
func (g *gate) authorizers(cfg *Config, deps Deps) error {
	a := &cfg.Access
	g.rbac, g.node = authz.NewRBAC(g.back), authz.NewNode(g.back)
	parts := authz.Parts{RBAC: g.rbac, Node: g.node, Connect: client.Webhook, Metrics: authz.NewMetrics(deps.Metrics), Log: deps.Log}
	if a.PolicyFile != "" {
		f, err := os.Open(a.PolicyFile)
		if err != nil {
			return fmt.Errorf("--authorization-policy-file: %w", err)
		}
		defer f.Close()
		if parts.ABAC, err = authz.ReadABAC(a.PolicyFile, f); err != nil {
			return err
		}
	}
	conf := authz.FromModes(cfg.AuthorizationModes, a.webhook())
	if a.AuthorizationConfig != "" {
		data, err := os.ReadFile(a.AuthorizationConfig)
		if err != nil {
			return fmt.Errorf("--authorization-config: %w", err)
		}
		if conf, err = authz.ReadConfiguration(data); err != nil {
			return fmt.Errorf("--authorization-config: %w", err)
		}
		a.read.authorization = data
	}
	var err error
	g.authz, err = authz.NewLive(conf, parts)
	return err
}

// webhook is what the authorization webhook's flags stand for.
func (a *Access) webhook() *apiserverconfig.WebhookConfiguration {
	ttl := func(d *time.Duration, usual time.Duration) metav1.Duration {
		if d == nil {
			return metav1.Duration{Duration: usual}
		}
		return metav1.Duration{Duration: *d}
	}
	w := &apiserverconfig.WebhookConfiguration{
		AuthorizedTTL: ttl(a.WebhookAuthorizedTTL, 5*time.Minute), UnauthorizedTTL: ttl(a.WebhookUnauthorizedTTL, 30*time.Second),
		Timeout: metav1.Duration{Duration: 30 * time.Second}, SubjectAccessReviewVersion: a.WebhookVersion, FailurePolicy: apiserverconfig.FailurePolicyNoOpinion,
		ConnectionInfo: apiserverconfig.WebhookConnectionInfo{Type: apiserverconfig.AuthorizationWebhookConnectionInfoTypeKubeConfigFile, KubeConfigFile: &a.Webhook},
	}
	// A life of 0 means that answers are not kept, which a configuration says apart.
	w.CacheAuthorizedRequests, w.CacheUnauthorizedRequests = w.AuthorizedTTL.Duration > 0, w.UnauthorizedTTL.Duration > 0
	for _, d := range []*metav1.Duration{&w.AuthorizedTTL, &w.UnauthorizedTTL} {
		d.Duration = max(d.Duration, time.Nanosecond)
	}
	if w.SubjectAccessReviewVersion == "" {
		w.SubjectAccessReviewVersion = "v1beta1"
	}
	return w
}

// runAccess follows what those who judge depend on.
func (c *ControlPlane) runAccess(g *run.Group, as func(func(context.Context) error) func(context.Context) error) {
	a := &c.cfg.Access
	if i := c.gate.issuers; i != nil {
		g.Go("openid issuers", i.Run)
		if a.AuthenticationConfig != "" {
			g.Go("authentication configuration", func(ctx context.Context) error { return i.Follow(ctx, a.AuthenticationConfig, a.read.authentication) })
		}
	}
	if a.AuthorizationConfig != "" {
		g.Go("authorization configuration", func(ctx context.Context) error {
			return c.gate.authz.Follow(ctx, a.AuthorizationConfig, a.read.authorization)
		})
	}
	g.Go("trust", as(c.keepTrust))
	g.Go("legacy tokens", as(c.gate.accounts.Run))
}

// legacyTokens is the work that dates the watch over tokens kept in secrets.
func (c *ControlPlane) legacyTokens() request.Hook {
	return request.Hook{Name: "start-legacy-token-tracking-controller", Fn: inSystem(func(ctx context.Context, b request.Backend) error {
		return c.gate.accounts.TrackLegacy(ctx, b)
	})}
}

// accountTokens makes the loop that fills Secrets with tokens.
func accountTokens(d controller.Deps, _ controller.Config, s Secrets) (controller.Controller, error) {
	if s.AccountKey == nil {
		return nil, nil
	}
	issuer, err := authn.NewAccounts(authn.AccountsConfig{Key: s.AccountKey}, nil)
	if err != nil {
		return nil, err
	}
	return serviceaccounttoken.New(d, serviceaccounttoken.Config{
		RootCA: s.RootCA,
		Issue: func(namespace, account, uid, secret string) (string, error) {
			return issuer.IssueLegacy(namespace, request.Ref{Name: account, UID: uid}, secret)
		},
	}), nil
}
