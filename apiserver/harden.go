package apiserver

import (
	"net/http"
	"regexp"
	"strings"

	"github.com/sampan-dev/sampan/kit/clock"
)

// hardened adds to answers what browsers and balancers are to be told.
func (s *Server) hardened(next http.Handler) http.Handler {
	if s.c.Goaway > 0 {
		next = s.goaway(next)
	}
	if len(s.c.CORS) > 0 {
		next = s.cors(next)
	}
	if len(s.c.StrictTransport) == 0 {
		return next
	}
	value := strings.Join(s.c.StrictTransport, "; ")
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Strict-Transport-Security", value)
		next.ServeHTTP(w, r)
	})
}

// goaway now and then asks a client to connect anew, so that clients spread
// over the servers there are.
func (s *Server) goaway(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.ProtoMajor == 2 && clock.Chance(s.c.Goaway) {
			w.Header().Set("Connection", "close") // which HTTP/2 says as GOAWAY
		}
		next.ServeHTTP(w, r)
	})
}

// cors lets pages of other origins ask, those that a pattern allows.
func (s *Server) cors(next http.Handler) http.Handler {
	var allowed []*regexp.Regexp
	for _, p := range s.c.CORS {
		allowed = append(allowed, regexp.MustCompile(p)) // Check has tried
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		origin := r.Header.Get("Origin")
		ok := false
		for _, re := range allowed {
			ok = ok || origin != "" && re.MatchString(origin)
		}
		if !ok {
			next.ServeHTTP(w, r)
			return
		}
		h := w.Header()
		h.Set("Access-Control-Allow-Origin", origin)
		h.Set("Access-Control-Allow-Methods", "POST, GET, OPTIONS, PUT, DELETE, PATCH")
		h.Set("Access-Control-Allow-Headers", "Content-Type, Content-Length, Accept-Encoding, X-CSRF-Token, Authorization, X-Requested-With, If-Modified-Since")
		h.Set("Access-Control-Expose-Headers", "Date")
		h.Set("Access-Control-Allow-Credentials", "true")
		if r.Method == http.MethodOptions { // asked for without credentials
			w.WriteHeader(http.StatusNoContent)
			return
		}
		next.ServeHTTP(w, r)
	})
}
