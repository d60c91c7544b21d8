package client_test

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/runtime/serializer/streaming"

	"github.com/sampan-dev/sampan/api"
	"github.com/sampan-dev/sampan/client"
)

// server answers in the format that the client prefers, as a real one does.
func server(t *testing.T, format api.Format, handle func(w http.ResponseWriter, r *http.Request) runtime.Object) *httptest.Server {
	t.Helper()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		obj := handle(w, r)
		if obj == nil {
			return
		}
		w.Header().Set("Content-Type", format.MediaType())
		if s, ok := obj.(*metav1.Status); ok && s.Code != 0 {
			w.WriteHeader(int(s.Code))
		}
		if err := api.Encode(format, obj, w); err != nil {
			t.Errorf("encode answer: %v", err)
		}
	}))
	t.Cleanup(s.Close)
	return s
}

func typedPod(name string) *corev1.Pod {
	return &corev1.Pod{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Pod"}, ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: "ns", ResourceVersion: "7"}}
}

func TestHTTPFormats(t *testing.T) {
	for _, f := range []api.Format{api.FormatJSON, api.FormatProtobuf} {
		t.Run(f.MediaType(), func(t *testing.T) {
			s := server(t, f, func(w http.ResponseWriter, r *http.Request) runtime.Object {
				switch {
				case r.URL.Query().Get("watch") == "true":
					w.Header().Set("Content-Type", f.MediaType()+";stream=watch")
					info, _ := runtime.SerializerInfoForMediaType(api.Codecs().SupportedMediaTypes(), f.MediaType())
					e := streaming.NewEncoder(info.StreamSerializer.NewFrameWriter(w), info.StreamSerializer.Serializer)
					for _, kind := range []string{"ADDED", "DELETED"} {
						var b bytes.Buffer
						api.Encode(f, typedPod("w"), &b)
						if err := e.Encode(&metav1.WatchEvent{Type: kind, Object: runtime.RawExtension{Raw: b.Bytes()}}); err != nil {
							t.Error(err)
						}
					}
					var b bytes.Buffer
					gone := apierrors.NewResourceExpired("too old").Status()
					gone.TypeMeta = metav1.TypeMeta{APIVersion: "v1", Kind: "Status"}
					api.Encode(f, &gone, &b)
					e.Encode(&metav1.WatchEvent{Type: "ERROR", Object: runtime.RawExtension{Raw: b.Bytes()}})
					return nil
				case r.Method == http.MethodPost:
					body, _ := io.ReadAll(r.Body)
					sent, _ := api.FormatOf(r.Header.Get("Content-Type"))
					obj, _, err := api.Decode(sent, body, nil, true)
					if err != nil {
						t.Errorf("decode what was sent: %v", err)
					}
					obj.(*corev1.Pod).UID = "made"
					return obj
				case strings.HasSuffix(r.URL.Path, "/missing"):
					st := apierrors.NewNotFound(schema.GroupResource{Resource: "pods"}, "missing").Status()
					st.TypeMeta = metav1.TypeMeta{APIVersion: "v1", Kind: "Status"}
					return &st
				}
				if got := r.URL.Query().Get("labelSelector"); got != "a=b" {
					t.Errorf("labelSelector %q, want a=b", got)
				}
				return &corev1.PodList{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "PodList"}, ListMeta: metav1.ListMeta{ResourceVersion: "9"}, Items: []corev1.Pod{*typedPod("x"), *typedPod("y")}}
			})
			c, err := client.New(client.Config{Servers: []string{s.URL}})
			if err != nil {
				t.Fatal(err)
			}
			pods := client.Of[corev1.Pod](c, "ns")
			list, err := pods.List(t.Context(), &metav1.ListOptions{LabelSelector: "a=b"})
			if err != nil || len(list) != 2 || list[1].Name != "y" || list[1].Kind != "Pod" {
				t.Errorf("list: %v, %v", list, err)
			}
			made, err := pods.Create(t.Context(), &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "n"}})
			if err != nil || made.UID != "made" || made.Name != "n" {
				t.Errorf("create: %v, %v", made, err)
			}
			if _, err := pods.Get(t.Context(), "missing"); !apierrors.IsNotFound(err) || err.Error() != `pods "missing" not found` {
				t.Errorf("get: %v, want not found", err)
			}
			w, err := c.Watch(t.Context(), client.Resource[corev1.Pod](), "ns", nil)
			if err != nil {
				t.Fatal(err)
			}
			defer w.Stop()
			for _, want := range []string{"ADDED", "DELETED"} {
				e, err := w.Next(t.Context())
				if err != nil || string(e.Type) != want || e.Object.(*corev1.Pod).Name != "w" {
					t.Fatalf("event %+v, %v; want %s", e, err, want)
				}
			}
			if _, err := w.Next(t.Context()); !apierrors.IsResourceExpired(err) {
				t.Errorf("last event: %v, want expired", err)
			}
			if _, err := w.Next(t.Context()); !errors.Is(err, io.EOF) {
				t.Errorf("after the end: %v, want EOF", err)
			}
		})
	}
}

// TestHTTPUnknownKind reads a kind that is not compiled in.
func TestHTTPUnknownKind(t *testing.T) {
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		json.NewEncoder(w).Encode(map[string]any{"apiVersion": "stable.example.com/v1", "kind": "CronTabList", "metadata": map[string]any{"resourceVersion": "5"},
			"items": []any{map[string]any{"apiVersion": "stable.example.com/v1", "kind": "CronTab", "metadata": map[string]any{"name": "c", "uid": "u"}}}})
	}))
	defer s.Close()
	c, err := client.New(client.Config{Servers: []string{s.URL}})
	if err != nil {
		t.Fatal(err)
	}
	l, err := c.List(t.Context(), schema.GroupVersionResource{Group: "stable.example.com", Version: "v1", Resource: "crontabs"}, "", nil)
	if err != nil || len(l.Items) != 1 || l.Items[0].GetUID() != "u" || l.ResourceVersion != "5" {
		t.Errorf("list: %+v, %v", l, err)
	}
}

// TestHTTPFailover uses the second server once the first is gone, and waits when asked to.
func TestHTTPFailover(t *testing.T) {
	dead := httptest.NewServer(http.NotFoundHandler())
	dead.Close()
	var asked atomic.Int32
	live := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if asked.Add(1) == 1 {
			w.Header().Set("Retry-After", "0")
			w.WriteHeader(http.StatusTooManyRequests)
			return
		}
		w.Write([]byte("ok " + r.UserAgent()))
	}))
	defer live.Close()
	c, err := client.New(client.Config{Servers: []string{dead.URL, live.URL}, UserAgent: "me"})
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		body, err := c.Raw(t.Context(), "GET", "/version", nil)
		if err != nil || string(body) != "ok me" {
			t.Errorf("got %q, %v", body, err)
		}
	}
}

func TestHTTPWatchEndsWithContext(t *testing.T) {
	release := make(chan struct{})
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(200)
		w.(http.Flusher).Flush()
		select {
		case <-r.Context().Done():
		case <-release:
		}
	}))
	defer s.Close()
	defer close(release)
	c, err := client.New(client.Config{Servers: []string{s.URL}, JSON: true})
	if err != nil {
		t.Fatal(err)
	}
	w, err := c.Watch(t.Context(), client.Resource[corev1.Pod](), "", nil)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := w.Next(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("next: %v, want canceled", err)
	}
	w.Stop()
}

// TestFromKubeconfig takes server and credentials from the named context.
func TestFromKubeconfig(t *testing.T) {
	s := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { w.Write([]byte(r.Header.Get("Authorization"))) }))
	defer s.Close()
	ca := base64.StdEncoding.EncodeToString(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw}))
	file := filepath.Join(t.TempDir(), "config")
	text := `{"apiVersion":"v1","kind":"Config","current-context":"none",
"clusters":[{"name":"c","cluster":{"server":"` + s.URL + `","certificate-authority-data":"` + ca + `"}},{"name":"none","cluster":{"server":"http://127.0.0.1:1"}}],
"users":[{"name":"u","user":{"token":"secret"}}],
"contexts":[{"name":"good","context":{"cluster":"c","user":"u"}},{"name":"none","context":{"cluster":"none","user":"u"}}]}`
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	c, err := client.FromKubeconfig(file, "good")
	if err != nil {
		t.Fatal(err)
	}
	if body, err := c.Raw(t.Context(), "GET", "/", nil); err != nil || string(body) != "Bearer secret" {
		t.Errorf("authorization %q, %v; want the token", body, err)
	}
	if _, err := client.FromKubeconfig(file, "absent"); err == nil {
		t.Error("a context that is not there was accepted")
	}
}

func TestConfigCheck(t *testing.T) {
	for _, servers := range [][]string{nil, {"127.0.0.1:6443"}, {"ftp://x"}} {
		if _, err := client.New(client.Config{Servers: servers}); err == nil {
			t.Errorf("servers %v were accepted", servers)
		}
	}
}

// Who reads metadata only gets it typed, whatever the format.
func TestHTTPMetadataOnly(t *testing.T) {
	meta := metav1.PartialObjectMetadata{
		TypeMeta:   metav1.TypeMeta{APIVersion: "meta.k8s.io/v1", Kind: "PartialObjectMetadata"},
		ObjectMeta: metav1.ObjectMeta{Name: "p", Namespace: "ns", UID: "u1"},
	}
	for _, f := range []api.Format{api.FormatJSON, api.FormatProtobuf} {
		t.Run(f.MediaType(), func(t *testing.T) {
			s := server(t, f, func(_ http.ResponseWriter, r *http.Request) runtime.Object {
				if !strings.Contains(r.Header.Get("Accept"), "as=PartialObjectMetadata") {
					t.Errorf("asked for %q", r.Header.Get("Accept"))
				}
				if strings.HasSuffix(r.URL.Path, "/p") {
					return &meta
				}
				return &metav1.PartialObjectMetadataList{TypeMeta: metav1.TypeMeta{APIVersion: "meta.k8s.io/v1", Kind: "PartialObjectMetadataList"}, Items: []metav1.PartialObjectMetadata{meta}}
			})
			h, err := client.New(client.Config{Servers: []string{s.URL}})
			if err != nil {
				t.Fatal(err)
			}
			c, pods := h.Metadata(), schema.GroupVersionResource{Version: "v1", Resource: "pods"}
			list, err := c.List(t.Context(), pods, "ns", nil)
			if err != nil {
				t.Fatal(err)
			}
			if _, ok := list.Items[0].(*metav1.PartialObjectMetadata); !ok || list.Items[0].GetUID() != "u1" {
				t.Errorf("listed %T %v", list.Items[0], list.Items[0].GetUID())
			}
			got, err := c.Get(t.Context(), pods, "ns", "p", "", nil)
			if _, ok := got.(*metav1.PartialObjectMetadata); err != nil || !ok || got.GetName() != "p" {
				t.Errorf("got %T, %v", got, err)
			}
		})
	}
}
