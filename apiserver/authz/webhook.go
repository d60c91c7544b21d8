package authz

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync"
	"time"

	authorizationv1 "k8s.io/api/authorization/v1"
	authorizationv1beta1 "k8s.io/api/authorization/v1beta1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/selection"
	authzcel "k8s.io/apiserver/pkg/authorization/cel"

	"github.com/sampan-dev/sampan/apiserver/request"
	"github.com/sampan-dev/sampan/kit/backoff"
	"github.com/sampan-dev/sampan/kit/clock"
)

// WebhookConfig says which service to ask, and what of its answers to keep.
type WebhookConfig struct {
	Name    string
	URL     string
	Client  *http.Client
	Version string        // of SubjectAccessReview: v1, or v1beta1 when ""
	Timeout time.Duration // of one call; 30 s when 0
	// AuthorizedTTL and UnauthorizedTTL are how long answers are kept; 0 keeps none.
	AuthorizedTTL, UnauthorizedTTL time.Duration
	// Match are conditions on which the service is asked at all; nil is always.
	Match *authzcel.CELMatcher
	// DenyOnError refuses when the service fails; else the next authorizer is asked.
	DenyOnError bool
}

// Webhook asks a service who may do what.
type Webhook struct {
	c       WebhookConfig
	metrics *Metrics

	mu    sync.Mutex
	cache map[string]answer
}

type answer struct {
	status authorizationv1.SubjectAccessReviewStatus
	until  time.Time
}

const (
	webhookTries   = 5
	webhookTimeout = 30 * time.Second
	maxAnswer      = 1 << 20
	maxAnswers     = 8192
	maxKept        = 10_000 // bytes that users choose, in a question whose answer is kept
)

// NewWebhook returns an authorizer.
func NewWebhook(c WebhookConfig, m *Metrics) *Webhook {
	if c.Timeout == 0 {
		c.Timeout = webhookTimeout
	}
	if c.Version == "" {
		c.Version = "v1beta1"
	}
	if c.Match != nil {
		c.Match.Metrics, c.Match.AuthorizerType, c.Match.AuthorizerName = m, "Webhook", c.Name
	}
	return &Webhook{c: c, metrics: m, cache: map[string]answer{}}
}

func (h *Webhook) onError() request.Decision {
	if h.c.DenyOnError {
		return request.Deny
	}
	return request.NoOpinion
}

// Authorize asks, unless the conditions exclude the request or the answer is known.
func (h *Webhook) Authorize(ctx context.Context, u *request.User, i *request.Info) (request.Decision, string, error) {
	spec := reviewSpec(u, i)
	if h.c.Match != nil {
		ok, err := h.c.Match.Eval(ctx, &authorizationv1.SubjectAccessReview{Spec: *spec})
		if err != nil {
			return h.onError(), "", err
		}
		if !ok {
			return request.NoOpinion, "", nil
		}
	}
	key, err := json.Marshal(spec)
	if err != nil {
		return h.onError(), "", err
	}
	now := clock.Now()
	h.mu.Lock()
	a, known := h.cache[string(key)]
	h.mu.Unlock()
	if !known || !now.Before(a.until) {
		status, err := h.ask(ctx, spec)
		if err != nil {
			return h.onError(), "", fmt.Errorf("webhook authorizer %s: %w", h.c.Name, err)
		}
		a = answer{status: *status}
		h.keep(string(key), a, now)
	}
	st := &a.status
	switch {
	case st.Denied && st.Allowed:
		return request.Deny, st.Reason, errors.New("webhook subject access review returned both allow and deny response")
	case st.Denied:
		return request.Deny, st.Reason, nil
	case st.Allowed:
		return request.Allow, st.Reason, nil
	}
	return request.NoOpinion, st.Reason, nil
}

// Rules cannot be listed: only the service knows them.
func (*Webhook) Rules(context.Context, *request.User, string) ([]request.ResourceRule, []request.NonResourceRule, bool, error) {
	return nil, nil, true, errors.New("webhook authorizer does not support user rule resolution")
}

func (h *Webhook) keep(key string, a answer, now time.Time) {
	ttl := h.c.UnauthorizedTTL
	if a.status.Allowed {
		ttl = h.c.AuthorizedTTL
	}
	if ttl <= 0 || len(key) > maxKept {
		return
	}
	a.until = now.Add(ttl)
	h.mu.Lock()
	defer h.mu.Unlock()
	if len(h.cache) >= maxAnswers { // an eighth goes, whichever comes first
		for k := range h.cache {
			if delete(h.cache, k); len(h.cache) <= maxAnswers*7/8 {
				break
			}
		}
	}
	h.cache[key] = a
}

// ask posts a review; what may pass is tried again.
func (h *Webhook) ask(ctx context.Context, spec *authorizationv1.SubjectAccessReviewSpec) (*authorizationv1.SubjectAccessReviewStatus, error) {
	body, err := json.Marshal(inVersion(spec, h.c.Version))
	if err != nil {
		return nil, err
	}
	again := backoff.Policy{First: 500 * time.Millisecond, Max: 5 * time.Second, Factor: 1.5}
	for n := 1; ; n++ {
		start := clock.Now()
		data, retry, err := h.post(ctx, body)
		result := resultOf(ctx, err)
		h.metrics.webhook(h.c.Name, result, clock.Since(start))
		if err == nil {
			var out authorizationv1.SubjectAccessReview // the versions' answers have one shape
			if err := json.Unmarshal(data, &out); err != nil {
				return nil, fmt.Errorf("answer: %w", err)
			}
			return &out.Status, nil
		}
		if !retry || n == webhookTries || clock.Sleep(ctx, again.After(n)) != nil {
			if !h.c.DenyOnError && ctx.Err() == nil {
				h.metrics.failedOpen(h.c.Name, result)
			}
			return nil, err
		}
	}
}

func resultOf(ctx context.Context, err error) string {
	var timeout net.Error
	switch {
	case err == nil:
		return "success"
	case ctx.Err() != nil:
		return "canceled"
	case errors.Is(err, context.DeadlineExceeded), errors.As(err, &timeout) && timeout.Timeout():
		return "timeout"
	}
	return "error"
}

func (h *Webhook) post(ctx context.Context, body []byte) (data []byte, retry bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, h.c.Timeout)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, h.c.URL, bytes.NewReader(body))
	if err != nil {
		return nil, false, err
	}
	r.Header.Set("Content-Type", "application/json")
	r.Header.Set("Accept", "application/json")
	resp, err := h.c.Client.Do(r)
	if err != nil {
		return nil, !errors.Is(err, context.DeadlineExceeded), err
	}
	defer resp.Body.Close()
	data, err = io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	if err == nil && (resp.StatusCode < 200 || resp.StatusCode > 299) {
		return nil, resp.StatusCode == http.StatusTooManyRequests || resp.StatusCode >= 500, fmt.Errorf("status %s: %.200s", resp.Status, data)
	}
	return data, err != nil, err
}

// inVersion is the review to post: v1beta1 spells one field another way.
func inVersion(spec *authorizationv1.SubjectAccessReviewSpec, version string) any {
	meta := metav1.TypeMeta{Kind: "SubjectAccessReview", APIVersion: authorizationv1.GroupName + "/" + version}
	if version == "v1" {
		return &authorizationv1.SubjectAccessReview{TypeMeta: meta, Spec: *spec}
	}
	old := authorizationv1beta1.SubjectAccessReviewSpec{User: spec.User, UID: spec.UID, Groups: spec.Groups}
	if spec.Extra != nil {
		old.Extra = map[string]authorizationv1beta1.ExtraValue{}
		for k, v := range spec.Extra {
			old.Extra[k] = authorizationv1beta1.ExtraValue(v)
		}
	}
	if a := spec.ResourceAttributes; a != nil {
		old.ResourceAttributes = &authorizationv1beta1.ResourceAttributes{
			Namespace: a.Namespace, Verb: a.Verb, Group: a.Group, Version: a.Version, Resource: a.Resource, Subresource: a.Subresource, Name: a.Name,
			FieldSelector: a.FieldSelector, LabelSelector: a.LabelSelector,
		}
	}
	if a := spec.NonResourceAttributes; a != nil {
		old.NonResourceAttributes = &authorizationv1beta1.NonResourceAttributes{Path: a.Path, Verb: a.Verb}
	}
	return &authorizationv1beta1.SubjectAccessReview{TypeMeta: meta, Spec: old}
}

// reviewSpec writes a request as a review's question.
func reviewSpec(u *request.User, i *request.Info) *authorizationv1.SubjectAccessReviewSpec {
	s := &authorizationv1.SubjectAccessReviewSpec{User: u.Name, UID: u.UID, Groups: u.Groups}
	if u.Extra != nil {
		s.Extra = map[string]authorizationv1.ExtraValue{}
		for k, v := range u.Extra {
			s.Extra[k] = v
		}
	}
	if !i.IsResource {
		s.NonResourceAttributes = &authorizationv1.NonResourceAttributes{Path: i.Path, Verb: i.Verb}
		return s
	}
	s.ResourceAttributes = &authorizationv1.ResourceAttributes{
		Namespace: i.Namespace, Verb: i.Verb, Group: i.Group, Version: i.Version, Resource: i.Resource, Subresource: i.Subresource, Name: i.Name,
		FieldSelector: fieldSelector(i.FieldSelector), LabelSelector: labelSelector(i.LabelSelector),
	}
	return s
}

// Selectors narrow a request: a requirement that cannot be told is left out.

func fieldSelector(text string) *authorizationv1.FieldSelectorAttributes {
	if text == "" {
		return nil
	}
	sel, err := fields.ParseSelector(text)
	if err != nil {
		return nil
	}
	out := &authorizationv1.FieldSelectorAttributes{}
	for _, r := range sel.Requirements() {
		op := metav1.FieldSelectorOpIn
		if r.Operator == selection.NotEquals || r.Operator == selection.NotIn {
			op = metav1.FieldSelectorOpNotIn
		}
		out.Requirements = append(out.Requirements, metav1.FieldSelectorRequirement{Key: r.Field, Operator: op, Values: []string{r.Value}})
	}
	if len(out.Requirements) == 0 {
		return nil
	}
	return out
}

func labelSelector(text string) *authorizationv1.LabelSelectorAttributes {
	if text == "" {
		return nil
	}
	list, err := labels.ParseToRequirements(text)
	if err != nil {
		return nil
	}
	out := &authorizationv1.LabelSelectorAttributes{}
	for _, r := range list {
		q := metav1.LabelSelectorRequirement{Key: r.Key(), Values: r.ValuesUnsorted()}
		switch r.Operator() {
		case selection.Equals, selection.DoubleEquals, selection.In:
			q.Operator = metav1.LabelSelectorOpIn
		case selection.NotEquals, selection.NotIn:
			q.Operator = metav1.LabelSelectorOpNotIn
		case selection.Exists:
			q.Operator = metav1.LabelSelectorOpExists
		case selection.DoesNotExist:
			q.Operator = metav1.LabelSelectorOpDoesNotExist
		default:
			continue
		}
		out.Requirements = append(out.Requirements, q)
	}
	if len(out.Requirements) == 0 {
		return nil
	}
	return out
}
