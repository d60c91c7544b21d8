package rest

import (
	"net/http"
	"strconv"
	"strings"

	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/sampan-dev/sampan/api"
)

// answer is how a client wants to be answered.
type answer struct {
	format api.Format
	pretty bool
	as     schema.GroupVersionKind // Table, PartialObjectMetadata[List], or empty
	stream bool                    // the media type said stream=watch
}

func (a answer) table() bool   { return a.as.Kind == "Table" }
func (a answer) partial() bool { return strings.HasPrefix(a.as.Kind, "PartialObjectMetadata") }

// contentType is the header of a single answer.
func (a answer) contentType() string { return a.format.MediaType() }

// supported is what a 406 tells the client to choose from.
const supported = "application/json, application/yaml, application/vnd.kubernetes.protobuf"

// supportedPlain is the same for custom resources.
const supportedPlain = "application/json, application/yaml"

type clause struct {
	media  string
	params map[string]string
	q      float64
}

// negotiate chooses the first acceptable clause of an Accept header. transform
// says whether tables and metadata alone can be given, plain that the objects
// themselves have no protobuf.
func negotiate(r *http.Request, transform, plain bool) (answer, bool) {
	header := r.Header.Get("Accept")
	pretty := wantsPretty(r)
	if header == "" {
		return answer{pretty: pretty}, true
	}
	if header == api.JSON {
		return answer{pretty: pretty}, true
	}
	if header == api.Protobuf && !plain {
		return answer{format: api.FormatProtobuf}, true
	}
	best, found, bestQ := answer{}, false, -1.0
	for _, c := range clauses(header) {
		a, ok := c.answer(transform)
		if plain && a.format == api.FormatProtobuf && !a.partial() {
			continue
		}
		if ok && c.q > bestQ {
			best, found, bestQ = a, true, c.q
		}
	}
	best.pretty = pretty && best.format == api.FormatJSON
	return best, found
}

func clauses(header string) []clause {
	var out []clause
	for part := range strings.SplitSeq(header, ",") {
		c := clause{q: 1}
		for i, p := range strings.Split(part, ";") {
			p = strings.TrimSpace(p)
			if i == 0 {
				c.media = strings.ToLower(p)
				continue
			}
			k, v, _ := strings.Cut(p, "=")
			if k == "q" {
				if q, err := strconv.ParseFloat(v, 64); err == nil {
					c.q = q
				}
				continue
			}
			if c.params == nil {
				c.params = map[string]string{}
			}
			c.params[k] = v
		}
		out = append(out, c)
	}
	return out
}

func (c *clause) answer(transform bool) (answer, bool) {
	a := answer{}
	switch c.media {
	case "*/*", "application/*", "":
	default:
		f, ok := api.FormatOf(c.media)
		if !ok {
			return a, false
		}
		a.format = f
	}
	a.stream = c.params["stream"] == "watch"
	as := c.params["as"]
	if as == "" {
		return a, true
	}
	if !transform || c.params["g"] != "meta.k8s.io" || c.params["v"] != "v1" && c.params["v"] != "v1beta1" {
		return a, false
	}
	switch as {
	case "Table":
		if a.format == api.FormatProtobuf {
			return a, false
		}
	case "PartialObjectMetadata", "PartialObjectMetadataList":
	default:
		return a, false
	}
	a.as = schema.GroupVersionKind{Group: "meta.k8s.io", Version: c.params["v"], Kind: as}
	return a, true
}

// wantsPretty is upstream's rule: asked for, or a person at a terminal or browser.
func wantsPretty(r *http.Request) bool {
	if r.URL.RawQuery != "" {
		if v, ok := r.URL.Query()["pretty"]; ok {
			b, err := strconv.ParseBool(v[0])
			return v[0] == "" || err != nil || b
		}
	}
	agent := r.UserAgent()
	return strings.HasPrefix(agent, "curl") || strings.HasPrefix(agent, "Wget") || strings.HasPrefix(agent, "Mozilla/5.0")
}
