package aggregate

import (
	"fmt"
	"net"
	"slices"
	"strconv"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	apiregistrationv1 "k8s.io/kube-aggregator/pkg/apis/apiregistration/v1"
)

// condition makes an Available condition.
func condition(status apiregistrationv1.ConditionStatus, reason, message string, now time.Time) apiregistrationv1.APIServiceCondition {
	return apiregistrationv1.APIServiceCondition{
		Type: apiregistrationv1.Available, Status: status, Reason: reason, Message: message, LastTransitionTime: metav1.NewTime(now),
	}
}

// portOf is the port an APIService names.
func portOf(r *apiregistrationv1.ServiceReference) int32 {
	if r.Port != nil {
		return *r.Port
	}
	return 443
}

// lacks says, as upstream words it, why a service cannot be asked: reason and
// message, or two empty strings. svc is nil when there is none.
func lacks(r *apiregistrationv1.ServiceReference, svc *corev1.Service, slicesOf []*discoveryv1.EndpointSlice) (reason, message string) {
	if svc == nil {
		return "ServiceNotFound", fmt.Sprintf("service/%s in %q is not present", r.Name, r.Namespace)
	}
	if svc.Spec.Type != "" && svc.Spec.Type != corev1.ServiceTypeClusterIP {
		return "", ""
	}
	port, ok := servicePort(svc, portOf(r))
	switch {
	case !ok:
		return "ServicePortError", fmt.Sprintf("service/%s in %q is not listening on port %d", r.Name, r.Namespace, portOf(r))
	case len(slicesOf) == 0:
		return "EndpointsNotFound", fmt.Sprintf("cannot find endpointslices for service/%s in %q", r.Name, r.Namespace)
	case len(endpoints(slicesOf, port.Name)) == 0:
		return "MissingEndpoints", fmt.Sprintf("endpointslices for service/%s in %q have no addresses with port name %q", r.Name, r.Namespace, port.Name)
	}
	return "", ""
}

func servicePort(svc *corev1.Service, number int32) (corev1.ServicePort, bool) {
	i := slices.IndexFunc(svc.Spec.Ports, func(p corev1.ServicePort) bool { return p.Port == number })
	if i < 0 {
		return corev1.ServicePort{}, false
	}
	return svc.Spec.Ports[i], true
}

// endpoints lists the ready addresses of a port, by its name.
func endpoints(list []*discoveryv1.EndpointSlice, port string) (out []string) {
	for _, es := range list {
		for _, p := range es.Ports {
			if p.Port == nil || (p.Name == nil && port != "") || (p.Name != nil && *p.Name != port) {
				continue
			}
			for _, e := range es.Endpoints {
				if len(e.Addresses) > 0 && (e.Conditions.Ready == nil || *e.Conditions.Ready) {
					out = append(out, net.JoinHostPort(e.Addresses[0], strconv.Itoa(int(*p.Port))))
				}
			}
		}
	}
	return out
}

// places lists the addresses at which a service is to be dialled, in the order
// of trying.
func places(r *apiregistrationv1.ServiceReference, svc *corev1.Service, list []*discoveryv1.EndpointSlice, routing bool, shuffle func(n int, swap func(i, j int))) ([]string, error) {
	number := strconv.Itoa(int(portOf(r)))
	if svc.Spec.Type == corev1.ServiceTypeExternalName {
		return []string{net.JoinHostPort(svc.Spec.ExternalName, number)}, nil
	}
	port, ok := servicePort(svc, portOf(r))
	if !ok {
		return nil, fmt.Errorf("no service port %d found for service %q", portOf(r), r.Name)
	}
	headless := svc.Spec.ClusterIP == "" || svc.Spec.ClusterIP == corev1.ClusterIPNone
	if !routing && !headless {
		return []string{net.JoinHostPort(svc.Spec.ClusterIP, number)}, nil
	}
	out := endpoints(list, port.Name)
	if len(out) == 0 {
		return nil, fmt.Errorf("no endpoints available for service %q", r.Name)
	}
	shuffle(len(out), func(i, j int) { out[i], out[j] = out[j], out[i] })
	return out, nil
}
