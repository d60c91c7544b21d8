package aggregate

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"time"

	openapi_v2 "github.com/google/gnostic-models/openapiv2"
	"google.golang.org/protobuf/proto"

	"github.com/sampan-dev/sampan/apiserver/request"
	"github.com/sampan-dev/sampan/kit/clock"
)

// document is another server's, as it was when last asked for.
type document struct {
	body  []byte
	tag   string
	asked time.Time
}

// documentLife is how long a document is taken as it is.
const documentLife = time.Minute

// fetch returns a document of the server, from memory when it is fresh. Nil when
// the server has none or does not answer.
func (r *remote) fetch(ctx context.Context, path string) []byte {
	r.mu.Lock()
	d := r.documents[path]
	r.mu.Unlock()
	if !r.available.Load() || !d.asked.IsZero() && clock.Since(d.asked) < documentLife {
		return d.body
	}
	h := http.Header{"Accept": {"application/json"}}
	if d.tag != "" {
		h.Set("If-None-Match", d.tag)
	}
	resp, body, err := r.ask(ctx, path, h)
	now := clock.Now()
	switch {
	case err != nil:
		r.a.log.Debug("aggregated server's schemas", "name", r.name, "path", path, "err", err)
		d.asked = now
	case resp.StatusCode == http.StatusNotModified:
		d.asked = now
	case resp.StatusCode == http.StatusOK:
		d = document{body, resp.Header.Get("Etag"), now}
	default:
		d = document{asked: now}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.documents == nil {
		r.documents = map[string]document{}
	}
	if !bytes.Equal(r.documents[path].body, d.body) {
		r.state++
	}
	r.documents[path] = d
	return d.body
}

// OpenAPI adds the schemas of other servers to the answers of next.
func (a *Aggregator) OpenAPI(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		t := a.table.Load()
		path := strings.TrimSuffix(r.URL.Path, "/")
		rest, v3 := strings.CutPrefix(path, "/openapi/v3")
		switch {
		case len(t.remotes) == 0:
			next.ServeHTTP(w, r)
		case path == "/openapi/v2":
			a.openAPIv2(t, next, w, r)
		case v3 && rest == "":
			a.openAPIv3(t, next, w, r)
		case v3:
			gv, ok := groupVersion(rest)
			if to := t.remotes[gv]; ok && to != nil {
				to.serve(w, schemaRequest(r))
				return
			}
			next.ServeHTTP(w, r)
		default:
			next.ServeHTTP(w, r)
		}
	})
}

// schemaRequest asks another server for a schema in the aggregator's name. The
// hash is left out: a server that knows a newer one would answer with a redirect.
func schemaRequest(r *http.Request) *http.Request {
	r = r.Clone(request.WithUser(r.Context(), &request.User{Name: "system:aggregator", Groups: []string{request.Authenticated}}))
	q := r.URL.Query()
	q.Del("hash")
	r.URL.RawQuery = q.Encode()
	return r
}

// paths3 is the list of a server's v3 documents.
type paths3 struct {
	Paths map[string]json.RawMessage `json:"paths"`
}

func (a *Aggregator) openAPIv3(t *table, next http.Handler, w http.ResponseWriter, r *http.Request) {
	own := capture(next, r)
	var list paths3
	if own.code != http.StatusOK || json.Unmarshal(own.body, &list) != nil || list.Paths == nil {
		own.send(w)
		return
	}
	for gv, to := range t.remotes {
		key := strings.TrimPrefix(to.base(), "/")
		delete(list.Paths, key)
		var theirs paths3
		if body := to.fetch(r.Context(), "/openapi/v3"); body == nil || json.Unmarshal(body, &theirs) != nil {
			continue
		}
		if there, ok := theirs.Paths[key]; ok && to.gv == gv {
			list.Paths[key] = there
		}
	}
	body, err := json.Marshal(list)
	if err != nil {
		own.send(w)
		return
	}
	own.body = body
	if !tagged(w, r, own, body) {
		own.send(w)
	}
}

const protoV2 = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf"

func (a *Aggregator) openAPIv2(t *table, next http.Handler, w http.ResponseWriter, r *http.Request) {
	asked := r.Clone(r.Context())
	asked.Header.Set("Accept", "application/json")
	own := capture(next, asked)
	if own.code != http.StatusOK {
		own.send(w)
		return
	}
	var theirs []theirV2
	for _, to := range t.sorted() {
		if body := to.fetch(r.Context(), "/openapi/v2"); body != nil {
			theirs = append(theirs, theirV2{to.base() + "/", body})
		}
	}
	form := "v2"
	if strings.Contains(r.Header.Get("Accept"), "proto-openapi") {
		form = "v2 protobuf"
	}
	zipped, err := a.merged.get(t.key(form, own.body), func() ([]byte, error) { return zippedV2(own.body, theirs, form) })
	if err != nil {
		a.log.Warn("schemas of other servers left out", "err", err)
		next.ServeHTTP(w, r)
		return
	}
	if form != "v2" {
		own.header.Set("Content-Type", protoV2)
	}
	own.header.Set("Vary", "Accept, Accept-Encoding")
	if tagged(w, r, own, zipped) {
		return
	}
	own.body = zipped
	if strings.Contains(r.Header.Get("Accept-Encoding"), "gzip") {
		own.header.Set("Content-Encoding", "gzip")
	} else if own.body, err = gunzip(zipped); err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	own.send(w)
}

func zippedV2(own []byte, theirs []theirV2, form string) ([]byte, error) {
	body, err := mergeV2(own, theirs)
	if err == nil && form != "v2" {
		var doc *openapi_v2.Document
		if doc, err = openapi_v2.ParseDocument(body); err == nil {
			body, err = proto.Marshal(doc)
		}
	}
	if err != nil {
		return nil, err
	}
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	z.Write(body)
	err = z.Close() // writes the rest
	return b.Bytes(), err
}

func gunzip(b []byte) ([]byte, error) {
	z, err := gzip.NewReader(bytes.NewReader(b))
	if err != nil {
		return nil, err
	}
	var out bytes.Buffer
	_, err = out.ReadFrom(z)
	return out.Bytes(), err
}

// theirV2 is another server's document, of which what is below a path counts.
type theirV2 struct {
	below string
	body  []byte
}

// mergeV2 adds other servers' paths, and the definitions they refer to, to this
// one's. A definition whose name is taken by another gets a name of its own. What
// cannot be read is left out.
func mergeV2(own []byte, theirs []theirV2) ([]byte, error) {
	doc := map[string]json.RawMessage{}
	if err := json.Unmarshal(own, &doc); err != nil {
		return nil, err
	}
	paths, defs := map[string]json.RawMessage{}, map[string]json.RawMessage{}
	for key, into := range map[string]any{"paths": &paths, "definitions": &defs} {
		if raw, ok := doc[key]; ok {
			if err := json.Unmarshal(raw, into); err != nil {
				return nil, err
			}
		}
	}
	for _, s := range theirs {
		var their struct{ Paths, Definitions map[string]json.RawMessage }
		if json.Unmarshal(s.body, &their) != nil {
			continue
		}
		s.add(paths, defs, their.Paths, their.Definitions)
	}
	var err error
	if doc["paths"], err = json.Marshal(paths); err != nil {
		return nil, err
	}
	if doc["definitions"], err = json.Marshal(defs); err != nil {
		return nil, err
	}
	return json.Marshal(doc)
}

const refMark = `"#/definitions/`

// refs lists the definitions a piece of a document refers to.
func refs(raw []byte) (out []string) {
	for {
		i := bytes.Index(raw, []byte(refMark))
		if i < 0 {
			return out
		}
		raw = raw[i+len(refMark):]
		end := bytes.IndexByte(raw, '"')
		if end < 0 {
			return out
		}
		out = append(out, string(raw[:end]))
	}
}

// add takes over the paths that count and what they refer to.
func (s *theirV2) add(paths, defs, theirPaths, theirDefs map[string]json.RawMessage) {
	used := map[string]bool{}
	var pending []string
	for p, raw := range theirPaths {
		if strings.HasPrefix(p+"/", s.below) {
			pending = append(pending, refs(raw)...)
		}
	}
	for len(pending) > 0 {
		name := pending[len(pending)-1]
		pending = pending[:len(pending)-1]
		if raw, ok := theirDefs[name]; ok && !used[name] {
			used[name] = true
			pending = append(pending, refs(raw)...)
		}
	}
	var renames []string
	for name := range used {
		if have, ok := defs[name]; ok && !sameJSON(have, theirDefs[name]) {
			free := name + "_v2"
			for n := 3; defs[free] != nil || theirDefs[free] != nil; n++ {
				free = fmt.Sprintf("%s_v%d", name, n)
			}
			renames = append(renames, refMark+name+`"`, refMark+free+`"`)
			theirDefs[free] = theirDefs[name]
			delete(used, name)
			used[free] = true
		}
	}
	rename := strings.NewReplacer(renames...)
	for name := range used {
		if defs[name] == nil {
			defs[name] = json.RawMessage(rename.Replace(string(theirDefs[name])))
		}
	}
	for p, raw := range theirPaths {
		if strings.HasPrefix(p+"/", s.below) {
			paths[p] = json.RawMessage(rename.Replace(string(raw)))
		}
	}
}

func sameJSON(a, b []byte) bool {
	var x, y any
	if json.Unmarshal(a, &x) != nil || json.Unmarshal(b, &y) != nil {
		return false
	}
	p, err := json.Marshal(x)
	if err != nil {
		return false
	}
	q, err := json.Marshal(y)
	return err == nil && bytes.Equal(p, q)
}
