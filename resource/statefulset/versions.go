package statefulset

import (
	appsv1 "k8s.io/api/apps/v1"
	appsv1beta1 "k8s.io/api/apps/v1beta1"
	appsv1beta2 "k8s.io/api/apps/v1beta2"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/sampan-dev/sampan/api"
	"github.com/sampan-dev/sampan/resource"
	"github.com/sampan-dev/sampan/semantics/podspec"
)

func versions() []resource.Version {
	gvk := func(version, kind string) schema.GroupVersionKind {
		return schema.GroupVersionKind{Group: "apps", Version: version, Kind: kind}
	}
	stored := gvk("v1", "StatefulSet")
	b2 := resource.SameShape[appsv1beta2.StatefulSet, appsv1.StatefulSet](gvk("v1beta2", "StatefulSet"), stored)
	b2.ScaleKind, b2.Orphans = gvk("v1beta2", "Scale"), true
	b1 := resource.SameShape[appsv1beta1.StatefulSet, appsv1.StatefulSet](gvk("v1beta1", "StatefulSet"), stored)
	b1.ScaleKind, b1.Orphans = gvk("v1beta1", "Scale"), true
	b1.Default = func(obj api.Object) {
		s := obj.(*appsv1beta1.StatefulSet)
		podspec.SelectorFromLabels(&s.ObjectMeta, &s.Spec.Selector, &s.Spec.Template)
		if s.Spec.UpdateStrategy.Type == "" {
			s.Spec.UpdateStrategy.Type = appsv1beta1.OnDeleteStatefulSetStrategyType
		}
	}
	return []resource.Version{b2, b1}
}
