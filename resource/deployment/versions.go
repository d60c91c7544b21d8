package deployment

import (
	"maps"
	"math"
	"strconv"

	appsv1 "k8s.io/api/apps/v1"
	appsv1beta1 "k8s.io/api/apps/v1beta1"
	appsv1beta2 "k8s.io/api/apps/v1beta2"
	extensionsv1beta1 "k8s.io/api/extensions/v1beta1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/sampan-dev/sampan/api"
	"github.com/sampan-dev/sampan/resource"
	"github.com/sampan-dev/sampan/semantics/podspec"
)

func gvk(group, version, kind string) schema.GroupVersionKind {
	return schema.GroupVersionKind{Group: group, Version: version, Kind: kind}
}

func versions() []resource.Version {
	stored := gvk("apps", "v1", "Deployment")
	b2 := resource.SameShape[appsv1beta2.Deployment, appsv1.Deployment](gvk("apps", "v1beta2", "Deployment"), stored)
	b2.ScaleKind, b2.Orphans = gvk("apps", "v1beta2", "Scale"), true

	b1 := resource.SameShape[appsv1beta1.Deployment, appsv1.Deployment](gvk("apps", "v1beta1", "Deployment"), stored)
	b1.ScaleKind, b1.Orphans = gvk("apps", "v1beta1", "Scale"), true
	b1.Default = func(obj api.Object) {
		d := obj.(*appsv1beta1.Deployment)
		podspec.SelectorFromLabels(&d.ObjectMeta, &d.Spec.Selector, &d.Spec.Template)
		fill(&d.Spec.RevisionHistoryLimit, 2)
		fill(&d.Spec.ProgressDeadlineSeconds, 600)
	}
	keepRollback(&b1, func(obj api.Object) *int64 {
		if r := obj.(*appsv1beta1.Deployment).Spec.RollbackTo; r != nil {
			return &r.Revision
		}
		return nil
	}, func(obj api.Object, n int64) {
		obj.(*appsv1beta1.Deployment).Spec.RollbackTo = &appsv1beta1.RollbackConfig{Revision: n}
	})

	ext := resource.SameShape[extensionsv1beta1.Deployment, appsv1.Deployment](gvk("extensions", "v1beta1", "Deployment"), stored)
	ext.ScaleKind, ext.Orphans = gvk("extensions", "v1beta1", "Scale"), true
	ext.Default = func(obj api.Object) {
		d := obj.(*extensionsv1beta1.Deployment)
		podspec.SelectorFromLabels(&d.ObjectMeta, &d.Spec.Selector, &d.Spec.Template)
		fill(&d.Spec.RevisionHistoryLimit, math.MaxInt32)
		fill(&d.Spec.ProgressDeadlineSeconds, math.MaxInt32)
		st := &d.Spec.Strategy
		if st.Type == "" || st.Type == extensionsv1beta1.RollingUpdateDeploymentStrategyType {
			st.Type = extensionsv1beta1.RollingUpdateDeploymentStrategyType
			if st.RollingUpdate == nil {
				st.RollingUpdate = &extensionsv1beta1.RollingUpdateDeployment{}
			}
			fill(&st.RollingUpdate.MaxUnavailable, intstr.FromInt32(1))
			fill(&st.RollingUpdate.MaxSurge, intstr.FromInt32(1))
		}
	}
	keepRollback(&ext, func(obj api.Object) *int64 {
		if r := obj.(*extensionsv1beta1.Deployment).Spec.RollbackTo; r != nil {
			return &r.Revision
		}
		return nil
	}, func(obj api.Object, n int64) {
		obj.(*extensionsv1beta1.Deployment).Spec.RollbackTo = &extensionsv1beta1.RollbackConfig{Revision: n}
	})
	return []resource.Version{b2, b1, ext}
}

// keepRollback carries spec.rollbackTo, which the stored version lacks, in the
// annotation that upstream uses for it.
func keepRollback(v *resource.Version, get func(api.Object) *int64, set func(api.Object, int64)) {
	store, show := v.Store, v.Show
	v.Store = func(src api.Object) (api.Object, error) {
		out, err := store(src)
		if n := get(src); err == nil && n != nil {
			notes := maps.Clone(out.GetAnnotations())
			if notes == nil {
				notes = map[string]string{}
			}
			notes[appsv1.DeprecatedRollbackTo] = strconv.FormatInt(*n, 10)
			out.SetAnnotations(notes)
		}
		return out, err
	}
	v.Show = func(src api.Object) (api.Object, error) {
		out, err := show(src)
		if err != nil {
			return nil, err
		}
		notes := out.GetAnnotations()
		if n, bad := strconv.ParseInt(notes[appsv1.DeprecatedRollbackTo], 10, 64); bad == nil {
			set(out, n)
			notes = maps.Clone(notes)
			delete(notes, appsv1.DeprecatedRollbackTo)
			out.SetAnnotations(notes)
		}
		return out, nil
	}
}
