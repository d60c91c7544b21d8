package overlay

import (
	"fmt"
	"strings"
	"testing"

	"github.com/sampan-dev/sampan/e2e/lab"
)

// ways are what a machine's kernel holds towards other nodes' pods.
func ways(c *lab.Computer) string {
	c.Helper()
	return c.Sh("ip route show proto 83; bridge fdb show dev flannel.1; ip neigh show dev flannel.1 nud permanent")
}

// leads waits until the ways to node1 are those to an address, or none.
func leads(master *lab.Computer, address string) {
	master.Helper()
	lab.Within(master, 2*lab.Limit, "the ways to node1 lead to "+address, func() error {
		w := ways(master)
		there := strings.Count(w, "10.244.1.0") == 3 && strings.Contains(w, "dst "+address+" ") && strings.Count(w, " dst 100.64.0.") == 1
		if address == "" {
			there = !strings.Contains(w, "10.244.1.0") && !strings.Contains(w, " dst 100.64.0.")
		}
		if !there {
			return fmt.Errorf("%s", w)
		}
		return nil
	})
}

// A node changes its address, its cable carries less, lets no tunnel pass, is
// cut; it reboots, and leaves: the others' routes, neighbours and forwarding
// entries follow, conditions and the doctor say what is wrong meanwhile. How long
// each takes is printed.
func TestRoutesFollow(t *testing.T) {
	if testing.Short() {
		t.Skip("several machines: make e2e")
	}
	all := fleet(t, []string{"master1", "node1"})
	master, node := all[0], all[1]
	ready(master, "master1", "node1")
	master.K("apply", "-f", master.File("web.yaml", spread))
	reach(master, all...)
	leads(master, "100.64.0.3")
	masked(master, node)
	speed(master, node, "vxlan")
	verdict(master, "master1", "True PeersReached this node reaches the pods of all other nodes (1) with packets of 1450 bytes")

	sink(node)
	node.Sh("ip addr del 100.64.0.3/24 dev eth0; ip addr add 100.64.0.77/24 dev eth0; ip route replace default via 100.64.0.1 dev eth0")
	timed(master, "a node with another address: the others' entries follow after", func() {
		sail(node)
		leads(master, "100.64.0.77")
	})
	timed(master, "and pods of both reach each other after", func() { reach(master, all...) })
	master.Sees([]string{`node1 +Ready .* 100\.64\.0\.77 `}, "get", "nodes", "-o", "wide")
	verdict(master, "node1", "True PeersReached")

	// A test runs at once when the network's program starts.
	again := func() { sink(master); sail(master) }
	node.Narrow(1400)
	again()
	timed(master, "a cable that carries less is told of after", func() {
		verdict(master, "master1", "False PacketsTooLarge node node1 (100.64.0.77): packets of 1450 bytes do not arrive, smaller ones do")
	})
	doctor(master, 1, []string{"error    overlay from node master1: PacketsTooLarge: node node1 (100.64.0.77): packets of 1450 bytes do not arrive", "  ->  set the MTU"})
	node.Narrow(1500)
	timed(master, "and that it carries all again after", func() { verdict(master, "master1", "True PeersReached") })

	node.Sh("nft add table ip spoil; nft 'add chain ip spoil in { type filter hook input priority 0; }'; nft 'add rule ip spoil in udp dport 8472 drop'")
	again()
	timed(master, "a tunnel that does not pass is told of after", func() {
		verdict(master, "master1", "False PeerUnreachable node node1 (100.64.0.77): no answer from its pods' range 10.244.1.0/24: is that node up, and does UDP port 8472 pass between 100.64.0.2 and 100.64.0.77?")
	})
	doctor(master, 1, []string{"error    overlay from node master1: PeerUnreachable: node node1 (100.64.0.77): no answer", "8472/udp"})
	node.Sh("nft delete table ip spoil")
	timed(master, "and that it passes again after", func() { verdict(master, "master1", "True PeersReached") })
	doctor(master, 0, []string{"all is well; "})

	node.CutOff()
	timed(master, "a node that is cut off is NotReady after", func() { master.Sees([]string{`node1 +NotReady`}, "get", "nodes") })
	doctor(master, 1, []string{"error    node node1: its kubelet has not reported for "})
	node.Reconnect()
	timed(master, "and Ready again after", func() { ready(master, "node1") })

	// A machine that boots has the address that it was made with.
	node.PowerOff()
	node.Boot()
	timed(master, "a node that boots, at its old address again: the others' entries follow after", func() {
		sail(node)
		leads(master, "100.64.0.3")
	})
	timed(master, "and pods of both reach each other after", func() { reach(master, all...) })

	node.PowerOff()
	master.K("delete", "node", "node1")
	timed(master, "a node that left: the others' entries are gone after", func() { leads(master, "") })
}
