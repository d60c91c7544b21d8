package overlay

import (
	"encoding/base64"
	"fmt"
	"regexp"
	"strings"
	"testing"

	"github.com/sampan-dev/sampan/e2e/lab"
)

// TestByHand is flannel as it was run before there were manifests: etcd has the
// network's configuration, flanneld's own comes from /etc/sysconfig/flanneld, and
// a bridge is made of what subnet.env says.
func TestByHand(t *testing.T) {
	if testing.Short() {
		t.Skip("several machines: make e2e")
	}
	b64 := func(s string) string { return base64.StdEncoding.EncodeToString([]byte(s)) }
	const key, value = "/coreos.com/network/config", `{ "Network": "192.168.0.0/16" }`
	for name, set := range map[string][]string{
		"v3": {"http://127.0.0.1:2379/v3/kv/put", "-d", fmt.Sprintf(`{"key":%q,"value":%q}`, b64(key), b64(value))},
		"v2": {"http://127.0.0.1:2379/v2/keys" + key, "-XPUT", "--data-urlencode", "value=" + value},
	} {
		t.Run(name, func(t *testing.T) { byHand(t, set) })
	}
}

// byHand begins with a network's configuration set by curl.
func byHand(t *testing.T, set []string) {
	l := lab.New(t)
	master, node := l.Machine("srv-k8s-master1"), l.Machine("srv-k8s-node1")
	master.Start("etcd", lab.InBin, "etcd", "--data-dir=/run/etcd", "--listen-client-urls=http://0.0.0.0:2379", "--advertise-client-urls=http://"+master.Addr.String()+":2379",
		"--listen-peer-urls=http://127.0.0.1:2380")
	master.Answers("http://127.0.0.1:2379/health", `"health":"true"`)
	sysconfig := fmt.Sprintf("FLANNEL_ETCD_ENDPOINTS=\"http://%s:2379\"\nFLANNEL_ETCD_PREFIX=\"/coreos.com/network\"\n", master.Addr)
	all := []*lab.Machine{master, node}
	for _, m := range all {
		file := m.File("flanneld", sysconfig)
		m.Start("flanneld", "sh", "-c", "set -a; . "+file+"; exec "+lab.InBin+" flanneld -iface=eth0")
	}
	lab.Until(t, "flanneld waits for its configuration", func() error {
		if said := master.Said("flanneld"); !strings.Contains(said, "Couldn't fetch network config") {
			return fmt.Errorf("%s", said)
		}
		return nil
	})
	master.Do(append([]string{"curl", "-sf"}, set...)...)

	bridges := map[string]string{}
	for _, m := range all {
		env := regexp.MustCompile(`^FLANNEL_NETWORK=192\.168\.0\.0/16\nFLANNEL_SUBNET=(192\.168\.\d+\.1)/24\nFLANNEL_MTU=1472\nFLANNEL_IPMASQ=false\n$`)
		lab.Until(t, "subnet.env of "+m.Host, func() error {
			out, err := m.Try("cat", "/run/flannel/subnet.env")
			if found := env.FindStringSubmatch(out); found != nil {
				bridges[m.Host] = found[1]
				return nil
			}
			return fmt.Errorf("%v: %s", err, out)
		})
		m.Says(m.Sh("ip addr show flannel0"), "inet "+strings.TrimSuffix(bridges[m.Host], "1")+"0/16", "mtu 1472")
		m.Says(m.Sh("ip route"), "192.168.0.0/16 dev flannel0")
		m.Sh(". /run/flannel/subnet.env; ip link add docker0 type bridge; ip addr add $FLANNEL_SUBNET dev docker0; ip link set docker0 mtu $FLANNEL_MTU up")
	}
	across := func() {
		t.Helper()
		for _, from := range all {
			for _, to := range all {
				lab.Until(t, from.Host+" reaches the containers of "+to.Host, func() error {
					// Nothing listens there: to be refused is to be answered.
					out, err := from.Try("timeout", "5", "bash", "-c", "exec 3<>/dev/tcp/"+bridges[to.Host]+"/9")
					if !strings.Contains(out, "Connection refused") {
						return fmt.Errorf("%v: %s", err, out)
					}
					return nil
				})
			}
		}
	}
	across()

	// A node that comes again has the range it had; one that answers no more is not forgotten by the others at once.
	node.Stop("flanneld", "TERM")
	node.Sh("while ip link show flannel0 >/dev/null 2>&1; do sleep 0.1; done")
	node.Start("flanneld", lab.InBin, "flanneld", "--etcd-endpoints=http://100.64.0.2:2379", "--iface=eth0")
	node.Sh("for i in $(seq 300); do ip link show flannel0 >/dev/null 2>&1 && exit 0; sleep 0.2; done; exit 1")
	node.Says(node.Sh("cat /run/flannel/subnet.env"), "FLANNEL_SUBNET="+bridges[node.Host]+"/24\n")
	across()

	// The node changes its address: its range stays, the other follows.
	node.Sh("ip addr del 100.64.0.3/24 dev eth0; ip addr add 100.64.0.77/24 dev eth0")
	across()
}
