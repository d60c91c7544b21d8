package bootstraptoken

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"maps"
	"regexp"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
)

// The names of upstream's cluster-bootstrap.
const (
	tokenType     = "bootstrap.kubernetes.io/token"
	secretPrefix  = "bootstrap-token-"
	configMapName = "cluster-info"
	kubeconfigKey = "kubeconfig"
	jwsPrefix     = "jws-kubeconfig-"
	idKey         = "token-id"
	secretKey     = "token-secret"
	expirationKey = "expiration"
	signingKey    = "usage-bootstrap-signing"
)

var (
	idForm     = regexp.MustCompile(`^[a-z0-9]{6}$`)
	secretForm = regexp.MustCompile(`^[a-z0-9]{16}$`)
)

// expiry returns when a token ends; known is false when it never does. What
// cannot be read has ended.
func expiry(s *corev1.Secret) (at time.Time, known bool) {
	text := string(s.Data[expirationKey])
	if text == "" {
		return time.Time{}, false
	}
	at, err := time.Parse(time.RFC3339, text)
	if err != nil {
		return time.Time{}, true
	}
	return at, true
}

func expired(s *corev1.Secret, now time.Time) bool {
	at, known := expiry(s)
	return known && !now.Before(at)
}

// signs returns id and secret of a token that is to sign.
func signs(s *corev1.Secret, now time.Time) (id, secret string, ok bool) {
	id, secret = string(s.Data[idKey]), string(s.Data[secretKey])
	ok = s.DeletionTimestamp == nil && s.Type == tokenType && s.Name == secretPrefix+id && idForm.MatchString(id) && secretForm.MatchString(secret) &&
		string(s.Data[signingKey]) == "true" && !expired(s, now)
	return id, secret, ok
}

// signature is a JSON Web Signature of content that leaves the content out.
func signature(content, id, secret string) (string, error) {
	header, err := json.Marshal(struct {
		Algorithm string `json:"alg"`
		Key       string `json:"kid"`
	}{"HS256", id})
	if err != nil {
		return "", err
	}
	encode := base64.RawURLEncoding.EncodeToString
	mac := hmac.New(sha256.New, []byte(secret))
	mac.Write([]byte(encode(header) + "." + encode([]byte(content))))
	return encode(header) + ".." + encode(mac.Sum(nil)), nil
}

// signed returns what cluster-info should hold; nil when it does already or
// has nothing to sign.
func signed(now *corev1.ConfigMap, tokens []*corev1.Secret, at time.Time) (*corev1.ConfigMap, error) {
	content, ok := now.Data[kubeconfigKey]
	if !ok {
		return nil, nil
	}
	data := maps.Clone(now.Data)
	maps.DeleteFunc(data, func(k, _ string) bool { return strings.HasPrefix(k, jwsPrefix) })
	for _, s := range tokens {
		id, secret, ok := signs(s, at)
		if !ok {
			continue
		}
		sig, err := signature(content, id, secret)
		if err != nil {
			return nil, err
		}
		data[jwsPrefix+id] = sig
	}
	if maps.Equal(data, now.Data) {
		return nil, nil
	}
	c := now.DeepCopy()
	c.Data = data
	return c, nil
}
