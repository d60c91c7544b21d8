package fake

import (
	"encoding/json"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/sampan-dev/sampan/api"
)

// kindOf finds the kind of a resource, "" for one the scheme does not know.
func kindOf(r schema.GroupVersionResource) string {
	for kind := range api.Scheme().KnownTypes(r.GroupVersion()) {
		if resourceOf(r.GroupVersion().WithKind(kind)) == r {
			return kind
		}
	}
	return ""
}

// Serve makes discovery tell of the resources, all with every verb; those named
// in cluster are cluster-scoped.
func (s *Server) Serve(resources []schema.GroupVersionResource, cluster ...string) {
	scoped := map[string]bool{}
	for _, c := range cluster {
		scoped[c] = true
	}
	lists := map[schema.GroupVersion]*metav1.APIResourceList{{Version: "v1"}: {GroupVersion: "v1"}}
	var groups metav1.APIGroupList
	for _, r := range resources {
		gv := r.GroupVersion()
		if lists[gv] == nil {
			lists[gv] = &metav1.APIResourceList{GroupVersion: gv.String()}
			v := metav1.GroupVersionForDiscovery{GroupVersion: gv.String(), Version: gv.Version}
			groups.Groups = append(groups.Groups, metav1.APIGroup{Name: gv.Group, Versions: []metav1.GroupVersionForDiscovery{v}, PreferredVersion: v})
		}
		lists[gv].APIResources = append(lists[gv].APIResources, metav1.APIResource{
			Name: r.Resource, Kind: kindOf(r), Namespaced: !scoped[r.Resource], Verbs: metav1.Verbs{"create", "delete", "get", "list", "patch", "update", "watch"},
		})
	}
	set := func(path string, v any) {
		data, err := json.Marshal(v)
		if err != nil {
			panic(err)
		}
		s.SetRaw(path, data)
	}
	set("/apis", &groups)
	for gv, l := range lists {
		if gv.Group == "" {
			set("/api/v1", l)
		} else {
			set("/apis/"+gv.String(), l)
		}
	}
}
