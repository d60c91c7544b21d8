package openapi

import (
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"io"
	"iter"
	"net/http"
	"runtime/debug"
	"strconv"
	"strings"
	"sync"
	"time"
	"unsafe"

	openapi_v2 "github.com/google/gnostic-models/openapiv2"
	openapi_v3 "github.com/google/gnostic-models/openapiv3"
	"google.golang.org/protobuf/proto"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/sampan-dev/sampan/api"
	"github.com/sampan-dev/sampan/kit/clock"
	"github.com/sampan-dev/sampan/resource"
)

// Handler serves /openapi/v2 and /openapi/v3. It keeps what it made compressed,
// until the kinds change.
type Handler struct {
	kinds func() []resource.Kind

	mu   sync.Mutex
	of   []resource.Kind
	made map[string][]byte // gzipped documents
	base *base
}

// New returns a handler of the kinds that kinds returns: always the same slice
// until they change.
func New(kinds func() []resource.Kind) *Handler { return &Handler{kinds: kinds} }

const (
	protoV2 = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf"
	protoV3 = "application/com.github.proto-openapi.spec.v3.v1.0+protobuf"
)

// ServeHTTP implements http.Handler.
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	path := strings.TrimSuffix(r.URL.Path, "/")
	rest, v3 := strings.CutPrefix(path, "/openapi/v3")
	switch {
	case path == "/openapi/v2":
		h.send(w, r, "v2", protoV2)
	case !v3:
		http.NotFound(w, r)
	case rest == "":
		h.root(w, r)
	default:
		h.send(w, r, strings.TrimPrefix(rest, "/"), protoV3)
	}
}

// hash names the state of a document without making it: the build and the kinds
// that it shows.
func (h *Handler) hash(key string) string {
	sum := sha256.New()
	io.WriteString(sum, api.Version().GitVersion+api.Version().GitCommit+key)
	gv, one := parse(key)
	for _, k := range h.kinds() {
		i := k.Info()
		if one && !shows(i, gv) {
			continue
		}
		io.WriteString(sum, i.GroupVersionKind.String()+strings.Join(i.Verbs, ","))
		if c, ok := k.(resource.Custom); ok {
			io.WriteString(sum, c.Fingerprint())
		}
	}
	return strings.ToUpper(hex.EncodeToString(sum.Sum(nil)))
}

// shows says whether a kind is served in a version.
func shows(i *resource.Info, gv schema.GroupVersion) bool {
	if i.GroupVersionKind.GroupVersion() == gv && !i.Hidden {
		return true
	}
	for n := range i.Also {
		if v := &i.Also[n]; !v.Apart && v.Group == gv.Group && v.Version == gv.Version {
			return true
		}
	}
	return false
}

// root lists the v3 documents.
func (h *Handler) root(w http.ResponseWriter, r *http.Request) {
	paths := map[string]any{}
	for key := range keys(h.kinds()) {
		paths[key] = map[string]string{"serverRelativeURL": "/openapi/v3/" + key + "?hash=" + h.hash(key)}
	}
	data, err := json.Marshal(map[string]any{"paths": paths})
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", api.JSON)
	if !tagged(w, r, h.hash("v3")) {
		w.Write(data)
	}
}

// tagged sets the tag of an answer and, if the client has it already, says so.
func tagged(w http.ResponseWriter, r *http.Request, tag string) bool {
	tag = strconv.Quote(tag)
	w.Header().Set("Etag", tag)
	for have := range strings.SplitSeq(r.Header.Get("If-None-Match"), ",") {
		if have = strings.TrimPrefix(strings.TrimSpace(have), "W/"); have == tag || have == "*" {
			w.WriteHeader(http.StatusNotModified)
			return true
		}
	}
	return false
}

// keys are the names of the v3 documents.
func keys(kinds []resource.Kind) iter.Seq[string] {
	return func(yield func(string) bool) {
		for _, gv := range versions(kinds) {
			if !yield(strings.TrimPrefix(baseURL(gv), "/")) {
				return
			}
		}
		for _, r := range roots(kinds) {
			if !yield(r.key()) {
				return
			}
		}
	}
}

func has(kinds []resource.Kind, key string) bool {
	for k := range keys(kinds) {
		if k == key {
			return true
		}
	}
	return false
}

// parse reads "apis/apps/v1" or "api/v1".
func parse(key string) (schema.GroupVersion, bool) {
	switch p := strings.Split(key, "/"); {
	case len(p) == 2 && p[0] == "api":
		return schema.GroupVersion{Version: p[1]}, true
	case len(p) == 3 && p[0] == "apis":
		return schema.GroupVersion{Group: p[1], Version: p[2]}, true
	}
	return schema.GroupVersion{}, false
}

func (h *Handler) send(w http.ResponseWriter, r *http.Request, key, protoType string) {
	if key != "v2" && !has(h.kinds(), key) {
		http.NotFound(w, r)
		return
	}
	tag := h.hash(key)
	if asked := r.URL.Query().Get("hash"); asked != "" {
		if asked != tag {
			u := *r.URL
			u.RawQuery = "hash=" + tag
			http.Redirect(w, r, u.String(), http.StatusMovedPermanently)
			return
		}
		w.Header().Set("Cache-Control", "public, immutable")
		w.Header().Set("Expires", clock.Now().AddDate(1, 0, 0).UTC().Format(time.RFC1123))
	}
	w.Header().Set("Vary", "Accept, Accept-Encoding")
	asProto, ok := wantsProto(r.Header.Get("Accept"))
	if !ok {
		w.WriteHeader(http.StatusNotAcceptable)
		return
	}
	contentType := api.JSON
	if asProto {
		contentType = protoType
	}
	w.Header().Set("Content-Type", contentType)
	if tagged(w, r, tag) {
		return
	}
	zipped, err := h.document(key, asProto)
	if err != nil {
		w.Header().Del("Etag")
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	if strings.Contains(r.Header.Get("Accept-Encoding"), "gzip") {
		w.Header().Set("Content-Encoding", "gzip")
		w.Write(zipped)
		return
	}
	if z, err := gzip.NewReader(bytes.NewReader(zipped)); err == nil {
		io.Copy(w, z)
	}
}

// wantsProto says whether protobuf is the first acceptable form, and whether
// any is.
func wantsProto(accept string) (asProto, ok bool) {
	if accept == "" {
		return false, true
	}
	for c := range strings.SplitSeq(accept, ",") {
		media, _, _ := strings.Cut(strings.TrimSpace(c), ";")
		switch {
		case strings.HasPrefix(media, "application/com.github.proto-openapi."):
			return true, true
		case media == api.JSON, media == "*/*", media == "application/*":
			return false, true
		}
	}
	return false, false
}

// document returns a document, compressed; it is made once.
func (h *Handler) document(key string, asProto bool) ([]byte, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	kinds := h.kinds()
	if h.made == nil || unsafe.SliceData(kinds) != unsafe.SliceData(h.of) || len(kinds) != len(h.of) {
		h.of, h.made = kinds, map[string][]byte{}
	}
	form := key
	if asProto {
		form += " protobuf"
	}
	if z := h.made[form]; z != nil {
		return z, nil
	}
	data, err := h.render(kinds, key)
	if err == nil && asProto {
		data, err = toProto(key, data)
	}
	if err != nil {
		return nil, err
	}
	h.made[form] = zip(data)
	if key == "v2" {
		// Hundreds of megabytes were garbage for a moment: give them back.
		debug.FreeOSMemory()
	}
	return h.made[form], nil
}

func (h *Handler) render(kinds []resource.Kind, key string) ([]byte, error) {
	if key == "v2" {
		return h.documentV2(kinds)
	}
	return documentV3(kinds, key)
}

func toProto(key string, data []byte) ([]byte, error) {
	if key == "v2" {
		doc, err := openapi_v2.ParseDocument(data)
		if err != nil {
			return nil, err
		}
		return proto.Marshal(doc)
	}
	doc, err := openapi_v3.ParseDocument(data)
	if err != nil {
		return nil, err
	}
	return proto.Marshal(doc)
}
