package apiserver_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sampan-dev/sampan/apiserver"
)

// sink is a response of which only the size matters.
type sink struct {
	h http.Header
	n int64
}

func (s *sink) Header() http.Header         { return s.h }
func (s *sink) WriteHeader(int)             {}
func (s *sink) Write(b []byte) (int, error) { s.n += int64(len(b)); return len(b), nil }

// richPod has about the size of a real one.
func richPod(name string) string {
	env := make([]string, 20)
	for i := range env {
		env[i] = fmt.Sprintf(`{"name":"VARIABLE_%d","value":"a value of some length, number %d"}`, i, i)
	}
	return `{"apiVersion":"v1","kind":"Pod","metadata":{"name":"` + name + `","labels":{"app":"x","tier":"backend"}},"spec":{"nodeName":"n","containers":[{"name":"c","image":"registry/app:v1","env":[` +
		strings.Join(env, ",") + `],"resources":{"requests":{"cpu":"100m","memory":"64Mi"}},"livenessProbe":{"httpGet":{"path":"/healthz","port":8080}}}]}}`
}

func BenchmarkList10000Pods(b *testing.B) {
	h := newServer(b, apiserver.Config{}).Handler()
	c := client{b, h}
	for i := range 10000 {
		if code, doc, _ := c.do("POST", base+"pods", jsonType, richPod(fmt.Sprint("p", i))); code != 201 {
			b.Fatal(doc)
		}
	}
	for _, f := range []struct{ name, accept string }{
		{"json", "application/json"}, {"protobuf", "application/vnd.kubernetes.protobuf"},
		{"table", "application/json;as=Table;v=v1;g=meta.k8s.io"},
	} {
		b.Run(f.name, func(b *testing.B) {
			b.ReportAllocs()
			var size int64
			cpu, began := processorTime(), time.Now()
			for b.Loop() {
				r := httptest.NewRequest("GET", "/api/v1/pods", nil)
				r.Header.Set("Accept", f.accept)
				s := &sink{h: http.Header{}}
				h.ServeHTTP(s, r)
				size = s.n
			}
			figure(b, "list 10,000 pods/"+f.name, map[string]any{"lists": b.N, "bytes": size,
				"ms_each": time.Since(began).Seconds() * 1000 / float64(b.N), "cpu_ms_each": float64(processorTime()-cpu) / float64(b.N) / 1e6})
		})
	}
}

// parallel drives a handler with 64 clients.
func parallel(b *testing.B, h http.Handler, ask func(n int64) *http.Request, want int) {
	var n atomic.Int64
	b.SetParallelism(32)
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			w := httptest.NewRecorder()
			h.ServeHTTP(w, ask(n.Add(1)))
			if w.Code != want {
				b.Errorf("%d %s", w.Code, w.Body)
			}
		}
	})
}

func request(method, path, body string) *http.Request {
	r := httptest.NewRequest(method, path, strings.NewReader(body))
	r.Header.Set("User-Agent", "bench/1")
	r.Header.Set("Content-Type", jsonType)
	return r
}

func BenchmarkCreateConfigMap(b *testing.B) {
	h := newServer(b, apiserver.Config{MaxWrites: -1, MaxReads: -1}).Handler()
	value := strings.Repeat("x", 1024)
	parallel(b, h, func(n int64) *http.Request {
		return request("POST", base+"configmaps", configJSON(fmt.Sprint("c", n), value))
	}, 201)
}

func BenchmarkCreatePod(b *testing.B) {
	h := newServer(b, apiserver.Config{MaxWrites: -1, MaxReads: -1}).Handler()
	parallel(b, h, func(n int64) *http.Request { return request("POST", base+"pods", richPod(fmt.Sprint("p", n))) }, 201)
}

func BenchmarkUpdateConfigMap(b *testing.B) {
	h := newServer(b, apiserver.Config{MaxWrites: -1, MaxReads: -1}).Handler()
	value := strings.Repeat("x", 1024)
	for i := range 64 {
		client{b, h}.do("POST", base+"configmaps", jsonType, configJSON(fmt.Sprint("c", i), value))
	}
	parallel(b, h, func(n int64) *http.Request {
		return request("PUT", base+"configmaps/"+fmt.Sprint("c", n%64), configJSON(fmt.Sprint("c", n%64), fmt.Sprint(value, n)))
	}, 200)
}

func BenchmarkGetPod(b *testing.B) {
	h := newServer(b, apiserver.Config{MaxWrites: -1, MaxReads: -1}).Handler()
	client{b, h}.do("POST", base+"pods", jsonType, richPod("p"))
	parallel(b, h, func(int64) *http.Request { return request("GET", base+"pods/p", "") }, 200)
}
