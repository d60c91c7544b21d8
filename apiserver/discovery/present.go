package discovery

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/yaml"

	"github.com/sampan-dev/sampan/api"
	"github.com/sampan-dev/sampan/apiserver/request"
)

// Present answers with what next says in JSON as the client wants to read it:
// with indentation, or as YAML or protobuf.
func Present(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		format, ok := wanted(r.Header.Get("Accept"))
		if !ok {
			http.Error(w, "only the following media types are accepted: application/json, application/yaml, application/vnd.kubernetes.protobuf", http.StatusNotAcceptable)
			return
		}
		pretty := format == api.FormatJSON && request.WantsPretty(r)
		if format == api.FormatJSON && !pretty {
			next.ServeHTTP(w, r)
			return
		}
		if format != api.FormatJSON {
			r = r.Clone(r.Context())
			r.Header.Set("Accept", api.JSON)
		}
		k := &kept{header: w.Header(), code: http.StatusOK}
		next.ServeHTTP(k, r)
		body := bytes.TrimRight(k.body.Bytes(), "\n")
		if k.code == http.StatusOK {
			shown, err := render(format, body)
			if err != nil {
				http.Error(w, err.Error(), http.StatusInternalServerError)
				return
			}
			body = shown
			if !pretty {
				w.Header().Set("Content-Type", format.MediaType())
			}
			w.Header().Del("Content-Length")
		}
		w.WriteHeader(k.code)
		w.Write(body)
	})
}

// wanted is the form that the best clause of an Accept header asks for.
func wanted(header string) (best api.Format, ok bool) {
	if header == "" {
		return api.FormatJSON, true
	}
	most := -1.0
	for _, c := range request.Clauses(header) {
		f := api.FormatJSON
		switch c.Media {
		case "*/*", "application/*", "":
		default:
			named, known := api.FormatOf(c.Media)
			if !known || c.Params["as"] != "" && named != api.FormatJSON {
				continue
			}
			f = named
		}
		if c.Q > most {
			best, ok, most = f, true, c.Q
		}
	}
	return best, ok
}

func render(f api.Format, doc []byte) ([]byte, error) {
	var out bytes.Buffer
	switch f {
	case api.FormatYAML:
		return yaml.JSONToYAML(doc)
	case api.FormatProtobuf:
		var kind metav1.TypeMeta
		if err := json.Unmarshal(doc, &kind); err != nil {
			return nil, err
		}
		var obj runtime.Object
		switch kind.Kind {
		case "APIVersions":
			obj = &metav1.APIVersions{}
		case "APIGroupList":
			obj = &metav1.APIGroupList{}
		case "APIGroup":
			obj = &metav1.APIGroup{}
		case "APIResourceList":
			obj = &metav1.APIResourceList{}
		default:
			return nil, fmt.Errorf("%s has no such form", kind.Kind)
		}
		if err := json.Unmarshal(doc, obj); err != nil {
			return nil, err
		}
		err := api.Encode(f, obj, &out)
		return out.Bytes(), err
	}
	err := json.Indent(&out, doc, "", "  ")
	return out.Bytes(), err
}

// kept is an answer that is not sent yet.
type kept struct {
	header http.Header
	code   int
	body   bytes.Buffer
}

func (k *kept) Header() http.Header         { return k.header }
func (k *kept) WriteHeader(code int)        { k.code = code }
func (k *kept) Write(p []byte) (int, error) { return k.body.Write(p) }
