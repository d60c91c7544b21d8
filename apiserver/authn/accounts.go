package authn

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rsa"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"
	"github.com/prometheus/client_golang/prometheus"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/uuid"

	"github.com/sampan-dev/sampan/api"
	"github.com/sampan-dev/sampan/apiserver/request"
	"github.com/sampan-dev/sampan/kit/clock"
	"github.com/sampan-dev/sampan/kit/pki"
)

// Names of service accounts and of what their tokens add to a user.
const (
	accountPrefix = "system:serviceaccount:"
	legacyIssuer  = "kubernetes/serviceaccount"
	extraPrefix   = "authentication.kubernetes.io/"
)

// DefaultIssuer is kubeadm's name for the issuer.
const DefaultIssuer = "https://kubernetes.default.svc.cluster.local"

// AccountsConfig says how service account tokens are made and verified.
type AccountsConfig struct {
	Issuers   []string           // the first signs; all are accepted
	Audiences []string           // of the API server; nil is the issuers
	Key       crypto.Signer      // signs; nil only verifies
	Verify    []crypto.PublicKey // accepted beside Key's own
	JWKSURI   string             // what the discovery document names; "" is the issuer's own
	Metrics   prometheus.Registerer
}

// Accounts issues and knows service account tokens.
type Accounts struct {
	c      AccountsConfig
	back   request.Backend
	signer jose.Signer
	keys   map[string]crypto.PublicKey // by key id
	set    jose.JSONWebKeySet
	uses   *uses
	used   chan usedSecret // legacy tokens' secrets to be dated
}

// NewAccounts returns the authority on service account tokens.
func NewAccounts(c AccountsConfig, back request.Backend) (*Accounts, error) {
	if len(c.Issuers) == 0 {
		c.Issuers = []string{DefaultIssuer}
	}
	if c.Audiences == nil {
		c.Audiences = c.Issuers
	}
	a := &Accounts{c: c, back: back, keys: map[string]crypto.PublicKey{}, uses: newUses(c.Metrics), used: make(chan usedSecret, maxUsed)}
	all := c.Verify
	if c.Key != nil {
		all = append([]crypto.PublicKey{c.Key.Public()}, all...)
	}
	for _, k := range all {
		id, err := pki.KeyID(k)
		if err != nil {
			return nil, err
		}
		alg, err := algorithm(k)
		if err != nil {
			return nil, err
		}
		if a.keys[id] == nil {
			a.keys[id] = k
			a.set.Keys = append(a.set.Keys, jose.JSONWebKey{Key: k, KeyID: id, Algorithm: string(alg), Use: "sig"})
		}
	}
	if c.Key == nil {
		return a, nil
	}
	id, err := pki.KeyID(c.Key.Public())
	if err != nil {
		return nil, err
	}
	alg, err := algorithm(c.Key.Public())
	if err != nil {
		return nil, err
	}
	a.signer, err = jose.NewSigner(jose.SigningKey{Algorithm: alg, Key: jose.JSONWebKey{Key: c.Key, KeyID: id, Algorithm: string(alg), Use: "sig"}}, nil)
	if err != nil {
		return nil, fmt.Errorf("service account signer: %w", err)
	}
	return a, nil
}

func algorithm(k crypto.PublicKey) (jose.SignatureAlgorithm, error) {
	switch k := k.(type) {
	case *rsa.PublicKey:
		return jose.RS256, nil
	case *ecdsa.PublicKey:
		switch k.Curve {
		case elliptic.P256():
			return jose.ES256, nil
		case elliptic.P384():
			return jose.ES384, nil
		case elliptic.P521():
			return jose.ES512, nil
		}
		return "", errors.New("unknown private key curve, must be 256, 384, or 521")
	}
	return "", fmt.Errorf("unknown public key type %T, must be *rsa.PublicKey or *ecdsa.PublicKey", k)
}

// privateClaims are those below "kubernetes.io".
type privateClaims struct {
	Namespace string           `json:"namespace,omitempty"`
	Node      *request.Ref     `json:"node,omitempty"`
	Pod       *request.Ref     `json:"pod,omitempty"`
	Secret    *request.Ref     `json:"secret,omitempty"`
	Account   request.Ref      `json:"serviceaccount,omitempty"`
	WarnAfter *jwt.NumericDate `json:"warnafter,omitempty"`
}

type claims struct {
	jwt.Claims
	Kubernetes privateClaims `json:"kubernetes.io,omitempty"`
	// Of tokens kept in secrets.
	LegacyNamespace string `json:"kubernetes.io/serviceaccount/namespace,omitempty"`
	LegacyAccount   string `json:"kubernetes.io/serviceaccount/service-account.name,omitempty"`
	LegacyUID       string `json:"kubernetes.io/serviceaccount/service-account.uid,omitempty"`
	LegacySecret    string `json:"kubernetes.io/serviceaccount/secret.name,omitempty"`
}

// Audiences are those of the API server itself.
func (a *Accounts) Audiences() []string { return a.c.Audiences }

// Issue makes a bound token.
func (a *Accounts) Issue(c request.TokenClaims) (string, time.Time, string, error) {
	if a.signer == nil {
		return "", time.Time{}, "", errors.New("service account tokens: no signing key")
	}
	now := clock.Now()
	expires, id := now.Add(c.Life), string(uuid.NewUUID())
	body := claims{
		Claims: jwt.Claims{
			Issuer: a.c.Issuers[0], Subject: accountPrefix + c.Namespace + ":" + c.Account.Name, Audience: c.Audiences,
			IssuedAt: jwt.NewNumericDate(now), NotBefore: jwt.NewNumericDate(now), Expiry: jwt.NewNumericDate(expires), ID: id,
		},
		Kubernetes: privateClaims{Namespace: c.Namespace, Account: c.Account, Pod: c.Pod, Secret: c.Secret, Node: c.Node},
	}
	if c.WarnAfter > 0 {
		body.Kubernetes.WarnAfter = jwt.NewNumericDate(now.Add(c.WarnAfter))
	}
	text, err := jwt.Signed(a.signer).Claims(body).Serialize()
	if err != nil {
		return "", time.Time{}, "", fmt.Errorf("service account token: %w", err)
	}
	return text, expires, id, nil
}

// IssueLegacy makes a token that lives as long as its secret.
func (a *Accounts) IssueLegacy(namespace string, account request.Ref, secret string) (string, error) {
	if a.signer == nil {
		return "", errors.New("service account tokens: no signing key")
	}
	return jwt.Signed(a.signer).Claims(claims{
		Claims:          jwt.Claims{Issuer: legacyIssuer, Subject: accountPrefix + namespace + ":" + account.Name},
		LegacyNamespace: namespace, LegacyAccount: account.Name, LegacyUID: account.UID, LegacySecret: secret,
	}).Serialize()
}

// parse verifies the signature of a token that claims to be ours.
func (a *Accounts) parse(token string) (c *claims, ours bool, err error) {
	if strings.Count(token, ".") != 2 {
		return nil, false, nil
	}
	t, err := jwt.ParseSigned(token, []jose.SignatureAlgorithm{jose.RS256, jose.RS384, jose.RS512, jose.ES256, jose.ES384, jose.ES512})
	if err != nil {
		return nil, false, nil
	}
	var unsafe jwt.Claims
	if err := t.UnsafeClaimsWithoutVerification(&unsafe); err != nil || !slices.Contains(append([]string{legacyIssuer}, a.c.Issuers...), unsafe.Issuer) {
		return nil, false, nil
	}
	for _, key := range a.candidates(t) {
		c = &claims{}
		if err = t.Claims(key, c); err == nil {
			return c, true, nil
		}
	}
	return nil, true, errors.Join(errors.New("invalid signature"), err)
}

func (a *Accounts) candidates(t *jwt.JSONWebToken) (out []crypto.PublicKey) {
	if len(t.Headers) == 1 {
		if k, ok := a.keys[t.Headers[0].KeyID]; ok {
			return []crypto.PublicKey{k}
		}
	}
	for _, k := range a.set.Keys {
		out = append(out, k.Key)
	}
	return out
}

func (a *Accounts) expires(token string) time.Time {
	c, ours, err := a.parse(token)
	if !ours || err != nil || c.Expiry == nil {
		return time.Time{}
	}
	return c.Expiry.Time()
}

// Token verifies a service account token and that all it is bound to exists.
func (a *Accounts) Token(ctx context.Context, token string, audiences []string) (*request.User, []string, bool, error) {
	c, ours, err := a.parse(token)
	if !ours || err != nil {
		return nil, nil, false, err
	}
	if len(audiences) == 0 {
		audiences = a.c.Audiences
	}
	has := []string(c.Audience)
	if len(has) == 0 { // of the time before audiences
		has = a.c.Audiences
	}
	matched := both(audiences, has)
	if len(matched) == 0 {
		return nil, nil, false, fmt.Errorf("token audiences %q is invalid for the target audiences %q", has, audiences)
	}
	if c.Issuer == legacyIssuer {
		u, err := a.legacy(ctx, c, token)
		return u, matched, err == nil, err
	}
	now := clock.Now()
	if err := c.ValidateWithLeeway(jwt.Expected{Time: now}, 0); err != nil {
		return nil, nil, false, err
	}
	if c.Expiry == nil {
		return nil, nil, false, errors.New("token has no expiry")
	}
	u, err := a.bound(ctx, c)
	if err == nil {
		a.stale(ctx, c, now)
	}
	return u, matched, err == nil, err
}

// bound checks what the token is bound to and returns its user.
func (a *Accounts) bound(ctx context.Context, c *claims) (*request.User, error) {
	k := &c.Kubernetes
	if k.Namespace == "" || k.Account.Name == "" || k.Account.UID == "" {
		return nil, errors.New("token lacks service account claims")
	}
	grace := clock.Now().Add(-time.Minute) // as upstream: what is being deleted may still talk for a moment
	check := func(gr, namespace string, r *request.Ref) (api.Object, error) {
		o, err := a.back.Get(ctx, schema.GroupResource{Resource: gr}, namespace, r.Name)
		if apierrors.IsNotFound(err) {
			return nil, fmt.Errorf("service account token has been invalidated: %s %s is gone", gr, r.Name)
		}
		if err != nil {
			return nil, err
		}
		if string(o.GetUID()) != r.UID {
			return nil, fmt.Errorf("%s UID (%s) does not match claim (%s)", gr, o.GetUID(), r.UID)
		}
		if d := o.GetDeletionTimestamp(); d != nil && d.Time.Before(grace) {
			return nil, fmt.Errorf("service account token has been invalidated: %s %s is being deleted", gr, r.Name)
		}
		return o, nil
	}
	if _, err := check("serviceaccounts", k.Namespace, &k.Account); err != nil {
		return nil, err
	}
	u := AccountUser(k.Namespace, k.Account.Name, k.Account.UID)
	if c.ID != "" {
		u.Extra[CredentialID] = []string{"JTI=" + c.ID}
	}
	if k.Secret != nil {
		if _, err := check("secrets", k.Namespace, k.Secret); err != nil {
			return nil, err
		}
	}
	if k.Pod != nil {
		if _, err := check("pods", k.Namespace, k.Pod); err != nil {
			return nil, err
		}
		u.Extra[extraPrefix+"pod-name"], u.Extra[extraPrefix+"pod-uid"] = []string{k.Pod.Name}, []string{k.Pod.UID}
	}
	if k.Node != nil {
		if k.Pod == nil { // with a pod the node is information, not a binding
			if _, err := check("nodes", "", k.Node); err != nil {
				return nil, err
			}
		}
		u.Extra[extraPrefix+"node-name"] = []string{k.Node.Name}
		if k.Node.UID != "" {
			u.Extra[extraPrefix+"node-uid"] = []string{k.Node.UID}
		}
	}
	return u, nil
}

// AccountUser is who a service account is.
func AccountUser(namespace, name, uid string) *request.User {
	return &request.User{
		Name: accountPrefix + namespace + ":" + name, UID: uid,
		Groups: []string{request.ServiceAccounts, request.ServiceAccounts + ":" + namespace},
		Extra:  map[string][]string{},
	}
}

// JWKS serves the public keys, /openid/v1/jwks.
func (a *Accounts) JWKS() http.Handler {
	body, err := json.Marshal(a.set)
	return document(body, err, "application/jwk-set+json")
}

// Discovery serves /.well-known/openid-configuration.
func (a *Accounts) Discovery() http.Handler {
	uri := a.c.JWKSURI
	if uri == "" {
		uri = strings.TrimSuffix(a.c.Issuers[0], "/") + "/openid/v1/jwks"
	}
	var algs []string
	for _, k := range a.set.Keys {
		if !slices.Contains(algs, k.Algorithm) {
			algs = append(algs, k.Algorithm)
		}
	}
	body, err := json.Marshal(struct {
		Issuer    string   `json:"issuer"`
		JWKS      string   `json:"jwks_uri"`
		Responses []string `json:"response_types_supported"`
		Subjects  []string `json:"subject_types_supported"`
		Algs      []string `json:"id_token_signing_alg_values_supported"`
	}{a.c.Issuers[0], uri, []string{"id_token"}, []string{"public"}, algs})
	return document(body, err, "application/json")
}

func document(body []byte, err error, mediaType string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		if err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		w.Header().Set("Content-Type", mediaType)
		w.Header().Set("Cache-Control", "public, max-age=3600")
		_, _ = w.Write(body) // the client's going away is its own affair
	})
}
