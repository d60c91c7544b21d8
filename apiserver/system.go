package apiserver

import (
	"context"
	"fmt"
	"net"
	"reflect"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/sampan-dev/sampan/api"
	"github.com/sampan-dev/sampan/apiserver/request"
	"github.com/sampan-dev/sampan/kit/clock"
)

// systemNamespaces are those every cluster has.
func systemNamespaces() []string {
	return []string{metav1.NamespaceDefault, metav1.NamespaceSystem, metav1.NamespacePublic, corev1.NamespaceNodeLease}
}

func core(plural string) schema.GroupResource { return schema.GroupResource{Resource: plural} }

// ensureNamespaces makes the namespaces that are missing.
func (s *Server) ensureNamespaces(ctx context.Context, b request.Backend) error {
	if _, ok := s.registry.Stored(core("namespaces")); !ok {
		return nil
	}
	for _, name := range systemNamespaces() {
		if _, err := b.Get(ctx, core("namespaces"), "", name); err == nil {
			continue
		}
		_, err := b.Create(ctx, core("namespaces"), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name}}, nil)
		if err != nil && !apierrors.IsAlreadyExists(err) {
			return fmt.Errorf("namespace: %s: %w", name, err)
		}
	}
	return nil
}

const serviceName = "kubernetes"

// ensureService makes default/kubernetes and its endpoints.
func (s *Server) ensureService(ctx context.Context, b request.Backend) error {
	if s.c.ServiceIP == nil || s.c.Advertise == nil {
		return nil
	}
	if err := s.ensureNamespaces(ctx, b); err != nil {
		return err
	}
	for _, step := range []func(context.Context, request.Backend) error{s.writeService, s.writeEndpoints, s.writeSlice} {
		if err := step(ctx, b); err != nil {
			return err
		}
	}
	return nil
}

// serviceEvery is how often somebody's changes to the service are undone.
const serviceEvery = 30 * time.Second

// keepService repairs the service and its endpoints now and then.
func (s *Server) keepService(ctx context.Context) error {
	ctx = request.WithUser(ctx, Loopback())
	for clock.Sleep(ctx, serviceEvery) == nil {
		if err := s.ensureService(ctx, s.Backend()); err != nil && ctx.Err() == nil {
			s.log.Warn("kubernetes service", "err", err)
		}
	}
	return nil
}

// put creates want, or changes what is there until same says it will do.
func put[T any, P interface {
	*T
	api.Object
}](ctx context.Context, b request.Backend, gr schema.GroupResource, want P, change func(P)) error {
	name := want.GetName()
	cur, err := b.Get(ctx, gr, metav1.NamespaceDefault, name)
	if apierrors.IsNotFound(err) {
		_, err = b.Create(ctx, gr, want, nil)
		if err != nil {
			return fmt.Errorf("%s: %s: %w", gr, name, err)
		}
		return nil
	}
	if err != nil {
		return err
	}
	probe := any(cur.DeepCopyObject()).(P)
	change(probe)
	if reflect.DeepEqual(probe, any(cur).(P)) {
		return nil
	}
	_, err = b.Modify(ctx, gr, metav1.NamespaceDefault, name, "", func(o api.Object) error {
		change(any(o).(P))
		return nil
	})
	if err != nil {
		return fmt.Errorf("%s: %s: %w", gr, name, err)
	}
	return nil
}

func serviceLabels() map[string]string {
	return map[string]string{"provider": "kubernetes", "component": "apiserver"}
}

func (s *Server) writeService(ctx context.Context, b request.Backend) error {
	if _, ok := s.registry.Stored(core("services")); !ok {
		return nil
	}
	port := corev1.ServicePort{Name: "https", Protocol: corev1.ProtocolTCP, Port: int32(s.c.ServicePort), TargetPort: intstr.FromInt32(int32(s.c.AdvertisePort))}
	want := &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Name: serviceName, Namespace: metav1.NamespaceDefault, Labels: serviceLabels()},
		Spec: corev1.ServiceSpec{
			Ports: []corev1.ServicePort{port}, ClusterIP: s.c.ServiceIP.String(), ClusterIPs: []string{s.c.ServiceIP.String()},
			SessionAffinity: corev1.ServiceAffinityNone, Type: corev1.ServiceTypeClusterIP,
		},
	}
	return put(ctx, b, core("services"), want, func(svc *corev1.Service) {
		if len(svc.Spec.Ports) != 1 || svc.Spec.Ports[0].Port != port.Port || svc.Spec.Ports[0].TargetPort != port.TargetPort || svc.Spec.Ports[0].Name != port.Name {
			svc.Spec.Ports = []corev1.ServicePort{port}
		}
	})
}

// hasAddress says whether a list of addresses names this server already.
// Several servers share the endpoints, each adding itself.
func hasAddress(list []corev1.EndpointAddress, ip net.IP) bool {
	return slices.ContainsFunc(list, func(a corev1.EndpointAddress) bool { return a.IP == ip.String() })
}

func (s *Server) writeEndpoints(ctx context.Context, b request.Backend) error {
	if _, ok := s.registry.Stored(core("endpoints")); !ok {
		return nil
	}
	port := corev1.EndpointPort{Name: "https", Port: int32(s.c.AdvertisePort), Protocol: corev1.ProtocolTCP}
	one := corev1.EndpointSubset{Addresses: []corev1.EndpointAddress{{IP: s.c.Advertise.String()}}, Ports: []corev1.EndpointPort{port}}
	want := &corev1.Endpoints{
		ObjectMeta: metav1.ObjectMeta{Name: serviceName, Namespace: metav1.NamespaceDefault, Labels: map[string]string{discoveryv1.LabelSkipMirror: "true"}},
		Subsets:    []corev1.EndpointSubset{one},
	}
	return put(ctx, b, core("endpoints"), want, func(e *corev1.Endpoints) {
		if len(e.Subsets) != 1 || len(e.Subsets[0].Ports) != 1 || e.Subsets[0].Ports[0] != port {
			e.Subsets = []corev1.EndpointSubset{one}
			return
		}
		if !hasAddress(e.Subsets[0].Addresses, s.c.Advertise) {
			e.Subsets[0].Addresses = append(e.Subsets[0].Addresses, one.Addresses[0])
			slices.SortFunc(e.Subsets[0].Addresses, func(a, b corev1.EndpointAddress) int {
				return slices.Compare([]byte(a.IP), []byte(b.IP))
			})
		}
	})
}

func (s *Server) writeSlice(ctx context.Context, b request.Backend) error {
	gr := schema.GroupResource{Group: discoveryv1.GroupName, Resource: "endpointslices"}
	if _, ok := s.registry.Stored(gr); !ok {
		return nil
	}
	name, number, proto, ready := "https", int32(s.c.AdvertisePort), corev1.ProtocolTCP, true
	ports := []discoveryv1.EndpointPort{{Name: &name, Port: &number, Protocol: &proto}}
	family := discoveryv1.AddressTypeIPv4
	if s.c.Advertise.To4() == nil {
		family = discoveryv1.AddressTypeIPv6
	}
	self := discoveryv1.Endpoint{Addresses: []string{s.c.Advertise.String()}, Conditions: discoveryv1.EndpointConditions{Ready: &ready}}
	want := &discoveryv1.EndpointSlice{
		ObjectMeta:  metav1.ObjectMeta{Name: serviceName, Namespace: metav1.NamespaceDefault, Labels: map[string]string{discoveryv1.LabelServiceName: serviceName}},
		AddressType: family, Endpoints: []discoveryv1.Endpoint{self}, Ports: ports,
	}
	return put(ctx, b, gr, want, func(e *discoveryv1.EndpointSlice) {
		if !reflect.DeepEqual(e.Ports, ports) {
			e.Ports = ports
		}
		for _, p := range e.Endpoints {
			if slices.Contains(p.Addresses, self.Addresses[0]) {
				return
			}
		}
		e.Endpoints = append(e.Endpoints, self)
	})
}
