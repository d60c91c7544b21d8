package authn

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"sync"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sampan-dev/sampan/apiserver/request"
	"github.com/sampan-dev/sampan/kit/backoff"
	"github.com/sampan-dev/sampan/kit/clock"
)

// Webhook asks another service whom a token belongs to.
type Webhook struct {
	URL       string
	Client    *http.Client
	Version   string        // of TokenReview: v1, or v1beta1 when ""
	TTL       time.Duration // of answers; 0 keeps none
	Audiences []string      // of the API server

	mu    sync.Mutex
	cache map[[sha256.Size]byte]reviewed
}

type reviewed struct {
	status authenticationv1.TokenReviewStatus
	until  time.Time
}

const (
	webhookTries   = 5
	webhookTimeout = 30 * time.Second
	maxReview      = 1 << 20
)

// Token asks, unless it knows.
func (h *Webhook) Token(ctx context.Context, token string, audiences []string) (*request.User, []string, bool, error) {
	if len(audiences) == 0 {
		audiences = h.Audiences
	}
	key := cacheKey(token, audiences)
	now := clock.Now()
	h.mu.Lock()
	known, ok := h.cache[key]
	h.mu.Unlock()
	if !ok || !now.Before(known.until) {
		status, err := h.review(ctx, token, audiences)
		if err != nil {
			return nil, nil, false, fmt.Errorf("token webhook: %w", err)
		}
		known = reviewed{*status, now.Add(h.TTL)}
		h.keep(key, known)
	}
	st := &known.status
	if !st.Authenticated {
		if st.Error != "" {
			return nil, nil, false, errors.New(st.Error)
		}
		return nil, nil, false, nil
	}
	matched := audiences
	if len(audiences) > 0 && len(st.Audiences) > 0 {
		if matched = both(audiences, st.Audiences); len(matched) == 0 {
			return nil, nil, false, nil
		}
	}
	u := &request.User{Name: st.User.Username, UID: st.User.UID, Groups: st.User.Groups, Extra: map[string][]string{}}
	for k, v := range st.User.Extra {
		u.Extra[k] = v
	}
	return u, matched, true, nil
}

func (h *Webhook) keep(key [sha256.Size]byte, r reviewed) {
	if h.TTL <= 0 {
		return
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.cache == nil {
		h.cache = map[[sha256.Size]byte]reviewed{}
	}
	shrink(h.cache)
	h.cache[key] = r
}

// review posts a TokenReview; what may pass is tried again.
func (h *Webhook) review(ctx context.Context, token string, audiences []string) (*authenticationv1.TokenReviewStatus, error) {
	version := h.Version
	if version == "" {
		version = "v1beta1"
	}
	body, err := json.Marshal(&authenticationv1.TokenReview{ // the versions have one shape
		TypeMeta: metav1.TypeMeta{Kind: "TokenReview", APIVersion: authenticationv1.GroupName + "/" + version},
		Spec:     authenticationv1.TokenReviewSpec{Token: token, Audiences: audiences},
	})
	if err != nil {
		return nil, err
	}
	again := backoff.Policy{First: 500 * time.Millisecond, Max: 5 * time.Second, Factor: 1.5}
	for n := 1; ; n++ {
		data, retry, err := post(ctx, h.Client, h.URL, body)
		if err == nil {
			var out authenticationv1.TokenReview
			if err := json.Unmarshal(data, &out); err != nil {
				return nil, fmt.Errorf("answer: %w", err)
			}
			return &out.Status, nil
		}
		if !retry || n == webhookTries || clock.Sleep(ctx, again.After(n)) != nil {
			return nil, err
		}
	}
}

// post sends a review and says whether a failure may pass.
func post(ctx context.Context, c *http.Client, url string, body []byte) (data []byte, retry bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, webhookTimeout)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, url, bytes.NewReader(body))
	if err != nil {
		return nil, false, err
	}
	r.Header.Set("Content-Type", "application/json")
	r.Header.Set("Accept", "application/json")
	resp, err := c.Do(r)
	if err != nil {
		return nil, true, err
	}
	defer resp.Body.Close()
	data, err = readLimited(resp.Body, maxReview)
	if err == nil && (resp.StatusCode < 200 || resp.StatusCode > 299) {
		return nil, resp.StatusCode == http.StatusTooManyRequests || resp.StatusCode >= 500, fmt.Errorf("status %s: %.200s", resp.Status, data)
	}
	return data, err != nil, err
}
