package audit

import (
	"encoding/json"
	"testing"

	auditv1 "k8s.io/apiserver/pkg/apis/audit/v1"

	"github.com/sampan-dev/sampan/apiserver/request"
	"github.com/sampan-dev/sampan/kit/monster"
)

// FuzzPolicy: a policy that is taken judges every request, in one of the levels.
func FuzzPolicy(f *testing.F) {
	f.Add([]byte(policyText), "/api/v1/pods")
	f.Add([]byte("kind: Policy\napiVersion: audit.k8s.io/v1\nrules: [{level: None, nonResourceURLs: ['', '*', '/a*b']}]"), "")
	f.Add([]byte("kind: Policy\napiVersion: audit.k8s.io/v1\nrules: [{level: Request, resources: [{group: '*', resources: ['', '*/*', '/']}], namespaces: ['']}]"), "//")
	for _, text := range monster.YAML() {
		f.Add(text, "/healthz")
	}
	f.Fuzz(func(t *testing.T, text []byte, path string) {
		monster.Bounded(t, len(text), func() {
			p, _, err := parsePolicy(text)
			if err != nil {
				return
			}
			for _, i := range []*request.Info{
				{Path: path, Verb: "get"}, {IsResource: true, Verb: "create", Version: "v1", Resource: "pods", Namespace: path, Name: path},
				{IsResource: true, Verb: "update", Group: path, Version: "v1", Resource: path, Subresource: "status"},
			} {
				if v := judge(p, &request.User{Name: path, Groups: []string{path}}, i); v.atLeast(auditv1.LevelRequest) && v.level == "" {
					t.Errorf("judged %q", v.level)
				}
			}
		})
	})
}

// FuzzBodies: what is put on record of a body is JSON, whatever the body is.
func FuzzBodies(f *testing.F) {
	for _, text := range monster.JSON() {
		f.Add("application/json", "", text)
	}
	for _, text := range monster.YAML() {
		f.Add("application/apply-patch+yaml", "", text)
	}
	for _, text := range monster.Proto() {
		f.Add("application/vnd.kubernetes.protobuf", "gzip", text)
	}
	f.Add("application/json", "gzip", []byte("\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\xff"))
	f.Fuzz(func(t *testing.T, media, encoding string, data []byte) {
		for _, omit := range []bool{false, true} {
			monster.Bounded(t, len(data), func() {
				if u := body(media, encoding, data, omit); u != nil && !json.Valid(u.Raw) {
					t.Errorf("%s %s: %.300q", media, encoding, u.Raw)
				}
			})
		}
	})
}
