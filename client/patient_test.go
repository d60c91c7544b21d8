package client_test

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/sampan-dev/sampan/api"
	"github.com/sampan-dev/sampan/client"
)

// A balancer that closes connections for a while is asked again by who is patient.
func TestPatience(t *testing.T) {
	for _, patience := range []time.Duration{0, time.Minute} {
		var asked atomic.Int32
		s := server(t, api.FormatJSON, func(w http.ResponseWriter, _ *http.Request) runtime.Object {
			if asked.Add(1) <= 3 {
				conn, _, err := w.(http.Hijacker).Hijack()
				if err != nil {
					t.Error(err)
					return nil
				}
				conn.Close()
				return nil
			}
			return typedPod("a")
		})
		h, err := client.New(client.Config{Servers: []string{s.URL}})
		if err != nil {
			t.Fatal(err)
		}
		pod := typedPod("a")
		_, err = h.Patient(patience).Create(t.Context(), corev1.SchemeGroupVersion.WithResource("pods"), "ns", "", "", pod, nil)
		if (err == nil) != (patience > 0) {
			t.Errorf("patient for %s, asked %d times: %v", patience, asked.Load(), err)
		}
	}
}

// Who is not believed is not asked again.
func TestPatienceWithStrangers(t *testing.T) {
	var asked atomic.Int32
	s := httptest.NewTLSServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { asked.Add(1) }))
	defer s.Close()
	h, err := client.New(client.Config{Servers: []string{s.URL}})
	if err != nil {
		t.Fatal(err)
	}
	start := time.Now()
	if _, err := h.Patient(time.Hour).Raw(t.Context(), "GET", "/", nil); err == nil || !strings.Contains(err.Error(), "certificate") || time.Since(start) > 10*time.Minute {
		t.Errorf("%v after %s", err, time.Since(start))
	}
	if asked.Load() > 0 {
		t.Error("the stranger was told of the request")
	}
}
