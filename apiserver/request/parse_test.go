package request

import (
	"net/http/httptest"
	"strings"
	"testing"
)

// The proxy's paths of before 1.10 mean what today's do.
func TestOldProxyPaths(t *testing.T) {
	for _, c := range []struct{ old, today string }{
		{"/api/v1/proxy/nodes/n1/pods", "/api/v1/nodes/n1/proxy/pods"},
		{"/api/v1/proxy/nodes/n1/logs/a/b", "/api/v1/nodes/n1/proxy/logs/a/b"},
		{"/api/v1/proxy/nodes/n1", "/api/v1/nodes/n1/proxy"},
		{"/api/v1/proxy/nodes/https:n1:10250/metrics", "/api/v1/nodes/https:n1:10250/proxy/metrics"},
		{"/api/v1/proxy/namespaces/a/pods/p", "/api/v1/namespaces/a/pods/p/proxy"},
		{"/api/v1/proxy/namespaces/a/pods/p/x/y", "/api/v1/namespaces/a/pods/p/proxy/x/y"},
		{"/api/v1/proxy/namespaces/a/pods/p/proxy/x", "/api/v1/namespaces/a/pods/p/proxy/x"},
		{"/api/v1/proxy/namespaces/a/services/http:s:80/x", "/api/v1/namespaces/a/services/http:s:80/proxy/x"},
	} {
		for _, method := range []string{"GET", "POST", "DELETE"} {
			got, want := Parse(httptest.NewRequest(method, c.old, nil)), Parse(httptest.NewRequest(method, c.today, nil))
			if got.Verb != want.Verb || got.Resource != want.Resource || got.Namespace != want.Namespace || got.Name != want.Name || got.Subresource != want.Subresource ||
				strings.Join(got.Parts, "/") != strings.Join(want.Parts, "/") {
				t.Errorf("%s %s: %+v, want %+v", method, c.old, got, want)
			}
		}
	}
	if i := Parse(httptest.NewRequest("GET", "/api/v1/proxy/nodes", nil)); i.Subresource != "" || i.Resource != "nodes" {
		t.Errorf("without a name: %+v", i)
	}
}
