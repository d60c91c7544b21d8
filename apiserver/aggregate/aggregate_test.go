package aggregate

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	v2 "k8s.io/api/apidiscovery/v2"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	apiregistrationv1 "k8s.io/kube-aggregator/pkg/apis/apiregistration/v1"

	"github.com/sampan-dev/sampan/api"
	"github.com/sampan-dev/sampan/apiserver/request"
	"github.com/sampan-dev/sampan/apiserver/request/requesttest"
	"github.com/sampan-dev/sampan/kit/clock"
	"github.com/sampan-dev/sampan/kit/pki"
	"github.com/sampan-dev/sampan/kit/run"
)

var (
	servicesGR = schema.GroupResource{Resource: "services"}
	slicesGR   = schema.GroupResource{Group: "discovery.k8s.io", Resource: "endpointslices"}
)

const endpoint = "10.0.0.7:8443"

// world is an aggregator, and one server to aggregate on the loopback.
type world struct {
	t    *testing.T
	back *requesttest.Backend
	a    *Aggregator
	ca   *pki.Pair
	down atomic.Bool
	// plainOnly makes the other server know the plain discovery alone.
	plainOnly atomic.Bool
	schemas   atomic.Bool                  // it has OpenAPI documents
	seen      atomic.Pointer[http.Request] // the last request for flunders
	tag, last string                       // of the last tagged document
}

func must[T any](t *testing.T) func(v T, err error) T {
	return func(v T, err error) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

func newWorld(t *testing.T, change func(*Config)) *world {
	t.Helper()
	w := &world{t: t, back: requesttest.New()}
	w.ca = must[*pki.Pair](t)(pki.NewCA("test", ""))
	front := must[*pki.Pair](t)(pki.NewCA("front", ""))
	client := must[*pki.Pair](t)(front.Issue(pki.Request{CommonName: "front-proxy-client", Client: true}))
	serving := must[*pki.Pair](t)(w.ca.Issue(pki.Request{CommonName: "api", Server: true, Hosts: []string{"api.wardle.svc"}}))
	srv := httptest.NewUnstartedServer(http.HandlerFunc(w.other))
	pool := x509.NewCertPool()
	pool.AddCert(front.Cert)
	srv.TLS = &tls.Config{
		Certificates: []tls.Certificate{{Certificate: [][]byte{serving.Cert.Raw}, PrivateKey: serving.Key}},
		ClientAuth:   tls.RequireAndVerifyClientCert, ClientCAs: pool,
	}
	srv.EnableHTTP2 = true
	srv.StartTLS()
	t.Cleanup(srv.Close)
	c := Config{
		ProxyClient: func() (*tls.Certificate, error) {
			return &tls.Certificate{Certificate: [][]byte{client.Cert.Raw}, PrivateKey: client.Key}, nil
		},
		EndpointRouting: true, Recheck: 50 * time.Millisecond,
		Dial: func(ctx context.Context, network, address string) (net.Conn, error) {
			if address != endpoint || w.down.Load() {
				return nil, fmt.Errorf("dial %s: no route", address)
			}
			return (&net.Dialer{}).DialContext(ctx, network, srv.Listener.Addr().String())
		},
	}
	if change != nil {
		change(&c)
	}
	var err error
	if w.a, err = New(c, Deps{Back: w.back, Served: func() ([]Served, <-chan struct{}) { return nil, make(chan struct{}) }}); err != nil {
		t.Fatal(err)
	}
	g := run.New(t.Context())
	g.Go("aggregator", w.a.Run)
	t.Cleanup(func() { g.Stop(); g.Wait() })
	return w
}

// other is the aggregated server.
func (w *world) other(rw http.ResponseWriter, r *http.Request) {
	switch {
	case r.URL.Path == "/apis" && !w.plainOnly.Load():
		rw.Header().Set("Content-Type", "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList")
		io.WriteString(rw, `{"kind":"APIGroupDiscoveryList","apiVersion":"apidiscovery.k8s.io/v2","items":[{"metadata":{"name":"wardle.example.com"},"versions":[
			{"version":"v1alpha1","resources":[{"resource":"flunders","scope":"Namespaced","verbs":["get","list"]}]}]}]}`)
	case r.URL.Path == "/apis/wardle.example.com/v1alpha1":
		io.WriteString(rw, `{"kind":"APIResourceList","groupVersion":"wardle.example.com/v1alpha1","resources":[
			{"name":"flunders","namespaced":true,"kind":"Flunder","verbs":["get","list"]},{"name":"flunders/status","namespaced":true,"kind":"Flunder","verbs":["get"]}]}`)
	case r.URL.Path == "/openapi/v2" && w.schemas.Load():
		io.WriteString(rw, theirsV2)
	case r.URL.Path == "/openapi/v3" && w.schemas.Load():
		io.WriteString(rw, `{"paths":{"apis/wardle.example.com/v1alpha1":{"serverRelativeURL":"/openapi/v3/apis/wardle.example.com/v1alpha1?hash=B"},"apis/not-asked-for/v1":{}}}`)
	case strings.HasPrefix(r.URL.Path, "/openapi/v3/") && w.schemas.Load():
		fmt.Fprintf(rw, "schema for %s with %s", r.Header.Get(userHeader), r.URL.RawQuery)
	case strings.HasSuffix(r.URL.Path, "/moved"):
		http.Redirect(rw, r, "https://elsewhere.example.com/", http.StatusFound)
	case r.Header.Get("Upgrade") == "echo":
		conn, buf, err := http.NewResponseController(rw).Hijack()
		if err != nil {
			w.t.Error(err)
			return
		}
		defer conn.Close()
		fmt.Fprintf(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n%s says ", r.Header.Get(userHeader))
		line, _ := buf.ReadString('\n')
		io.WriteString(conn, line)
	case strings.Contains(r.URL.Path, "/flunders"):
		w.seen.Store(r.Clone(context.Background()))
		rw.Header().Set("Cache-Control", "no-store")
		fmt.Fprint(rw, "a flunder")
	default:
		http.NotFound(rw, r)
	}
}

func (w *world) service(ports ...int32) *corev1.Service {
	s := &corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: "wardle", Name: "api"}, Spec: corev1.ServiceSpec{Type: corev1.ServiceTypeClusterIP, ClusterIP: "10.96.0.9"}}
	for _, p := range ports {
		s.Spec.Ports = append(s.Spec.Ports, corev1.ServicePort{Name: "https", Port: p})
	}
	return s
}

func slice(ready bool) *discoveryv1.EndpointSlice {
	return &discoveryv1.EndpointSlice{
		ObjectMeta: metav1.ObjectMeta{Namespace: "wardle", Name: "api-1", Labels: map[string]string{discoveryv1.LabelServiceName: "api"}},
		Ports:      []discoveryv1.EndpointPort{{Name: new("https"), Port: new(int32(8443))}},
		Endpoints:  []discoveryv1.Endpoint{{Addresses: []string{"10.0.0.7"}, Conditions: discoveryv1.EndpointConditions{Ready: &ready}}},
	}
}

func (w *world) apiService() *apiregistrationv1.APIService {
	return &apiregistrationv1.APIService{
		ObjectMeta: metav1.ObjectMeta{Name: "v1alpha1.wardle.example.com"},
		Spec: apiregistrationv1.APIServiceSpec{
			Group: "wardle.example.com", Version: "v1alpha1", GroupPriorityMinimum: 2000, VersionPriority: 200, CABundle: w.ca.CertPEM(),
			Service: &apiregistrationv1.ServiceReference{Namespace: "wardle", Name: "api", Port: new(int32(443))},
		},
	}
}

// up makes all there must be for the other server to be available.
func (w *world) up() {
	w.t.Helper()
	w.back.With(servicesGR, w.service(443)).With(slicesGR, slice(true)).With(apiServices(), w.apiService())
	w.awaits("True Passed")
}

// awaits waits until the condition is want, or ends with it.
func (w *world) awaits(want string) string {
	w.t.Helper()
	var got string
	eventually(w.t, func() bool {
		o, err := w.back.Get(w.t.Context(), apiServices(), "", "v1alpha1.wardle.example.com")
		if err != nil {
			return false
		}
		c := conditionOf(o.(*apiregistrationv1.APIService))
		if c == nil {
			return false
		}
		got = fmt.Sprintf("%s %s: %s", c.Status, c.Reason, c.Message)
		return strings.HasPrefix(got, want)
	}, func() string { return fmt.Sprintf("condition %q, want %q", got, want) })
	return got
}

func eventually(t *testing.T, ok func() bool, says func() string) {
	t.Helper()
	for deadline := clock.Now().Add(2 * time.Minute); !ok(); {
		if clock.Now().After(deadline) {
			t.Fatal(says())
		}
		clock.Sleep(t.Context(), 5*time.Millisecond)
	}
}

// do sends a request through the aggregator as u.
func (w *world) do(u *request.User, path string, header http.Header) *httptest.ResponseRecorder {
	w.t.Helper()
	r := httptest.NewRequest("GET", path, nil)
	if header != nil {
		r.Header = header
	}
	rec := httptest.NewRecorder()
	rec.Header().Set("Audit-Id", "one")
	rec.Header().Set("Cache-Control", "no-cache, private")
	if !w.a.Serve(rec, r.WithContext(request.WithUser(r.Context(), u))) {
		w.t.Fatalf("%s was not served", path)
	}
	return rec
}

const flunders = "/apis/wardle.example.com/v1alpha1/namespaces/x/flunders"

// TestAvailability walks through what can be wrong, and sees each told as
// upstream words it, as soon as it changes.
func TestAvailability(t *testing.T) {
	w := newWorld(t, nil)
	w.back.With(apiServices(), w.apiService())
	w.awaits(`False ServiceNotFound: service/api in "wardle" is not present`)
	w.back.With(servicesGR, w.service(80))
	w.awaits(`False ServicePortError: service/api in "wardle" is not listening on port 443`)
	modify := func(gr schema.GroupResource, name string, f func(api.Object)) {
		t.Helper()
		if _, err := w.back.Modify(t.Context(), gr, "wardle", name, "", func(o api.Object) error { f(o); return nil }); err != nil {
			t.Fatal(err)
		}
	}
	modify(servicesGR, "api", func(o api.Object) { o.(*corev1.Service).Spec.Ports[0].Port = 443 })
	w.awaits(`False EndpointsNotFound: cannot find endpointslices for service/api in "wardle"`)
	w.back.With(slicesGR, slice(false))
	w.awaits(`False MissingEndpoints: endpointslices for service/api in "wardle" have no addresses with port name "https"`)
	if got := w.do(aggregatorUser(), flunders, nil); got.Code != 503 || strings.TrimSpace(got.Body.String()) != "service unavailable" {
		t.Errorf("%d %q", got.Code, got.Body)
	}
	w.down.Store(true)
	modify(slicesGR, "api-1", func(o api.Object) { *o.(*discoveryv1.EndpointSlice).Endpoints[0].Conditions.Ready = true })
	w.awaits(`False FailedDiscoveryCheck: failing or missing response from https://api.wardle.svc:443/apis/wardle.example.com/v1alpha1: dial 10.0.0.7:8443: no route`)
	w.down.Store(false)
	w.awaits("True Passed: all checks passed")
	w.down.Store(true)
	w.a.mu.Lock()
	w.a.remotes["v1alpha1.wardle.example.com"].idle()
	w.a.mu.Unlock()
	w.awaits("False FailedDiscoveryCheck")
}

func TestWrongAuthorityIsNotTrusted(t *testing.T) {
	w := newWorld(t, nil)
	s := w.apiService()
	s.Spec.CABundle = must[*pki.Pair](t)(pki.NewCA("other", "")).CertPEM()
	w.back.With(servicesGR, w.service(443)).With(slicesGR, slice(true)).With(apiServices(), s)
	if got := w.awaits("False FailedDiscoveryCheck"); !strings.Contains(got, "x509: certificate signed by unknown authority") {
		t.Error(got)
	}
}

// TestIdentity: the other server sees who asks, whatever the client pretends.
func TestIdentity(t *testing.T) {
	w := newWorld(t, nil)
	w.up()
	h := http.Header{
		"X-Remote-User": {"root"}, "X-Remote-Group": {"system:masters"}, "X-Remote-Extra-Scopes": {"all"}, "x-remote-uid": {"0"},
		"Authorization": {"Bearer secret"}, "X-Forwarded-For": {"192.0.2.1"},
	}
	u := &request.User{Name: "jane", UID: "42", Groups: []string{"dev", "system:authenticated"}, Extra: map[string][]string{"example.com/scopes": {"a", "b"}}}
	rec := w.do(u, flunders+"?watch=1&labelSelector=a%3Db", h)
	if rec.Code != 200 || rec.Body.String() != "a flunder" || rec.Header().Get("Cache-Control") != "no-store" || len(rec.Header().Values("Audit-Id")) != 1 {
		t.Fatalf("%d %s %v", rec.Code, rec.Body, rec.Header())
	}
	got := w.seen.Load()
	for k, want := range map[string][]string{
		"X-Remote-User": {"jane"}, "X-Remote-Uid": {"42"}, "X-Remote-Group": {"dev", "system:authenticated"}, "X-Remote-Extra-Scopes": nil,
		http.CanonicalHeaderKey("X-Remote-Extra-example.com%2Fscopes"): {"a", "b"}, "Authorization": nil, "Audit-Id": {"one"},
	} {
		if !slices.Equal(got.Header.Values(k), want) {
			t.Errorf("%s: %q, want %q", k, got.Header.Values(k), want)
		}
	}
	if got.URL.RawQuery != "watch=1&labelSelector=a%3Db" || got.Host != "api.wardle.svc:443" || got.ProtoMajor != 2 {
		t.Errorf("query %s, host %s, %s", got.URL.RawQuery, got.Host, got.Proto)
	}
}

func TestRedirectsAreNotPassedOn(t *testing.T) {
	w := newWorld(t, nil)
	w.up()
	if rec := w.do(aggregatorUser(), flunders+"/moved", nil); rec.Code != http.StatusBadGateway || rec.Header().Get("Location") != "" {
		t.Errorf("%d %v %s", rec.Code, rec.Header(), rec.Body)
	}
}

// TestUpgrade: what exec needs.
func TestUpgrade(t *testing.T) {
	w := newWorld(t, nil)
	w.up()
	front := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		w.a.Serve(rw, r.WithContext(request.WithUser(r.Context(), &request.User{Name: "jane"})))
	}))
	defer front.Close()
	conn := must[net.Conn](t)((&net.Dialer{}).DialContext(t.Context(), "tcp", front.Listener.Addr().String()))
	defer conn.Close()
	fmt.Fprintf(conn, "GET %s/p/exec HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: echo\r\nX-Remote-User: root\r\n\r\n", flunders)
	in := bufio.NewReader(conn)
	resp := must[*http.Response](t)(http.ReadResponse(in, nil))
	if resp.StatusCode != http.StatusSwitchingProtocols {
		t.Fatal(resp.Status)
	}
	io.WriteString(conn, "hello\n")
	if line, _ := in.ReadString('\n'); line != "jane says hello\n" {
		t.Errorf("got %q", line)
	}
}

// discovery asks for a document, over what this server serves itself.
func (w *world) discovery(path, accept string) (body string) {
	own := http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		switch {
		case r.URL.Path != "/apis":
			http.NotFound(rw, r)
		case strings.Contains(r.Header.Get("Accept"), "as="):
			rw.Header().Set("Content-Type", "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList")
			rw.Header().Set("Etag", `"own"`)
			io.WriteString(rw, `{"items":[{"metadata":{"name":"apps"},"versions":[{"version":"v1"}]},{"metadata":{"name":"crd.example.com"},"versions":[{"version":"v1"}]}]}`)
		default:
			rw.Header().Set("Content-Type", "application/json")
			io.WriteString(rw, `{"kind":"APIGroupList","groups":[{"name":"apps","versions":[{"groupVersion":"apps/v1","version":"v1"}]},{"name":"crd.example.com","versions":[{"groupVersion":"crd.example.com/v1","version":"v1"}]}]}`)
		}
	})
	r := httptest.NewRequest("GET", path, nil)
	r.Header.Set("Accept", accept)
	rec := httptest.NewRecorder()
	if w.tag != "" {
		r.Header.Set("If-None-Match", w.tag)
	}
	if w.a.Discovery(own).ServeHTTP(rec, r); rec.Code == http.StatusNotModified {
		return w.last
	}
	if w.tag = rec.Header().Get("Etag"); w.tag != "" {
		w.last = rec.Body.String()
	}
	return rec.Body.String()
}

func (w *world) groups() (names []string, other v2.APIGroupDiscovery) {
	var doc v2.APIGroupDiscoveryList
	if err := json.Unmarshal([]byte(w.discovery("/apis", acceptAggregated)), &doc); err != nil {
		w.t.Fatal(err)
	}
	for _, g := range doc.Items {
		names = append(names, g.Name)
		if g.Name == "wardle.example.com" {
			other = g
		}
	}
	return names, other
}

// TestDiscovery: what another server has stands among the groups by priority; it
// is marked stale when the server is silent, and at last left out of the plain form.
func TestDiscovery(t *testing.T) {
	for _, plain := range []bool{false, true} {
		t.Run(fmt.Sprintf("plain=%t", plain), func(t *testing.T) {
			w := newWorld(t, func(c *Config) { c.Quarantine = 300 * time.Millisecond })
			w.plainOnly.Store(plain)
			for name, p := range map[string]int32{"apps": 17800, "crd.example.com": 1000} {
				s := registration(Served{GroupVersion: schema.GroupVersion{Group: name, Version: "v1"}})
				s.Spec.GroupPriorityMinimum = p
				w.back.With(apiServices(), s)
			}
			w.up()
			names, other := w.groups()
			if !slices.Equal(names, []string{"apps", "wardle.example.com", "crd.example.com"}) {
				t.Errorf("groups %v", names)
			}
			if len(other.Versions) != 1 || other.Versions[0].Freshness != v2.DiscoveryFreshnessCurrent || len(other.Versions[0].Resources) != 1 ||
				other.Versions[0].Resources[0].Resource != "flunders" || other.Versions[0].Resources[0].ResponseKind == nil {
				t.Errorf("other: %+v", other)
			}
			if plain && (len(other.Versions[0].Resources[0].Subresources) != 1 || other.Versions[0].Resources[0].ResponseKind.Kind != "Flunder") {
				t.Errorf("resource %+v", other.Versions[0].Resources[0])
			}
			const named = `"name":"wardle.example.com","versions":[{"groupVersion":"wardle.example.com/v1alpha1","version":"v1alpha1"}],"preferredVersion":{"groupVersion":"wardle.example.com/v1alpha1"`
			if list := w.discovery("/apis", "application/json"); !strings.Contains(list, named) {
				t.Errorf("plain: %s", list)
			}
			if group := w.discovery("/apis/wardle.example.com", "application/json"); !strings.Contains(group, named) || !strings.Contains(group, `"kind":"APIGroup"`) {
				t.Errorf("group: %s", group)
			}
			w.back.Delete(t.Context(), slicesGR, "wardle", "api-1", nil)
			w.awaits("False EndpointsNotFound")
			eventually(t, func() bool { _, other = w.groups(); return other.Versions[0].Freshness == v2.DiscoveryFreshnessStale },
				func() string { return fmt.Sprintf("still %v", other) })
			if len(other.Versions[0].Resources) != 1 {
				t.Errorf("what was known is forgotten: %+v", other)
			}
			list := ""
			eventually(t, func() bool { list = w.discovery("/apis", "application/json"); return !strings.Contains(list, "wardle") },
				func() string { return "a silent server stays in the plain discovery: " + list })
			if !strings.Contains(list, "apps") {
				t.Errorf("plain: %s", list)
			}
			w.back.Delete(t.Context(), apiServices(), "", "v1alpha1.wardle.example.com", nil)
			eventually(t, func() bool { names, _ = w.groups(); return len(names) == 2 }, func() string { return fmt.Sprint(names) })
		})
	}
}
