package authz

import (
	"bytes"
	"net/http"
	"strings"
	"testing"

	"github.com/sampan-dev/sampan/apiserver/request"
	"github.com/sampan-dev/sampan/kit/monster"
)

// FuzzABAC: a file that is taken allows nobody who is not named by it.
func FuzzABAC(f *testing.F) {
	for _, line := range []string{
		`{"apiVersion":"abac.authorization.kubernetes.io/v1beta1","kind":"Policy","spec":{"user":"ann","namespace":"*","resource":"pods","apiGroup":"*","readonly":true}}`,
		`{"apiVersion":"abac.authorization.kubernetes.io/v1beta1","kind":"Policy","spec":{"group":"*","nonResourcePath":"/a*"}}`, `{"user":"ann"}`, `{}`, "# none\n\n{\"readonly\":true}", `{"spec":{"spec":{}}}`,
		`{"apiVersion":"abac.authorization.kubernetes.io/v1beta1","kind":"Policy","spec":null}`, strings.Repeat(" ", 70_000) + "{}",
	} {
		f.Add([]byte(line))
	}
	for _, text := range monster.JSON() {
		f.Add(text)
	}
	nobody := &request.User{Name: "nobody\x00"}
	f.Fuzz(func(t *testing.T, text []byte) {
		monster.Bounded(t, len(text), func() {
			p, err := ReadABAC("file", bytes.NewReader(text))
			if err != nil {
				return
			}
			for _, i := range []*request.Info{{Path: "/version", Verb: "get"}, {IsResource: true, Verb: "delete", Version: "v1", Resource: "secrets", Namespace: "a"}} {
				if d, _, _ := p.Authorize(t.Context(), nobody, i); d == request.Allow && !bytes.Contains(text, []byte(`nobody`)) {
					t.Errorf("%q allows somebody it does not name", text)
				}
				p.Rules(t.Context(), nobody, "a")
			}
		})
	})
}

// FuzzConfiguration: a configuration that is taken decides, and one that is not
// changes nothing.
func FuzzConfiguration(f *testing.F) {
	const head = "apiVersion: apiserver.config.k8s.io/v1\nkind: AuthorizationConfiguration\n"
	for _, text := range []string{
		"authorizers: [{type: RBAC, name: rbac}, {type: Node, name: node}]", "authorizers: []", "authorizers: [{type: AlwaysAllow, name: a}, {type: AlwaysAllow, name: b}]",
		"authorizers:\n- {type: Webhook, name: w, webhook: {timeout: 3s, subjectAccessReviewVersion: v1, matchConditionSubjectAccessReviewVersion: v1, failurePolicy: Deny, authorizedTTL: 1s, unauthorizedTTL: 1s, connectionInfo: {type: InClusterConfig}, matchConditions: [{expression: \"request.user == 'a' && has(request.resourceAttributes)\"}]}}",
		"authorizers:\n- {type: Webhook, name: w, webhook: {timeout: -3s, failurePolicy: No, connectionInfo: {type: KubeConfigFile, kubeConfigFile: /none}, matchConditions: [{expression: '1'}, {expression: '('}]}}",
	} {
		f.Add([]byte(head + text))
	}
	for _, text := range monster.YAML() {
		f.Add(text)
	}
	parts := Parts{RBAC: &RBAC{}, Node: &Node{}, Connect: func(string) (string, *http.Client, error) { return "https://127.0.0.1:0", http.DefaultClient, nil }}
	f.Fuzz(func(t *testing.T, text []byte) {
		monster.Bounded(t, len(text), func() {
			c, err := ReadConfiguration(text)
			if err != nil {
				return
			}
			l := &Live{parts: parts}
			if err := l.Replace(c); (err == nil) != (l.chain.Load() != nil) {
				t.Errorf("%v, and a chain: %v", err, l.chain.Load() != nil)
			}
		})
	})
}
