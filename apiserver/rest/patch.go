package rest

import (
	"context"
	"encoding/json"
	"fmt"
	"mime"
	"net/http"
	"sync"

	jsonpatch "gopkg.in/evanphx/json-patch.v4"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	metavalidation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/strategicpatch"
	sigsjson "sigs.k8s.io/json"
	"sigs.k8s.io/yaml"

	"github.com/sampan-dev/sampan/api"
	"github.com/sampan-dev/sampan/apiserver/request"
)

// maxPatchOperations is upstream's limit of a JSON patch.
const maxPatchOperations = 10000

const patchMedia = "application/json-patch+json, application/merge-patch+json, application/strategic-merge-patch+json, application/apply-patch+yaml, application/apply-patch+cbor"

func (x *exchange) patch() error {
	media, _, err := mime.ParseMediaType(x.r.Header.Get("Content-Type"))
	if err != nil {
		return unsupportedMedia(patchMedia)
	}
	opts := &metav1.PatchOptions{}
	if x.q != nil {
		if err := metav1.Convert_url_Values_To_v1_PatchOptions(&x.q, opts, nil); err != nil {
			return apierrors.NewBadRequest(err.Error())
		}
	}
	data, err := x.readBody()
	if err != nil {
		return err
	}
	res, err := x.e.Patch(x.ctx, x.op, types.PatchType(media), data, opts)
	if err != nil {
		return err
	}
	return x.sendWritten(res)
}

// Patch changes an object as a patch in the served version says.
func (e *Engine) Patch(ctx context.Context, o *Op, t types.PatchType, data []byte, opts *metav1.PatchOptions) (*Result, error) {
	if err := invalidOptions("PatchOptions", metavalidation.ValidatePatchOptions(opts, t)); err != nil {
		return nil, err
	}
	c := &change{name: o.Info.Name, manager: o.manager(opts.FieldManager), dryRun: isDryRun(opts.DryRun),
		opts: &metav1.UpdateOptions{DryRun: opts.DryRun, FieldManager: opts.FieldManager, FieldValidation: opts.FieldValidation}}
	var err error
	if t == types.ApplyYAMLPatchType || t == types.ApplyCBORPatchType {
		err = e.applyChange(o, c, t, data, opts)
	} else {
		err = o.patchChange(c, t, data, opts.FieldValidation)
	}
	if err != nil {
		return nil, err
	}
	return e.write(ctx, o, c)
}

// patchChange makes of a patch a change.
func (o *Op) patchChange(c *change, t types.PatchType, data []byte, validation string) error {
	apply, err := o.patcher(t, data)
	if err != nil {
		return err
	}
	merge := o.looseMerge(t, data)
	c.make = func(ctx context.Context, cur api.Object) (api.Object, error) {
		if merge != nil {
			if obj, ok := merge(cur); ok {
				return o.toStored(obj)
			}
		}
		shown, err := o.showObject(cur)
		if err != nil {
			return nil, err
		}
		before, err := encode(api.FormatJSON, shown)
		if err != nil {
			return nil, err
		}
		after, err := apply(before)
		if err != nil {
			return nil, err
		}
		obj, err := o.decode(api.FormatJSON, after, o.GVK, validation, func(s string) { request.Warn(ctx, s) })
		if err != nil {
			return nil, err
		}
		return o.toStored(obj)
	}
	return nil
}

// patcher returns the function from a document to the patched document.
func (o *Op) patcher(t types.PatchType, data []byte) (func([]byte) ([]byte, error), error) {
	switch t {
	case types.JSONPatchType:
		return jsonPatcher(data)
	case types.MergePatchType:
		return func(doc []byte) ([]byte, error) {
			if !isJSONObject(data) {
				return nil, badMerge(data)
			}
			out, err := jsonpatch.MergePatch(doc, data)
			if err != nil {
				return nil, apierrors.NewBadRequest(err.Error())
			}
			return out, nil
		}, nil
	case types.StrategicMergePatchType:
		if o.isDynamic() {
			return nil, unsupportedMedia("application/json-patch+json, application/merge-patch+json, application/apply-patch+yaml")
		}
		return func(doc []byte) ([]byte, error) {
			out, err := strategicpatch.StrategicMergePatch(doc, data, o.NewObject())
			if err != nil {
				return nil, apierrors.NewBadRequest(err.Error())
			}
			return out, nil
		}, nil
	}
	return nil, unsupportedMedia(patchMedia)
}

func isJSONObject(data []byte) bool {
	var m map[string]any
	return json.Unmarshal(data, &m) == nil && m != nil
}

func badMerge(data []byte) error {
	var v map[string]any
	if err := json.Unmarshal(data, &v); err != nil {
		return apierrors.NewBadRequest(fmt.Sprintf("error decoding patch: %v", err))
	}
	return apierrors.NewBadRequest("error decoding patch: Invalid JSON Patch")
}

// boundCopies makes of a patch that copies copies an error, as upstream does,
// before it has made gigabytes of a few bytes.
var boundCopies = sync.OnceFunc(func() { jsonpatch.AccumulatedCopySizeLimit = maxBody })

func jsonPatcher(data []byte) (func([]byte) ([]byte, error), error) {
	p, err := jsonpatch.DecodePatch(data)
	if err != nil {
		return nil, apierrors.NewBadRequest("error decoding patch: " + err.Error())
	}
	if len(p) > maxPatchOperations {
		return nil, apierrors.NewRequestEntityTooLargeError(fmt.Sprintf("The allowed maximum operations in a JSON patch is %d, got %d", maxPatchOperations, len(p)))
	}
	for _, op := range p {
		if _, ok := op["value"]; !ok && op.Kind() == "test" {
			op["value"] = nil // null; the library falls over a test of the whole without one
		}
	}
	return func(doc []byte) ([]byte, error) {
		out, err := p.Apply(doc)
		if err != nil {
			return nil, apierrors.NewGenericServerResponse(http.StatusUnprocessableEntity, "", schema.GroupResource{}, "", err.Error(), 0, false)
		}
		return out, nil
	}, nil
}

// applyChange makes of an applied configuration a change.
func (e *Engine) applyChange(o *Op, c *change, t types.PatchType, data []byte, opts *metav1.PatchOptions) error {
	if e.Fields == nil || t == types.ApplyCBORPatchType {
		return unsupportedMedia("application/json-patch+json, application/merge-patch+json, application/strategic-merge-patch+json, application/apply-patch+yaml")
	}
	patch, err := appliedDoc(data, opts.FieldValidation)
	if err != nil {
		return err
	}
	gvk := o.GVK
	if o.Info.Subresource == "scale" {
		gvk = scaleKind()
	}
	if err := o.checkApplied(patch, gvk); err != nil {
		return err
	}
	if api.Immense(data) { // which merging would read without looking
		if _, _, err := o.decodeAny(api.FormatYAML, data, gvk, false); err != nil {
			return decodeError(err, &gvk, gvk, data)
		}
	}
	c.create = o.Info.Subresource == ""
	c.tracked = true
	force := opts.Force != nil && *opts.Force
	c.make = func(_ context.Context, cur api.Object) (api.Object, error) {
		live := cur
		if live == nil {
			live = o.Kind.New()
			api.SetKind(live, o.Served.Info.GroupVersionKind)
		}
		next, err := e.Fields.Apply(o.Kind, o.Version, o.Info.Subresource, live, patch, opts.FieldManager, force)
		if err != nil {
			return nil, err
		}
		if rv, ok := metaString(patch, "resourceVersion"); ok {
			next.SetResourceVersion(rv)
		} else if cur != nil {
			next.SetResourceVersion(cur.GetResourceVersion())
		}
		o.Kind.Default(next)
		return next, nil
	}
	return nil
}

// appliedDoc reads an applied configuration.
func appliedDoc(data []byte, validation string) (map[string]any, error) {
	patch := map[string]any{}
	j, err := yaml.YAMLToJSONStrict(data)
	if err != nil {
		if validation == metav1.FieldValidationStrict {
			return nil, apierrors.NewBadRequest(fmt.Sprintf("error strict decoding YAML: %v", err))
		}
		if j, err = yaml.YAMLToJSON(data); err != nil {
			return nil, apierrors.NewBadRequest(fmt.Sprintf("error decoding YAML: %v", err))
		}
	}
	if err := sigsjson.UnmarshalCaseSensitivePreserveInts(j, &patch); err != nil {
		return nil, apierrors.NewBadRequest(fmt.Sprintf("error decoding YAML: %v", err))
	}
	return patch, nil
}

func metaString(doc map[string]any, key string) (string, bool) {
	m, _ := doc["metadata"].(map[string]any)
	s, ok := m[key].(string)
	return s, ok && s != ""
}

// checkApplied holds the configuration against the URL.
func (o *Op) checkApplied(patch map[string]any, gvk schema.GroupVersionKind) error {
	version, _ := patch["apiVersion"].(string)
	kind, _ := patch["kind"].(string)
	if version == "" {
		return apierrors.NewBadRequest("apiVersion must be set")
	}
	if kind == "" {
		return apierrors.NewBadRequest("kind must be set")
	}
	if version != gvk.GroupVersion().String() || kind != gvk.Kind {
		return apierrors.NewBadRequest(fmt.Sprintf("Incorrect version specified in apply patch. Specified patch version: %s, expected: %s", version, gvk.GroupVersion()))
	}
	m, _ := patch["metadata"].(map[string]any)
	if m == nil {
		m = map[string]any{}
		patch["metadata"] = m
	}
	if name, ok := m["name"].(string); ok && name != o.Info.Name {
		return apierrors.NewBadRequest(fmt.Sprintf("the name of the object (%s) does not match the name on the URL (%s)", name, o.Info.Name))
	}
	m["name"] = o.Info.Name
	if !o.Served.Info.ClusterScoped && o.Info.Namespace != "" {
		if ns, ok := m["namespace"].(string); ok && ns != "" && ns != o.Info.Namespace {
			return apierrors.NewBadRequest(fmt.Sprintf("the namespace of the object (%s) does not match the namespace on the request (%s)", ns, o.Info.Namespace))
		}
		m["namespace"] = o.Info.Namespace
	}
	return nil
}

func reshape(data []byte, into any) error { return json.Unmarshal(data, into) }
