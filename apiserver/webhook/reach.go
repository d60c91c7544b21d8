package webhook

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strconv"

	admissionv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/sampan-dev/sampan/apiserver/request"
	"github.com/sampan-dev/sampan/kit/clock"
)

// reach finds the pods behind a service. Going to them directly, a service
// works as soon as a pod is ready, and where no proxy runs.
type reach struct{ back request.Backend }

// Dial connects to a pod behind a port of a service, for others who call webhooks.
func Dial(ctx context.Context, back request.Backend, namespace, name string, port int32) (net.Conn, error) {
	return reach{back}.dial(ctx, &admissionv1.ServiceReference{Namespace: namespace, Name: name}, net.JoinHostPort(name, strconv.Itoa(int(port))))
}

// maxTries is how many endpoints are tried before giving up.
const maxTries = 3

func (r reach) dial(ctx context.Context, s *admissionv1.ServiceReference, addr string) (net.Conn, error) {
	_, portText, err := net.SplitHostPort(addr)
	if err != nil {
		return nil, err
	}
	port, err := strconv.Atoi(portText)
	if err != nil {
		return nil, err
	}
	addrs, err := r.addresses(ctx, s.Namespace, s.Name, int32(port))
	if err != nil {
		return nil, err
	}
	dialer := net.Dialer{Timeout: dialTimeout}
	var errs []error
	for _, a := range addrs[:min(len(addrs), maxTries)] {
		conn, err := dialer.DialContext(ctx, "tcp", a)
		if err == nil {
			return conn, nil
		}
		errs = append(errs, err)
		if ctx.Err() != nil {
			break
		}
	}
	if len(errs) == 1 {
		return nil, errs[0]
	}
	return nil, errors.Join(errs...)
}

// addresses are where a service's port can be reached, in a random order.
func (r reach) addresses(ctx context.Context, namespace, name string, port int32) ([]string, error) {
	obj, err := r.back.Get(ctx, schema.GroupResource{Resource: "services"}, namespace, name)
	if err != nil {
		return nil, fmt.Errorf("service %q not found", name)
	}
	svc, ok := obj.(*corev1.Service)
	if !ok {
		return nil, fmt.Errorf("unexpected type %T", obj)
	}
	if svc.Spec.Type == corev1.ServiceTypeExternalName {
		return []string{net.JoinHostPort(svc.Spec.ExternalName, strconv.Itoa(int(port)))}, nil
	}
	var sp *corev1.ServicePort
	for i := range svc.Spec.Ports {
		if svc.Spec.Ports[i].Port == port {
			sp = &svc.Spec.Ports[i]
		}
	}
	if sp == nil {
		return nil, fmt.Errorf("no service port %d found for service %q", port, name)
	}
	list, err := r.back.List(ctx, schema.GroupResource{Group: discoveryv1.GroupName, Resource: "endpointslices"}, namespace)
	if err != nil {
		return nil, err
	}
	var ready []string
	for _, obj := range list {
		if slice, ok := obj.(*discoveryv1.EndpointSlice); ok && slice.Labels[discoveryv1.LabelServiceName] == name {
			ready = append(ready, readyIn(slice, sp.Name)...)
		}
	}
	if len(ready) == 0 {
		return nil, fmt.Errorf("no endpoints available for service %q", name)
	}
	clock.Rand(clock.Seed()).Shuffle(len(ready), func(i, j int) { ready[i], ready[j] = ready[j], ready[i] })
	return ready, nil
}

func readyIn(slice *discoveryv1.EndpointSlice, portName string) (out []string) {
	for _, p := range slice.Ports {
		if p.Port == nil || (p.Name == nil && portName != "") || (p.Name != nil && *p.Name != portName) {
			continue
		}
		for i := range slice.Endpoints {
			e := &slice.Endpoints[i]
			if e.Conditions.Ready != nil && !*e.Conditions.Ready {
				continue
			}
			for _, a := range e.Addresses {
				out = append(out, net.JoinHostPort(a, strconv.Itoa(int(*p.Port))))
			}
		}
	}
	return out
}
