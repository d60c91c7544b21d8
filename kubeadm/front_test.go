package kubeadm

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"

	"github.com/sampan-dev/sampan/api"
	"github.com/sampan-dev/sampan/client"
	"github.com/sampan-dev/sampan/client/fake"
	"github.com/sampan-dev/sampan/kit/clock"
	"github.com/sampan-dev/sampan/kit/pki"
)

// front is an API server over TLS, as far as machines that join look at it: it
// knows bootstrap tokens while they last, certificates of its authority, and
// anybody who asks for cluster-info, which it signs.
type front struct {
	t    *testing.T
	fake *fake.Server
	ca   *pki.Pair
	at   string // host:port

	mu sync.Mutex
	// ahead is how far its clock is.
	ahead time.Duration
	// deaf makes it forget tokens once cluster-info was read.
	deaf, read bool
}

// newFront serves at l, or wherever there is room, with a certificate of ca.
func newFront(t *testing.T, ca *pki.Pair, l net.Listener, objs ...api.Object) *front {
	t.Helper()
	leaf, err := ca.Issue(pki.Request{CommonName: "kube-apiserver", Server: true, Hosts: []string{"127.0.0.1"}})
	if err != nil {
		t.Fatal(err)
	}
	key, err := leaf.KeyPEM()
	if err != nil {
		t.Fatal(err)
	}
	pair, err := tls.X509KeyPair(leaf.CertPEM(), key)
	if err != nil {
		t.Fatal(err)
	}
	f := &front{t: t, fake: fake.New(objs...), ca: ca}
	s := httptest.NewUnstartedServer(f)
	if l != nil {
		s.Listener.Close()
		s.Listener = l
	}
	clients := x509.NewCertPool()
	clients.AddCert(ca.Cert)
	s.TLS = &tls.Config{Certificates: []tls.Certificate{pair}, ClientCAs: clients, ClientAuth: tls.VerifyClientCertIfGiven}
	s.Config.ErrorLog = nil
	s.StartTLS()
	t.Cleanup(s.Close)
	f.at = s.Listener.Addr().String()
	return f
}

// tokens are the bootstrap tokens that have not expired.
func (f *front) tokens() (out []string) {
	list, err := f.fake.List(f.t.Context(), client.Resource[corev1.Secret](), metav1.NamespaceSystem, nil)
	if err != nil {
		f.t.Error(err)
		return nil
	}
	for _, o := range list.Items {
		s := o.(*corev1.Secret)
		if t, err := tokenOf(s); err == nil && (t.Expires == nil || t.Expires.After(clock.Now())) {
			out = append(out, t.Token)
		}
	}
	return out
}

func (f *front) ServeHTTP(w http.ResponseWriter, q *http.Request) {
	f.mu.Lock()
	defer f.mu.Unlock()
	w.Header().Set("Date", clock.Now().Add(f.ahead).UTC().Format(http.TimeFormat))
	info := q.URL.Path == "/api/v1/namespaces/kube-public/configmaps/cluster-info" && q.Method == http.MethodGet
	token := strings.TrimPrefix(q.Header.Get("Authorization"), "Bearer ")
	known := false
	for _, have := range f.tokens() {
		known = known || have == token
	}
	if !info && len(q.TLS.VerifiedChains) == 0 && (!known || f.deaf && f.read) {
		f.answer(w, nil, apierrors.NewUnauthorized("Unauthorized"))
		return
	}
	o, err := f.do(q)
	if m, ok := o.(*corev1.ConfigMap); info && ok {
		f.read = true
		for _, have := range f.tokens() {
			id, _, _ := strings.Cut(have, ".")
			key := "jws-kubeconfig-" + id
			m.Data[key] = signInfo([]byte(m.Data["kubeconfig"]), have).Data[key]
		}
	}
	f.answer(w, o, err)
}

func (f *front) answer(w http.ResponseWriter, o any, err error) {
	w.Header().Set("Content-Type", "application/json")
	if s, ok := err.(apierrors.APIStatus); ok {
		status := s.Status()
		status.TypeMeta = metav1.TypeMeta{APIVersion: "v1", Kind: "Status"}
		w.WriteHeader(int(status.Code))
		o, err = &status, nil
	}
	if err != nil {
		f.t.Error(err)
	}
	if err := json.NewEncoder(w).Encode(o); err != nil {
		f.t.Error(err)
	}
}

// do carries out a request on the fake.
func (f *front) do(q *http.Request) (any, error) {
	ctx, parts := q.Context(), strings.Split(strings.Trim(q.URL.Path, "/"), "/")
	r := schema.GroupVersionResource{Version: "v1"}
	if parts[0] == "apis" {
		r.Group, r.Version, parts = parts[1], parts[2], parts[3:]
	} else {
		parts = parts[2:]
	}
	var space, name, sub string
	if parts[0] == "namespaces" && len(parts) > 2 {
		space, parts = parts[1], parts[2:]
	}
	r.Resource = parts[0]
	if len(parts) > 1 {
		name = parts[1]
	}
	if len(parts) > 2 {
		sub = parts[2]
	}
	body, err := io.ReadAll(q.Body)
	if err != nil {
		return nil, err
	}
	switch q.Method {
	case http.MethodGet:
		if name == "" {
			return f.list(q, r, space)
		}
		o, err := f.fake.Get(ctx, r, space, name, sub, nil)
		return kinded(o), err
	case http.MethodDelete:
		return &metav1.Status{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Status"}, Status: metav1.StatusSuccess}, f.fake.Delete(ctx, r, space, name, nil)
	case http.MethodPatch:
		o, err := f.fake.Patch(ctx, r, space, name, sub, types.PatchType(q.Header.Get("Content-Type")), body, nil)
		return kinded(o), err
	}
	format, _ := api.FormatOf(q.Header.Get("Content-Type"))
	sent, _, err := api.Decode(format, body, nil, true)
	if err != nil {
		return nil, err
	}
	o := sent.(api.Object)
	if s, ok := o.(*corev1.Secret); ok && s.StringData != nil { // as a real one stores it
		s.Data = map[string][]byte{}
		for k, v := range s.StringData {
			s.Data[k] = []byte(v)
		}
		s.StringData = nil
	}
	if q.Method == http.MethodPost {
		o, err = f.fake.Create(ctx, r, space, name, sub, o, nil)
	} else {
		o, err = f.fake.Update(ctx, r, space, sub, o, nil)
	}
	return kinded(o), err
}

func (f *front) list(q *http.Request, r schema.GroupVersionResource, space string) (any, error) {
	list, err := f.fake.List(q.Context(), r, space, &metav1.ListOptions{LabelSelector: q.URL.Query().Get("labelSelector"), FieldSelector: q.URL.Query().Get("fieldSelector")})
	if err != nil {
		return nil, err
	}
	kind := "List"
	var items []any
	for _, o := range list.Items {
		items = append(items, kinded(o))
		gvk, _ := api.KindOf(o)
		kind = gvk.Kind + "List"
	}
	return map[string]any{"apiVersion": r.GroupVersion().String(), "kind": kind, "metadata": map[string]any{"resourceVersion": "1"}, "items": items}, nil
}

// kinded is a copy of o that says what it is.
func kinded(o api.Object) any {
	if o == nil {
		return nil
	}
	c := o.DeepCopyObject()
	if gvk, err := api.KindOf(c); err == nil {
		api.SetKind(c, gvk)
	}
	return c
}
