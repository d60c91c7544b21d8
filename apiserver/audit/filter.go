package audit

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"strings"

	"github.com/google/uuid"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	auditv1 "k8s.io/apiserver/pkg/apis/audit/v1"

	"github.com/sampan-dev/sampan/api"
	"github.com/sampan-dev/sampan/apiserver/request"
	"github.com/sampan-dev/sampan/kit/clock"
)

// Filter puts on record what passes to next. The user in the context is who was
// authenticated. refuse answers a request that may not be served unrecorded.
func (a *Auditor) Filter(next http.Handler, long func(*http.Request, *request.Info) bool, refuse func(http.ResponseWriter, *http.Request, error)) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		ctx := r.Context()
		i := request.InfoFrom(ctx)
		rec := a.begin(ctx, i, r.UserAgent())
		if rec == nil {
			next.ServeHTTP(w, r)
			return
		}
		ev := rec.ev
		ev.AuditID, ev.RequestURI, ev.SourceIPs = types.UID(w.Header().Get("Audit-Id")), r.URL.RequestURI(), sources(r)
		rec.long = long(r, i)
		var sent *bytes.Buffer
		if r.Body != nil && hasBody(i) && (rec.v.atLeast(auditv1.LevelRequest) || i.Verb == "create") {
			sent = &bytes.Buffer{}
			r.Body = &heard{ReadCloser: r.Body, buf: sent}
		}
		if err := rec.stage(auditv1.StageRequestReceived); err != nil {
			refuse(w, r, apierrors.NewInternalError(err))
			return
		}
		answer := &witness{ResponseWriter: w, r: rec}
		defer func() {
			rec.asked(r, sent)
			if p := recover(); p != nil {
				ev.ResponseStatus = panicked(p)
				_ = rec.stage(auditv1.StagePanic)
				panic(p)
			}
			answer.answered()
			rec.complete()
		}()
		next.ServeHTTP(answer, r.WithContext(rec.into(ctx)))
	})
}

// begin finds out whether a request is put on record, nil when not.
func (a *Auditor) begin(ctx context.Context, i *request.Info, agent string) *record {
	u := request.UserFrom(ctx)
	v := judge(a.policy, u, i)
	a.levels.WithLabelValues(string(v.level)).Inc()
	if v.level == auditv1.LevelNone {
		return nil
	}
	rec := &record{a: a, v: v, ev: newEvent(v.level, u, i, agent)}
	rec.ev.RequestReceivedTimestamp = metav1.NewMicroTime(clock.Now())
	return rec
}

// into gives the request's parts what they may add to.
func (r *record) into(ctx context.Context) context.Context {
	ctx, r.notes = request.WithAnnotations(ctx)
	return context.WithValue(ctx, recordKey{}, r)
}

// hasBody says whether a request carries an object.
func hasBody(i *request.Info) bool {
	switch i.Verb {
	case "create", "update", "patch", "delete", "deletecollection":
		return i.IsResource
	}
	return false
}

// heard is a body that is listened to.
type heard struct {
	io.ReadCloser
	buf *bytes.Buffer
}

// maxHeard is more than any body the server accepts.
const maxHeard = 4 << 20

func (h *heard) Read(p []byte) (int, error) {
	n, err := h.ReadCloser.Read(p)
	if h.buf.Len() < maxHeard {
		h.buf.Write(p[:n])
	}
	return n, err
}

// asked completes the event by what was sent to the server.
func (r *record) asked(req *http.Request, sent *bytes.Buffer) {
	if sent == nil || sent.Len() == 0 {
		return
	}
	u := body(req.Header.Get("Content-Type"), "", sent.Bytes(), r.v.omitManaged)
	if r.ev.Verb == "create" || r.ev.Verb == "update" {
		r.namedBy(u)
	}
	if r.v.atLeast(auditv1.LevelRequest) {
		r.ev.RequestObject = u
	}
}

// slow is from when on a request's duration is noted.
const slow = 500_000_000 // nanoseconds

func (r *record) complete() {
	if took := clock.Since(r.ev.RequestReceivedTimestamp.Time); took > slow && !r.long {
		r.noted("apiserver.latency.k8s.io/total", took.String())
	}
	_ = r.stage(auditv1.StageResponseComplete)
}

// Unauthenticated puts on record a request whose sender could not be found out.
func (a *Auditor) Unauthenticated(w http.ResponseWriter, r *http.Request) {
	i := request.InfoFrom(r.Context())
	rec := a.begin(request.WithUser(r.Context(), &request.User{}), i, r.UserAgent())
	if rec == nil {
		return
	}
	rec.ev.AuditID, rec.ev.RequestURI, rec.ev.SourceIPs = types.UID(w.Header().Get("Audit-Id")), r.URL.RequestURI(), sources(r)
	rec.ev.ResponseStatus = &metav1.Status{Code: http.StatusUnauthorized, Message: failedMessage(r)}
	_ = rec.stage(auditv1.StageResponseStarted)
}

// failedMessage names the ways the sender tried, without the secrets.
func failedMessage(r *http.Request) string {
	var ways []string
	if r.Header.Get("Authorization") != "" {
		scheme, _, _ := strings.Cut(r.Header.Get("Authorization"), " ")
		switch strings.ToLower(scheme) {
		case "basic", "bearer":
			ways = append(ways, strings.ToLower(scheme))
		}
	}
	if r.TLS != nil && len(r.TLS.PeerCertificates) > 0 {
		ways = append(ways, "x509")
	}
	if len(ways) == 0 {
		return "Authentication failed, no credentials provided"
	}
	return "Authentication failed, attempted: " + strings.Join(ways, ", ")
}

// Call puts on record what a part of this process asks by function call. The
// returned function is to be told the outcome.
func (a *Auditor) Call(ctx context.Context, i *request.Info, agent string, obj api.Object) (context.Context, func(api.Object, error), error) {
	rec := a.begin(ctx, i, agent)
	if rec == nil {
		return ctx, func(api.Object, error) {}, nil
	}
	rec.ev.AuditID, rec.ev.RequestURI = types.UID(uuid.NewString()), uriOf(i)
	rec.long = i.Verb == "watch"
	if obj != nil {
		if i.Verb == "create" || i.Verb == "update" {
			rec.named(obj)
		}
	}
	if err := rec.stage(auditv1.StageRequestReceived); err != nil {
		return ctx, nil, apierrors.NewInternalError(err)
	}
	if obj != nil && rec.v.atLeast(auditv1.LevelRequest) {
		rec.ev.RequestObject = unknown(obj, rec.v.omitManaged)
	}
	return rec.into(ctx), func(out api.Object, err error) { rec.returned(out, err) }, nil
}

func (r *record) returned(out api.Object, err error) {
	code := int32(http.StatusOK)
	if r.ev.Verb == "create" {
		code = http.StatusCreated
	}
	r.ev.ResponseStatus = &metav1.Status{Code: code}
	if err != nil {
		r.ev.ResponseStatus = &metav1.Status{Status: metav1.StatusFailure, Code: http.StatusInternalServerError, Message: err.Error()}
		var s apierrors.APIStatus
		if errors.As(err, &s) {
			st := s.Status()
			r.ev.ResponseStatus = &st
		}
	} else if out != nil && r.v.atLeast(auditv1.LevelRequestResponse) {
		r.ev.ResponseObject = unknown(out, r.v.omitManaged)
	}
	if r.long {
		_ = r.stage(auditv1.StageResponseStarted)
		return
	}
	r.complete()
}

func unknown(o api.Object, omitManaged bool) *runtime.Unknown {
	var data bytes.Buffer
	if api.Encode(api.FormatJSON, o, &data) != nil {
		return nil
	}
	return body(api.JSON, "", data.Bytes(), omitManaged)
}

// uriOf spells a call as the request it stands for.
func uriOf(i *request.Info) string {
	parts := []string{"/" + i.Prefix}
	if i.Group != "" {
		parts = append(parts, i.Group)
	}
	parts = append(parts, i.Version)
	if i.Namespace != "" && i.Resource != "namespaces" {
		parts = append(parts, "namespaces", i.Namespace)
	}
	for _, p := range []string{i.Resource, i.Name, i.Subresource} {
		if p != "" {
			parts = append(parts, p)
		}
	}
	return strings.Join(parts, "/")
}
