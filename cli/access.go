package cli

import (
	"crypto/tls"
	"errors"
	"fmt"
	"os"
	"slices"
	"time"

	"github.com/sampan-dev/sampan/controlplane"
	"github.com/sampan-dev/sampan/kit/pki"
)

// accessFlags are kube-apiserver's flags of authentication, authorization and
// aggregation, beyond the authorities.
type accessFlags struct {
	proxyCert, proxyKey            string
	noRedirects, bootstrapTokens   bool
	extendTokens, lookup           bool
	authorizedTTL, unauthorizedTTL time.Duration

	// Files that hold more than one authority or key.
	clientCA, requestHeaderCA string
	accountKeys               []string
}

func (a *accessFlags) declare(c *component, cfg *controlplane.Config) {
	x := &cfg.Access
	fs := c.in(authnFlags)
	fs.StringSliceVar(&x.Audiences, "api-audiences", nil, "Identifiers of the API. The service account token authenticator will validate that tokens used against the API are bound to at least one of these audiences. If the --service-account-issuer flag is configured and this flag is not, this field defaults to a single element list containing the issuer URL.")
	fs.StringVar(&x.AuthenticationConfig, "authentication-config", "", "File with Authentication Configuration to configure the JWT Token authenticator or the anonymous authenticator. It is followed while the server runs.")
	fs.StringVar(&x.TokenWebhook, "authentication-token-webhook-config-file", "", "File with webhook configuration for token authentication in kubeconfig format. The API server will query the remote service to determine authentication for bearer tokens.")
	fs.DurationVar(&x.TokenWebhookTTL, "authentication-token-webhook-cache-ttl", 2*time.Minute, "The duration to cache responses from the webhook token authenticator.")
	fs.StringVar(&x.TokenWebhookVersion, "authentication-token-webhook-version", "v1beta1", "The API version of the authentication.k8s.io TokenReview to send to and expect from the webhook.")
	fs.BoolVar(&a.bootstrapTokens, "enable-bootstrap-token-auth", true, "Enable to allow secrets of type 'bootstrap.kubernetes.io/token' in the 'kube-system' namespace to be used for TLS bootstrapping authentication.")
	o := &x.OIDC
	fs.StringVar(&o.IssuerURL, "oidc-issuer-url", "", "The URL of the OpenID issuer, only HTTPS scheme will be accepted. If set, it will be used to verify the OIDC JSON Web Token (JWT).")
	fs.StringVar(&o.ClientID, "oidc-client-id", "", "The client ID for the OpenID Connect client, must be set if oidc-issuer-url is set.")
	fs.StringVar(&o.CAFile, "oidc-ca-file", "", "If set, the OpenID server's certificate will be verified by one of the authorities in the oidc-ca-file, otherwise the host's root CA set will be used.")
	fs.StringVar(&o.UsernameClaim, "oidc-username-claim", "sub", "The OpenID claim to use as the user name.")
	fs.StringVar(&o.UsernamePrefix, "oidc-username-prefix", "", "If provided, all usernames will be prefixed with this value. If not provided, username claims other than 'email' are prefixed by the issuer URL to avoid clashes. To skip any prefixing, provide the value '-'.")
	fs.StringVar(&o.GroupsClaim, "oidc-groups-claim", "", "If provided, the name of a custom OpenID Connect claim for specifying user groups. The claim value is expected to be a string or array of strings.")
	fs.StringVar(&o.GroupsPrefix, "oidc-groups-prefix", "", "If provided, all groups will be prefixed with this value to prevent conflicts with other authentication strategies.")
	fs.StringSliceVar(&o.Algorithms, "oidc-signing-algs", []string{"RS256"}, "Comma-separated list of allowed JOSE asymmetric signing algorithms.")
	fs.StringToStringVar(&o.RequiredClaims, "oidc-required-claim", nil, "A key=value pair that describes a required claim in the ID Token. If set, the claim is verified to be present in the ID Token with a matching value.")
	fs.StringSliceVar(&x.AllowedNames, "requestheader-allowed-names", nil, "List of client certificate common names to allow to provide usernames in headers specified by --requestheader-username-headers. If empty, any client certificate validated by the authorities in --requestheader-client-ca-file is allowed.")
	fs.StringSliceVar(&x.UserHeaders, "requestheader-username-headers", []string{"X-Remote-User"}, "List of request headers to inspect for usernames.")
	fs.StringSliceVar(&x.UIDHeaders, "requestheader-uid-headers", []string{"X-Remote-Uid"}, "List of request headers to inspect for UIDs.")
	fs.StringSliceVar(&x.GroupHeaders, "requestheader-group-headers", []string{"X-Remote-Group"}, "List of request headers to inspect for groups.")
	fs.StringSliceVar(&x.ExtraPrefixes, "requestheader-extra-headers-prefix", []string{"X-Remote-Extra-"}, "List of request header prefixes to inspect.")
	fs.StringArrayVar(&x.Issuers, "service-account-issuer", nil, "Identifier of the service account token issuer. When this flag is specified multiple times, the first is used to generate tokens and all are used to determine which issuers are accepted.")
	fs.StringVar(&x.JWKSURI, "service-account-jwks-uri", "", "Overrides the URI for the JSON Web Key Set in the discovery doc served at /.well-known/openid-configuration.")
	fs.DurationVar(&x.MaxTokenLife, "service-account-max-token-expiration", 0, "The maximum validity duration of a token created by the service account token issuer.")
	fs.BoolVar(&a.extendTokens, "service-account-extend-token-expiration", true, "Turns on projected service account expiration extension during token generation, which helps safe transition from legacy token to bound service account token feature.")
	fs.BoolVar(&a.lookup, "service-account-lookup", true, "If true, validate ServiceAccount tokens exist in etcd as part of authentication.")
	a.declareAuthorization(c, cfg)
}

func (a *accessFlags) declareAuthorization(c *component, cfg *controlplane.Config) {
	x := &cfg.Access
	fs := c.in(authzFlags)
	fs.StringVar(&x.AuthorizationConfig, "authorization-config", "", "File with Authorization Configuration to configure the authorizer chain. It is followed while the server runs. This flag is mutually exclusive with the other --authorization-mode and --authorization-webhook-* flags.")
	fs.StringVar(&x.PolicyFile, "authorization-policy-file", "", "File with authorization policy in json line by line format, used with --authorization-mode=ABAC, on the secure port.")
	fs.StringVar(&x.Webhook, "authorization-webhook-config-file", "", "File with webhook configuration in kubeconfig format, used with --authorization-mode=Webhook. The API server will query the remote service to determine access on the API server's secure port.")
	fs.StringVar(&x.WebhookVersion, "authorization-webhook-version", "v1beta1", "The API version of the authorization.k8s.io SubjectAccessReview to send to and expect from the webhook.")
	fs.DurationVar(&a.authorizedTTL, "authorization-webhook-cache-authorized-ttl", 5*time.Minute, "The duration to cache 'authorized' responses from the webhook authorizer.")
	fs.DurationVar(&a.unauthorizedTTL, "authorization-webhook-cache-unauthorized-ttl", 30*time.Second, "The duration to cache 'unauthorized' responses from the webhook authorizer.")
	fs = c.in("Misc")
	fs.StringVar(&a.proxyCert, "proxy-client-cert-file", "", "Client certificate used to prove the identity of the aggregator or kube-apiserver when it must call out during a request. This includes proxying requests to a user api-server.")
	fs.StringVar(&a.proxyKey, "proxy-client-key-file", "", "Private key for the client certificate used to prove the identity of the aggregator or kube-apiserver when it must call out during a request.")
	fs.BoolVar(&cfg.EndpointRouting, "enable-aggregator-routing", false, "Turns on aggregator routing requests to endpoints IP rather than cluster IP.")
	fs.BoolVar(&a.noRedirects, "aggregator-reject-forwarding-redirect", true, "Aggregator reject forwarding redirect response back to client.")
}

// load reads the files that the flags name, and checks what goes together.
func (a *accessFlags) load(c *component, cfg *controlplane.Config) error {
	x := &cfg.Access
	x.ExactTokens, cfg.AllowRedirects = !a.extendTokens, !a.noRedirects
	x.NoBootstrapTokens = !a.bootstrapTokens
	x.WebhookAuthorizedTTL, x.WebhookUnauthorizedTTL = &a.authorizedTTL, &a.unauthorizedTTL
	if x.AllowedNames == nil {
		x.AllowedNames = []string{} // upstream's default: any
	}
	if a.proxyCert != "" {
		if _, err := tls.LoadX509KeyPair(a.proxyCert, a.proxyKey); err != nil {
			return fmt.Errorf("--proxy-client-cert-file: %w", err)
		}
		cfg.ProxyClient = func() (*tls.Certificate, error) { // read anew for each connection: it may be renewed
			pair, err := tls.LoadX509KeyPair(a.proxyCert, a.proxyKey)
			return &pair, err
		}
	}
	var errs []error
	if !a.lookup {
		errs = append(errs, errors.New("--service-account-lookup=false is not supported: a token's account is always looked up"))
	}
	if (x.OIDC.IssuerURL == "") != (x.OIDC.ClientID == "") {
		errs = append(errs, errors.New("oidc-issuer-url and oidc-client-id must be specified together when any oidc-* flags are set"))
	}
	if x.AuthorizationConfig != "" && c.in(authzFlags).Lookup("authorization-mode").Changed {
		errs = append(errs, errors.New("--authorization-config can not be specified when --authorization-mode or --authorization-webhook-* flags are defined"))
	}
	if x.PolicyFile != "" && !slices.Contains(cfg.AuthorizationModes, "ABAC") {
		errs = append(errs, errors.New("cannot specify --authorization-policy-file without mode ABAC"))
	}
	if x.Webhook == "" && slices.Contains(cfg.AuthorizationModes, "Webhook") {
		errs = append(errs, errors.New("authorization-mode Webhook's authorization config file not passed"))
	}
	if x.AuthenticationConfig != "" && c.in(authnFlags).Lookup("anonymous-auth").Changed {
		data, err := os.ReadFile(x.AuthenticationConfig)
		errs = append(errs, err, controlplane.CheckAnonymous(data))
	}
	errs = append(errs, a.bundles(cfg))
	return errors.Join(errs...)
}

// bundles reads the further authorities and keys of files that hold several.
func (a *accessFlags) bundles(cfg *controlplane.Config) error {
	x := &cfg.Access
	for _, file := range a.accountKeys {
		text, err := os.ReadFile(file)
		if err != nil {
			return fmt.Errorf("--service-account-key-file: %w", err)
		}
		keys, err := pki.DecodePublics(text)
		if err != nil {
			return fmt.Errorf("--service-account-key-file: %s: %w", file, err)
		}
		x.AccountKeys = append(x.AccountKeys, keys...)
	}
	if a.clientCA != "" {
		text, err := os.ReadFile(a.clientCA)
		if err != nil {
			return fmt.Errorf("--client-ca-file: %w", err)
		}
		certs, err := pki.DecodeCerts(text)
		if err != nil || len(certs) == 0 {
			return fmt.Errorf("--client-ca-file: %s holds no certificate: %w", a.clientCA, err)
		}
		x.ClientCAs, x.ClientCAFile = certs[1:], a.clientCA
	}
	if a.requestHeaderCA != "" {
		text, err := os.ReadFile(a.requestHeaderCA)
		if err != nil {
			return fmt.Errorf("--requestheader-client-ca-file: %w", err)
		}
		certs, err := pki.DecodeCerts(text)
		if err != nil || len(certs) == 0 {
			return fmt.Errorf("--requestheader-client-ca-file: %s holds no certificate: %w", a.requestHeaderCA, err)
		}
		x.FrontProxyCAs, x.FrontProxyCAFile = certs[1:], a.requestHeaderCA
	}
	return nil
}
