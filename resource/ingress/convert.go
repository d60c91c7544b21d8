package ingress

import (
	extensionsv1beta1 "k8s.io/api/extensions/v1beta1"
	networkingv1 "k8s.io/api/networking/v1"
	networkingv1beta1 "k8s.io/api/networking/v1beta1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/sampan-dev/sampan/api"
	"github.com/sampan-dev/sampan/resource"
)

// versions are the retired ones. They share one shape, in which a backend is
// serviceName and servicePort, and a path need not say its type.
func versions() []resource.Version {
	stored := networkingv1.SchemeGroupVersion.WithKind("Ingress")
	networking := networkingv1beta1.SchemeGroupVersion.WithKind("Ingress")
	beta := resource.SameShape[networkingv1beta1.Ingress, ing](networking, stored)
	beta.Default = func(obj api.Object) { setDefaults(obj.(*networkingv1beta1.Ingress)) }
	store, show := beta.Store, beta.Show
	beta.Store = func(src api.Object) (api.Object, error) {
		out, err := store(src)
		if err != nil {
			return nil, err
		}
		storeBackends(&src.(*networkingv1beta1.Ingress).Spec, &out.(*ing).Spec)
		return out, nil
	}
	beta.Show = func(src api.Object) (api.Object, error) {
		out, err := show(src)
		if err != nil {
			return nil, err
		}
		showBackends(&src.(*ing).Spec, &out.(*networkingv1beta1.Ingress).Spec)
		return out, nil
	}
	older := resource.SameShape[extensionsv1beta1.Ingress, networkingv1beta1.Ingress](extensionsv1beta1.SchemeGroupVersion.WithKind("Ingress"), networking)
	oldStore, oldShow := older.Store, older.Show
	older.Default = func(obj api.Object) { setOldDefaults(obj.(*extensionsv1beta1.Ingress)) }
	older.Store = func(src api.Object) (api.Object, error) {
		mid, err := oldStore(src)
		if err != nil {
			return nil, err
		}
		return beta.Store(mid)
	}
	older.Show = func(src api.Object) (api.Object, error) {
		mid, err := beta.Show(src)
		if err != nil {
			return nil, err
		}
		return oldShow(mid)
	}
	return []resource.Version{beta, older}
}

func setDefaults(i *networkingv1beta1.Ingress) {
	for r := range i.Spec.Rules {
		if http := i.Spec.Rules[r].HTTP; http != nil {
			for p := range http.Paths {
				if http.Paths[p].PathType == nil {
					http.Paths[p].PathType = new(networkingv1beta1.PathTypeImplementationSpecific)
				}
			}
		}
	}
}

func setOldDefaults(i *extensionsv1beta1.Ingress) {
	for r := range i.Spec.Rules {
		if http := i.Spec.Rules[r].HTTP; http != nil {
			for p := range http.Paths {
				if http.Paths[p].PathType == nil {
					http.Paths[p].PathType = new(extensionsv1beta1.PathTypeImplementationSpecific)
				}
			}
		}
	}
}

func storeBackends(from *networkingv1beta1.IngressSpec, to *networkingv1.IngressSpec) {
	if from.Backend != nil {
		to.DefaultBackend = storeBackend(from.Backend)
	}
	for r := range from.Rules {
		if http := from.Rules[r].HTTP; http != nil {
			for p := range http.Paths {
				to.Rules[r].HTTP.Paths[p].Backend = *storeBackend(&http.Paths[p].Backend)
			}
		}
	}
}

func storeBackend(from *networkingv1beta1.IngressBackend) *networkingv1.IngressBackend {
	to := &networkingv1.IngressBackend{Resource: from.Resource.DeepCopy()}
	if from.ServiceName == "" && from.ServicePort == (intstr.IntOrString{}) {
		return to
	}
	to.Service = &networkingv1.IngressServiceBackend{Name: from.ServiceName}
	if from.ServicePort.Type == intstr.String {
		to.Service.Port.Name = from.ServicePort.StrVal
	} else {
		to.Service.Port.Number = from.ServicePort.IntVal
	}
	return to
}

func showBackends(from *networkingv1.IngressSpec, to *networkingv1beta1.IngressSpec) {
	if from.DefaultBackend != nil {
		to.Backend = showBackend(from.DefaultBackend)
	}
	for r := range from.Rules {
		if http := from.Rules[r].HTTP; http != nil {
			for p := range http.Paths {
				to.Rules[r].HTTP.Paths[p].Backend = *showBackend(&http.Paths[p].Backend)
			}
		}
	}
}

func showBackend(from *networkingv1.IngressBackend) *networkingv1beta1.IngressBackend {
	to := &networkingv1beta1.IngressBackend{Resource: from.Resource.DeepCopy()}
	if s := from.Service; s != nil {
		to.ServiceName = s.Name
		to.ServicePort = intstr.FromInt32(s.Port.Number)
		if s.Port.Name != "" {
			to.ServicePort = intstr.FromString(s.Port.Name)
		}
	}
	return to
}
