package webhook

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"

	admissionv1 "k8s.io/api/admission/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"

	"github.com/sampan-dev/sampan/apiserver/dynamic"
)

const reviewGroup = "admission.k8s.io/"

// question makes the body that asks a hook. v1 and v1beta1 differ in name only.
func question(h *hook, v *dynamic.View, hit dynamic.Hit, uid types.UID) (body []byte, version string, err error) {
	for _, r := range h.reviews {
		if r == "v1" || r == "v1beta1" {
			version = r
			break
		}
	}
	if version == "" {
		return nil, "", errors.New("webhook does not accept known AdmissionReview versions (v1, v1beta1)")
	}
	object, old, err := v.JSON()
	if err != nil {
		return nil, "", err
	}
	rq := v.Review(hit)
	rq.UID, rq.Object, rq.OldObject = uid, runtime.RawExtension{Raw: object}, runtime.RawExtension{Raw: old}
	body, err = json.Marshal(&admissionv1.AdmissionReview{
		TypeMeta: metav1.TypeMeta{APIVersion: reviewGroup + version, Kind: "AdmissionReview"}, Request: rq,
	})
	return body, version, err
}

// verdict is what a hook said, checked.
type verdict struct {
	allowed     bool
	patch       []byte
	patchType   admissionv1.PatchType
	result      *metav1.Status
	annotations map[string]string
	warnings    []string
}

// readVerdict reads and checks a hook's answer to the question uid.
func readVerdict(body []byte, version string, uid types.UID, mutating bool) (*verdict, error) {
	var r admissionv1.AdmissionReview
	if err := json.Unmarshal(body, &r); err != nil {
		return nil, fmt.Errorf("couldn't decode the answer: %w", err)
	}
	if r.Response == nil {
		return nil, errors.New("webhook response was absent")
	}
	a := r.Response
	v := &verdict{allowed: a.Allowed, result: a.Result, annotations: a.AuditAnnotations, warnings: a.Warnings}
	if version == "v1beta1" { // in whose time nobody checked
		if mutating && len(a.Patch) > 0 {
			v.patch, v.patchType = a.Patch, admissionv1.PatchTypeJSONPatch
		}
		return v, nil
	}
	if a.UID != uid {
		return nil, fmt.Errorf("expected response.uid=%q, got %q", uid, a.UID)
	}
	want := admissionv1.SchemeGroupVersion.WithKind("AdmissionReview")
	if got := r.GroupVersionKind(); got != want {
		return nil, fmt.Errorf("expected webhook response of %v, got %v", want.String(), got.String())
	}
	switch {
	case !mutating && len(a.Patch) > 0:
		return nil, errors.New("validating webhook may not return response.patch")
	case !mutating && a.PatchType != nil:
		return nil, errors.New("validating webhook may not return response.patchType")
	case len(a.Patch) > 0 && a.PatchType == nil:
		return nil, errors.New("webhook returned response.patch but not response.patchType")
	case len(a.Patch) == 0 && a.PatchType != nil:
		return nil, errors.New("webhook returned response.patchType but not response.patch")
	case a.PatchType != nil && *a.PatchType == "":
		return nil, fmt.Errorf("webhook returned invalid response.patchType of %q", *a.PatchType)
	case a.PatchType != nil:
		v.patch, v.patchType = a.Patch, *a.PatchType
	}
	return v, nil
}

// denied is what the user is told when a hook said no.
func denied(name string, result *metav1.Status) *apierrors.StatusError {
	s := metav1.Status{}
	if result != nil {
		s = *result
	}
	if s.Code < http.StatusBadRequest {
		s.Code = http.StatusBadRequest
	}
	if s.Status == "" || s.Status == metav1.StatusSuccess {
		s.Status = metav1.StatusFailure
	}
	by := fmt.Sprintf("admission webhook %q denied the request", name)
	switch {
	case s.Message != "":
		s.Message = by + ": " + s.Message
	case s.Reason != "":
		s.Message = by + ": " + string(s.Reason)
	default:
		s.Message = by + " without explanation"
	}
	return &apierrors.StatusError{ErrStatus: s}
}
