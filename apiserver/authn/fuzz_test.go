package authn

import (
	"bytes"
	"context"
	"encoding/json"
	"net/http"
	"strings"
	"testing"

	"github.com/sampan-dev/sampan/apiserver/request"
	"github.com/sampan-dev/sampan/kit/monster"
)

const anIssuer = "apiVersion: apiserver.config.k8s.io/v1\nkind: AuthenticationConfiguration\njwt:\n- issuer: {url: https://issuer.example.com, audiences: [k]}\n"

// FuzzConfiguration: a configuration that is taken makes of any claims a user or
// an error.
func FuzzConfiguration(f *testing.F) {
	claims := []byte(`{"iss":"https://issuer.example.com","sub":"jane","groups":["a"],"email":"a@b","email_verified":true,"n":{"m":[1,null,{"x":"y"}]}}`)
	for _, text := range []string{
		"  claimMappings: {username: {claim: sub, prefix: ''}, groups: {claim: groups, prefix: 'p:'}, uid: {claim: n}}\n",
		"  claimMappings: {username: {expression: 'claims.email'}, groups: {expression: 'claims.n.m'}, extra: [{key: a.b/c, valueExpression: 'claims.?n.orValue([])'}]}\n  claimValidationRules: [{expression: 'claims.email_verified == true', message: no}]\n",
		"  claimMappings: {username: {expression: 'claims.n'}, uid: {expression: 'claims.n.m[2].x'}}\n  userValidationRules: [{expression: \"!user.username.startsWith('system:')\"}]\n",
		"anonymous: {enabled: true, conditions: [{path: /livez}]}\n", "  claimMappings: {}\n",
	} {
		f.Add([]byte(anIssuer+text), claims)
	}
	for _, text := range monster.YAML() {
		f.Add(text, claims)
	}
	for _, text := range monster.JSON() {
		f.Add([]byte(anIssuer+"  claimMappings: {username: {expression: 'string(claims.a)'}}\n"), text)
	}
	f.Fuzz(func(t *testing.T, text, claims []byte) {
		monster.Bounded(t, len(text)+len(claims), func() {
			c, err := ReadConfiguration(text)
			if err != nil {
				return
			}
			i, err := NewIssuers(c, JWTOptions{}, nil)
			if err != nil {
				return
			}
			for _, j := range i.set.Load().jwts {
				var said claimSet
				if json.Unmarshal(claims, &said) != nil {
					return
				}
				if u, err := j.user(t.Context(), said); err == nil && u.Name == "" {
					t.Errorf("a user without a name of %s", claims)
				}
			}
		})
	})
}

// denied allows nothing.
type denied struct{}

func (denied) Authorize(context.Context, *request.User, *request.Info) (request.Decision, string, error) {
	return request.NoOpinion, "", nil
}

// FuzzStatic: a token file that is taken knows each of its tokens, and no other.
func FuzzStatic(f *testing.F) {
	for _, s := range []string{"t,u,1", `t,u,1,"a,b"`, ",,,", "t", "\"", "a,b,c\nd,e,f,g,h", "\xff,\x00,", strings.Repeat("a,b,c\n", 3000), strings.Repeat(",", 50_000)} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		monster.Bounded(t, len(text), func() {
			s, err := ReadStatic(bytes.NewReader(text))
			if err != nil {
				return
			}
			if _, _, ok, _ := s.Token(t.Context(), "", nil); ok {
				t.Errorf("%q knows the empty token", text)
			}
		})
	})
}

// FuzzHeaders: whatever the headers of impersonation say, nobody becomes somebody
// without being allowed to.
func FuzzHeaders(f *testing.F) {
	for _, s := range []string{"Impersonate-User: a", "Impersonate-Group: a\nImpersonate-Group: b", "Impersonate-Extra-%zz%2f: a\nImpersonate-User: \xff", "Impersonate-Uid: 1", "Impersonate-User:", "Impersonate-Extra-: x\nImpersonate-User: system:serviceaccount:a:b:c"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		r, _ := http.NewRequestWithContext(t.Context(), "GET", "http://x/api", nil)
		for line := range strings.SplitSeq(text, "\n") {
			k, v, _ := strings.Cut(line, ":")
			r.Header.Add(k, strings.TrimSpace(v))
		}
		r = r.WithContext(request.WithInfo(r.Context(), &request.Info{Path: "/api", Verb: "get"}))
		u, err := Impersonate(r, &request.User{Name: "ann"}, denied{})
		if err == nil && u.Name != "ann" {
			t.Errorf("%q: became %v", text, u)
		}
	})
}
