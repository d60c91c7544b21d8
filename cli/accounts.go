package cli

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"

	"github.com/sampan-dev/sampan/client"
	"github.com/sampan-dev/sampan/kit/clock"
)

// accounts gives each controller its own service account, as upstream does with
// --use-service-account-credentials: its requests carry a token that the
// controller manager's own identity asks for.
type accounts struct {
	base *rest.Config
	own  client.Interface

	mu     sync.Mutex
	byName map[string]client.Interface
}

func newAccounts(base *rest.Config, own client.Interface) *accounts {
	return &accounts{base: base, own: own, byName: map[string]client.Interface{}}
}

const serviceAccountUser = "system:serviceaccount:"

// as is the API as a user sees it; who is no service account is the program itself.
func (a *accounts) as(user string) client.Interface {
	namespace, name, ok := strings.Cut(strings.TrimPrefix(user, serviceAccountUser), ":")
	if !ok || !strings.HasPrefix(user, serviceAccountUser) {
		return a.own
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if c, ok := a.byName[user]; ok {
		return c
	}
	rc := rest.AnonymousClientConfig(a.base)
	rc.UserAgent = name
	token := &accountToken{accounts: client.Of[corev1.ServiceAccount](a.own, namespace), name: name, namespace: namespace}
	rc.Wrap(func(next http.RoundTripper) http.RoundTripper { return bearer{token, next} })
	c, err := client.FromREST(rc)
	if err != nil { // the same configuration worked for the program itself
		return a.own
	}
	a.byName[user] = c
	return c
}

// tokenLife is what is asked for; a token is replaced after four fifths of what
// was given.
const tokenLife = time.Hour

// accountToken is one account's token, asked for when first needed.
type accountToken struct {
	accounts        client.Typed[corev1.ServiceAccount]
	namespace, name string

	mu    sync.Mutex
	token string
	until time.Time
}

func (t *accountToken) get(ctx context.Context) (string, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.token != "" && clock.Now().Before(t.until) {
		return t.token, nil
	}
	_, err := t.accounts.Create(ctx, &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: t.name, Namespace: t.namespace}})
	if err != nil && !apierrors.IsAlreadyExists(err) {
		return "", fmt.Errorf("service account %s/%s: %w", t.namespace, t.name, err)
	}
	seconds := int64(tokenLife.Seconds())
	given, err := client.Post[authenticationv1.TokenRequest](ctx, t.accounts, t.name, "token", &authenticationv1.TokenRequest{
		Spec: authenticationv1.TokenRequestSpec{ExpirationSeconds: &seconds},
	})
	if err != nil {
		return "", fmt.Errorf("token of service account %s/%s: %w", t.namespace, t.name, err)
	}
	t.token = given.Status.Token
	t.until = clock.Now().Add(clock.Until(given.Status.ExpirationTimestamp.Time) * 4 / 5)
	return t.token, nil
}

// forget drops a token that the server does not accept: its account was made anew.
func (t *accountToken) forget(token string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.token == token {
		t.token = ""
	}
}

// bearer adds an account's token to requests.
type bearer struct {
	token *accountToken
	next  http.RoundTripper
}

func (b bearer) RoundTrip(r *http.Request) (*http.Response, error) {
	token, err := b.token.get(r.Context())
	if err != nil {
		return nil, err
	}
	r = r.Clone(r.Context())
	r.Header.Set("Authorization", "Bearer "+token)
	answer, err := b.next.RoundTrip(r)
	if err == nil && answer.StatusCode == http.StatusUnauthorized {
		b.token.forget(token)
	}
	return answer, err
}
