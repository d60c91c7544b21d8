package apiserver_test

import (
	"encoding/json"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/sampan-dev/sampan/apiserver"
	"github.com/sampan-dev/sampan/apiserver/apply"
	"github.com/sampan-dev/sampan/apiserver/openapi"
	req "github.com/sampan-dev/sampan/apiserver/request"
	"github.com/sampan-dev/sampan/apiserver/rest"
	"github.com/sampan-dev/sampan/kit/run"
	"github.com/sampan-dev/sampan/resource/all"
	"github.com/sampan-dev/sampan/storage"
	"github.com/sampan-dev/sampan/storage/cache"
	"github.com/sampan-dev/sampan/storage/mem"
)

func newServer(t testing.TB, c apiserver.Config) *apiserver.Server {
	t.Helper()
	return newServerWith(t, c)
}

func recorder() *httptest.ResponseRecorder { return httptest.NewRecorder() }

// newServerWith returns a server that knows users by authn.
func newServerWith(t testing.TB, c apiserver.Config, authn ...req.Authenticator) *apiserver.Server {
	t.Helper()
	registry := rest.NewRegistry(all.Kinds())
	store := cached(t, registry)
	e := rest.New(rest.Deps{Store: store, Registry: registry, Fields: apply.New(openapi.NewMerger())})
	c.Advertise = net.IPv4(127, 0, 0, 1)
	size := func(group, resource string) (int, int64, bool) {
		k, ok := registry.Stored(schema.GroupResource{Group: group, Resource: resource})
		if !ok {
			return 0, 0, false
		}
		return store.(*cache.Cache).Size(k.Prefix())
	}
	s, err := apiserver.New(c, apiserver.Deps{Engine: e, Authn: authn, OpenAPI: openapi.New(registry.Kinds), Size: size})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// cached is what a real server stands on: a store with its recent facts in memory.
func cached(t testing.TB, registry *rest.Registry) storage.Store {
	c, err := cache.New(mem.New(), cache.Config{Prefix: "/registry/", Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range registry.All() {
		if s.Version == nil && !s.Info.Virtual {
			c.Register(s.Prefix(), s.Indexers())
		}
	}
	g := run.New(t.Context())
	g.Go("cache", c.Run)
	t.Cleanup(func() { g.Stop(); g.Wait() })
	if err := c.Synced(t.Context()); err != nil {
		t.Fatal(err)
	}
	return c
}

// client asks a handler as a script would.
type client struct {
	t testing.TB
	h http.Handler
}

func (c client) do(method, path, contentType, body string) (int, map[string]any, http.Header) {
	c.t.Helper()
	r := httptest.NewRequest(method, path, strings.NewReader(body))
	r.Header.Set("User-Agent", "test/1")
	if contentType != "" {
		r.Header.Set("Content-Type", contentType)
	}
	w := httptest.NewRecorder()
	c.h.ServeHTTP(w, r)
	out := map[string]any{}
	json.Unmarshal(w.Body.Bytes(), &out)
	return w.Code, out, w.Header()
}

// TestServeForReal serves on the loopback for a person to try, when asked to.
func TestServeForReal(t *testing.T) {
	addr := os.Getenv("SAMPAN_TEST_SERVE")
	if addr == "" {
		t.Skip("SAMPAN_TEST_SERVE=127.0.0.1:PORT not set")
	}
	l, err := net.Listen("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	s := newServer(t, apiserver.Config{Listener: l})
	if err := s.Run(t.Context()); err != nil {
		t.Fatal(err)
	}
}
