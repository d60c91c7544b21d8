package stream

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime/schema"
	utilnet "k8s.io/apimachinery/pkg/util/net"

	"github.com/sampan-dev/sampan/api"
	"github.com/sampan-dev/sampan/apiserver/request"
	"github.com/sampan-dev/sampan/kit/clock"
)

// tail is the path behind …/proxy, with its trailing slash.
func tail(r *http.Request, i *request.Info) string {
	if len(i.Parts) <= 3 {
		if strings.HasSuffix(r.URL.Path, "/") {
			return "/"
		}
		return ""
	}
	p := "/" + strings.Join(i.Parts[3:], "/")
	if strings.HasSuffix(r.URL.Path, "/") {
		p += "/"
	}
	return p
}

// ask splits the name of a proxy request: [scheme:]name[:port].
func ask(name string) (scheme, object, port string, err error) {
	scheme, object, port, ok := utilnet.SplitSchemeNamePort(name)
	if !ok {
		return "", "", "", apierrors.NewBadRequest(fmt.Sprintf("invalid name %q: must be [scheme:]name[:port]", name))
	}
	if scheme == "" {
		scheme = "http"
	}
	return scheme, object, port, nil
}

// ObjectName returns the name of the object that a proxy request means, for
// finding the parent of a connect request.
func ObjectName(name string) string {
	if _, object, _, err := ask(name); err == nil {
		return object
	}
	return name
}

func (s *Streams) podProxy(w http.ResponseWriter, r *http.Request, i *request.Info, obj api.Object) error {
	p, err := pod(obj)
	if err != nil {
		return err
	}
	scheme, _, port, err := ask(i.Name)
	if err != nil {
		return err
	}
	if port == "" {
		for _, c := range p.Spec.Containers {
			if len(c.Ports) > 0 {
				port = strconv.Itoa(int(c.Ports[0].ContainerPort))
				break
			}
		}
	}
	if p.Status.PodIP == "" {
		return apierrors.NewBadRequest("address not allowed")
	}
	if err := proxyable(p.Status.PodIP); err != nil {
		return err
	}
	host := p.Status.PodIP
	if port != "" {
		host = net.JoinHostPort(host, port)
	}
	s.forward(w, r, &url.URL{Scheme: scheme, Host: host, Path: tail(r, i)}, s.plain, true, false)
	return nil
}

// proxyable refuses addresses that are the server's own or the link's.
func proxyable(ip string) error {
	a, err := netip.ParseAddr(ip)
	if err != nil || a.IsUnspecified() || a.IsLoopback() || a.IsLinkLocalUnicast() || a.IsLinkLocalMulticast() || a.IsInterfaceLocalMulticast() {
		return apierrors.NewBadRequest("address not allowed")
	}
	return nil
}

func (s *Streams) nodeProxy(w http.ResponseWriter, r *http.Request, i *request.Info, obj api.Object) error {
	node, ok := obj.(*corev1.Node)
	if !ok {
		return apierrors.NewBadRequest(fmt.Sprintf("not a node: %T", obj))
	}
	scheme, _, port, err := ask(i.Name)
	if err != nil {
		return err
	}
	host, err := s.place(r.Context(), node.Name)
	if err != nil {
		return err
	}
	name, own, err := net.SplitHostPort(host)
	if err != nil {
		return err
	}
	at := &url.URL{Scheme: "https", Host: host, Path: tail(r, i)}
	if port == "" || port == own {
		s.forward(w, r, at, s.kubelet, true, false)
		return nil
	}
	if err := proxyable(name); err != nil {
		return err
	}
	at.Scheme, at.Host = scheme, net.JoinHostPort(name, port)
	s.forward(w, r, at, s.plain, true, false)
	return nil
}

func (s *Streams) serviceProxy(w http.ResponseWriter, r *http.Request, i *request.Info, obj api.Object) error {
	svc, ok := obj.(*corev1.Service)
	if !ok {
		return apierrors.NewBadRequest(fmt.Sprintf("not a service: %T", obj))
	}
	scheme, _, port, err := ask(i.Name)
	if err != nil {
		return err
	}
	host, err := s.endpoint(r.Context(), svc, port)
	if err != nil {
		return err
	}
	s.forward(w, r, &url.URL{Scheme: scheme, Host: host, Path: tail(r, i)}, s.plain, true, false)
	return nil
}

// endpoint picks one ready endpoint of a service's port, by number or name.
func (s *Streams) endpoint(ctx context.Context, svc *corev1.Service, port string) (string, error) {
	name := port
	if n, err := strconv.Atoi(port); err == nil {
		found := false
		for _, p := range svc.Spec.Ports {
			if int(p.Port) == n {
				name, found = p.Name, true
				break
			}
		}
		if !found {
			return "", apierrors.NewServiceUnavailable(fmt.Sprintf("no service port %d found for service %q", n, svc.Name))
		}
	}
	list, err := s.back.List(ctx, schema.GroupResource{Group: discoveryv1.GroupName, Resource: "endpointslices"}, svc.Namespace)
	if err != nil {
		return "", err
	}
	var hosts []string
	for _, o := range list {
		es, ok := o.(*discoveryv1.EndpointSlice)
		if !ok || es.Labels[discoveryv1.LabelServiceName] != svc.Name {
			continue
		}
		for _, p := range es.Ports {
			if p.Port == nil || port != "" && (p.Name == nil && name != "" || p.Name != nil && *p.Name != name) {
				continue
			}
			for _, e := range es.Endpoints {
				if len(e.Addresses) == 0 || e.Conditions.Ready != nil && !*e.Conditions.Ready || proxyable(e.Addresses[0]) != nil {
					continue
				}
				hosts = append(hosts, net.JoinHostPort(e.Addresses[0], strconv.Itoa(int(*p.Port))))
			}
		}
	}
	if len(hosts) == 0 {
		return "", apierrors.NewServiceUnavailable(fmt.Sprintf("no endpoints available for service %q", svc.Name))
	}
	return hosts[clock.Rand(clock.Seed()).IntN(len(hosts))], nil
}
