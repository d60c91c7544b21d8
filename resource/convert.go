package resource

import (
	"encoding/json"
	"fmt"

	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/sampan-dev/sampan/api"
)

// SameShape makes a Version whose struct V says the same in JSON as the stored
// struct T. Fields that only one of them has are lost; a kind with such fields
// wraps Store and Show.
func SameShape[V, T any](gvk, stored schema.GroupVersionKind) Version {
	v := Version{
		Group: gvk.Group, Version: gvk.Version, Kind: gvk.Kind,
		New:   func() api.Object { return any(new(V)).(api.Object) },
		Store: func(src api.Object) (api.Object, error) { return reshape[T](src, stored) },
		Show:  func(src api.Object) (api.Object, error) { return reshape[V](src, gvk) },
	}
	v.Warning = deprecation(any(new(V)), gvk)
	v.Retired = v.Warning != ""
	return v
}

// deprecation words what a type of the API says about its own end.
func deprecation(obj any, gvk schema.GroupVersionKind) string {
	old, ok := obj.(interface{ APILifecycleDeprecated() (major, minor int) })
	if !ok {
		return ""
	}
	major, minor := old.APILifecycleDeprecated()
	text := fmt.Sprintf("%s %s is deprecated in v%d.%d+", gvk.GroupVersion(), gvk.Kind, major, minor)
	if gone, ok := obj.(interface{ APILifecycleRemoved() (major, minor int) }); ok {
		major, minor = gone.APILifecycleRemoved()
		text += fmt.Sprintf(", unavailable in v%d.%d+", major, minor)
	}
	if instead, ok := obj.(interface {
		APILifecycleReplacement() schema.GroupVersionKind
	}); ok {
		if r := instead.APILifecycleReplacement(); r.Kind != "" {
			text += fmt.Sprintf("; use %s %s", r.GroupVersion(), r.Kind)
		}
	}
	return text
}

func reshape[To any](src api.Object, gvk schema.GroupVersionKind) (api.Object, error) {
	data, err := json.Marshal(src)
	if err != nil {
		return nil, fmt.Errorf("convert: %T: %w", src, err)
	}
	to := new(To)
	if err := json.Unmarshal(data, to); err != nil {
		return nil, fmt.Errorf("convert: %T to %T: %w", src, to, err)
	}
	obj := any(to).(api.Object)
	obj.GetObjectKind().SetGroupVersionKind(gvk)
	return obj, nil
}
