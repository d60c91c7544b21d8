package address

import (
	"testing"

	"k8s.io/apimachinery/pkg/util/validation/field"
)

func TestOrdinary(t *testing.T) {
	for ip, want := range map[string]string{
		"192.0.2.1":   "",
		"2001:db8::1": "",
		"0.0.0.0":     `ip: Invalid value: "0.0.0.0": may not be unspecified (0.0.0.0)`,
		"127.0.0.9":   `ip: Invalid value: "127.0.0.9": may not be in the loopback range (127.0.0.0/8, ::1/128)`,
		"169.254.1.1": `ip: Invalid value: "169.254.1.1": may not be in the link-local range (169.254.0.0/16, fe80::/10)`,
		"224.0.0.5":   `ip: Invalid value: "224.0.0.5": may not be in the link-local multicast range (224.0.0.0/24, ff02::/10)`,
	} {
		got := ""
		if err := Ordinary(ip, field.NewPath("ip")).ToAggregate(); err != nil {
			got = err.Error()
		}
		if got != want {
			t.Errorf("%s: got %q, want %q", ip, got, want)
		}
	}
}
