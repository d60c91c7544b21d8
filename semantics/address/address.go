// Package address judges IP addresses that users give to services and endpoints.
//
// Job: the rules that several kinds share.
//
// Not its job: how an address is spelled (apimachinery's validation).
//
// Invariants: pure.
package address

import (
	"k8s.io/apimachinery/pkg/util/validation/field"
	netutils "k8s.io/utils/net"
)

// Ordinary refuses an address, known to be well formed, that means something to
// every node and so cannot be somewhere else.
func Ordinary(text string, path *field.Path) (errs field.ErrorList) {
	ip := netutils.ParseIPSloppy(text)
	for _, rule := range []struct {
		broken bool
		msg    string
	}{
		{ip.IsUnspecified(), "may not be unspecified (" + text + ")"},
		{ip.IsLoopback(), "may not be in the loopback range (127.0.0.0/8, ::1/128)"},
		{ip.IsLinkLocalUnicast(), "may not be in the link-local range (169.254.0.0/16, fe80::/10)"},
		{ip.IsLinkLocalMulticast(), "may not be in the link-local multicast range (224.0.0.0/24, ff02::/10)"},
	} {
		if rule.broken {
			errs = append(errs, field.Invalid(path, text, rule.msg))
		}
	}
	return errs
}
