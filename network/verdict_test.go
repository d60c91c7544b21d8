package network

import (
	"context"
	"encoding/binary"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	corev1 "k8s.io/api/core/v1"
)

func sceneOf(backend string) scene {
	under := &netlink.Dummy{LinkAttrs: netlink.LinkAttrs{Name: "eth0", MTU: 1500}}
	return scene{site: site{backend: Backend{Type: backend}.withDefaults(), under: under, local: addr("100.64.0.2"), network: prefix("10.244.0.0/16"), pods: prefix("10.244.0.0/24")}}
}

func TestVerdictsNameThePeerAndTheMend(t *testing.T) {
	b := Peer{Name: "b", Node: addr("100.64.0.3"), Pods: prefix("10.244.1.0/24")}
	c := Peer{Name: "c", Node: addr("100.64.0.4"), Pods: prefix("10.244.2.0/24")}
	fine := finding{peer: b, small: arrived, large: arrived, sum: arrived}
	for name, k := range map[string]struct {
		backend string
		all     []finding
		status  corev1.ConditionStatus
		reason  string
		says    []string
		repair  bool
	}{
		"alone":          {VXLAN, nil, "True", "PeersReached", []string{"(0)"}, false},
		"all is well":    {VXLAN, []finding{fine, {peer: c, small: arrived, large: arrived, sum: unknown}}, "True", "PeersReached", []string{"all other nodes (2)", "1450 bytes"}, false},
		"no pods there":  {HostGW, []finding{{peer: b, small: arrived}}, "True", "PeersReached", nil, false},
		"no answer":      {VXLAN, []finding{{peer: c, small: lost}, fine}, "False", "PeerUnreachable", []string{"node c (100.64.0.4): no answer from its pods' range 10.244.2.0/24", "UDP port 8472 pass between 100.64.0.2 and 100.64.0.4"}, false},
		"no answer, udp": {UDP, []finding{{peer: c, small: lost}}, "False", "PeerUnreachable", []string{"UDP port 8285"}, false},
		"two":            {HostGW, []finding{{peer: c, small: lost}, {peer: b, small: lost}}, "False", "PeerUnreachable", []string{"node b (100.64.0.3) and 1 more", "on one link"}, false},
		"too large":      {VXLAN, []finding{{peer: b, small: arrived, large: lost, sum: lost}}, "False", "PacketsTooLarge", []string{"1450 bytes do not arrive", "less than 1500 bytes", "less 50"}, false},
		"spoiled":        {VXLAN, []finding{{peer: b, small: arrived, large: arrived, sum: lost}}, "False", "ChecksumsSpoiled", []string{"node b", "ethtool -K eth0"}, true},
		"the worst":      {VXLAN, []finding{{peer: b, small: arrived, large: arrived, sum: lost}, {peer: c, small: lost}}, "False", "PeerUnreachable", []string{"node c"}, false},
	} {
		s := sceneOf(k.backend)
		got := s.condition(k.all)
		if got.Type != OverlayReachable || got.Status != k.status || got.Reason != k.reason {
			t.Errorf("%s: %s %s", name, got.Status, got.Reason)
		}
		for _, text := range k.says {
			if !strings.Contains(got.Message, text) {
				t.Errorf("%s: no %q in %q", name, text, got.Message)
			}
		}
		if s.spoiled(k.all) != k.repair {
			t.Errorf("%s: repair %v", name, !k.repair)
		}
	}
}

func TestTestsGrowRareWhileAllIsWell(t *testing.T) {
	if pauses(true, 1) != 30*time.Second || pauses(true, 20) != 10*time.Minute || pauses(false, 1) != 2*time.Second || pauses(false, 20) != time.Minute {
		t.Errorf("%s %s %s %s", pauses(true, 1), pauses(true, 20), pauses(false, 1), pauses(false, 20))
	}
}

func TestWhatCountsAsAnAnswer(t *testing.T) {
	target, peer, stranger := addr("10.244.1.1"), addr("100.64.0.3"), addr("100.64.0.9")
	message := func(kind, code byte, id uint32) []byte {
		m := make([]byte, 64)
		m[0], m[1] = kind, code
		binary.BigEndian.PutUint32(m[4:], id)
		return m
	}
	failure := func(code byte, about netip.Addr, id uint32) []byte {
		m := message(3, code, 0)
		copy(m[24:], about.AsSlice())
		binary.BigEndian.PutUint32(m[32:], id)
		return m
	}
	for name, c := range map[string]struct {
		m    []byte
		from netip.Addr
		want reply
	}{
		"the answer":                {message(0, 0, 7), target, answered},
		"to somebody else":          {message(0, 0, 8), target, nothing},
		"from somebody else":        {message(0, 0, 7), stranger, nothing},
		"our own question":          {message(8, 0, 7), target, nothing},
		"no such address there":     {failure(1, target, 7), peer, unreachableThere},
		"a router on the way":       {failure(1, target, 7), stranger, nothing},
		"too large":                 {failure(4, target, 7), peer, nothing},
		"about another destination": {failure(1, stranger, 7), peer, nothing},
		"cut short":                 {[]byte{0, 0, 0}, target, nothing},
	} {
		if got := readReply(c.m, 7, target, peer, &net.IPAddr{IP: c.from.AsSlice()}); got != c.want {
			t.Errorf("%s: %d, want %d", name, got, c.want)
		}
	}
}

func TestAChangeIsTestedAndNothingElse(t *testing.T) {
	p := &prober{wake: newWaker()}
	s := sceneOf(VXLAN)
	s.peers = map[netip.Prefix]Peer{prefix("10.244.1.0/24"): {Name: "b", Node: addr("100.64.0.3")}}
	ctx, cancel := context.WithCancel(t.Context())
	p.see(s)
	if woken, err := p.pause(ctx, -1); !woken || err != nil {
		t.Error("a first scene is not tested")
	}
	p.see(s)
	if woken, err := p.pause(ctx, 0); woken || err != nil {
		t.Error("the same scene is tested again at once")
	}
	if !p.known(addr("10.244.7.1")) || !p.known(addr("100.64.0.3")) || p.known(addr("203.0.113.1")) {
		t.Error("the wrong nodes are answered")
	}
	cancel()
	if _, err := p.pause(ctx, -1); err == nil {
		t.Error("it goes on after its end")
	}
}
