package dynamic

import (
	"bytes"
	"context"
	"fmt"
	"reflect"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apiserver/pkg/admission"
	"k8s.io/apiserver/pkg/authentication/user"

	"github.com/sampan-dev/sampan/api"
	"github.com/sampan-dev/sampan/apiserver/request"
)

// Request is a request as users' rules see it.
type Request struct {
	*request.Attributes
	deps *Deps
	// Space and Name are those the rules see: a namespace is in itself.
	Space, Name string

	spellings []request.Spelling
	views     map[schema.GroupVersionKind]*View
	namespace *corev1.Namespace
	authz     *authorizer
}

// Of wraps a request. The attributes stay the caller's.
func (d *Deps) Of(a *request.Attributes) *Request {
	r := &Request{Attributes: a, deps: d, Space: a.Namespace, Name: a.Name}
	if r.Name == "" && a.Object != nil {
		r.Name = a.Object.GetName()
	}
	if r.isNamespace() && r.Space == "" {
		r.Space = r.Name
	}
	return r
}

func (r *Request) isNamespace() bool {
	return r.Resource.Group == "" && r.Resource.Resource == "namespaces"
}

// Spoken is the kind the user spoke.
func (r *Request) Spoken() schema.GroupVersionKind {
	if r.RequestKind.Kind != "" {
		return r.RequestKind
	}
	return r.Kind
}

// Asked is the resource the user spoke.
func (r *Request) Asked() schema.GroupVersionResource {
	if r.RequestResource.Resource != "" {
		return r.RequestResource
	}
	return r.Resource
}

// ways are the ways to spell what the request is about.
func (r *Request) ways() []request.Spelling {
	if r.spellings == nil && r.deps.Catalog != nil {
		r.spellings = r.deps.Catalog.Spellings(r.Resource, r.Subresource)
	}
	return r.spellings
}

// subject and before are the objects of the request: connecting is about its options.
func (r *Request) subject() runtime.Object {
	if r.Operation == request.Connect {
		return r.Options
	}
	if r.Object == nil {
		return nil
	}
	return r.Object
}

func (r *Request) before() runtime.Object {
	if r.Operation == request.Connect || r.Old == nil {
		return nil
	}
	return r.Old
}

// View is a request's objects in one version.
type View struct {
	Kind        schema.GroupVersionKind
	Object, Old runtime.Object // nil interfaces when there are none

	request   *Request
	way       *request.Spelling
	versioned *admission.VersionedAttributes
	json      [2][]byte
}

// View shows the objects in the version kind.
func (r *Request) View(kind schema.GroupVersionKind) (*View, error) {
	if v, ok := r.views[kind]; ok {
		return v, nil
	}
	v := &View{Kind: kind, request: r}
	ways := r.ways()
	for i := range ways {
		if ways[i].Kind == kind {
			v.way = &ways[i]
		}
	}
	var err error
	if v.Object, err = v.show(r.subject()); err == nil {
		v.Old, err = v.show(r.before())
	}
	if err != nil {
		return nil, err
	}
	if r.views == nil {
		r.views = map[schema.GroupVersionKind]*View{}
	}
	r.views[kind] = v
	return v, nil
}

func (v *View) show(obj runtime.Object) (runtime.Object, error) {
	o, ok := obj.(api.Object)
	if obj == nil || !ok {
		return obj, nil // options of a connection
	}
	if v.way == nil {
		if gvk := obj.GetObjectKind().GroupVersionKind(); gvk == v.Kind {
			return obj, nil
		}
		return nil, fmt.Errorf("unable to convert to %v: unknown kind", v.Kind)
	}
	shown, err := v.way.Show(o)
	if err != nil {
		return nil, err
	}
	return shown, nil
}

// JSON returns the objects' bytes, nil for those that are not there.
func (v *View) JSON() (object, old []byte, err error) {
	for i, obj := range []runtime.Object{v.Object, v.Old} {
		if obj == nil || v.json[i] != nil {
			continue
		}
		if v.json[i], err = Encode(obj); err != nil {
			return nil, nil, err
		}
	}
	return v.json[0], v.json[1], nil
}

// Encode writes an object as JSON.
func Encode(obj runtime.Object) ([]byte, error) {
	if u, ok := obj.(*unstructured.Unstructured); ok {
		return u.MarshalJSON()
	}
	var b bytes.Buffer
	if err := api.Encode(api.FormatJSON, obj, &b); err != nil {
		return nil, err
	}
	return bytes.TrimRight(b.Bytes(), "\n"), nil
}

// Decode reads a JSON object of the view's version. Fields that the version does
// not know are an error when strict, and dropped otherwise.
func (v *View) Decode(data []byte, strict bool) (runtime.Object, error) {
	if v.way != nil && v.way.Decode != nil {
		return v.way.Decode(data, strict)
	}
	if _, ok := v.Object.(*unstructured.Unstructured); ok {
		u := &unstructured.Unstructured{}
		if err := u.UnmarshalJSON(data); err != nil {
			return nil, err
		}
		return u, nil
	}
	obj, gvk, err := api.Decode(api.FormatJSON, data, &v.Kind, strict)
	if err != nil {
		return nil, err
	}
	if *gvk != v.Kind {
		return nil, fmt.Errorf("the object has become a %v", gvk)
	}
	return obj, nil
}

// Replace makes the request about shown, an object of the view's version, which
// belongs to it from now on. All views end.
func (v *View) Replace(shown runtime.Object) error {
	r := v.request
	obj, ok := shown.(api.Object)
	if !ok || r.Object == nil {
		return fmt.Errorf("%T cannot be changed", r.subject())
	}
	if v.way != nil {
		stored, err := v.way.Store(obj, r.Object)
		if err != nil {
			return err
		}
		obj = stored
	}
	if err := adopt(r.Object, obj); err != nil {
		return err
	}
	r.views = nil
	return nil
}

// adopt makes dst what src is; the request's other holders have dst.
func adopt(dst, src api.Object) error {
	d, s := reflect.ValueOf(dst), reflect.ValueOf(src)
	if d.Type() != s.Type() {
		return fmt.Errorf("%T cannot become %T", dst, src)
	}
	if d.Pointer() != s.Pointer() {
		d.Elem().Set(s.Elem())
	}
	return nil
}

// Judged are the operation's options as judges know them: a patch is an update.
func (r *Request) Judged() runtime.Object {
	var out runtime.Object
	switch o := r.Options.(type) {
	case *metav1.PatchOptions:
		out = &metav1.UpdateOptions{
			TypeMeta: metav1.TypeMeta{APIVersion: "meta.k8s.io/v1", Kind: "UpdateOptions"},
			DryRun:   o.DryRun, FieldManager: o.FieldManager, FieldValidation: o.FieldValidation,
		}
	case *metav1.CreateOptions:
		c := *o
		c.APIVersion, c.Kind, out = "meta.k8s.io/v1", "CreateOptions", &c
	case *metav1.UpdateOptions:
		c := *o
		c.APIVersion, c.Kind, out = "meta.k8s.io/v1", "UpdateOptions", &c
	case *metav1.DeleteOptions:
		c := *o
		c.APIVersion, c.Kind, out = "meta.k8s.io/v1", "DeleteOptions", &c
	}
	return out // a connection's options are its object
}

// Versioned is the view as the evaluators of expressions want it.
func (v *View) Versioned() *admission.VersionedAttributes {
	if v.versioned != nil {
		return v.versioned
	}
	r := v.request
	u := &user.DefaultInfo{}
	if r.User != nil {
		u = &user.DefaultInfo{Name: r.User.Name, UID: r.User.UID, Groups: r.User.Groups, Extra: r.User.Extra}
	}
	attrs := admission.NewAttributesRecord(v.Object, v.Old, r.Spoken(), r.Space, r.Name, r.Asked(), r.Subresource,
		admission.Operation(r.Operation), r.Judged(), r.DryRun, u)
	v.versioned = &admission.VersionedAttributes{Attributes: attrs, VersionedKind: v.Kind}
	if v.Object != nil {
		v.versioned.VersionedObject.Set(v.Object)
	}
	if v.Old != nil {
		v.versioned.VersionedOldObject.Set(v.Old)
	}
	return v.versioned
}

// Namespace is the namespace the object lives in, nil for those that live in none.
func (r *Request) Namespace(ctx context.Context) (*corev1.Namespace, error) {
	if r.Space == "" || r.isNamespace() {
		return nil, nil
	}
	return r.lookup(ctx)
}

func (r *Request) lookup(ctx context.Context) (*corev1.Namespace, error) {
	if r.namespace != nil {
		return r.namespace, nil
	}
	obj, err := r.deps.Back.Get(ctx, schema.GroupResource{Resource: "namespaces"}, "", r.Space)
	if err != nil {
		return nil, err
	}
	ns, ok := obj.(*corev1.Namespace)
	if !ok {
		return nil, fmt.Errorf("unexpected type %T", obj)
	}
	r.namespace = ns
	return ns, nil
}
