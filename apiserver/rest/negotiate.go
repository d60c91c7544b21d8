package rest

import (
	"net/http"
	"strings"

	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/sampan-dev/sampan/api"
	"github.com/sampan-dev/sampan/apiserver/request"
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

// negotiate chooses the first acceptable clause of an Accept header. transform
// says whether tables and metadata alone can be given, plain that the objects
// themselves have no protobuf.
func negotiate(r *http.Request, transform, plain bool) (answer, bool) {
	header := r.Header.Get("Accept")
	pretty := request.WantsPretty(r)
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
	for _, c := range request.Clauses(header) {
		a, ok := answerTo(&c, transform)
		if plain && a.format == api.FormatProtobuf && !a.partial() {
			continue
		}
		if ok && c.Q > bestQ {
			best, found, bestQ = a, true, c.Q
		}
	}
	best.pretty = pretty && best.format == api.FormatJSON
	return best, found
}

// answerTo is what a clause asks for, when it can be given.
func answerTo(c *request.Clause, transform bool) (answer, bool) {
	a := answer{}
	switch c.Media {
	case "*/*", "application/*", "":
	default:
		f, ok := api.FormatOf(c.Media)
		if !ok {
			return a, false
		}
		a.format = f
	}
	a.stream = c.Params["stream"] == "watch"
	as := c.Params["as"]
	if as == "" {
		return a, true
	}
	if !transform || c.Params["g"] != "meta.k8s.io" || c.Params["v"] != "v1" && c.Params["v"] != "v1beta1" {
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
	a.as = schema.GroupVersionKind{Group: "meta.k8s.io", Version: c.Params["v"], Kind: as}
	return a, true
}
