package apiserver_test

import (
	"bytes"
	"net"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/sampan-dev/sampan/apiserver"
	"github.com/sampan-dev/sampan/apiserver/apply"
	"github.com/sampan-dev/sampan/apiserver/openapi"
	"github.com/sampan-dev/sampan/apiserver/rest"
	"github.com/sampan-dev/sampan/resource/all"
)

// TestAForeignReaderUnderstandsTheStore looks at the keys and bytes in the store
// with nothing of ours: where upstream's API server keeps an object, in the
// envelope and the encoding that its types read.
func TestAForeignReaderUnderstandsTheStore(t *testing.T) {
	registry := rest.NewRegistry(all.Kinds())
	store := cached(t, registry)
	e := rest.New(rest.Deps{Store: store, Registry: registry, Fields: apply.New(openapi.NewMerger())})
	s, err := apiserver.New(apiserver.Config{Advertise: net.IPv4(127, 0, 0, 1)}, apiserver.Deps{Engine: e, OpenAPI: openapi.New(registry.Kinds)})
	if err != nil {
		t.Fatal(err)
	}
	c := client{t, s.Handler()}
	type foreign interface {
		Unmarshal([]byte) error
		GetName() string
	}
	for _, tc := range []struct {
		path, body, key, version, kind string
		into                           foreign
	}{
		{"/api/v1/namespaces", `{"metadata":{"name":"default"}}`, "/registry/namespaces/default", "v1", "Namespace", &corev1.Namespace{}},
		{"/api/v1/nodes", `{"metadata":{"name":"n1"}}`, "/registry/minions/n1", "v1", "Node", &corev1.Node{}},
		{"/api/v1/namespaces/default/configmaps", `{"metadata":{"name":"m"},"data":{"a":"b"}}`, "/registry/configmaps/default/m", "v1", "ConfigMap", &corev1.ConfigMap{}},
		{"/api/v1/namespaces/default/endpoints", `{"metadata":{"name":"e"}}`, "/registry/services/endpoints/default/e", "v1", "Endpoints", &corev1.Endpoints{}}, //nolint:staticcheck // still served
		{"/apis/extensions/v1beta1/namespaces/default/deployments", `{"metadata":{"name":"d"},"spec":{"template":{"metadata":{"labels":{"a":"b"}},"spec":{"containers":[{"name":"c","image":"i"}]}}}}`,
			"/registry/deployments/default/d", "apps/v1", "Deployment", &appsv1.Deployment{}},
	} {
		if code, out, _ := c.do("POST", tc.path, "application/json", tc.body); code != 201 {
			t.Errorf("create at %s: %d %v", tc.path, code, out)
			continue
		}
		rec, err := store.Get(t.Context(), tc.key, 0)
		if err != nil {
			t.Errorf("%s: %v", tc.key, err)
			continue
		}
		raw, ok := bytes.CutPrefix(rec.Value, []byte("k8s\x00"))
		if !ok {
			t.Errorf("%s begins with %q, want the envelope of protobuf", tc.key, rec.Value[:min(8, len(rec.Value))])
			continue
		}
		var u runtime.Unknown
		if err := u.Unmarshal(raw); err != nil || u.APIVersion != tc.version || u.Kind != tc.kind {
			t.Errorf("%s: envelope of %s %s, %v; want %s %s", tc.key, u.APIVersion, u.Kind, err, tc.version, tc.kind)
			continue
		}
		if err := tc.into.Unmarshal(u.Raw); err != nil || tc.into.GetName() == "" {
			t.Errorf("%s: %v; read %q", tc.key, err, tc.into.GetName())
		}
	}
}
