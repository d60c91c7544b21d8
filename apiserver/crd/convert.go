package crd

import (
	"context"
	"errors"
	"fmt"
	"time"

	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	apiextensionsv1beta1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1beta1"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	metavalidation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/uuid"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/sampan-dev/sampan/kit/clock"
)

// converter brings objects, none of which is there yet, to a version. It may
// change them.
type converter interface {
	convert(objs []*unstructured.Unstructured, to schema.GroupVersion) ([]*unstructured.Unstructured, error)
}

func newConverter(s *shared, crd *apiextensionsv1.CustomResourceDefinition) (converter, error) {
	c := crd.Spec.Conversion
	switch {
	case c == nil || c.Strategy == apiextensionsv1.NoneConverter:
		return relabel{}, nil
	case c.Strategy == apiextensionsv1.WebhookConverter && c.Webhook != nil && c.Webhook.ClientConfig != nil:
		return &webhook{name: crd.Name, reviews: c.Webhook.ConversionReviewVersions, met: s.met, client: newHookClient(s.dialer, c.Webhook.ClientConfig)}, nil
	}
	return nil, fmt.Errorf("unknown conversion strategy %q for CRD %s", c.Strategy, crd.Name)
}

// relabel changes nothing but the version's name.
type relabel struct{}

func (relabel) convert(objs []*unstructured.Unstructured, to schema.GroupVersion) ([]*unstructured.Unstructured, error) {
	for _, u := range objs {
		u.SetAPIVersion(to.String())
	}
	return objs, nil
}

// webhook asks somebody else.
type webhook struct {
	name    string // of the definition
	reviews []string
	client  *hookClient
	met     *metrics
}

// conversionTimeout bounds one call of a conversion webhook.
const conversionTimeout = 30 * time.Second

func (w *webhook) convert(objs []*unstructured.Unstructured, to schema.GroupVersion) ([]*unstructured.Unstructured, error) {
	if len(objs) == 1 && len(objs[0].Object) == 2 {
		return relabel{}.convert(objs, to) // nothing but a kind: nothing to ask about
	}
	from, start := objs[0].GroupVersionKind(), clock.Now()
	failed := func(how string, err error) error {
		w.met.observe(w.name, from.Version, to.Version, how, clock.Now().Sub(start))
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), conversionTimeout)
	defer cancel()
	got, err := w.ask(ctx, objs, to)
	if err != nil {
		how := "conversion_webhook_call_failure"
		if errors.As(err, new(malformed)) {
			how = "conversion_webhook_malformed_response_failure"
		}
		return nil, failed(how, fmt.Errorf("conversion webhook for %v failed: %w", from, err))
	}
	if len(got) != len(objs) {
		return nil, failed("conversion_webhook_partial_response_failure", fmt.Errorf("conversion webhook for %v returned %d objects, expected %d", from, len(got), len(objs)))
	}
	out := make([]*unstructured.Unstructured, len(objs))
	for i := range got {
		if out[i], err = accept(objs[i], &got[i], to); err != nil {
			return nil, failed("conversion_webhook_invalid_converted_object_failure", fmt.Errorf("conversion webhook for %v returned %w", from, at(err, i, len(objs))))
		}
	}
	w.met.observe(w.name, from.Version, to.Version, "", clock.Now().Sub(start))
	return out, nil
}

// malformed is an answer that is none.
type malformed struct{ error }

// at says which of several objects an error is of.
func at(err error, i, n int) error {
	b, ok := err.(badObject)
	switch {
	case !ok:
		return err
	case n == 1:
		return fmt.Errorf("invalid %s: %w", b.one, b.error)
	}
	return fmt.Errorf("invalid %s at index %d: %w", b.many, i, b.error)
}

// badObject words what is wrong with a converted object, alone or in a list.
type badObject struct {
	one, many string
	error
}

// accept checks a converted object and keeps its metadata, labels and
// annotations excepted, as it was.
func accept(was *unstructured.Unstructured, raw *runtime.RawExtension, to schema.GroupVersion) (*unstructured.Unstructured, error) {
	u := &unstructured.Unstructured{}
	if err := u.UnmarshalJSON(raw.Raw); err != nil {
		return nil, badObject{"object at index 0", "converted object", err}
	}
	if got := u.GroupVersionKind().GroupVersion(); got != to {
		return nil, badObject{"object at index 0", "converted object", fmt.Errorf("invalid groupVersion (expected %v, received %v)", to, got)}
	}
	if want, got := was.GetKind(), u.GetKind(); got != want {
		return nil, badObject{"object at index 0", "converted object", fmt.Errorf("invalid kind (expected %v, received %v)", want, got)}
	}
	for _, c := range []struct{ what, was, is string }{
		{"name", was.GetName(), u.GetName()}, {"namespace", was.GetNamespace(), u.GetNamespace()}, {"UID", string(was.GetUID()), string(u.GetUID())},
	} {
		if c.was != c.is {
			return nil, badObject{"object", "converted object", fmt.Errorf("must have the same %s: %v != %v", c.what, c.was, c.is)}
		}
	}
	if err := restoreMetadata(was, u); err != nil {
		return nil, badObject{"metadata", "metadata in object", err}
	}
	return u, nil
}

func restoreMetadata(was, is *unstructured.Unstructured) error {
	v, found := is.Object["metadata"]
	if !found {
		return errors.New("missing metadata in converted object")
	}
	answered, ok := v.(map[string]any)
	if !ok {
		return fmt.Errorf("invalid metadata of type %T in converted object", v)
	}
	kept, ok := was.Object["metadata"].(map[string]any)
	if !ok {
		kept = map[string]any{}
	}
	kept = runtime.DeepCopyJSON(kept)
	for _, name := range []string{"labels", "annotations"} {
		v, found := answered[name]
		if !found || v == nil {
			delete(kept, name)
			continue
		}
		set, ok := v.(map[string]any)
		if !ok {
			return fmt.Errorf("invalid metadata.%s of type %T in converted object", name, v)
		}
		texts := make(map[string]string, len(set))
		for key, v := range set {
			if texts[key], ok = v.(string); !ok {
				return fmt.Errorf("metadata.%s[%s] must be a string, but is %T in converted object", name, key, v)
			}
		}
		var errs field.ErrorList
		if name == "labels" {
			errs = metavalidation.ValidateLabels(texts, field.NewPath("metadata", "labels"))
		} else {
			errs = apivalidation.ValidateAnnotations(texts, field.NewPath("metadata", "annotation"))
		}
		if len(errs) > 0 {
			return errs.ToAggregate()
		}
		kept[name] = set
	}
	is.Object["metadata"] = kept
	return nil
}

// ask sends a review of the first version that both sides know.
func (w *webhook) ask(ctx context.Context, objs []*unstructured.Unstructured, to schema.GroupVersion) ([]runtime.RawExtension, error) {
	raw := make([]runtime.RawExtension, len(objs))
	for i, u := range objs {
		raw[i].Object = u
	}
	id := types.UID(uuid.NewUUID())
	for _, v := range w.reviews {
		switch v {
		case "v1":
			in := &apiextensionsv1.ConversionReview{
				TypeMeta: metav1.TypeMeta{APIVersion: "apiextensions.k8s.io/v1", Kind: "ConversionReview"},
				Request:  &apiextensionsv1.ConversionRequest{UID: id, DesiredAPIVersion: to.String(), Objects: raw},
			}
			out := &apiextensionsv1.ConversionReview{}
			if err := w.client.post(ctx, in, out); err != nil {
				return nil, err
			}
			return answer(out, id)
		case "v1beta1":
			in := &apiextensionsv1beta1.ConversionReview{
				TypeMeta: metav1.TypeMeta{APIVersion: "apiextensions.k8s.io/v1beta1", Kind: "ConversionReview"},
				Request:  &apiextensionsv1beta1.ConversionRequest{UID: id, DesiredAPIVersion: to.String(), Objects: raw},
			}
			out := &apiextensionsv1beta1.ConversionReview{}
			if err := w.client.post(ctx, in, out); err != nil {
				return nil, err
			}
			if out.Response == nil {
				return nil, malformed{errors.New("no response provided")}
			}
			return out.Response.ConvertedObjects, result(&out.Response.Result)
		}
	}
	return nil, errors.New("no supported conversion review versions")
}

func answer(r *apiextensionsv1.ConversionReview, id types.UID) ([]runtime.RawExtension, error) {
	want := apiextensionsv1.SchemeGroupVersion.WithKind("ConversionReview")
	switch {
	case r.GroupVersionKind() != want:
		return nil, malformed{fmt.Errorf("expected webhook response of %v, got %v", want, r.GroupVersionKind())}
	case r.Response == nil:
		return nil, malformed{errors.New("no response provided")}
	case r.Response.UID != id:
		return nil, malformed{fmt.Errorf("expected response.uid=%q, got %q", id, r.Response.UID)}
	}
	return r.Response.ConvertedObjects, result(&r.Response.Result)
}

func result(s *metav1.Status) error {
	switch {
	case s.Status == metav1.StatusSuccess:
		return nil
	case s.Message != "":
		return malformed{errors.New(s.Message)}
	}
	return malformed{fmt.Errorf("response.result.status was '%s', not 'Success'", s.Status)}
}
