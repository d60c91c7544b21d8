package discovery

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"net/http"
	"strings"
	"sync"
	"unsafe"

	v2 "k8s.io/api/apidiscovery/v2"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/sampan-dev/sampan/api"
	"github.com/sampan-dev/sampan/resource"
)

// Handler serves discovery.
type Handler struct {
	kinds  func() []resource.Kind
	server string // host:port clients reach the server at, for /api

	mu   sync.Mutex
	made *documents
}

// documents are those of one set of kinds.
type documents struct {
	kinds  []resource.Kind
	groups []*group
	bodies map[string][]byte // by path or form, made when first asked for
}

// New returns a handler of the kinds that kinds returns: always the same slice
// until they change.
func New(kinds func() []resource.Kind, server string) *Handler {
	return &Handler{kinds: kinds, server: server}
}

// current returns the documents of the kinds there are now; hold h.mu.
func (h *Handler) current() *documents {
	kinds := h.kinds()
	if h.made == nil || len(kinds) != len(h.made.kinds) || unsafe.SliceData(kinds) != unsafe.SliceData(h.made.kinds) {
		h.made = &documents{kinds: kinds, groups: arrange(kinds), bodies: map[string][]byte{}}
	}
	return h.made
}

// Groups lists the served groups and versions as paths, for the index: "/apis/apps/v1".
func (h *Handler) Groups() []string {
	h.mu.Lock()
	defer h.mu.Unlock()
	var out []string
	for _, g := range h.current().groups {
		base := "/api"
		if g.name != "" {
			base = "/apis/" + g.name
		}
		out = append(out, base)
		for _, v := range g.versions {
			out = append(out, base+"/"+v.version)
		}
	}
	return out
}

const (
	aggregatedType  = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"
	aggregatedBeta  = "application/json;g=apidiscovery.k8s.io;v=v2beta1;as=APIGroupDiscoveryList"
	aggregatedGroup = "apidiscovery.k8s.io/"
)

// ServeHTTP answers /api, /apis and what is below down to a version.
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	path := strings.TrimSuffix(r.URL.Path, "/")
	body, contentType, ok := h.body(path, r.Header.Get("Accept"))
	if !ok {
		http.NotFound(w, r)
		return
	}
	w.Header().Set("Content-Type", contentType)
	w.Header().Set("Cache-Control", "no-cache, private")
	if path == "/api" || path == "/apis" {
		w.Header().Set("Vary", "Accept")
	}
	if contentType != api.JSON {
		sum := sha256.Sum256(body)
		tag := `"` + strings.ToUpper(hex.EncodeToString(sum[:])) + `"`
		w.Header().Set("ETag", tag)
		if r.Header.Get("If-None-Match") == tag {
			w.WriteHeader(http.StatusNotModified)
			return
		}
	}
	w.Write(body)
}

func (h *Handler) body(path, accept string) (body []byte, contentType string, ok bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	d := h.current()
	key, contentType := path, api.JSON
	if path == "/api" || path == "/apis" {
		switch aggregated(accept) {
		case "v2":
			key, contentType = path+" v2", aggregatedType
		case "v2beta1":
			key, contentType = path+" v2beta1", aggregatedBeta
		}
	}
	if b, ok := d.bodies[key]; ok {
		return b, contentType, true
	}
	doc := h.document(d, path, key)
	if doc == nil {
		return nil, "", false
	}
	b, err := json.Marshal(doc)
	if err != nil {
		return nil, "", false
	}
	b = append(b, '\n')
	d.bodies[key] = b
	return b, contentType, true
}

// aggregated returns the version of the aggregated form that comes first in an
// Accept header, or "" if a plain clause does.
func aggregated(accept string) string {
	for c := range strings.SplitSeq(accept, ",") {
		c = strings.ReplaceAll(c, " ", "")
		switch {
		case strings.Contains(c, "as=APIGroupDiscoveryList") && strings.Contains(c, "g=apidiscovery.k8s.io"):
			if strings.Contains(c, "v=v2beta1") {
				return "v2beta1"
			}
			if strings.Contains(c, "v=v2") {
				return "v2"
			}
		case strings.HasPrefix(c, "application/json"), strings.HasPrefix(c, "*/*"):
			return ""
		}
	}
	return ""
}

// document makes what a path shows; nil if there is nothing.
func (h *Handler) document(d *documents, path, key string) runtime.Object {
	if _, form, ok := strings.Cut(key, " "); ok {
		return aggregate(d.groups, path == "/api", form)
	}
	parts := strings.Split(strings.TrimPrefix(path, "/"), "/")
	switch {
	case path == "/api":
		out := &metav1.APIVersions{Versions: []string{"v1"}, ServerAddressByClientCIDRs: []metav1.ServerAddressByClientCIDR{
			{ClientCIDR: "0.0.0.0/0", ServerAddress: h.server},
		}}
		out.Kind = "APIVersions"
		return out
	case path == "/apis":
		out := &metav1.APIGroupList{Groups: []metav1.APIGroup{}}
		out.Kind, out.APIVersion = "APIGroupList", "v1"
		for _, g := range d.groups {
			if g.name != "" {
				out.Groups = append(out.Groups, apiGroup(g))
			}
		}
		return out
	case parts[0] == "api" && len(parts) == 2:
		return d.version("", parts[1])
	case parts[0] == "apis" && len(parts) == 2:
		for _, g := range d.groups {
			if g.name == parts[1] && g.name != "" {
				out := apiGroup(g)
				out.Kind, out.APIVersion = "APIGroup", "v1"
				return &out
			}
		}
	case parts[0] == "apis" && len(parts) == 3:
		return d.version(parts[1], parts[2])
	}
	return nil
}

func (d *documents) version(name, version string) runtime.Object {
	for _, g := range d.groups {
		for _, v := range g.versions {
			if v.group == name && v.version == version {
				return resourceList(v)
			}
		}
	}
	return nil
}

// aggregate puts all groups, or the core group alone, into one document.
func aggregate(groups []*group, core bool, version string) runtime.Object {
	out := &v2.APIGroupDiscoveryList{Items: []v2.APIGroupDiscovery{}}
	out.Kind, out.APIVersion = "APIGroupDiscoveryList", aggregatedGroup+version
	for _, g := range groups {
		if (g.name == "") != core {
			continue
		}
		item := v2.APIGroupDiscovery{}
		item.Name = g.name
		for _, v := range g.versions {
			item.Versions = append(item.Versions, aggregateVersion(v))
		}
		out.Items = append(out.Items, item)
	}
	return out
}

func aggregateVersion(v *groupVersion) v2.APIVersionDiscovery {
	out := v2.APIVersionDiscovery{Version: v.version, Freshness: v2.DiscoveryFreshnessCurrent}
	for i := range v.resources {
		s := &v.resources[i]
		r := v2.APIResourceDiscovery{
			Resource: s.plural, SingularResource: s.singular(), Scope: v2.ScopeNamespace, Verbs: s.verbs(),
			ResponseKind: &metav1.GroupVersionKind{Group: s.group, Version: s.version, Kind: s.kind},
			ShortNames:   s.short(), Categories: s.categories(),
		}
		if s.info.ClusterScoped {
			r.Scope = v2.ScopeCluster
		}
		for _, b := range s.subs() {
			r.Subresources = append(r.Subresources, v2.APISubresourceDiscovery{
				Subresource: b.name, Verbs: b.verbs,
				ResponseKind: &metav1.GroupVersionKind{Group: b.kind.Group, Version: b.kind.Version, Kind: b.kind.Kind},
			})
		}
		out.Resources = append(out.Resources, r)
	}
	return out
}
