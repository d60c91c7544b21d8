package server

import (
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"

	fakecri "github.com/sampan-dev/sampan/kubelet/cri/fake"
)

// The routes of earlier releases answer, under each of their spellings, for those
// who may ask and nobody else.
func TestRoutesOfEarlierReleases(t *testing.T) {
	rt := fakecri.New()
	s := httptest.NewServer(New(Config{}, Deps{Host: &host{}, Runtime: rt, Images: rt, Auth: rule("open"), Log: slog.New(slog.DiscardHandler)}).Handler())
	defer s.Close()
	ask := func(method, path, word string) (int, string) {
		r, err := http.NewRequestWithContext(t.Context(), method, s.URL+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Word", word)
		res, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		text, err := io.ReadAll(res.Body)
		if err != nil {
			t.Fatal(err)
		}
		return res.StatusCode, string(text)
	}
	for path, want := range map[string]string{
		"/spec": `"num_cores":2`, "/spec/": `"memory_capacity":1000`,
		"/stats": `"nodeName":"n1"`, "/stats/": `"nodeName":"n1"`, "/stats/summary": `"nodeName":"n1"`,
		"/runningpods": `"kind":"PodList"`, "/runningpods/": `"kind":"PodList"`,
		"/debug/pprof/": "goroutine", "/debug/pprof/cmdline": os.Args[0], "/debug/pprof/goroutine?debug=1": "goroutine profile: total", "/debug/pprof/symbol": "num_symbols",
	} {
		if code, text := ask("GET", path, "open"); code != http.StatusOK || !strings.Contains(text, want) {
			t.Errorf("%s: %d, no %q in %.300s", path, code, want, text)
		}
		if code, text := ask("GET", path, "shut"); code != http.StatusUnauthorized {
			t.Errorf("%s is answered to anybody: %d %.100s", path, code, text)
		}
		if code, _ := ask("POST", strings.SplitN(path, "?", 2)[0], "open"); code != http.StatusMethodNotAllowed {
			t.Errorf("POST %s: %d", path, code)
		}
	}
	if code, _ := ask("GET", "/stats/none", "open"); code != http.StatusNotFound {
		t.Errorf("/stats/none: %d", code)
	}
	_, text := ask("GET", "/spec", "open")
	var spec map[string]any
	if err := json.Unmarshal([]byte(text), &spec); err != nil || spec["node_name"] != "n1" || spec["architecture"] == "" {
		t.Errorf("/spec: %v, %s", err, text)
	}
}
