package endpointslice

import (
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	discoveryv1beta1 "k8s.io/api/discovery/v1beta1"

	"github.com/sampan-dev/sampan/api"
	"github.com/sampan-dev/sampan/resource"
)

// beta is the retired version: the same shape, but zone and node name are keys
// of a map called topology.
func beta() resource.Version {
	v := resource.SameShape[discoveryv1beta1.EndpointSlice, discoveryv1.EndpointSlice](
		discoveryv1beta1.SchemeGroupVersion.WithKind("EndpointSlice"), discoveryv1.SchemeGroupVersion.WithKind("EndpointSlice"))
	store, show := v.Store, v.Show
	v.Store = func(src api.Object) (api.Object, error) {
		out, err := store(src)
		if err != nil {
			return nil, err
		}
		to, from := out.(*discoveryv1.EndpointSlice), src.(*discoveryv1beta1.EndpointSlice)
		for i := range to.Endpoints {
			toField(&to.Endpoints[i], from.Endpoints[i].Topology)
		}
		return to, nil
	}
	v.Show = func(src api.Object) (api.Object, error) {
		out, err := show(src)
		if err != nil {
			return nil, err
		}
		to, from := out.(*discoveryv1beta1.EndpointSlice), src.(*discoveryv1.EndpointSlice)
		for i := range to.Endpoints {
			to.Endpoints[i].Topology = toMap(&from.Endpoints[i])
		}
		return to, nil
	}
	return v
}

func toField(e *discoveryv1.Endpoint, topology map[string]string) {
	for k, value := range topology {
		switch k {
		case corev1.LabelTopologyZone:
			e.Zone = new(value)
		case corev1.LabelHostname:
			if e.NodeName == nil {
				e.NodeName = new(value)
			}
		default:
			if e.DeprecatedTopology == nil {
				e.DeprecatedTopology = map[string]string{}
			}
			e.DeprecatedTopology[k] = value
		}
	}
}

func toMap(e *discoveryv1.Endpoint) map[string]string {
	topology := map[string]string{}
	for k, value := range e.DeprecatedTopology {
		topology[k] = value
	}
	if e.Zone != nil {
		topology[corev1.LabelTopologyZone] = *e.Zone
	}
	if e.NodeName != nil {
		topology[corev1.LabelHostname] = *e.NodeName
	}
	if len(topology) == 0 {
		return nil
	}
	return topology
}
