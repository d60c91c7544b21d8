// Package health answers /healthz, /livez and /readyz.
//
// Job: named checks, run in order, reported as upstream does: "ok", or with
// ?verbose one line per check; ?exclude leaves some out; /readyz/NAME runs one.
//
// Not its job: the checks' contents.
//
// Invariants: a check's reason is not shown to strangers; it goes to the log.
package health

import (
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"sync"
)

// Check is one condition of health.
type Check struct {
	Name string
	Fn   func(r *http.Request) error
}

// Ping is always well.
func Ping() Check { return Check{"ping", func(*http.Request) error { return nil }} }

// Handler serves one of the three paths and what is below it.
type Handler struct {
	path string
	log  *slog.Logger

	mu     sync.Mutex
	checks []Check
	count  func(check, path string, ok bool)
}

// Count has every result of a check told to fn.
func (h *Handler) Count(fn func(check, path string, ok bool)) { h.count = fn }

// run runs a check and has its result counted.
func (h *Handler) run(c Check, r *http.Request) error {
	err := c.Fn(r)
	if h.count != nil {
		h.count(c.Name, strings.TrimPrefix(h.path, "/"), err == nil)
	}
	return err
}

// New returns a handler at path, such as "/readyz".
func New(path string, log *slog.Logger, checks ...Check) *Handler {
	return &Handler{path: path, log: log, checks: checks}
}

// Add appends checks.
func (h *Handler) Add(c ...Check) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.checks = append(h.checks, c...)
}

// Paths lists the path and one below it per check.
func (h *Handler) Paths() []string {
	out := []string{h.path}
	for _, c := range h.list() {
		out = append(out, h.path+"/"+c.Name)
	}
	return out
}

func (h *Handler) list() []Check {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.Clone(h.checks)
}

// ServeHTTP implements http.Handler.
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	if name := strings.TrimPrefix(strings.TrimPrefix(r.URL.Path, h.path), "/"); name != "" {
		h.one(w, r, name)
		return
	}
	q := r.URL.Query()
	excluded := excludedBy(q["exclude"])
	var lines strings.Builder
	var failed []string
	for _, c := range h.list() {
		if i := slices.Index(excluded, c.Name); i >= 0 {
			excluded = slices.Delete(excluded, i, i+1)
			fmt.Fprintf(&lines, "[+]%s excluded: ok\n", c.Name)
			continue
		}
		if err := h.run(c, r); err != nil {
			h.log.Info("health check failed", "path", h.path, "check", c.Name, "err", err)
			fmt.Fprintf(&lines, "[-]%s failed: reason withheld\n", c.Name)
			failed = append(failed, c.Name)
			continue
		}
		fmt.Fprintf(&lines, "[+]%s ok\n", c.Name)
	}
	if len(excluded) > 0 {
		fmt.Fprintf(&lines, "warn: some health checks cannot be excluded: no matches for %s\n", quoted(excluded))
	}
	name := strings.TrimPrefix(h.path, "/")
	if len(failed) > 0 {
		http.Error(w, fmt.Sprintf("%s%s check failed", lines.String(), name), http.StatusInternalServerError)
		return
	}
	if _, verbose := q["verbose"]; !verbose {
		fmt.Fprint(w, "ok")
		return
	}
	fmt.Fprintf(w, "%s%s check passed\n", lines.String(), name)
}

func (h *Handler) one(w http.ResponseWriter, r *http.Request, name string) {
	for _, c := range h.list() {
		if c.Name != name {
			continue
		}
		if err := h.run(c, r); err != nil {
			http.Error(w, fmt.Sprintf("internal server error: %v", err), http.StatusInternalServerError)
			return
		}
		fmt.Fprint(w, "ok")
		return
	}
	http.NotFound(w, r)
}

func excludedBy(values []string) []string {
	var out []string
	for _, v := range values {
		for name := range strings.SplitSeq(v, ",") {
			if name != "" {
				out = append(out, name)
			}
		}
	}
	return out
}

func quoted(names []string) string {
	q := make([]string, len(names))
	for i, n := range names {
		q[i] = fmt.Sprintf("%q", n)
	}
	return strings.Join(q, ",")
}
