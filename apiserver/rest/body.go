package rest

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	metavalidation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/sampan-dev/sampan/api"
	"github.com/sampan-dev/sampan/apiserver/request"
)

// maxBody is upstream's limit of what a request may carry.
const maxBody = 3 << 20

// firstBody is as much of it as room is made for at first.
const firstBody = 64 << 10

func (x *exchange) readBody() ([]byte, error) {
	return ReadBody(x.r)
}

// ReadBody reads a whole body within the limit.
func ReadBody(r *http.Request) ([]byte, error) {
	if r.ContentLength > maxBody {
		return nil, tooLarge()
	}
	// Memory is taken as bytes come, not as they are announced.
	buf := bytes.NewBuffer(make([]byte, 0, bytes.MinRead+min(max(r.ContentLength, 0), firstBody)))
	_, err := buf.ReadFrom(io.LimitReader(r.Body, maxBody+1))
	if err == nil && int64(buf.Len()) < r.ContentLength {
		err = io.ErrUnexpectedEOF
	}
	if err != nil {
		return nil, apierrors.NewBadRequest("error reading the body: " + err.Error())
	}
	if buf.Len() > maxBody {
		return nil, tooLarge()
	}
	return buf.Bytes(), nil
}

func tooLarge() error {
	return apierrors.NewRequestEntityTooLargeError(fmt.Sprintf("limit is %d", maxBody))
}

// bodyFormat reads the Content-Type; JSON when there is none.
func (x *exchange) bodyFormat() (api.Format, error) {
	header := x.r.Header.Get("Content-Type")
	if header == "" || header == api.JSON {
		return api.FormatJSON, nil
	}
	media, _, err := mime.ParseMediaType(header)
	if err == nil {
		if f, ok := api.FormatOf(media); ok {
			return f, nil
		}
	}
	return 0, unsupportedMedia(supported)
}

// readObject decodes the body as an object of the served version.
func (x *exchange) readObject(validation string) (api.Object, error) {
	f, err := x.bodyFormat()
	if err != nil {
		return nil, err
	}
	if f == api.FormatProtobuf && x.op.isDynamic() {
		return nil, unsupportedMedia(supportedPlain)
	}
	data, err := x.readBody()
	if err != nil {
		return nil, err
	}
	obj, err := x.op.decode(f, data, x.op.GVK, validation, x.warn)
	if err != nil {
		return nil, err
	}
	return obj, nil
}

func (x *exchange) warn(text string) { request.Warn(x.ctx, text) }

// decode reads a user's object that should be of kind want. Fields nobody knows
// are refused, warned of or ignored as validation says.
func (s *Served) decode(f api.Format, data []byte, want schema.GroupVersionKind, validation string, warn func(string)) (api.Object, error) {
	strict := validation != metav1.FieldValidationIgnore
	got, gvk, err := s.decodeAny(f, data, want, strict)
	if err != nil {
		if !runtime.IsStrictDecodingError(err) || got == nil {
			return nil, decodeError(err, gvk, want, data)
		}
		if validation == metav1.FieldValidationStrict {
			return nil, apierrors.NewBadRequest(err.Error())
		}
		if e, ok := runtime.AsStrictDecodingError(err); ok {
			for _, one := range e.Errors() {
				warn(one.Error())
			}
		}
	}
	if gvk.GroupVersion() != want.GroupVersion() {
		return nil, apierrors.NewBadRequest(fmt.Sprintf("the API version in the data (%s) does not match the expected API version (%s)", gvk.GroupVersion(), want.GroupVersion()))
	}
	obj, ok := got.(api.Object)
	if !ok || gvk.Kind != want.Kind {
		return nil, apierrors.NewBadRequest(fmt.Sprintf("%s in version %q cannot be handled as a %s: converting (%s) to (%s): unknown conversion", gvk.Kind, gvk.Version, want.Kind, typeName(*gvk), typeName(want)))
	}
	return obj, nil
}

func typeName(gvk schema.GroupVersionKind) string { return gvk.Version + "." + gvk.Kind }

func (s *Served) decodeAny(f api.Format, data []byte, want schema.GroupVersionKind, strict bool) (runtime.Object, *schema.GroupVersionKind, error) {
	if s.custom == nil || want != s.GVK {
		return api.Decode(f, data, &want, strict)
	}
	obj, gvk, err := s.custom.Decode(f, data, strict)
	if obj == nil {
		return nil, gvk, err
	}
	return obj, gvk, err
}

// decodeError words what is wrong with a body.
func decodeError(err error, gvk *schema.GroupVersionKind, want schema.GroupVersionKind, data []byte) error {
	if gvk != nil && gvk.Kind != "" {
		return apierrors.NewBadRequest(fmt.Sprintf("%s in version %q cannot be handled as a %s: %v", gvk.Kind, gvk.Version, want.Kind, err))
	}
	return apierrors.NewBadRequest(fmt.Sprintf("the object provided is unrecognized (must be of type %s): %v (%s)", want.Kind, err, summary(data)))
}

func summary(data []byte) string {
	const show = 30
	switch {
	case len(data) == 0:
		return "<empty>"
	case data[0] != '{' || len(data) <= show:
		if len(data) > show {
			return fmt.Sprintf("%x ...", data[:show])
		}
		return fmt.Sprintf("%x", data)
	}
	return fmt.Sprintf("%x ...", data[:show])
}

// deleteOptions come in the body or, without one, in the query.
func (x *exchange) deleteOptions() (*metav1.DeleteOptions, error) {
	opts := &metav1.DeleteOptions{}
	data, err := x.readBody()
	if err != nil {
		return nil, err
	}
	if len(data) > 0 {
		f, err := x.bodyFormat()
		if err != nil {
			return nil, err
		}
		if err := decodeDeleteOptions(f, data, opts); err != nil {
			return nil, err
		}
	} else if x.q != nil {
		if err := metav1.Convert_url_Values_To_v1_DeleteOptions(&x.q, opts, nil); err != nil {
			return nil, apierrors.NewBadRequest(err.Error())
		}
	}
	return opts, invalidOptions("DeleteOptions", metavalidation.ValidateDeleteOptions(opts))
}

func decodeDeleteOptions(f api.Format, data []byte, into *metav1.DeleteOptions) error {
	fallback := metav1.SchemeGroupVersion.WithKind("DeleteOptions")
	fallback.Group = ""
	got, gvk, err := api.Decode(f, data, &fallback, false)
	if err != nil {
		return decodeError(err, gvk, fallback, data)
	}
	o, ok := got.(*metav1.DeleteOptions)
	if !ok {
		return apierrors.NewBadRequest(fmt.Sprintf("decoded object cannot be converted to DeleteOptions: %v", errors.New(gvk.String())))
	}
	o.DeepCopyInto(into)
	return nil
}
