package cli

import (
	"strings"
	"testing"

	"github.com/sampan-dev/sampan/machine"
)

// The backend is chosen when a cluster is made, and its later nodes have the same.
func TestNetworkBackend(t *testing.T) {
	made := func(argv ...string) []*machine.Machine {
		return []*machine.Machine{machine.New(t.TempDir(), machine.Spec{Name: "c-1", Cluster: "c", Argv: argv})}
	}
	for _, c := range []struct {
		asked     string
		have      []*machine.Machine
		want, err string
	}{
		{"", nil, "", ""},
		{"host-gw", nil, "host-gw", ""},
		{"ipip", nil, "", `--flannel-backend "ipip": supported values: "vxlan", "host-gw", "udp", "none"`},
		{"", made("server", "--flannel-backend=udp"), "udp", ""},
		{"udp", made("server", "--flannel-backend=udp"), "udp", ""},
		{"vxlan", made("server"), "", ""},
		{"none", made("server"), "", "cluster c was made with vxlan, which cannot be changed"},
	} {
		got, err := upOptions{backend: c.asked}.networkBackend("c", c.have)
		if got != c.want || (err == nil) != (c.err == "") || err != nil && !strings.Contains(err.Error(), c.err) {
			t.Errorf("asked for %q: %q, %v; want %q, %q", c.asked, got, err, c.want, c.err)
		}
	}
}
