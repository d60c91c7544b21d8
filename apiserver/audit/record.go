package audit

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"mime"
	"net"
	"net/http"
	"strings"

	authnv1 "k8s.io/api/authentication/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	auditv1 "k8s.io/apiserver/pkg/apis/audit/v1"
	"sigs.k8s.io/yaml"

	"github.com/sampan-dev/sampan/api"
	"github.com/sampan-dev/sampan/apiserver/request"
)

// record is one request being put on record.
type record struct {
	a     *Auditor
	v     verdict
	ev    *auditv1.Event
	notes *request.Annotations
	long  bool
}

type recordKey struct{}

func recordFrom(ctx context.Context) *record {
	r, _ := ctx.Value(recordKey{}).(*record)
	return r
}

// Impersonated notes whom the request in ctx acts as.
func Impersonated(ctx context.Context, u *request.User) {
	if r := recordFrom(ctx); r != nil {
		user := userInfo(u)
		r.ev.ImpersonatedUser = &user
	}
}

// maxAgent is how much of a user agent is kept.
const maxAgent = 1024

func userInfo(u *request.User) authnv1.UserInfo {
	info := authnv1.UserInfo{Username: u.Name, UID: u.UID, Groups: u.Groups}
	for k, v := range u.Extra {
		if info.Extra == nil {
			info.Extra = map[string]authnv1.ExtraValue{}
		}
		info.Extra[k] = v
	}
	return info
}

// newEvent is what is known of a request from the beginning.
func newEvent(level auditv1.Level, u *request.User, i *request.Info, agent string) *auditv1.Event {
	if len(agent) > maxAgent {
		agent = agent[:maxAgent] + "...TRUNCATED"
	}
	ev := &auditv1.Event{
		TypeMeta: metav1.TypeMeta{Kind: "Event", APIVersion: auditv1.SchemeGroupVersion.String()},
		Level:    level, Verb: i.Verb, User: userInfo(u), UserAgent: agent,
	}
	if i.IsResource {
		ev.ObjectRef = &auditv1.ObjectReference{
			Resource: i.Resource, Namespace: i.Namespace, Name: i.Name, APIGroup: i.Group, APIVersion: i.Version, Subresource: i.Subresource,
		}
	}
	return ev
}

// sources are the addresses a request came through, the client's first.
func sources(r *http.Request) []string {
	var out []string
	add := func(s string) {
		if ip := net.ParseIP(strings.TrimSpace(s)); ip != nil && (len(out) == 0 || out[len(out)-1] != ip.String()) {
			out = append(out, ip.String())
		}
	}
	for part := range strings.SplitSeq(r.Header.Get("X-Forwarded-For"), ",") {
		add(part)
	}
	if len(out) == 0 {
		add(r.Header.Get("X-Real-Ip"))
	}
	host, _, err := net.SplitHostPort(r.RemoteAddr)
	if err != nil {
		host = r.RemoteAddr
	}
	add(host)
	return out
}

// noted adds an annotation to the event.
func (r *record) noted(key, value string) {
	if r.ev.Annotations == nil {
		r.ev.Annotations = map[string]string{}
	}
	r.ev.Annotations[key] = value
}

// stage sends the event as it is by now.
func (r *record) stage(s auditv1.Stage) error {
	if r.notes != nil {
		for k, v := range r.notes.Map() {
			r.noted(k, v)
		}
	}
	return r.a.stage(r.ev, &r.v, s)
}

// body turns a body into the JSON that events carry; nil when it cannot.
func body(contentType, encoding string, data []byte, omitManaged bool) *runtime.Unknown {
	if encoding == "gzip" {
		z, err := gzip.NewReader(bytes.NewReader(data))
		if err != nil {
			return nil
		}
		if data, err = io.ReadAll(z); err != nil {
			return nil
		}
	}
	if len(data) == 0 {
		return nil
	}
	media, _, err := mime.ParseMediaType(contentType)
	if err != nil {
		media = api.JSON
	}
	switch {
	case strings.Contains(media, "protobuf"):
		obj, _, err := api.Decode(api.FormatProtobuf, data, nil, false)
		if err != nil {
			return nil
		}
		if data, err = json.Marshal(obj); err != nil {
			return nil
		}
	case strings.Contains(media, "yaml"):
		if data, err = yaml.YAMLToJSON(data); err != nil {
			return nil
		}
	case !strings.Contains(media, "json"):
		return nil
	}
	data = bytes.TrimSpace(data)
	if !json.Valid(data) {
		return nil
	}
	if omitManaged {
		data = withoutManaged(data)
	}
	return &runtime.Unknown{Raw: data, ContentType: runtime.ContentTypeJSON}
}

// withoutManaged drops managed fields from an object or from a list's objects.
func withoutManaged(data []byte) []byte {
	if !bytes.Contains(data, []byte(`"managedFields"`)) {
		return data
	}
	var doc map[string]any
	d := json.NewDecoder(bytes.NewReader(data))
	d.UseNumber()
	if d.Decode(&doc) != nil {
		return data
	}
	drop := func(o map[string]any) {
		if m, ok := o["metadata"].(map[string]any); ok {
			delete(m, "managedFields")
		}
	}
	drop(doc)
	if items, ok := doc["items"].([]any); ok {
		for _, it := range items {
			if o, ok := it.(map[string]any); ok {
				drop(o)
			}
		}
	}
	out, err := json.Marshal(doc)
	if err != nil {
		return data
	}
	return out
}

// statusIn reads a Status out of an answer that is one.
func statusIn(u *runtime.Unknown) *metav1.Status {
	if u == nil || !bytes.Contains(u.Raw, []byte(`"Status"`)) {
		return nil
	}
	s := &metav1.Status{}
	if json.Unmarshal(u.Raw, s) != nil || s.Kind != "Status" {
		return nil
	}
	s.TypeMeta = metav1.TypeMeta{}
	return s
}

// named completes the reference to an object by what the object says.
func (r *record) named(o metav1.Object) {
	ref := r.ev.ObjectRef
	if ref == nil || o == nil {
		return
	}
	if ref.Name == "" {
		ref.Name = o.GetName()
	}
	if ref.Namespace == "" {
		ref.Namespace = o.GetNamespace()
	}
	if ref.UID == "" {
		ref.UID = o.GetUID()
	}
	if ref.ResourceVersion == "" {
		ref.ResourceVersion = o.GetResourceVersion()
	}
}

// namedBy reads the same out of an object's JSON.
func (r *record) namedBy(u *runtime.Unknown) {
	if u == nil || r.ev.ObjectRef == nil {
		return
	}
	var o struct {
		Metadata struct {
			Name, Namespace, UID, ResourceVersion string
		}
	}
	if json.Unmarshal(u.Raw, &o) == nil {
		m := o.Metadata
		r.named(&metav1.ObjectMeta{Name: m.Name, Namespace: m.Namespace, UID: types.UID(m.UID), ResourceVersion: m.ResourceVersion})
	}
}

// witness is an answer that is put on record.
type witness struct {
	http.ResponseWriter
	r    *record
	code int
	keep bool // the body
	buf  bytes.Buffer
}

func (w *witness) WriteHeader(code int) {
	w.begin(code)
	w.ResponseWriter.WriteHeader(code)
}

func (w *witness) begin(code int) {
	if w.code != 0 || code < 200 && code != http.StatusSwitchingProtocols {
		return
	}
	w.code = code
	w.keep = !w.r.long && (w.r.v.atLeast(auditv1.LevelRequestResponse) || code >= 400)
	if w.r.long {
		w.r.ev.ResponseStatus = &metav1.Status{Code: int32(code)}
		_ = w.r.stage(auditv1.StageResponseStarted)
	}
}

func (w *witness) Write(b []byte) (int, error) {
	w.begin(http.StatusOK)
	if w.keep {
		w.buf.Write(b)
	}
	return w.ResponseWriter.Write(b)
}

// Unwrap lets http.ResponseController reach the rest.
func (w *witness) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// Flush implements http.Flusher.
func (w *witness) Flush() {
	w.begin(http.StatusOK)
	http.NewResponseController(w.ResponseWriter).Flush()
}

// Hijack implements http.Hijacker.
func (w *witness) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	w.begin(http.StatusSwitchingProtocols)
	return http.NewResponseController(w.ResponseWriter).Hijack()
}

// answered completes the event by what was sent.
func (w *witness) answered() {
	ev := w.r.ev
	if w.code == 0 {
		ev.ResponseStatus = &metav1.Status{Code: http.StatusOK, Status: metav1.StatusSuccess, Message: "Connection closed early"}
		return
	}
	ev.ResponseStatus = &metav1.Status{Code: int32(w.code)}
	if !w.keep {
		return
	}
	u := body(w.Header().Get("Content-Type"), w.Header().Get("Content-Encoding"), w.buf.Bytes(), w.r.v.omitManaged)
	if s := statusIn(u); s != nil {
		s.Code = int32(w.code)
		ev.ResponseStatus = s
	}
	if w.r.v.atLeast(auditv1.LevelRequestResponse) {
		ev.ResponseObject = u
	}
}

func panicked(p any) *metav1.Status {
	return &metav1.Status{
		Code: http.StatusInternalServerError, Status: metav1.StatusFailure, Reason: metav1.StatusReasonInternalError,
		Message: fmt.Sprintf("APIServer panic'd: %v", p),
	}
}
