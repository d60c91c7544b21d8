package endpoints

import (
	"fmt"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"

	"github.com/sampan-dev/sampan/semantics/endpoint"
)

func hosts(ips ...string) (out []corev1.EndpointAddress) {
	for _, ip := range ips {
		out = append(out, corev1.EndpointAddress{IP: ip})
	}
	return out
}

func ports(numbers ...int32) (out []corev1.EndpointPort) {
	for _, n := range numbers {
		out = append(out, corev1.EndpointPort{Name: fmt.Sprint("p", n), Port: n, Protocol: "TCP"})
	}
	return out
}

func TestRepack(t *testing.T) {
	type subset = corev1.EndpointSubset
	for name, c := range map[string]struct{ in, want []subset }{
		"nothing":       {nil, nil},
		"merged hosts":  {[]subset{{Addresses: hosts("2.2.2.2"), Ports: ports(1)}, {Addresses: hosts("1.1.1.1"), Ports: ports(1)}}, []subset{{Addresses: hosts("1.1.1.1", "2.2.2.2"), Ports: ports(1)}}},
		"merged ports":  {[]subset{{Addresses: hosts("1.1.1.1"), Ports: ports(2)}, {Addresses: hosts("1.1.1.1"), Ports: ports(1)}}, []subset{{Addresses: hosts("1.1.1.1"), Ports: ports(1, 2)}}},
		"kept apart":    {[]subset{{Addresses: hosts("2.2.2.2"), Ports: ports(2)}, {Addresses: hosts("1.1.1.1"), Ports: ports(1)}}, []subset{{Addresses: hosts("1.1.1.1"), Ports: ports(1)}, {Addresses: hosts("2.2.2.2"), Ports: ports(2)}}},
		"not ready":     {[]subset{{Addresses: hosts("1.1.1.1"), Ports: ports(1)}, {NotReadyAddresses: hosts("1.1.1.1"), Ports: ports(1)}}, []subset{{NotReadyAddresses: hosts("1.1.1.1"), Ports: ports(1)}}},
		"without ports": {[]subset{{Addresses: hosts("1.1.1.1", "1.1.1.1")}}, []subset{{Addresses: hosts("1.1.1.1")}}},
	} {
		got := endpoint.Repack(c.in)
		if !equality.Semantic.DeepEqual(got, c.want) {
			t.Errorf("%s: got %+v, want %+v", name, got, c.want)
		}
		if again := endpoint.Repack(got); !equality.Semantic.DeepEqual(again, got) {
			t.Errorf("%s: not stable: %+v", name, again)
		}
	}
}

func TestRules(t *testing.T) {
	for want, s := range map[string]corev1.EndpointSubset{
		"": {Addresses: hosts("192.0.2.1"), Ports: ports(80)},
		"subsets[0]: Required value: must specify `addresses` or `notReadyAddresses`":                                     {Ports: ports(80)},
		`subsets[0].addresses[0].ip: Invalid value: "127.0.0.1": may not be in the loopback range (127.0.0.0/8, ::1/128)`: {Addresses: hosts("127.0.0.1")},
		`subsets[0].addresses[0].ip: Invalid value: "x": must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)`:   {Addresses: hosts("x")},
		`subsets[0].ports[0].port: Invalid value: 0: must be between 1 and 65535, inclusive`:                              {Addresses: hosts("192.0.2.1"), Ports: ports(0)},
		`subsets[0].ports[0].protocol: Unsupported value: "X": supported values: "SCTP", "TCP", "UDP"`:                    {Addresses: hosts("192.0.2.1"), Ports: []corev1.EndpointPort{{Port: 1, Protocol: "X"}}},
	} {
		got := ""
		if err := Kind().Validate(&corev1.Endpoints{Subsets: []corev1.EndpointSubset{s}}, nil).ToAggregate(); err != nil {
			got = err.Error()
		}
		if got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}

func TestCell(t *testing.T) {
	got := cell([]corev1.EndpointSubset{{Addresses: hosts("1.1.1.1", "2.2.2.2"), Ports: ports(80, 443)}})
	if want := "1.1.1.1:80,2.2.2.2:80,1.1.1.1:443 + 1 more..."; got != want {
		t.Errorf("got %q", got)
	}
	if got := cell(nil); got != "<none>" {
		t.Errorf("got %q of nothing", got)
	}
}

func TestEveryoneIsWarned(t *testing.T) {
	if w := Kind().Info().Warning; !strings.HasPrefix(w, "v1 Endpoints is deprecated in v1.33+; use discovery.k8s.io/v1 EndpointSlice") {
		t.Errorf("got %q", w)
	}
}
