package apiserver_test

import (
	"encoding/json"
	"net"
	"net/http/httptest"
	"testing"

	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/sampan-dev/sampan/apiserver"
	"github.com/sampan-dev/sampan/apiserver/rest"
	"github.com/sampan-dev/sampan/kit/monster"
	"github.com/sampan-dev/sampan/resource/all"
)

// FuzzStored: whatever stands in etcd, who asks for it gets an answer, and the
// server's other objects are not kept from anybody.
func FuzzStored(f *testing.F) {
	registry := rest.NewRegistry(all.Kinds())
	store := cached(f, registry)
	s, err := apiserver.New(apiserver.Config{Advertise: net.IPv4(127, 0, 0, 1)}, apiserver.Deps{Engine: rest.New(rest.Deps{Store: store, Registry: registry})})
	if err != nil {
		f.Fatal(err)
	}
	c := client{f, s.Handler()}
	c.do("POST", base+"pods", jsonType, richPod("well"))
	pods, ok := registry.Stored(schema.GroupResource{Resource: "pods"})
	if !ok {
		f.Fatal("no pods")
	}
	key := pods.Prefix() + "default/ill"
	if p, err := store.Get(f.Context(), pods.Prefix()+"default/well", 0); err == nil {
		f.Add(p.Value)
		f.Add(p.Value[:len(p.Value)/2])
		f.Add(append(p.Value[:len(p.Value):len(p.Value)], 0xff))
	}
	for _, value := range monster.Proto() {
		f.Add(value)
	}
	for _, value := range monster.JSON() {
		f.Add(value)
	}
	f.Add([]byte(`{"kind":"Pod","apiVersion":"v1","metadata":{"name":"other","namespace":"elsewhere"},"spec":{"overhead":{"cpu":"1e-99999999999"}}}`))
	f.Fuzz(func(t *testing.T, value []byte) {
		if len(value) == 0 || len(value) > 1<<20 {
			return
		}
		rec, err := store.Create(t.Context(), key, value, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer store.Delete(t.Context(), key, rec.Rev)
		for _, accept := range []string{jsonType, "application/vnd.kubernetes.protobuf", "application/json;as=Table;v=v1;g=meta.k8s.io", "application/json;as=PartialObjectMetadata;v=v1;g=meta.k8s.io", "application/yaml"} {
			r := request("GET", base+"pods/ill", "")
			r.Header.Set("Accept", accept)
			w := httptest.NewRecorder()
			monster.Bounded(t, len(value), func() { c.h.ServeHTTP(w, r) })
			var s struct{ Kind string }
			if w.Code != 200 && accept == jsonType && (json.Unmarshal(w.Body.Bytes(), &s) != nil || s.Kind != "Status") {
				t.Errorf("%d %.300s", w.Code, w.Body)
			}
		}
		if code, _, _ := (client{t, c.h}).do("GET", base+"pods/well", "", ""); code != 200 {
			t.Errorf("another object: %d", code)
		}
		if code, _, _ := (client{t, c.h}).do("GET", base+"pods/none", "", ""); code != 404 {
			t.Errorf("no object: %d", code)
		}
	})
}
