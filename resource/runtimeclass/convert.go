package runtimeclass

import (
	"fmt"

	nodev1 "k8s.io/api/node/v1"
	nodev1alpha1 "k8s.io/api/node/v1alpha1"
	nodev1beta1 "k8s.io/api/node/v1beta1"

	"github.com/sampan-dev/sampan/api"
	"github.com/sampan-dev/sampan/resource"
)

const name = "RuntimeClass"

// earlier are the versions of old; the first had a spec.
func earlier() []resource.Version {
	beta := resource.SameShape[nodev1beta1.RuntimeClass, class](nodev1beta1.SchemeGroupVersion.WithKind(name), nodev1.SchemeGroupVersion.WithKind(name))
	beta.Retired = true
	return []resource.Version{beta, {
		Group: nodev1.GroupName, Version: "v1alpha1", Kind: name, Retired: true,
		Warning: "node.k8s.io/v1alpha1 RuntimeClass is deprecated in v1.20+, unavailable in v1.26+; use node.k8s.io/v1 RuntimeClass",
		New:     func() api.Object { return &nodev1alpha1.RuntimeClass{} },
		Store: func(src api.Object) (api.Object, error) {
			from, ok := src.(*nodev1alpha1.RuntimeClass)
			if !ok {
				return nil, fmt.Errorf("convert: %T is no RuntimeClass", src)
			}
			to := &class{ObjectMeta: *from.ObjectMeta.DeepCopy(), Handler: from.Spec.RuntimeHandler}
			to.SetGroupVersionKind(nodev1.SchemeGroupVersion.WithKind(name))
			if o := from.Spec.Overhead; o != nil {
				to.Overhead = &nodev1.Overhead{PodFixed: o.DeepCopy().PodFixed}
			}
			if s := from.Spec.Scheduling.DeepCopy(); s != nil {
				to.Scheduling = &nodev1.Scheduling{NodeSelector: s.NodeSelector, Tolerations: s.Tolerations}
			}
			return to, nil
		},
		Show: func(src api.Object) (api.Object, error) {
			from, ok := src.(*class)
			if !ok {
				return nil, fmt.Errorf("convert: %T is no RuntimeClass", src)
			}
			to := &nodev1alpha1.RuntimeClass{ObjectMeta: *from.ObjectMeta.DeepCopy(), Spec: nodev1alpha1.RuntimeClassSpec{RuntimeHandler: from.Handler}}
			to.SetGroupVersionKind(nodev1alpha1.SchemeGroupVersion.WithKind(name))
			if o := from.Overhead; o != nil {
				to.Spec.Overhead = &nodev1alpha1.Overhead{PodFixed: o.DeepCopy().PodFixed}
			}
			if s := from.Scheduling.DeepCopy(); s != nil {
				to.Spec.Scheduling = &nodev1alpha1.Scheduling{NodeSelector: s.NodeSelector, Tolerations: s.Tolerations}
			}
			return to, nil
		},
	}}
}
