package cli

import (
	"net"
	"strings"
	"testing"
)

func TestTheLinkThatLeadsOut(t *testing.T) {
	const head = "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT\n"
	for routes, want := range map[string]string{
		"":   "",
		head: "",
		head + "cni0\t0000F40A\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0\n":                                                             "",
		head + "cni0\t0000F40A\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0\neth1\t00000000\t01004064\t0003\t0\t0\t0\t00000000\t0\t0\t0\n": "eth1",
		head + "vpn0\t00000000\t00000000\t0001\t0\t0\t0\t00000080\t0\t0\t0\n":                                                             "",
	} {
		if got := defaultLink(strings.NewReader(routes)); got != want {
			t.Errorf("%q: %q, want %q", routes, got, want)
		}
	}
	nets := func(texts ...string) (out []net.Addr) {
		for _, s := range texts {
			ip, n, err := net.ParseCIDR(s)
			if err != nil {
				t.Fatal(err)
			}
			out = append(out, &net.IPNet{IP: ip, Mask: n.Mask})
		}
		return out
	}
	if got := firstIPv4(nets("127.0.0.1/8", "fe80::1/64", "100.64.0.2/24")); got.String() != "100.64.0.2" {
		t.Errorf("first address: %s", got)
	}
	if got := firstIPv4(nets("127.0.0.1/8")); got.IsValid() {
		t.Errorf("loopback is no way out: %s", got)
	}
}
