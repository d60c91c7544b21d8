package openapi

import (
	"strings"

	"github.com/sampan-dev/sampan/resource"
)

// root is a URL above the groups' versions, which only answers.
type root struct{ url, tag, id, text, gives string }

// key names the root's document in the list of OpenAPI v3 documents.
func (r root) key() string { return strings.Trim(r.url, "/") }

// roots lists them for the groups served.
func roots(kinds []resource.Kind) []root {
	out := []root{
		{"/api/", "core", "getCoreAPIVersions", "get available API versions", metaPrefix + "APIVersions"},
		{"/apis/", "apis", "getAPIVersions", "get available API versions", metaPrefix + "APIGroupList"},
		{"/version/", "version", "getCodeVersion", "get the version information for this server", "io.k8s.apimachinery.pkg.version.Info"},
	}
	seen := map[string]bool{"": true}
	for _, gv := range versions(kinds) {
		if seen[gv.Group] {
			continue
		}
		seen[gv.Group] = true
		gv.Version = ""
		id := idPart(gv)
		out = append(out, root{"/apis/" + gv.Group + "/", strings.ToLower(id[:1]) + id[1:], "get" + id + "APIGroup", "get information of a group", metaPrefix + "APIGroup"})
	}
	return out
}

func (b *build) addRoot(into object, r root) {
	o := b.operation(&operation{method: "get", id: r.id, text: r.text, gives: r.gives, codes: []string{"200"}}, r.tag, false)
	delete(o, "x-kubernetes-action")
	delete(o, "x-kubernetes-group-version-kind")
	into[r.url] = object{"get": o}
}
