package request

import (
	"net/http"
	"net/url"
	"strings"
	"testing"
)

// Whatever a path and query hold, reading them ends, and what is read is a part
// of them.
func FuzzParse(f *testing.F) {
	for _, s := range []string{
		"/api/v1/namespaces/default/pods/p/log?container=c", "/apis/apps/v1/deployments?watch=1&fieldSelector=metadata.name%3Dx", "/api/v1/watch/namespaces/a/pods",
		"/api/v1/proxy/namespaces/a/services/https:s:443/x", "/api", "/apis/a", "//api//v1//pods", "/api/v1/namespaces/x/finalize", "/%00", "/api/v1/pods?watch=%zz",
	} {
		f.Add("GET", s)
		f.Add("DELETE", s)
	}
	f.Fuzz(func(t *testing.T, method, uri string) {
		u, err := url.ParseRequestURI(uri)
		if err != nil {
			return
		}
		i := Parse(&http.Request{Method: method, URL: u, Header: http.Header{}})
		if !i.IsResource {
			return
		}
		for _, part := range []string{i.Group, i.Version, i.Resource, i.Subresource, i.Namespace} {
			if !strings.Contains(u.Path, part) {
				t.Errorf("%q is no part of %q", part, u.Path)
			}
		}
		if i.Name != "" && !strings.Contains(u.Path, i.Name) && !strings.Contains(i.FieldSelector, i.Name) {
			t.Errorf("name %q is no part of %q", i.Name, uri)
		}
	})
}
