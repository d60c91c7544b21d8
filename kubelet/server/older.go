package server

import (
	"net/http"
	"net/http/pprof"
	"runtime"
)

// older are routes of earlier releases, which guides show by way of a node's proxy.
func (s *Server) older(mux *http.ServeMux) {
	for _, path := range []string{"GET /spec", "GET /spec/"} {
		mux.HandleFunc(path, s.spec)
	}
	for _, path := range []string{"GET /stats", "GET /stats/{$}"} {
		mux.HandleFunc(path, s.summary)
	}
	mux.HandleFunc("GET /runningpods", s.running)
	mux.HandleFunc("GET /debug/pprof/", pprof.Index)
	mux.HandleFunc("GET /debug/pprof/profile", pprof.Profile)
	mux.HandleFunc("GET /debug/pprof/symbol", pprof.Symbol)
	mux.HandleFunc("GET /debug/pprof/trace", pprof.Trace)
	mux.HandleFunc("GET /debug/pprof/cmdline", pprof.Cmdline)
}

// spec is the machine in a few words, under cAdvisor's names.
func (s *Server) spec(w http.ResponseWriter, _ *http.Request) {
	m := s.d.Host.Machine()
	answer(w, map[string]any{"num_cores": s.d.Host.Cores(), "memory_capacity": m.WorkingSet + m.Available, "architecture": runtime.GOARCH, "node_name": s.d.Host.NodeName()})
}
