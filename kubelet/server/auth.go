package server

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	authorizationv1 "k8s.io/api/authorization/v1"

	"github.com/sampan-dev/sampan/api"
	"github.com/sampan-dev/sampan/client"
	"github.com/sampan-dev/sampan/kit/clock"
)

// Auth says who may ask what.
type Auth interface {
	// Check returns nil, or why not and the HTTP status of that.
	Check(ctx context.Context, r *http.Request, anonymous bool) (int, error)
}

// Reviews is Auth by the API server: client certificates and TokenReview say
// who asks, SubjectAccessReview says whether they may. Make one with NewReviews.
type Reviews struct {
	c      client.Interface
	node   string
	tokens bool
	allow  bool

	mu    sync.Mutex
	users map[string]cachedUser
	may   map[string]cachedMay
}

type cachedUser struct {
	user  *user
	until time.Time
}

type cachedMay struct {
	ok     bool
	reason string
	until  time.Time
}

type user struct {
	Name, UID string
	Groups    []string
	Extra     map[string]authorizationv1.ExtraValue
}

// NewReviews asks c about callers of node. tokens lets bearer tokens in; with
// allow every known caller may do all.
func NewReviews(c client.Interface, node string, tokens, allow bool) *Reviews {
	return &Reviews{c: c, node: node, tokens: tokens, allow: allow, users: map[string]cachedUser{}, may: map[string]cachedMay{}}
}

// How long answers are kept; upstream's defaults.
const (
	userFor    = 2 * time.Minute
	allowedFor = 5 * time.Minute
	deniedFor  = 30 * time.Second
	cacheMax   = 4096
)

// Check implements Auth.
func (a *Reviews) Check(ctx context.Context, r *http.Request, anonymous bool) (int, error) {
	u, err := a.who(ctx, r)
	if err != nil {
		return http.StatusUnauthorized, errors.New("Unauthorized")
	}
	if u == nil {
		if !anonymous {
			return http.StatusUnauthorized, errors.New("Unauthorized")
		}
		u = &user{Name: "system:anonymous", Groups: []string{"system:unauthenticated"}}
	}
	if a.allow {
		return 0, nil
	}
	verb, subs := attributes(r)
	for _, sub := range subs {
		ok, err := a.allowed(ctx, u, verb, sub)
		if err != nil {
			return http.StatusInternalServerError, fmt.Errorf("Authorization error (user=%s, verb=%s, resource=nodes, subresource=%s)", u.Name, verb, sub)
		}
		if ok {
			return 0, nil
		}
	}
	return http.StatusForbidden, fmt.Errorf("Forbidden (user=%s, verb=%s, resource=nodes, subresource(s)=[%s])", u.Name, verb, strings.Join(subs, ","))
}

// attributes turns a request into a verb on a subresource of the node; any of
// several subresources will do.
func attributes(r *http.Request) (verb string, subs []string) {
	verb = map[string]string{"POST": "create", "GET": "get", "PUT": "update", "PATCH": "patch", "DELETE": "delete"}[r.Method]
	under := func(p string) bool { return r.URL.Path == p || strings.HasPrefix(r.URL.Path, p+"/") }
	switch {
	case under("/stats"):
		return verb, []string{"stats"}
	case under("/metrics"):
		return verb, []string{"metrics"}
	case under("/logs"):
		return verb, []string{"log"}
	case under("/checkpoint"):
		return verb, []string{"checkpoint"}
	case under("/pods"), under("/runningpods"):
		return verb, []string{"pods", "proxy"}
	case under("/healthz"):
		return verb, []string{"healthz", "proxy"}
	case under("/configz"):
		return verb, []string{"configz", "proxy"}
	}
	return verb, []string{"proxy"}
}

func (a *Reviews) who(ctx context.Context, r *http.Request) (*user, error) {
	if r.TLS != nil && len(r.TLS.VerifiedChains) > 0 {
		c := r.TLS.VerifiedChains[0][0]
		return &user{Name: c.Subject.CommonName, Groups: append(c.Subject.Organization, "system:authenticated")}, nil
	}
	scheme, token, _ := strings.Cut(r.Header.Get("Authorization"), " ")
	if !a.tokens || !strings.EqualFold(scheme, "bearer") || token == "" {
		return nil, nil
	}
	now := clock.Now()
	a.mu.Lock()
	c, ok := a.users[token]
	a.mu.Unlock()
	if ok && now.Before(c.until) {
		return c.user, nil
	}
	review := &authenticationv1.TokenReview{Spec: authenticationv1.TokenReviewSpec{Token: token}}
	api.SetKind(review, api.KindFor[authenticationv1.TokenReview]())
	got, err := client.Of[authenticationv1.TokenReview](a.c, "").Create(ctx, review)
	if err != nil {
		return nil, err
	}
	if !got.Status.Authenticated {
		return nil, errors.New("token not accepted")
	}
	u := &user{Name: got.Status.User.Username, UID: got.Status.User.UID, Groups: got.Status.User.Groups, Extra: map[string]authorizationv1.ExtraValue{}}
	for k, v := range got.Status.User.Extra {
		u.Extra[k] = authorizationv1.ExtraValue(v)
	}
	a.mu.Lock()
	if len(a.users) > cacheMax {
		clear(a.users)
	}
	a.users[token] = cachedUser{u, now.Add(userFor)}
	a.mu.Unlock()
	return u, nil
}

func (a *Reviews) allowed(ctx context.Context, u *user, verb, sub string) (bool, error) {
	key := strings.Join(append([]string{u.Name, u.UID, verb, sub}, u.Groups...), "\x00")
	now := clock.Now()
	a.mu.Lock()
	c, ok := a.may[key]
	a.mu.Unlock()
	if ok && now.Before(c.until) {
		return c.ok, nil
	}
	review := &authorizationv1.SubjectAccessReview{Spec: authorizationv1.SubjectAccessReviewSpec{
		User: u.Name, UID: u.UID, Groups: u.Groups, Extra: u.Extra,
		ResourceAttributes: &authorizationv1.ResourceAttributes{Verb: verb, Version: "v1", Resource: "nodes", Subresource: sub, Name: a.node},
	}}
	api.SetKind(review, api.KindFor[authorizationv1.SubjectAccessReview]())
	got, err := client.Of[authorizationv1.SubjectAccessReview](a.c, "").Create(ctx, review)
	if err != nil {
		return false, err
	}
	keep := deniedFor
	if got.Status.Allowed {
		keep = allowedFor
	}
	a.mu.Lock()
	if len(a.may) > cacheMax {
		clear(a.may)
	}
	a.may[key] = cachedMay{got.Status.Allowed, got.Status.Reason, now.Add(keep)}
	a.mu.Unlock()
	return got.Status.Allowed, nil
}
