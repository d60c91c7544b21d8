package network

import (
	"encoding/binary"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/sampan-dev/sampan/kit/clock"
)

func TestNetConfIsReadAsFlannelDoes(t *testing.T) {
	for text, want := range map[string]NetConf{
		`{"Network": "192.168.0.0/16"}`: {Network: prefix("192.168.0.0/16"), SubnetLen: 24, SubnetMin: addr("192.168.1.0"), SubnetMax: addr("192.168.255.0"),
			Backend: Backend{Type: UDP, VNI: 1, Port: 8285}},
		`{"Network": "10.244.0.0/16", "EnableNFTables": true, "Backend": {"Type": "vxlan"}}`: {Network: prefix("10.244.0.0/16"), SubnetLen: 24,
			SubnetMin: addr("10.244.1.0"), SubnetMax: addr("10.244.255.0"), EnableNFTables: true, Backend: Backend{Type: VXLAN, VNI: 1, Port: 8472}},
		`{"Network": "10.0.0.0/8", "SubnetLen": 20, "SubnetMin": "10.10.0.0", "SubnetMax": "10.99.0.0", "Backend": {"Type": "vxlan", "VNI": 7, "Port": 4789, "MTU": 1400, "DirectRouting": true}}`: {
			Network: prefix("10.0.0.0/8"), SubnetLen: 20, SubnetMin: addr("10.10.0.0"), SubnetMax: addr("10.99.0.0"),
			Backend: Backend{Type: VXLAN, VNI: 7, Port: 4789, MTU: 1400, DirectRouting: true}},
		`{"Network": "10.5.34.0/24", "Backend": {"Type": "host-gw"}}`: {Network: prefix("10.5.34.0/24"), SubnetLen: 26, SubnetMin: addr("10.5.34.64"), SubnetMax: addr("10.5.34.192"),
			Backend: Backend{Type: HostGW, VNI: 1, Port: 8472}},
	} {
		if got, err := ParseNetConf([]byte(text)); err != nil || got != want {
			t.Errorf("%s:\ngot  %+v, %v\nwant %+v", text, got, err, want)
		}
	}
	for text, want := range map[string]string{
		`{`:                          "network configuration: unexpected end",
		`{}`:                         `Network "": not an IPv4 range`,
		`{"Network": "fd00::/64"}`:   "not an IPv4 range",
		`{"Network": "10.0.0.0/30"}`: "Network is too small. Minimum useful network prefix is /28",
		`{"Network": "10.0.0.0/16", "SubnetLen": 17}`:             "at least four subnets",
		`{"Network": "10.0.0.0/16", "SubnetLen": 31}`:             "SubnetLen must be less than /31",
		`{"Network": "10.0.0.0/16", "SubnetMin": "10.1.0.0"}`:     "SubnetMin \"10.1.0.0\": not in the range of the Network",
		`{"Network": "10.0.0.0/16", "SubnetMax": "10.0.3.7"}`:     "not on a SubnetLen boundary",
		`{"Network": "10.0.0.0/16", "Backend": {"Type": "ipip"}}`: `backend "ipip": supported values: "vxlan", "host-gw", "udp"`,
		`{"Network": "10.0.0.0/16", "Backend": {"MTU": 12}}`:      "MTU 12: must be between 576 and 65535",
		`{"Network": "10.0.0.0/16", "EnableIPv6": true}`:          "EnableIPv6",
	} {
		if _, err := ParseNetConf([]byte(text)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", text, err, want)
		}
	}
}

func TestSubnetFileIsFlannels(t *testing.T) {
	text := subnetEnv(prefix("192.168.0.0/16"), prefix("192.168.93.0/24"), 1472, false)
	if want := "FLANNEL_NETWORK=192.168.0.0/16\nFLANNEL_SUBNET=192.168.93.1/24\nFLANNEL_MTU=1472\nFLANNEL_IPMASQ=false\n"; text != want {
		t.Errorf("got %q", text)
	}
	path := filepath.Join(t.TempDir(), "flannel", "subnet.env")
	if err := replaceFile(path, []byte(text)); err != nil {
		t.Fatal(err)
	}
	if got := lastSubnet(path); got != prefix("192.168.93.0/24") {
		t.Errorf("read back %s", got)
	}
	if left, _ := filepath.Glob(filepath.Join(filepath.Dir(path), "*")); len(left) != 1 {
		t.Errorf("left %q", left)
	}
	if got := lastSubnet(path + "no"); got.IsValid() {
		t.Errorf("of no file: %s", got)
	}
	if err := os.WriteFile(path, []byte("FLANNEL_SUBNET=nonsense\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if got := lastSubnet(path); got.IsValid() {
		t.Errorf("of nonsense: %s", got)
	}
}

func TestWhichRangeANodeTakes(t *testing.T) {
	conf, err := ParseNetConf([]byte(`{"Network": "10.5.0.0/22", "SubnetLen": 24}`)) // .1 to .3
	if err != nil {
		t.Fatal(err)
	}
	me, other := addr("100.64.0.2"), addr("100.64.0.3")
	one, two, three := prefix("10.5.1.0/24"), prefix("10.5.2.0/24"), prefix("10.5.3.0/24")
	for what, c := range map[string]struct {
		held   holdings
		before netip.Prefix
		want   netip.Prefix
		mine   bool
	}{
		"held already":        {held: holdings{two: {PublicIP: me}}, before: one, want: two, mine: true},
		"had before":          {held: holdings{two: {PublicIP: other}}, before: three, want: three},
		"before is another's": {held: holdings{three: {PublicIP: other}, one: {PublicIP: other}}, before: three, want: two},
		"before is not given": {held: holdings{three: {PublicIP: other}, one: {PublicIP: other}}, before: prefix("10.9.0.0/24"), want: two},
	} {
		got, mine, err := c.held.choose(conf, me, c.before, clock.Rand(1))
		if err != nil || got != c.want || mine != c.mine {
			t.Errorf("%s: %s, %v, %v; want %s", what, got, mine, err, c.want)
		}
	}
	full := holdings{prefix("10.5.0.0/22"): {PublicIP: other}}
	if _, _, err := full.choose(conf, me, one, clock.Rand(1)); err == nil || err.Error() != "out of subnets" {
		t.Errorf("a full network: %v", err)
	}
	if p, err := parseSubnetKey(subnetKey(two)); err != nil || p != two {
		t.Errorf("key %s: %s, %v", subnetKey(two), p, err)
	}
}

func TestWhichLinkLeadsToOthers(t *testing.T) {
	all := []candidate{{1, "lo", nil}, {2, "eth0", []netip.Addr{addr("198.51.100.2")}}, {3, "eth1", []netip.Addr{addr("100.64.0.2"), addr("203.0.113.4")}}}
	for what, c := range map[string]struct {
		links Links
		name  string
		addr  string
		err   string
	}{
		"by name":            {links: Links{Names: []string{"eth9", "eth1"}}, name: "eth1", addr: "100.64.0.2"},
		"by address":         {links: Links{Names: []string{"203.0.113.4"}}, name: "eth1", addr: "203.0.113.4"},
		"by pattern of name": {links: Links{Patterns: []string{"eth[1-9]"}}, name: "eth1", addr: "100.64.0.2"},
		"by pattern of addr": {links: Links{Patterns: []string{`198\.51\..*`}}, name: "eth0", addr: "198.51.100.2"},
		"names come first":   {links: Links{Patterns: []string{"eth0"}, Names: []string{"eth1"}}, name: "eth1", addr: "100.64.0.2"},
		"none":               {links: Links{Names: []string{"wlan0"}}, err: "failed to find interface to use that matches the interfaces and/or regexes provided"},
		"left to routes":     {},
	} {
		got, a, err := c.links.pick(all)
		switch {
		case c.err != "":
			if err == nil || err.Error() != c.err {
				t.Errorf("%s: %v", what, err)
			}
		case c.name == "":
			if got != nil || err != nil {
				t.Errorf("%s: %v, %v", what, got, err)
			}
		case err != nil || got.name != c.name || a != addr(c.addr):
			t.Errorf("%s: %v %s, %v", what, got, a, err)
		}
	}
	for _, bad := range []Links{{Patterns: []string{"("}}, {PublicIP: "here"}, {CanReach: "fd00::1"}} {
		if bad.Check() == nil {
			t.Errorf("%+v was accepted", bad)
		}
	}
}

func TestRelayFindsTheNodeAndCountsHops(t *testing.T) {
	peers := map[netip.Prefix]Peer{}
	for pods, n := range map[string]string{"10.1.1.0/24": "100.64.0.3", "10.1.2.0/24": "100.64.0.4", "10.1.2.128/25": "100.64.0.5"} {
		peers[prefix(pods)] = Peer{Node: addr(n), Pods: prefix(pods)}
	}
	tab := newTable(peers, 8285)
	for dst, want := range map[string]string{"10.1.1.9": "100.64.0.3:8285", "10.1.2.9": "100.64.0.4:8285", "10.1.2.200": "100.64.0.5:8285"} {
		if got, ok := tab.find(addr(dst)); !ok || got.String() != want {
			t.Errorf("%s goes to %s, want %s", dst, got, want)
		}
	}
	if _, ok := tab.find(addr("10.1.3.1")); ok {
		t.Error("a range that nobody has goes somewhere")
	}
	if !tab.same(newTable(peers, 8285)) || tab.same(newTable(nil, 8285)) {
		t.Error("tables are compared wrongly")
	}

	packet := make([]byte, 40)
	packet[0], packet[8], packet[9] = 0x45, 64, 17
	copy(packet[12:], []byte{10, 1, 1, 2, 10, 1, 3, 1})
	for ttl := 64; ttl > 1; ttl-- { // the checksum stays right, over every carry
		binary.BigEndian.PutUint16(packet[10:], 0)
		binary.BigEndian.PutUint16(packet[10:], checksum(packet[:20]))
		if dst, ok := age(packet); !ok || dst != addr("10.1.3.1") || int(packet[8]) != ttl-1 || checksum(packet[:20]) != 0 {
			t.Fatalf("hop count %d: %v %v, checksum %x", packet[8], dst, ok, checksum(packet[:20]))
		}
	}
	if _, ok := age(packet); ok {
		t.Error("a packet too old is sent on")
	}
	packet[8] = 9
	if answer := unreachable(packet); len(answer) != 56 || checksum(answer[:20]) != 0 || checksum(answer[20:]) != 0 || answer[20] != 3 {
		t.Errorf("the answer to a packet for nobody: %x", answer)
	}
	packet[9] = 1
	if unreachable(packet) != nil {
		t.Error("ICMP is answered by ICMP")
	}
	for _, bad := range [][]byte{nil, make([]byte, 19), append([]byte{0x60}, make([]byte, 40)...)} {
		if _, ok := age(bad); ok {
			t.Errorf("%x is no IPv4 packet, and was sent on", bad)
		}
	}
}
