package request

import (
	"net/http"
	"strings"
)

// specialVerbs are path elements that once stood for a verb: /api/v1/watch/pods.
const (
	watchElement = "watch"
	proxyElement = "proxy"
)

// namespaceSubs are subresources of a namespace, which otherwise would look
// like resources inside it.
func namespaceSub(name string) bool { return name == "status" || name == "finalize" }

// Parse reads what a request asks for from its method, path and query.
func Parse(r *http.Request) *Info {
	i := &Info{Path: r.URL.Path, Verb: strings.ToLower(r.Method)}
	parts := split(r.URL.Path)
	if len(parts) < 3 || parts[0] != "api" && parts[0] != "apis" {
		return i
	}
	prefix := parts[0]
	parts = parts[1:]
	if prefix == "apis" {
		if len(parts) < 3 {
			return i
		}
		i.Group, parts = parts[0], parts[1:]
	}
	i.Prefix, i.IsResource = prefix, true
	i.Version, parts = parts[0], parts[1:]
	verb := methodVerb(r.Method)
	special := false
	if len(parts) > 1 && (parts[0] == watchElement || parts[0] == proxyElement) {
		verb, special = parts[0], true
		parts = parts[1:]
	}
	parts = i.scope(parts)
	if verb == proxyElement {
		return i.oldProxy(r, parts)
	}
	i.Parts = parts
	if len(parts) > 0 {
		i.Resource = parts[0]
	}
	if len(parts) > 1 {
		i.Name = parts[1]
	}
	if len(parts) > 2 && !special {
		i.Subresource = parts[2]
	}
	i.Verb = verb
	i.refine(r, special)
	return i
}

// oldProxy reads /api/v1/proxy/nodes/NAME/… and its like, the paths of before
// 1.10, as those of today: the subresource proxy, for who may use it. Guides have
// a second "proxy" behind the name of a pod, which says the same.
func (i *Info) oldProxy(r *http.Request, parts []string) *Info {
	i.Verb = methodVerb(r.Method)
	i.Parts = parts
	if len(parts) > 0 {
		i.Resource = parts[0]
	}
	if len(parts) < 2 {
		i.refine(r, true)
		return i
	}
	i.Name, i.Subresource = parts[1], proxyElement
	behind := parts[2:]
	if i.Resource == "pods" && len(behind) > 0 && behind[0] == proxyElement {
		behind = behind[1:]
	}
	i.Parts = append([]string{i.Resource, i.Name, proxyElement}, behind...)
	return i
}

// scope takes the namespace off the front of parts.
func (i *Info) scope(parts []string) []string {
	if len(parts) == 0 || parts[0] != "namespaces" {
		return parts
	}
	if len(parts) > 1 {
		i.Namespace = parts[1]
		if len(parts) > 2 && !namespaceSub(parts[2]) {
			return parts[2:]
		}
	}
	return parts
}

// refine tells collections from single objects and lists from watches.
func (i *Info) refine(r *http.Request, special bool) {
	q := r.URL.RawQuery
	if i.Name == "" {
		switch i.Verb {
		case "get":
			i.Verb = "list"
		case "delete":
			i.Verb = "deletecollection"
		}
	}
	switch i.Verb {
	case "list", "watch", "deletecollection":
	default:
		// A watch of one object by its own path is a get with ?watch=1, long deprecated.
		if i.Verb != "get" || i.Subresource != "" || !strings.Contains(q, "watch=") {
			return
		}
		if v := r.URL.Query().Get("watch"); !truthy(v) {
			return
		}
		i.Verb = "watch"
	}
	if q == "" {
		return
	}
	values := r.URL.Query()
	i.FieldSelector, i.LabelSelector = values.Get("fieldSelector"), values.Get("labelSelector")
	if v, ok := values["watch"]; ok && len(v) > 0 && truthy(v[0]) && i.Verb == "list" {
		i.Verb = "watch"
	}
	if name, ok := strings.CutPrefix(i.FieldSelector, "metadata.name="); ok && i.Name == "" && !strings.ContainsAny(name, ",=!\\") {
		i.Name = name
	}
}

// truthy reads a query's boolean as upstream does: everything but 0 and false.
func truthy(s string) bool { return s != "0" && !strings.EqualFold(s, "false") }

func methodVerb(method string) string {
	switch method {
	case http.MethodPost:
		return "create"
	case http.MethodGet, http.MethodHead:
		return "get"
	case http.MethodPut:
		return "update"
	case http.MethodPatch:
		return "patch"
	case http.MethodDelete:
		return "delete"
	}
	return ""
}

// split returns a path's elements; empty ones at the ends are dropped.
func split(path string) []string {
	path = strings.Trim(path, "/")
	if path == "" {
		return nil
	}
	return strings.Split(path, "/")
}
