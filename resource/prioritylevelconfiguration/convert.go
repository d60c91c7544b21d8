package prioritylevelconfiguration

import (
	"maps"

	flowv1 "k8s.io/api/flowcontrol/v1"
	flowv1beta1 "k8s.io/api/flowcontrol/v1beta1"
	flowv1beta2 "k8s.io/api/flowcontrol/v1beta2"
	flowv1beta3 "k8s.io/api/flowcontrol/v1beta3"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/utils/ptr"

	"github.com/sampan-dev/sampan/api"
	"github.com/sampan-dev/sampan/resource"
)

// zeroKey marks, in versions where a share of zero looks like none, that zero
// is meant.
const zeroKey = flowv1beta3.PriorityLevelPreserveZeroConcurrencySharesKey

func gvk(version string) schema.GroupVersionKind {
	return schema.GroupVersionKind{Group: flowv1.GroupName, Version: version, Kind: "PriorityLevelConfiguration"}
}

func versions() []resource.Version {
	return []resource.Version{v1beta3(), v1beta2(), v1beta1()}
}

// wrap runs store and show after the conversion by shape.
func wrap[V any](version string, store func(old *V, stored *level), show func(stored *level, old *V)) resource.Version {
	v := resource.SameShape[V, level](gvk(version), gvk("v1"))
	toStored, toOld := v.Store, v.Show
	v.Store = func(src api.Object) (api.Object, error) {
		out, err := toStored(src)
		if err == nil {
			store(any(src).(*V), out.(*level))
		}
		return out, err
	}
	v.Show = func(src api.Object) (api.Object, error) {
		out, err := toOld(src)
		if err == nil {
			show(src.(*level), any(out).(*V))
		}
		return out, err
	}
	return v
}

func v1beta3() resource.Version {
	type old = flowv1beta3.PriorityLevelConfiguration
	v := wrap("v1beta3", func(o *old, l *level) {
		if o.Spec.Limited != nil {
			l.Spec.Limited.NominalConcurrencyShares = ptr.To(o.Spec.Limited.NominalConcurrencyShares)
		}
		delete(l.Annotations, zeroKey)
	}, func(l *level, o *old) {
		if lim := l.Spec.Limited; lim != nil && ptr.Deref(lim.NominalConcurrencyShares, defaultShares) == 0 {
			o.Annotations = maps.Clone(o.Annotations)
			if o.Annotations == nil {
				o.Annotations = map[string]string{}
			}
			o.Annotations[zeroKey] = ""
		}
	})
	v.Default = func(obj api.Object) {
		o := obj.(*old)
		if _, meant := o.Annotations[zeroKey]; o.Spec.Limited != nil && !meant {
			o.Spec.Limited.NominalConcurrencyShares = orElse(o.Spec.Limited.NominalConcurrencyShares, defaultShares)
		}
	}
	return v
}

func v1beta2() resource.Version {
	type old = flowv1beta2.PriorityLevelConfiguration
	v := wrap("v1beta2", func(o *old, l *level) {
		if o.Spec.Limited != nil {
			l.Spec.Limited.NominalConcurrencyShares = ptr.To(o.Spec.Limited.AssuredConcurrencyShares)
		}
	}, func(l *level, o *old) {
		if lim := l.Spec.Limited; lim != nil {
			o.Spec.Limited.AssuredConcurrencyShares = ptr.Deref(lim.NominalConcurrencyShares, defaultShares)
		}
	})
	v.Default = func(obj api.Object) {
		if lim := obj.(*old).Spec.Limited; lim != nil {
			lim.AssuredConcurrencyShares = orElse(lim.AssuredConcurrencyShares, defaultShares)
		}
	}
	return v
}

func v1beta1() resource.Version {
	type old = flowv1beta1.PriorityLevelConfiguration
	v := wrap("v1beta1", func(o *old, l *level) {
		if o.Spec.Limited != nil {
			l.Spec.Limited.NominalConcurrencyShares = ptr.To(o.Spec.Limited.AssuredConcurrencyShares)
		}
	}, func(l *level, o *old) {
		if lim := l.Spec.Limited; lim != nil {
			o.Spec.Limited.AssuredConcurrencyShares = ptr.Deref(lim.NominalConcurrencyShares, defaultShares)
		}
	})
	v.Default = func(obj api.Object) {
		if lim := obj.(*old).Spec.Limited; lim != nil {
			lim.AssuredConcurrencyShares = orElse(lim.AssuredConcurrencyShares, defaultShares)
		}
	}
	return v
}
