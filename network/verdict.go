package network

import (
	"cmp"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sampan-dev/sampan/kit/backoff"
	"github.com/sampan-dev/sampan/kit/clock"
)

// OverlayReachable is the node's condition that says whether this node reaches
// the other nodes' pods.
const OverlayReachable corev1.NodeConditionType = "OverlayReachable"

// Reasons of the condition.
const (
	reasonReached   = "PeersReached"
	reasonNoAnswer  = "PeerUnreachable"
	reasonTooLarge  = "PacketsTooLarge"
	reasonChecksums = "ChecksumsSpoiled"
)

// echo is the outcome of one kind of packet.
type echo int

const (
	unknown echo = iota // not tested, or the other node does not answer such
	arrived
	lost
)

// finding is what the test of one peer told.
type finding struct {
	peer  Peer
	small echo // a small packet
	large echo // one as large as pods send, not to be taken apart
	sum   echo // one whose checksum is left to the link
	took  time.Duration
}

// scene is what is tested.
type scene struct {
	site
	peers map[netip.Prefix]Peer
}

// same says that a new scene needs no new test.
func (s scene) same(o scene) bool {
	return s.local == o.local && s.pods == o.pods && s.backend == o.backend && maps.Equal(s.peers, o.peers)
}

// judge says what findings mean: which reason, and about whom. The worst comes
// first, and of several nodes the first by name is told of.
func judge(all []finding) (reason string, about []finding) {
	for _, c := range []struct {
		reason string
		is     func(finding) bool
	}{
		{reasonNoAnswer, func(f finding) bool { return f.small == lost }},
		{reasonTooLarge, func(f finding) bool { return f.large == lost }},
		{reasonChecksums, func(f finding) bool { return f.sum == lost }},
	} {
		for _, f := range all {
			if c.is(f) {
				about = append(about, f)
			}
		}
		if len(about) > 0 {
			slices.SortFunc(about, func(a, b finding) int {
				return cmp.Or(cmp.Compare(a.peer.Name, b.peer.Name), a.peer.Node.Compare(b.peer.Node))
			})
			return c.reason, about
		}
	}
	return reasonReached, nil
}

// condition is the verdict as users see it, with what mends it.
func (s scene) condition(all []finding) corev1.NodeCondition {
	reason, about := judge(all)
	now := metav1.Time{Time: clock.Now()}
	c := corev1.NodeCondition{Type: OverlayReachable, Status: corev1.ConditionTrue, Reason: reason, LastHeartbeatTime: now, LastTransitionTime: now}
	if len(about) == 0 {
		c.Message = fmt.Sprintf("this node reaches the pods of all other nodes (%d) with packets of %d bytes", len(all), s.podMTU())
		return c
	}
	c.Status = corev1.ConditionFalse
	p := about[0].peer
	who := fmt.Sprintf("node %s (%s)", p.Name, p.Node)
	if n := len(about) - 1; n > 0 {
		who += fmt.Sprintf(" and %d more", n)
	}
	switch reason {
	case reasonNoAnswer:
		c.Message = fmt.Sprintf("%s: no answer from its pods' range %s: %s", who, p.Pods, s.mend(p))
	case reasonTooLarge:
		c.Message = fmt.Sprintf("%s: packets of %d bytes do not arrive, smaller ones do: a link on the way carries less than %d bytes; set the backend's MTU to what it carries less %d, on all nodes",
			who, s.podMTU(), s.podMTU()+s.backend.overhead(), s.backend.overhead())
	case reasonChecksums:
		c.Message = fmt.Sprintf("%s: packets arrive with spoiled checksums though the offload of %s is off: switch off that of %s too (ethtool -K %s tx-checksum-ip-generic off)",
			who, tunnelName(s.backend.VNI), s.under.Attrs().Name, s.under.Attrs().Name)
	}
	return c
}

// mend says what usually keeps a backend's packets from arriving.
func (s scene) mend(p Peer) string {
	switch s.backend.Type {
	case HostGW:
		return fmt.Sprintf("host-gw needs both nodes on one link, without a filter for addresses of pods between %s and %s; use vxlan elsewhere", s.local, p.Node)
	default:
		return fmt.Sprintf("is that node up, and does UDP port %d pass between %s and %s?", s.backend.Port, s.local, p.Node)
	}
}

// spoiled says that what is wrong is what a tunnel's checksum offload does wrong.
func (s scene) spoiled(all []finding) bool {
	reason, _ := judge(all)
	return s.backend.Type == VXLAN && reason == reasonChecksums
}

// pauses are how long to wait before the next test: long while all is well.
func pauses(well bool, tests int) time.Duration {
	if well {
		return backoff.Policy{First: 30 * time.Second, Max: 10 * time.Minute}.After(tests)
	}
	return backoff.Policy{First: 2 * time.Second, Max: time.Minute}.After(tests)
}
