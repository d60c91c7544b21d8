package aggregate

import (
	"encoding/json"
	"testing"

	v2 "k8s.io/api/apidiscovery/v2"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/sampan-dev/sampan/kit/monster"
)

// FuzzDocuments: whatever another server says of itself, this one's own documents
// stay whole.
func FuzzDocuments(f *testing.F) {
	for _, doc := range []string{
		`{"kind":"APIGroupDiscoveryList","items":[{"metadata":{"name":"g"},"versions":[{"version":"v1","resources":[{"resource":"a","subresources":[{}]},{}]},{}]}]}`, `{"items":[null,{"versions":null}]}`,
		`{"resources":[{"name":"a/b/c"},{"name":"a"},{"name":"/"},{"name":""},null]}`, `{"paths":{"/apis/g/v1/x":{"get":{"a":"#/definitions/A"}}},"definitions":{"A":{"b":{"$ref":"#/definitions/A"}},"B":null}}`,
		`{"paths":{"/apis/g/v1/":{"$ref":"#/definitions/`, `{"paths":null,"definitions":[]}`,
	} {
		f.Add([]byte(doc))
	}
	for _, doc := range monster.JSON() {
		f.Add(doc)
	}
	gv := schema.GroupVersion{Group: "g", Version: "v1"}
	own := []byte(`{"swagger":"2.0","paths":{"/api/v1/pods":{"get":{"r":{"$ref":"#/definitions/A"}}}},"definitions":{"A":{"type":"object"}}}`)
	f.Fuzz(func(t *testing.T, doc []byte) {
		monster.Bounded(t, len(doc), func() {
			var list v2.APIGroupDiscoveryList
			if json.Unmarshal(doc, &list) == nil {
				if pick(&list, gv) == nil {
					t.Error("no version")
				}
			}
			var plain metav1.APIResourceList
			if json.Unmarshal(doc, &plain) == nil {
				fromLegacy(gv, plain.APIResources)
			}
			out, err := mergeV2(own, []theirV2{{below: "/apis/g/v1/", body: doc}})
			if err != nil {
				t.Fatalf("this server's own document is lost: %v", err)
			}
			var merged struct{ Paths, Definitions map[string]json.RawMessage }
			if err := json.Unmarshal(out, &merged); err != nil || string(merged.Definitions["A"]) != `{"type":"object"}` || merged.Paths["/api/v1/pods"] == nil {
				t.Errorf("%v: %.500s", err, out)
			}
		})
	})
}
