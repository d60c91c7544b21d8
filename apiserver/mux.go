package apiserver

import (
	"encoding/json"
	"net/http"
	"net/http/pprof"
	"slices"
	"strings"

	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/sampan-dev/sampan/api"
	"github.com/sampan-dev/sampan/apiserver/request"
)

// mux sends a request to who answers it.
func (s *Server) mux() http.Handler {
	metrics := promhttp.HandlerFor(s.d.Metrics, promhttp.HandlerOpts{})
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		i := request.InfoFrom(r.Context())
		if s.d.Aggregated != nil && s.d.Aggregated(w, r) {
			return
		}
		if i.IsResource && i.Resource != "" {
			s.engine.ServeHTTP(w, r)
			return
		}
		path := r.URL.Path
		if h, ok := s.d.Paths[path]; ok {
			h.ServeHTTP(w, r)
			return
		}
		first, _, _ := strings.Cut(strings.TrimPrefix(path, "/"), "/")
		switch {
		case first == "":
			s.index(w, r)
		case first == "api" || first == "apis":
			s.discovery.ServeHTTP(w, r)
		case first == "healthz":
			s.healthz.ServeHTTP(w, r)
		case first == "livez":
			s.livez.ServeHTTP(w, r)
		case first == "readyz":
			s.readyz.ServeHTTP(w, r)
		case path == "/version" || path == "/version/":
			s.version(w)
		case first == "openapi" && s.d.OpenAPI != nil:
			s.d.OpenAPI.ServeHTTP(w, r)
		case path == "/metrics":
			metrics.ServeHTTP(w, r)
		case path == "/statusz":
			s.statusz(w, r)
		case path == "/flagz":
			s.flagz(w, r)
		case s.debug[path] != nil:
			s.debug[path].ServeHTTP(w, r)
		case first == "debug" && s.c.Profiling:
			profile(w, r, path)
		default:
			http.NotFound(w, r)
		}
	})
}

func profile(w http.ResponseWriter, r *http.Request, path string) {
	switch path {
	case "/debug/pprof/cmdline":
		pprof.Cmdline(w, r)
	case "/debug/pprof/profile":
		pprof.Profile(w, r)
	case "/debug/pprof/symbol":
		pprof.Symbol(w, r)
	case "/debug/pprof/trace":
		pprof.Trace(w, r)
	default:
		pprof.Index(w, r)
	}
}

// index lists the paths there are.
func (s *Server) index(w http.ResponseWriter, r *http.Request) {
	writeJSON(w, map[string][]string{"paths": s.paths()})
}

// paths are those that the server answers, in order.
func (s *Server) paths() []string {
	paths := slices.Concat(s.disc.Groups(), s.healthz.Paths(), s.livez.Paths(), s.readyz.Paths(),
		[]string{"/apis", "/flagz", "/metrics", "/statusz", "/version"})
	if s.d.OpenAPI != nil {
		paths = append(paths, "/openapi/v2", "/openapi/v3")
	}
	for p := range s.d.Paths {
		paths = append(paths, p)
	}
	slices.Sort(paths)
	return slices.Compact(paths)
}

func (s *Server) version(w http.ResponseWriter) { writeJSON(w, api.Version()) }

func writeJSON(w http.ResponseWriter, v any) {
	data, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", api.JSON)
	w.Write(data)
}
