package ingress

import (
	"fmt"
	"strings"
	"testing"
	"time"

	extensionsv1beta1 "k8s.io/api/extensions/v1beta1"
	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
)

func good(change func(*networkingv1.HTTPIngressPath, *ing)) *ing {
	i := &ing{Spec: networkingv1.IngressSpec{Rules: []networkingv1.IngressRule{{Host: "a.example.com", IngressRuleValue: networkingv1.IngressRuleValue{
		HTTP: &networkingv1.HTTPIngressRuleValue{Paths: []networkingv1.HTTPIngressPath{{
			Path: "/", PathType: new(networkingv1.PathTypePrefix),
			Backend: networkingv1.IngressBackend{Service: &networkingv1.IngressServiceBackend{Name: "s", Port: networkingv1.ServiceBackendPort{Number: 80}}},
		}}},
	}}}}}
	i.Name = "i"
	change(&i.Spec.Rules[0].HTTP.Paths[0], i)
	return i
}

func TestRules(t *testing.T) {
	const at = "spec.rules[0].http.paths[0]."
	type path = networkingv1.HTTPIngressPath
	for want, change := range map[string]func(*path, *ing){
		"": func(*path, *ing) {},
		"spec: Invalid value: null: either `defaultBackend` or `rules` must be specified":                      func(_ *path, i *ing) { i.Spec.Rules = nil },
		at + "pathType: Required value: pathType must be specified":                                            func(p *path, _ *ing) { p.PathType = nil },
		at + `pathType: Unsupported value: "X": supported values: "Exact", "ImplementationSpecific", "Prefix"`: func(p *path, _ *ing) { p.PathType = new(networkingv1.PathType("X")) },
		at + `path: Invalid value: "a": must be an absolute path`:                                              func(p *path, _ *ing) { p.Path = "a" },
		at + `path: Invalid value: "/a//b": must not contain '//'`:                                             func(p *path, _ *ing) { p.Path = "/a//b" },
		at + `backend: Invalid value: "": resource or service backend is required`:                             func(p *path, _ *ing) { p.Backend.Service = nil },
		at + "backend: Required value: port name or number is required":                                        func(p *path, _ *ing) { p.Backend.Service.Port.Number = 0 },
		at + `backend: Invalid value: "": cannot set both port name & port number`:                             func(p *path, _ *ing) { p.Backend.Service.Port.Name = "http" },
		`spec.rules[0].host: Invalid value: "1.2.3.4": must be a DNS name, not an IP address`:                  func(_ *path, i *ing) { i.Spec.Rules[0].Host = "1.2.3.4" },
		"metadata.annotations.kubernetes.io/ingress.class: Invalid value: \"a\": must match `ingressClassName` when both are specified": func(_ *path, i *ing) {
			i.Annotations, i.Spec.IngressClassName = map[string]string{classAnnotation: "a"}, new("b")
		},
	} {
		got := ""
		if err := Kind().Validate(good(change), nil).ToAggregate(); err != nil {
			got = err.Error()
		}
		if got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}

func TestOldBackends(t *testing.T) {
	old := Kind().Info().Also[1]
	src := &extensionsv1beta1.Ingress{Spec: extensionsv1beta1.IngressSpec{
		Backend: &extensionsv1beta1.IngressBackend{ServiceName: "s", ServicePort: intstr.FromString("http")},
		Rules: []extensionsv1beta1.IngressRule{{IngressRuleValue: extensionsv1beta1.IngressRuleValue{HTTP: &extensionsv1beta1.HTTPIngressRuleValue{
			Paths: []extensionsv1beta1.HTTPIngressPath{{Backend: extensionsv1beta1.IngressBackend{ServiceName: "t", ServicePort: intstr.FromInt32(80)}}},
		}}}},
	}}
	old.Default(src)
	out, err := old.Store(src)
	if err != nil {
		t.Fatal(err)
	}
	spec := out.(*ing).Spec
	p := spec.Rules[0].HTTP.Paths[0]
	if spec.DefaultBackend.Service.Port.Name != "http" || p.Backend.Service.Name != "t" || p.Backend.Service.Port.Number != 80 || *p.PathType != "ImplementationSpecific" {
		t.Errorf("got %+v", spec)
	}
	if want := "extensions/v1beta1 Ingress is deprecated in v1.14+, unavailable in v1.22+; use networking.k8s.io/v1 Ingress"; old.Warning != want {
		t.Errorf("got %q", old.Warning)
	}
}

func TestColumns(t *testing.T) {
	i := good(func(_ *networkingv1.HTTPIngressPath, i *ing) {
		i.Spec.TLS = []networkingv1.IngressTLS{{}}
		i.Status.LoadBalancer.Ingress = []networkingv1.IngressLoadBalancerIngress{{IP: "192.0.2.1"}}
	})
	if got := strings.Trim(fmt.Sprint(Kind().Cells(i, time.Unix(0, 0))), "[]"); got != "i <none> a.example.com 192.0.2.1 80, 443 <unknown>" {
		t.Errorf("got %q", got)
	}
}
