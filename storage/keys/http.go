package keys

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"path"
	"strconv"
	"strings"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/sampan-dev/sampan/kit/clock"
)

// timeout bounds what is not a wait.
const timeout = 5 * time.Second

const keysPath = "/v2/keys"

// Handlers are the paths of the API with what answers them.
func (s *Store) Handlers() map[string]http.Handler {
	return map[string]http.Handler{
		keysPath: http.HandlerFunc(s.serveKeys), keysPath + "/": http.HandlerFunc(s.serveKeys),
		membersPath: http.HandlerFunc(s.serveMembers), membersPath + "/": http.HandlerFunc(s.serveMembers),
		"/v2/machines":    http.HandlerFunc(s.serveMachines),
		"/v2/stats/self":  http.HandlerFunc(s.serveSelf),
		"/v2/stats/store": http.HandlerFunc(s.serveStore),
	}
}

func (s *Store) serveKeys(w http.ResponseWriter, req *http.Request) {
	if !allow(w, req, "HEAD", "GET", "PUT", "POST", "DELETE") {
		return
	}
	r, refused := read(req, clock.Now())
	if refused != nil {
		refused.write(w)
		return
	}
	if r.wait {
		s.serveWait(w, req, r)
		return
	}
	ctx, cancel := context.WithTimeout(req.Context(), timeout)
	defer cancel()
	var e *Event
	var err error
	if r.method == "GET" || r.method == "HEAD" {
		e, err = s.get(ctx, r)
	} else {
		e, err = s.change(ctx, r.path, func(v *view, now time.Time) (*change, *Error) { return decide(r, v, now) })
	}
	s.stats.note(r.action(), err == nil)
	if err != nil {
		refusal(err).write(w)
		return
	}
	s.headers(ctx, w, e.index)
	if e.created() {
		w.WriteHeader(http.StatusCreated)
	}
	if r.quiet && (e.Action == "set" || e.Action == "compareAndSwap" || e.Action == "create" || e.Action == "update") {
		e.Node, e.PrevNode = nil, nil
	}
	_ = json.NewEncoder(w).Encode(e) // who has gone needs no answer
}

// serveWait answers when the change that is waited for is made.
func (s *Store) serveWait(w http.ResponseWriter, req *http.Request, r *request) {
	s.stats.wait(1)
	defer s.stats.wait(-1)
	started := false
	start := func(index uint64) {
		ctx, cancel := context.WithTimeout(req.Context(), timeout)
		defer cancel()
		s.headers(ctx, w, index)
		w.WriteHeader(http.StatusOK)
		flush(w) // the waiting may be long
		started = true
	}
	err := s.wait(req.Context(), r, start, func(e *Event) bool {
		if json.NewEncoder(w).Encode(e) != nil {
			return false
		}
		flush(w)
		return r.stream
	})
	if err != nil && !started && !lost(err) {
		refusal(err).write(w)
	}
}

func flush(w http.ResponseWriter) { _ = http.NewResponseController(w).Flush() }

// headers says where the store and the member are.
func (s *Store) headers(ctx context.Context, w http.ResponseWriter, index uint64) {
	h := w.Header()
	h.Set("Content-Type", "application/json")
	h.Set("X-Etcd-Index", strconv.FormatUint(index, 10))
	if st, err := s.status(ctx); err == nil {
		h.Set("X-Etcd-Cluster-Id", hex(st.Header.ClusterId))
		h.Set("X-Raft-Index", strconv.FormatUint(st.RaftIndex, 10))
		h.Set("X-Raft-Term", strconv.FormatUint(st.RaftTerm, 10))
	}
}

func (s *Store) status(ctx context.Context) (*clientv3.StatusResponse, error) {
	c, err := s.client()
	if err != nil {
		return nil, err
	}
	return c.Status(ctx, "")
}

// hex is how an id is written.
func hex(id uint64) string { return strconv.FormatUint(id, 16) }

func (e *Error) write(w http.ResponseWriter) {
	_, status := kind(e.Code)
	text, _ := json.Marshal(e) // strings and numbers
	w.Header().Set("X-Etcd-Index", strconv.FormatUint(e.Index, 10))
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_, _ = io.WriteString(w, string(text)+"\n")
}

// allow answers requests of other methods.
func allow(w http.ResponseWriter, r *http.Request, methods ...string) bool {
	for _, m := range methods {
		if r.Method == m {
			return true
		}
	}
	w.Header().Set("Allow", strings.Join(methods, ","))
	http.Error(w, "Method Not Allowed", http.StatusMethodNotAllowed)
	return false
}

// field reads the parameters of a request and remembers the first that is wrong.
type field struct {
	form url.Values
	err  *Error
}

func (f *field) wrong(code int, cause string) {
	if f.err == nil {
		f.err = fail(code, cause, 0)
	}
}

func (f *field) number(name string, code int) uint64 {
	if _, ok := f.form[name]; !ok {
		return 0
	}
	n, err := strconv.ParseUint(f.form.Get(name), 10, 64)
	if err != nil {
		f.wrong(code, fmt.Sprintf("invalid value for %q", name))
	}
	return n
}

func (f *field) truth(name string) *bool {
	if _, ok := f.form[name]; !ok {
		return nil
	}
	b, err := strconv.ParseBool(f.form.Get(name))
	if err != nil {
		cause := fmt.Sprintf("invalid value for %q", name)
		if name == "prevExist" || name == "refresh" {
			cause = "invalid value for " + name
		}
		f.wrong(codeField, cause)
	}
	return &b
}

func (f *field) yes(name string) bool {
	b := f.truth(name)
	return b != nil && *b
}

// read reads a request and judges it by itself.
func read(req *http.Request, now time.Time) (*request, *Error) {
	if err := req.ParseForm(); err != nil {
		return nil, fail(codeForm, err.Error(), 0)
	}
	f := &field{form: req.Form}
	r := &request{method: req.Method, path: path.Join("/", strings.TrimPrefix(req.URL.Path, keysPath))}
	r.prevIndex, r.since = f.number("prevIndex", codeIndex), f.number("waitIndex", codeIndex)
	r.recursive, r.sorted, r.wait, r.dir = f.yes("recursive"), f.yes("sorted"), f.yes("wait"), f.yes("dir")
	r.quorum, r.stream = f.yes("quorum"), f.yes("stream")
	if r.wait && r.method != "GET" {
		f.wrong(codeField, `"wait" can only be used with GET requests`)
	}
	r.value, r.prevValue = req.FormValue("value"), req.FormValue("prevValue")
	if _, ok := req.Form["prevValue"]; ok && r.prevValue == "" {
		f.wrong(codePrevValue, `"prevValue" cannot be empty`)
	}
	r.quiet = f.yes("noValueOnSuccess")
	lives := req.FormValue("ttl") != ""
	if lives {
		r.expires = now.Add(time.Duration(f.number("ttl", codeTTL)) * time.Second).UnixNano()
	}
	r.prevExist, r.refresh = f.truth("prevExist"), f.yes("refresh")
	if r.refresh && r.value != "" {
		f.wrong(codeRefreshValue, "A value was provided on a refresh")
	}
	if r.refresh && !lives {
		f.wrong(codeRefreshTTL, "No TTL value set")
	}
	return r, f.err
}
