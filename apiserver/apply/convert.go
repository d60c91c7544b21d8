package apply

import (
	"fmt"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/sampan-dev/sampan/api"
	"github.com/sampan-dev/sampan/resource"
)

// converter converts between the served versions of one kind, as field managers
// want it.
type converter struct {
	kind resource.Kind
	info *resource.Info
}

// version finds a served version other than the stored.
func (c *converter) version(gv schema.GroupVersion) *resource.Version {
	for n := range c.info.Also {
		if v := &c.info.Also[n]; v.Group == gv.Group && v.Version == gv.Version {
			return v
		}
	}
	return nil
}

// New implements runtime.ObjectCreater.
func (c *converter) New(gvk schema.GroupVersionKind) (runtime.Object, error) {
	obj := c.kind.New()
	if v := c.version(gvk.GroupVersion()); v != nil {
		obj = v.New()
	}
	api.SetKind(obj, gvk)
	return obj, nil
}

// Default implements runtime.ObjectDefaulter.
func (c *converter) Default(in runtime.Object) {
	obj, ok := in.(api.Object)
	if !ok {
		return
	}
	gv := in.GetObjectKind().GroupVersionKind().GroupVersion()
	if gv == c.info.GroupVersionKind.GroupVersion() {
		c.kind.Default(obj)
		return
	}
	if v := c.version(gv); v != nil && v.Default != nil {
		v.Default(obj)
	}
}

// ConvertToVersion implements runtime.ObjectConvertor.
func (c *converter) ConvertToVersion(in runtime.Object, target runtime.GroupVersioner) (runtime.Object, error) {
	gv, ok := target.(schema.GroupVersion)
	if !ok {
		return nil, fmt.Errorf("apply: target %T is no version", target)
	}
	obj, err := c.typed(in)
	if err != nil {
		return nil, err
	}
	if obj, err = c.convert(obj, gv); err != nil {
		return nil, err
	}
	return obj, nil
}

// typed makes of a merged document an object of its Go type.
func (c *converter) typed(in runtime.Object) (api.Object, error) {
	u, ok := in.(*unstructured.Unstructured)
	if !ok {
		obj, ok := in.(api.Object)
		if !ok {
			return nil, fmt.Errorf("apply: %T is no object", in)
		}
		return obj, nil
	}
	made, err := c.New(u.GroupVersionKind())
	if err != nil {
		return nil, err
	}
	if _, dynamic := made.(*unstructured.Unstructured); dynamic {
		return u, nil
	}
	if err := runtime.DefaultUnstructuredConverter.FromUnstructured(u.Object, made); err != nil {
		return nil, err
	}
	api.SetKind(made, u.GroupVersionKind())
	return made.(api.Object), nil
}

func (c *converter) convert(obj api.Object, to schema.GroupVersion) (api.Object, error) {
	stored := c.info.GroupVersionKind
	from := obj.GetObjectKind().GroupVersionKind().GroupVersion()
	if from == to {
		return obj, nil
	}
	if from != stored.GroupVersion() {
		v := c.version(from)
		if v == nil {
			return nil, runtime.NewNotRegisteredErrForKind("apply", from.WithKind(stored.Kind))
		}
		var err error
		if obj, err = v.Store(obj); err != nil {
			return nil, err
		}
		api.SetKind(obj, stored)
	}
	if to == stored.GroupVersion() {
		return obj, nil
	}
	v := c.version(to)
	if v == nil {
		return nil, runtime.NewNotRegisteredErrForKind("apply", to.WithKind(stored.Kind))
	}
	out, err := v.Show(obj)
	if err == nil {
		api.SetKind(out, versionKind(c.info, v))
	}
	return out, err
}

// Convert implements runtime.ObjectConvertor; field managers do not call it.
func (c *converter) Convert(in, _, _ any) error {
	return fmt.Errorf("apply: %T cannot be converted in place", in)
}

// ConvertFieldLabel implements runtime.ObjectConvertor; field managers do not call it.
func (c *converter) ConvertFieldLabel(_ schema.GroupVersionKind, label, value string) (string, string, error) {
	return label, value, nil
}
