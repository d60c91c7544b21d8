package httpx

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
)

func TestPages(t *testing.T) {
	var ill error
	metrics := prometheus.NewRegistry()
	metrics.MustRegister(prometheus.NewGauge(prometheus.GaugeOpts{Name: "freight_tons"}))
	h := Pages{
		Health:  func(context.Context) error { return ill },
		Metrics: metrics, Config: map[string]any{"port": 1},
		Guard: func(w http.ResponseWriter, r *http.Request) bool {
			if r.Header.Get("Authorization") != "" {
				return true
			}
			http.Error(w, "Unauthorized", http.StatusUnauthorized)
			return false
		},
	}.Handler()
	get := func(path, auth string) (int, string) {
		r := httptest.NewRequest("GET", path, nil)
		if auth != "" {
			r.Header.Set("Authorization", auth)
		}
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		return w.Code, strings.TrimSpace(w.Body.String())
	}
	for _, c := range []struct {
		path, auth string
		code       int
		body       string
	}{
		{"/healthz", "", 200, "ok"}, {"/livez", "", 200, "ok"}, {"/readyz", "", 200, "ok"},
		{"/configz", "", 401, "Unauthorized"}, {"/metrics", "", 401, "Unauthorized"},
		{"/configz", "x", 200, `{"port":1}`}, {"/nothing", "x", 404, "404 page not found"},
	} {
		if code, body := get(c.path, c.auth); code != c.code || body != c.body {
			t.Errorf("%s: %d %q, want %d %q", c.path, code, body, c.code, c.body)
		}
	}
	if _, body := get("/metrics", "x"); !strings.Contains(body, "freight_tons 0") {
		t.Errorf("metrics: %q", body)
	}
	ill = errors.New("lease lost")
	if code, body := get("/healthz", ""); code != 500 || body != "lease lost" {
		t.Errorf("when ill: %d %q", code, body)
	}
}
