package apiserver

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"runtime/debug"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/google/uuid"
	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"github.com/sampan-dev/sampan/apiserver/audit"
	"github.com/sampan-dev/sampan/apiserver/request"
	"github.com/sampan-dev/sampan/apiserver/rest"
	"github.com/sampan-dev/sampan/kit/clock"
)

// filters are what a request passes before next, in order.
func (s *Server) filters(next http.Handler) http.Handler {
	return s.hardened(s.prepared(s.authenticated(s.limited(next))))
}

// prepared gives a request its Info, an answer that can be told things late,
// a deadline, and a count.
func (s *Server) prepared(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		start := clock.Now()
		info := request.Parse(r)
		ctx := request.WithInfo(r.Context(), info)
		ctx, warnings := request.WithWarnings(ctx)
		long := isLong(r, info)
		if !long {
			var cancel context.CancelFunc
			ctx, cancel = context.WithTimeout(ctx, s.timeout(r))
			defer cancel()
		}
		a := &answer{ResponseWriter: w, warnings: warnings, metrics: s.metrics, info: info}
		switch {
		case !long:
			a.pace, a.ctx = s.pace, ctx
			defer a.ended()
			defer s.hurry(ctx, w)()
		case info.Verb == "watch":
			a.stall = newStall(w, s.c.Stall)
			defer a.stall.end()
		}
		id := r.Header.Get("Audit-Id")
		if id == "" {
			id = uuid.NewString()
		}
		w.Header().Set("Audit-Id", id)
		w.Header().Set("Cache-Control", "no-cache, private")
		r = r.WithContext(ctx)
		done := s.metrics.begin(r, info, long)
		defer func() {
			if p := recover(); p != nil {
				s.recovered(a, r, p)
			}
			done(outcome{a.status(), a.written, clock.Since(start), a.waited})
		}()
		next.ServeHTTP(a, r)
	})
}

// timeout is what the client asks for, up to the server's own.
func (s *Server) timeout(r *http.Request) time.Duration {
	if !strings.Contains(r.URL.RawQuery, "timeout=") {
		return s.c.Timeout
	}
	if d, err := time.ParseDuration(r.URL.Query().Get("timeout")); err == nil && d > 0 && d < s.c.Timeout {
		return d
	}
	return s.c.Timeout
}

// recovered answers for a handler that panicked.
func (s *Server) recovered(a *answer, r *http.Request, p any) {
	if p == http.ErrAbortHandler {
		panic(p)
	}
	s.log.Error("handler panicked", "method", r.Method, "path", r.URL.Path, "panic", fmt.Sprint(p), "stack", string(debug.Stack()))
	if a.code != 0 {
		panic(http.ErrAbortHandler) // too late for an answer: let the client see it is cut
	}
	rest.WriteError(a, r, apierrors.NewInternalError(fmt.Errorf("apiserver panic'd on %v %v", r.Method, r.RequestURI)))
}

// isLong says whether a request may take any time: watches and streams.
func isLong(r *http.Request, i *request.Info) bool {
	if !i.IsResource {
		return strings.HasPrefix(i.Path, "/debug/pprof/")
	}
	switch i.Verb {
	case "watch", "proxy":
		return true
	}
	switch i.Subresource {
	case "log", "exec", "attach", "portforward", "proxy":
		return true
	}
	return false
}

// authenticated finds out who asks.
func (s *Server) authenticated(next http.Handler) http.Handler {
	next = s.audited(s.impersonated(next))
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		u, err := s.whoIs(r)
		if err != nil {
			if s.d.Audit != nil {
				s.d.Audit.Unauthenticated(w, r)
			}
			rest.WriteError(w, r, err)
			return
		}
		r = r.WithContext(request.WithUser(r.Context(), u))
		r.Header.Del("Authorization")
		next.ServeHTTP(w, r)
	})
}

// audited puts requests on record, if that is asked for.
func (s *Server) audited(next http.Handler) http.Handler {
	if s.d.Audit == nil {
		return next
	}
	return s.d.Audit.Filter(next, isLong, rest.WriteError)
}

// impersonated lets those act as others who may.
func (s *Server) impersonated(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		ctx := r.Context()
		u := request.UserFrom(ctx)
		if s.d.Impersonate != nil && s.engine.Authorizer != nil && impersonates(r) {
			as, err := s.d.Impersonate(r, u, s.engine.Authorizer)
			if err != nil {
				rest.WriteError(w, r, err)
				return
			}
			audit.Impersonated(ctx, as)
			r = r.WithContext(request.WithUser(ctx, as))
		}
		next.ServeHTTP(w, r)
	})
}

func impersonates(r *http.Request) bool {
	for k := range r.Header {
		if strings.HasPrefix(k, "Impersonate-") {
			return true
		}
	}
	return false
}

func (s *Server) whoIs(r *http.Request) (*request.User, error) {
	for _, a := range s.d.Authn {
		u, ok, err := a.Authenticate(r)
		if err != nil {
			s.log.Warn("Unable to authenticate the request", "path", r.URL.Path, "err", err)
			return nil, request.Unauthorized()
		}
		if ok {
			return u, nil
		}
	}
	if len(s.d.Authn) > 0 && (!s.c.Anonymous || r.Header.Get("Authorization") != "") {
		return nil, request.Unauthorized()
	}
	return &request.User{Name: request.Anonymous, Groups: []string{request.Unauthenticated}}, nil
}

// limited bounds how many requests are served at once: fairly or, when that is
// switched off, first come first served.
func (s *Server) limited(next http.Handler) http.Handler {
	if s.fair != nil {
		return s.fair.Filter(next, isLong)
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		i := request.InfoFrom(r.Context())
		slots, kind := s.writes, "mutating"
		switch i.Verb {
		case "get", "list", "head", "options":
			slots, kind = s.reads, "readOnly"
		}
		if slots == nil || isLong(r, i) || isMaster(request.UserFrom(r.Context())) {
			next.ServeHTTP(w, r)
			return
		}
		select {
		case slots <- struct{}{}:
			s.metrics.serving(kind == "mutating", 1)
			defer func() { s.metrics.serving(kind == "mutating", -1); <-slots }()
			next.ServeHTTP(w, r)
		default:
			s.metrics.refused(kind == "mutating")
			w.Header().Set("Retry-After", "1")
			http.Error(w, "Too many requests, please try again later.", http.StatusTooManyRequests)
		}
	})
}

func isMaster(u *request.User) bool {
	for _, g := range u.Groups {
		if g == request.Masters {
			return true
		}
	}
	return false
}

// authorized asks whether the user may. It also serves requests that come with
// a user and without an Info: those of the client in process.
func (s *Server) authorized(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		i := request.InfoFrom(r.Context())
		if i.Verb == "" {
			i = request.Parse(r)
			r = r.WithContext(request.WithInfo(r.Context(), i))
		}
		if s.engine.Authorizer == nil {
			next.ServeHTTP(w, r)
			return
		}
		u := request.UserFrom(r.Context())
		start := clock.Now()
		d, reason, err := s.engine.Authorizer.Authorize(r.Context(), u, i)
		s.judged.count(d, err, clock.Since(start))
		annotate(r.Context(), d, reason)
		switch {
		case d == request.Allow:
			next.ServeHTTP(w, r)
		case err != nil && d == request.NoOpinion && errors.Is(err, context.DeadlineExceeded):
			rest.WriteError(w, r, apierrors.NewInternalError(err))
		default:
			rest.WriteError(w, r, request.Forbidden(u, i, reason))
		}
	})
}

// annotate puts the decision about a request down for the audit log.
func annotate(ctx context.Context, d request.Decision, reason string) {
	decision := "forbid"
	if d == request.Allow {
		decision = "allow"
	}
	request.Annotate(ctx, "authorization.k8s.io/decision", decision)
	request.Annotate(ctx, "authorization.k8s.io/reason", reason)
}

// answer is a ResponseWriter that adds the warnings collected until the first
// byte and remembers what was sent.
type answer struct {
	http.ResponseWriter
	warnings *request.Warnings
	code     int
	written  int64
	stall    *stall // of a watch
	waited   time.Duration
	metrics  *metrics
	info     *request.Info

	pace  *pace // nil for those that take any time
	turns *turns
	ctx   context.Context
}

// Waited is told how long the request was kept waiting for its turn.
func (a *answer) Waited(d time.Duration) { a.waited = d }

// CountEvents returns what counts the events that a watch sends.
func (a *answer) CountEvents() func(bytes int) { return a.metrics.watched(a.info) }

func (a *answer) WriteHeader(code int) {
	if a.code == 0 && code >= 200 {
		a.code = code
		for _, t := range a.warnings.List() {
			a.Header().Add("Warning", `299 - `+quoteWarning(t))
		}
	}
	a.ResponseWriter.WriteHeader(code)
}

func (a *answer) Write(b []byte) (n int, err error) {
	if a.code == 0 {
		a.WriteHeader(http.StatusOK)
	}
	for a.pace != nil && (a.written >= bulkFrom || len(b) > bulkFrom || a.zipped()) {
		if a.turns == nil {
			a.turns = a.pace.join()
		}
		a.turns.take(a.ctx)
		if len(b) <= bulkStep {
			break
		}
		m, err := a.write(b[:bulkStep])
		if n += m; err != nil {
			return n, err
		}
		b = b[bulkStep:]
	}
	m, err := a.write(b)
	return n + m, err
}

// zipped says whether what is written is much less than what it is made of.
func (a *answer) zipped() bool { return a.Header()["Content-Encoding"] != nil }

func (a *answer) write(b []byte) (int, error) {
	a.stall.begin()
	n, err := a.ResponseWriter.Write(b)
	a.stall.end()
	a.written += int64(n)
	return n, err
}

func (a *answer) ended() {
	if a.turns != nil {
		a.turns.end()
	}
}

// Unwrap lets http.ResponseController reach flushing, hijacking and deadlines.
func (a *answer) Unwrap() http.ResponseWriter { return a.ResponseWriter }

// FlushError implements what http.ResponseController looks for.
func (a *answer) FlushError() error {
	a.stall.begin()
	defer a.stall.end()
	return http.NewResponseController(a.ResponseWriter).Flush()
}

// Flush implements http.Flusher for those who ask the old way.
func (a *answer) Flush() { _ = a.FlushError() }

// Hijack implements http.Hijacker for the streams, which take the connection over.
func (a *answer) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	if a.code == 0 {
		a.code = http.StatusSwitchingProtocols
	}
	return http.NewResponseController(a.ResponseWriter).Hijack()
}

func (a *answer) status() int {
	if a.code == 0 {
		return http.StatusOK
	}
	return a.code
}

// quoteWarning makes a header-safe quoted string.
func quoteWarning(t string) string {
	var b strings.Builder
	b.WriteByte('"')
	for _, r := range t {
		switch {
		case r == '"' || r == '\\':
			b.WriteByte('\\')
			b.WriteRune(r)
		case r == '\n' || r == '\r' || r == utf8.RuneError || r < ' ' && r != '\t':
			b.WriteByte(' ')
		default:
			b.WriteRune(r)
		}
	}
	b.WriteByte('"')
	return b.String()
}
