package authn

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/sampan-dev/sampan/apiserver/request"
	"github.com/sampan-dev/sampan/kit/clock"
)

const (
	cacheLife = 10 * time.Second // upstream's
	cacheSize = 4096
)

// tokens asks each kind in turn and remembers who was recognised for a moment.
type tokens struct {
	kinds   []TokenAuthenticator
	metrics *Metrics

	mu    sync.Mutex
	cache map[[sha256.Size]byte]known
}

type known struct {
	user    *request.User
	matched []string
	until   time.Time
}

func newTokens(kinds []TokenAuthenticator, m *Metrics) *tokens {
	return &tokens{kinds: kinds, metrics: m, cache: map[[sha256.Size]byte]known{}}
}

// cacheKey names a question without keeping the token.
func cacheKey(token string, audiences []string) [sha256.Size]byte {
	return sha256.Sum256([]byte(strings.Join(audiences, "\x00") + "\x00\x00" + token))
}

// both returns what two lists have in common, in the first's order.
func both(a, b []string) (out []string) {
	for _, s := range a {
		if slices.Contains(b, s) {
			out = append(out, s)
		}
	}
	return out
}

// agnostic is a kind of token that knows nothing of audiences: its tokens are for
// the API server.
type agnostic struct {
	TokenAuthenticator
	own []string
}

// Agnostic gives the tokens of a kind the API server's audiences.
func Agnostic(kind TokenAuthenticator, own []string) TokenAuthenticator { return agnostic{kind, own} }

// Token honours tokens that are asked for with one of the server's audiences.
func (a agnostic) Token(ctx context.Context, token string, audiences []string) (*request.User, []string, bool, error) {
	matched := a.own
	if len(audiences) > 0 {
		if matched = both(audiences, a.own); len(matched) == 0 {
			return nil, nil, false, nil
		}
	}
	u, _, ok, err := a.TokenAuthenticator.Token(ctx, token, audiences)
	return u, matched, ok, err
}

func (a agnostic) expires(token string) time.Time {
	if e, ok := a.TokenAuthenticator.(expiring); ok {
		return e.expires(token)
	}
	return time.Time{}
}

// expiring is a TokenAuthenticator that says when a token stops being good.
type expiring interface{ expires(token string) time.Time }

// Token says whom a token belongs to.
func (t *tokens) Token(ctx context.Context, token string, audiences []string) (*request.User, []string, bool, error) {
	key := cacheKey(token, audiences)
	now := clock.Now()
	t.mu.Lock()
	k, hit := t.cache[key]
	t.mu.Unlock()
	hit = hit && now.Before(k.until)
	t.metrics.cache(hit)
	if hit {
		return k.user, k.matched, true, nil
	}
	var errs []error
	for _, kind := range t.kinds {
		u, matched, ok, err := kind.Token(ctx, token, audiences)
		if err != nil {
			errs = append(errs, err)
		}
		if !ok {
			continue
		}
		until := now.Add(cacheLife)
		if e, can := kind.(expiring); can {
			if x := e.expires(token); !x.IsZero() && x.Before(until) {
				until = x
			}
		}
		t.remember(key, known{u, matched, until})
		return u, matched, true, nil
	}
	return nil, nil, false, errors.Join(errs...)
}

func (t *tokens) remember(key [sha256.Size]byte, k known) {
	t.mu.Lock()
	defer t.mu.Unlock()
	shrink(t.cache)
	t.cache[key] = k
}

// shrink makes room in a full cache: an eighth of it goes, whichever comes first,
// so that a flood of tokens costs little for each.
func shrink[V any](cache map[[sha256.Size]byte]V) {
	if len(cache) < cacheSize {
		return
	}
	for k := range cache {
		if delete(cache, k); len(cache) <= cacheSize*7/8 {
			return
		}
	}
}

// Static is a table of fixed tokens.
type Static struct {
	users map[[sha256.Size]byte]*request.User
}

// ReadStatic reads lines of token,user,uid[,"group1,group2"].
func ReadStatic(r io.Reader) (*Static, error) {
	s := &Static{users: map[[sha256.Size]byte]*request.User{}}
	rows := csv.NewReader(r)
	rows.FieldsPerRecord = -1
	for line := 1; ; line++ {
		row, err := rows.Read()
		if errors.Is(err, io.EOF) {
			return s, nil
		}
		if err != nil {
			return nil, fmt.Errorf("token file: %w", err)
		}
		if len(row) < 3 {
			return nil, fmt.Errorf("token file must have at least 3 columns (token, user name, user uid), found %d", len(row))
		}
		if row[0] == "" {
			continue
		}
		u := &request.User{Name: row[1], UID: row[2]}
		if len(row) >= 4 && row[3] != "" {
			u.Groups = strings.Split(row[3], ",")
		}
		s.users[sha256.Sum256([]byte(row[0]))] = u
	}
}

// Token looks the token up.
func (s *Static) Token(_ context.Context, token string, audiences []string) (*request.User, []string, bool, error) {
	u, ok := s.users[sha256.Sum256([]byte(token))]
	return u, audiences, ok, nil
}

// Bootstrap knows the tokens by which nodes join: secrets in kube-system.
type Bootstrap struct{ Back request.Backend }

var (
	bootstrapForm  = regexp.MustCompile(`^([a-z0-9]{6})\.([a-z0-9]{16})$`)
	bootstrapGroup = regexp.MustCompile(`^system:bootstrappers:[a-z0-9:-]{0,255}[a-z0-9]$`)
)

// Token compares a token of the right form with its secret.
func (b *Bootstrap) Token(ctx context.Context, token string, audiences []string) (*request.User, []string, bool, error) {
	m := bootstrapForm.FindStringSubmatch(token)
	if m == nil {
		return nil, nil, false, nil
	}
	id, secret := m[1], m[2]
	obj, err := b.Back.Get(ctx, schema.GroupResource{Resource: "secrets"}, metav1.NamespaceSystem, "bootstrap-token-"+id)
	if apierrors.IsNotFound(err) {
		return nil, nil, false, nil
	}
	if err != nil {
		return nil, nil, false, fmt.Errorf("bootstrap token %s: %w", id, err)
	}
	s, ok := obj.(*corev1.Secret)
	if !ok || s.DeletionTimestamp != nil || s.Type != corev1.SecretTypeBootstrapToken {
		return nil, nil, false, nil
	}
	if subtle.ConstantTimeCompare(s.Data["token-secret"], []byte(secret)) != 1 || string(s.Data["token-id"]) != id {
		return nil, nil, false, nil
	}
	if x := string(s.Data["expiration"]); x != "" {
		if at, err := time.Parse(time.RFC3339, x); err != nil || !clock.Now().Before(at) {
			return nil, nil, false, nil
		}
	}
	if string(s.Data["usage-bootstrap-authentication"]) != "true" {
		return nil, nil, false, nil
	}
	groups := []string{"system:bootstrappers"}
	for g := range strings.SplitSeq(string(s.Data["auth-extra-groups"]), ",") {
		if g == "" {
			continue
		}
		if !bootstrapGroup.MatchString(g) {
			return nil, nil, false, fmt.Errorf("bootstrap token %s: bad group %q", id, g)
		}
		if !slices.Contains(groups, g) {
			groups = append(groups, g)
		}
	}
	slices.Sort(groups)
	return &request.User{Name: "system:bootstrap:" + id, Groups: groups}, audiences, true, nil
}
