package rest

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strconv"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/sampan-dev/sampan/api"
	"github.com/sampan-dev/sampan/storage"
)

// StatusOf turns any error into what the user is told.
func StatusOf(err error) *metav1.Status {
	var se apierrors.APIStatus
	if errors.As(err, &se) {
		s := se.Status()
		if s.Status == "" {
			s.Status = metav1.StatusFailure
		}
		if s.Code == 0 {
			s.Code = http.StatusInternalServerError
		}
		s.Kind, s.APIVersion = "Status", "v1"
		return &s
	}
	code, reason := http.StatusInternalServerError, metav1.StatusReasonUnknown
	if errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled) {
		return StatusOf(apierrors.NewTimeoutError("request did not complete within the allotted timeout", 0))
	}
	return &metav1.Status{
		TypeMeta: metav1.TypeMeta{Kind: "Status", APIVersion: "v1"},
		Status:   metav1.StatusFailure, Code: int32(code), Reason: reason, Message: err.Error(),
	}
}

// WriteError answers a request with an error, in the format it accepts.
func WriteError(w http.ResponseWriter, r *http.Request, err error) {
	s := StatusOf(err)
	if s.Details != nil && s.Details.RetryAfterSeconds > 0 {
		w.Header().Set("Retry-After", strconv.Itoa(int(s.Details.RetryAfterSeconds)))
	}
	WriteStatus(w, r, s)
}

// WriteStatus answers with a Status and its code.
func WriteStatus(w http.ResponseWriter, r *http.Request, s *metav1.Status) {
	a, ok := negotiate(r, true, false)
	if !ok {
		a = answer{}
	}
	data, err := encode(a.format, s)
	if err != nil {
		a.format, data = api.FormatJSON, []byte(`{"kind":"Status","apiVersion":"v1","status":"Failure","code":500}`)
	}
	w.Header().Set("Content-Type", a.contentType())
	w.Header().Set("Cache-Control", "no-cache, private")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	w.WriteHeader(int(s.Code))
	w.Write(finish(a, data))
}

// finish makes JSON end with a newline, and readable when so wanted.
func finish(a answer, data []byte) []byte {
	if a.format != api.FormatJSON {
		return data
	}
	if a.pretty {
		var b bytes.Buffer
		if json.Indent(&b, data, "", "  ") == nil {
			return b.Bytes()
		}
	}
	return append(data[:len(data):len(data)], '\n')
}

// storeError translates what the store said about one object.
func storeError(err error, gr schema.GroupResource, name string) error {
	switch {
	case errors.Is(err, storage.ErrNotFound):
		return apierrors.NewNotFound(gr, name)
	case errors.Is(err, storage.ErrExists):
		return apierrors.NewAlreadyExists(gr, name)
	case errors.Is(err, storage.ErrTooLarge):
		return apierrors.NewRequestEntityTooLargeError("etcdserver: request is too large")
	case errors.Is(err, storage.ErrCompacted):
		return apierrors.NewResourceExpired("The resourceVersion for the provided watch is too old.")
	case errors.Is(err, storage.ErrFuture):
		return tooLargeRevision(0, 0)
	}
	return err
}

// conflict is the answer to a write that lost a race.
func conflict(gr schema.GroupResource, name string) error {
	return apierrors.NewConflict(gr, name, errors.New("the object has been modified; please apply your changes to the latest version and try again"))
}

// tooLargeRevision asks the client to come again when the store has got there.
func tooLargeRevision(asked, current int64) error {
	err := apierrors.NewTimeoutError(fmt.Sprintf("Too large resource version: %d, current: %d", asked, current), 1)
	err.ErrStatus.Details.Causes = []metav1.StatusCause{{Type: metav1.CauseTypeResourceVersionTooLarge, Message: "Too large resource version"}}
	return err
}

func notAcceptable() error { return notAcceptableBut(supported) }

func notAcceptableBut(choice string) error {
	return &apierrors.StatusError{ErrStatus: metav1.Status{
		Status: metav1.StatusFailure, Code: http.StatusNotAcceptable, Reason: metav1.StatusReasonNotAcceptable,
		Message: "only the following media types are accepted: " + choice,
	}}
}

func unsupportedMedia(accepted string) error {
	return &apierrors.StatusError{ErrStatus: metav1.Status{
		Status: metav1.StatusFailure, Code: http.StatusUnsupportedMediaType, Reason: metav1.StatusReasonUnsupportedMediaType,
		Message: "the body of the request was in an unknown format - accepted media types include: " + accepted,
	}}
}
