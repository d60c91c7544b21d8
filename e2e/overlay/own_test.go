package overlay

import (
	"fmt"
	"strings"
	"testing"

	"github.com/sampan-dev/sampan/e2e/lab"
)

// conflist is a network of one's own: the standard plugins, one range per node.
const conflist = `{
  "cniVersion": "1.0.0", "name": "own",
  "plugins": [
    {"type": "bridge", "bridge": "own0", "isGateway": true, "ipMasq": true, "hairpinMode": true,
     "ipam": {"type": "host-local", "ranges": [[{"subnet": "RANGE"}]], "routes": [{"dst": "0.0.0.0/0"}]}},
    {"type": "portmap", "capabilities": {"portMappings": true}}
  ]
}
`

// With --flannel-backend=none there is no network until somebody brings one:
// nodes are NotReady with upstream's reason, cluster DNS is Pending. The standard
// plugins and routes made by hand are one.
func TestAnotherNetwork(t *testing.T) {
	if testing.Short() {
		t.Skip("several machines: make e2e")
	}
	all := fleet(t, []string{"master1", "node1"}, "--flannel-backend=none")
	master := all[0]
	master.Sees([]string{`master1 +NotReady`, `node1 +NotReady`}, "get", "nodes")
	for _, name := range []string{"master1", "node1"} {
		master.Sees([]string{"container runtime network not ready: NetworkReady=false reason:NetworkPluginNotReady message:Network plugin returns error: cni plugin not initialized"}, "describe", "node", name)
	}
	master.Sees([]string{`coredns-\S+ +0/1 +Pending`}, "get", "pods", "-n", "kube-system")
	for _, c := range all {
		c.Sh("! ls /etc/cni/net.d/10-sampan.conflist /run/flannel/subnet.env 2>/dev/null && ! ip link show flannel.1 2>/dev/null")
	}
	doctor(master, 1, []string{"error    node node1: NotReady, no network for pods is configured: ", "with --flannel-backend=none put your network's configuration there", "error    machine master1: no network for pods is configured: /etc/cni/net.d is empty"})

	ranges := map[string]string{}
	for _, c := range all {
		// The plugins' directory is the machine's own, not that of the computer below.
		c.Sh("mkdir -p /run/cni /opt/cni/bin && mount --bind /run/cni /opt/cni/bin && mkdir -p /run/programs && " + lab.InBin + " install --bin-dir=/run/programs >/dev/null && ls /opt/cni/bin/bridge /opt/cni/bin/host-local /opt/cni/bin/portmap")
		ranges[c.Host] = master.K("get", "node", c.Host, "-o", "jsonpath={.spec.podCIDR}")
		c.Sh("cp " + c.File("10-own.conflist", strings.ReplaceAll(conflist, "RANGE", ranges[c.Host])) + " /etc/cni/net.d/")
	}
	for i, c := range all {
		to := all[1-i]
		c.Sh(fmt.Sprintf("ip route add %s via %s", ranges[to.Host], to.Addr))
	}
	timed(master, "both nodes Ready with another network", func() { ready(master, "master1", "node1") })
	master.Sees([]string{`coredns-\S+ +1/1 +Running`}, "get", "pods", "-n", "kube-system")
	master.K("apply", "-f", master.File("web.yaml", spread))
	reach(master, all...)
	address := master.K("get", "pods", "-l", "app=web", "--field-selector=spec.nodeName=node1", "-o", "jsonpath={.items[*].status.podIP}")
	if !strings.HasPrefix(address, strings.TrimSuffix(ranges["node1"], "0/24")) {
		t.Errorf("a pod of node1 has the address %s, its range is %s", address, ranges["node1"])
	}
	all[1].Says(all[1].Sh("ip -o link show own0; ls /var/lib/cni/networks/own"), "own0", address)
	doctor(master, 0, []string{"all is well; "})
}
