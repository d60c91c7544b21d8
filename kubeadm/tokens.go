package kubeadm

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"math/big"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sampan-dev/sampan/client"
	"github.com/sampan-dev/sampan/kit/clock"
	"github.com/sampan-dev/sampan/kubeadm/config"
)

// newToken makes a bootstrap token, "abcdef.0123456789abcdef".
func newToken() (string, error) {
	const letters = "0123456789abcdefghijklmnopqrstuvwxyz"
	var b strings.Builder
	for i := range 22 {
		if i == 6 {
			b.WriteByte('.')
		}
		n, err := rand.Int(rand.Reader, big.NewInt(int64(len(letters))))
		if err != nil {
			return "", fmt.Errorf("generate token: %w", err)
		}
		b.WriteByte(letters[n.Int64()])
	}
	return b.String(), nil
}

// tokenSecret is the Secret that makes a token valid.
func tokenSecret(t config.BootstrapToken) *corev1.Secret {
	id, secret, _ := strings.Cut(t.Token, ".")
	data := map[string][]byte{"token-id": []byte(id), "token-secret": []byte(secret)}
	if t.Description != "" {
		data["description"] = []byte(t.Description)
	}
	switch {
	case t.Expires != nil:
		data["expiration"] = []byte(t.Expires.UTC().Format(time.RFC3339))
	case t.TTL != nil && t.TTL.Duration > 0:
		data["expiration"] = []byte(clock.Now().Add(t.TTL.Duration).UTC().Format(time.RFC3339))
	}
	for _, u := range t.Usages {
		data["usage-bootstrap-"+u] = []byte("true")
	}
	if len(t.Groups) > 0 {
		data["auth-extra-groups"] = []byte(strings.Join(t.Groups, ","))
	}
	return &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: "bootstrap-token-" + id, Namespace: metav1.NamespaceSystem}, Type: corev1.SecretTypeBootstrapToken, Data: data}
}

// tokenOf reads a token's Secret.
func tokenOf(s *corev1.Secret) (config.BootstrapToken, error) {
	id, secret := string(s.Data["token-id"]), string(s.Data["token-secret"])
	t := config.BootstrapToken{Token: id + "." + secret, Description: string(s.Data["description"])}
	if s.Name != "bootstrap-token-"+id || !config.TokenForm.MatchString(t.Token) {
		return t, fmt.Errorf("secret %s holds no bootstrap token", s.Name)
	}
	if text := string(s.Data["expiration"]); text != "" {
		at, err := time.Parse(time.RFC3339, text)
		if err != nil {
			return t, fmt.Errorf("secret %s: expiration: %w", s.Name, err)
		}
		t.Expires = &metav1.Time{Time: at}
	}
	for k, v := range s.Data {
		if u, ok := strings.CutPrefix(k, "usage-bootstrap-"); ok && string(v) == "true" {
			t.Usages = append(t.Usages, u)
		}
	}
	slices.Sort(t.Usages)
	if g := string(s.Data["auth-extra-groups"]); g != "" {
		t.Groups = strings.Split(g, ",")
	}
	return t, nil
}

// createTokens makes tokens valid; with replace one that is there is renewed.
func createTokens(ctx context.Context, c client.Interface, tokens []config.BootstrapToken, replace bool) error {
	secrets := client.Of[corev1.Secret](c, metav1.NamespaceSystem)
	for _, t := range tokens {
		s := tokenSecret(t)
		_, err := secrets.Create(ctx, s)
		if apierrors.IsAlreadyExists(err) {
			if !replace {
				id, _, _ := strings.Cut(t.Token, ".")
				return fmt.Errorf("a token with id %q already exists", id)
			}
			old, getErr := secrets.Get(ctx, s.Name)
			if getErr != nil {
				return getErr
			}
			s.ResourceVersion = old.ResourceVersion
			_, err = secrets.Update(ctx, s)
		}
		if err != nil {
			return fmt.Errorf("failed to create or update bootstrap token with name %s: %w", s.Name, err)
		}
	}
	return nil
}

// listTokens returns all bootstrap tokens; what cannot be read is reported.
func listTokens(ctx context.Context, c client.Interface) (tokens []config.BootstrapToken, bad error) {
	list, err := client.Of[corev1.Secret](c, metav1.NamespaceSystem).List(ctx, &metav1.ListOptions{FieldSelector: "type=" + string(corev1.SecretTypeBootstrapToken)})
	if err != nil {
		return nil, fmt.Errorf("failed to list bootstrap tokens: %w", err)
	}
	for i := range list {
		t, err := tokenOf(list[i])
		if err != nil {
			bad = errors.Join(bad, err)
			continue
		}
		tokens = append(tokens, t)
	}
	return tokens, bad
}
