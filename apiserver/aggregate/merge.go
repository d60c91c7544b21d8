package aggregate

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
)

// merges keeps the documents made last, so that each is made once.
type merges struct {
	mu   sync.Mutex
	made map[string][]byte
}

// maxMerges bounds what is kept: the forms of one state of things are few.
const maxMerges = 16

func (m *merges) get(key string, mk func() ([]byte, error)) ([]byte, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if b, ok := m.made[key]; ok {
		return b, nil
	}
	b, err := mk()
	if err != nil {
		return nil, err
	}
	if m.made == nil || len(m.made) >= maxMerges {
		m.made = map[string][]byte{}
	}
	m.made[key] = b
	return b, nil
}

// key names a document by what it is made of: this server's own, and the state
// of each of the others.
func (t *table) key(what string, own []byte) string {
	sum := sha256.New()
	io.WriteString(sum, what)
	sum.Write(own)
	for _, r := range t.sorted() {
		r.mu.Lock()
		fmt.Fprintf(sum, "%s %p %d %t %t\n", r.name, r, r.state, r.available.Load(), r.quarantined())
		r.mu.Unlock()
	}
	return string(sum.Sum(nil))
}

func (t *table) sorted() []*remote {
	return slices.SortedFunc(maps.Values(t.remotes), func(a, b *remote) int { return cmp.Compare(a.name, b.name) })
}

// answer is a response kept in memory.
type answer struct {
	header http.Header
	code   int
	body   []byte
}

// capture asks next for the whole of what r asks for.
func capture(next http.Handler, r *http.Request) *answer {
	q := r.Clone(r.Context())
	q.Header.Del("If-None-Match")
	q.Header.Del("Accept-Encoding")
	a := &recorder{answer: answer{header: http.Header{}}}
	next.ServeHTTP(a, q)
	if a.code == 0 {
		a.code = http.StatusOK
	}
	a.body = a.buf.Bytes()
	return &a.answer
}

type recorder struct {
	answer
	buf bytes.Buffer
}

func (a *recorder) Header() http.Header { return a.header }

func (a *recorder) WriteHeader(code int) {
	if a.code == 0 {
		a.code = code
	}
}

func (a *recorder) Write(b []byte) (int, error) {
	a.WriteHeader(http.StatusOK)
	return a.buf.Write(b)
}

// send gives the answer to a client.
func (a *answer) send(w http.ResponseWriter) {
	maps.Copy(w.Header(), a.header)
	w.WriteHeader(a.code)
	w.Write(a.body)
}

// tagged gives an answer the tag of its body; if the client has that already, it
// says so and returns true.
func tagged(w http.ResponseWriter, r *http.Request, a *answer, body []byte) bool {
	sum := sha256.Sum256(body)
	tag := strconv.Quote(strings.ToUpper(hex.EncodeToString(sum[:])))
	a.header.Set("Etag", tag)
	for have := range strings.SplitSeq(r.Header.Get("If-None-Match"), ",") {
		if have = strings.TrimPrefix(strings.TrimSpace(have), "W/"); have == tag {
			maps.Copy(w.Header(), a.header)
			w.WriteHeader(http.StatusNotModified)
			return true
		}
	}
	return false
}
