package overlay

import (
	"fmt"
	"regexp"
	"strings"
	"testing"

	"github.com/sampan-dev/sampan/e2e/lab"
)

// pair is a cluster of two computers made by kubeadm, without a network yet.
func pair(t *testing.T) (master, node *lab.Computer) {
	t.Helper()
	l := lab.New(t)
	master, node = l.Computer("master1"), l.Computer("node1")
	master.Do("kubeadm", "init", "--pod-network-cidr=10.244.0.0/16", "--apiserver-advertise-address="+master.Addr.String())
	line := strings.Fields(strings.ReplaceAll(strings.TrimSpace(master.Do("kubeadm", "token", "create", "--print-join-command", "--ttl=0")), "\\\n", " "))
	node.Do(line...)
	master.Sees([]string{`master1 +NotReady`, `node1 +NotReady`}, "get", "nodes")
	return master, node
}

// spread runs nginx on both computers behind a service, reachable at a node port.
const spread = `
apiVersion: apps/v1
kind: DaemonSet
metadata: {name: web}
spec:
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      tolerations: [{operator: Exists}]
      terminationGracePeriodSeconds: 0
      containers: [{name: web, image: nginx:1.25, imagePullPolicy: IfNotPresent}]
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec:
  type: NodePort
  selector: {app: web}
  ports: [{port: 80, nodePort: 30080}]
`

// reach asks each pod from all computers, and from a pod on each.
func reach(master *lab.Computer, all ...*lab.Computer) {
	master.Helper()
	for _, from := range all {
		for _, to := range all {
			lab.Within(master, 2*lab.Limit, from.Host+" and a pod on it reach the pod on "+to.Host, func() error {
				// Asked for each time: a pod has another address after a reboot.
				ip, err := master.Kubectl("get", "pods", "-l", "app=web", "--field-selector=status.phase=Running,spec.nodeName="+to.Host, "-o", "jsonpath={.items[*].status.podIP}")
				if err != nil || ip == "" {
					return fmt.Errorf("%v: %s", err, ip)
				}
				for _, ask := range []string{"", "nsenter -n -t $(pidof nginx | cut -d' ' -f1) "} {
					if out, err := from.Try("sh", "-c", ask+"curl -s --max-time 5 http://"+ip+"/"); err != nil || !strings.Contains(out, "Welcome to nginx") {
						return fmt.Errorf("%s at %s: %v: %s", ask, ip, err, out)
					}
				}
				return nil
			})
		}
	}
}

// TestManifest is `kubectl apply -f kube-flannel.yml` with each backend.
func TestManifest(t *testing.T) {
	if testing.Short() {
		t.Skip("several machines: make e2e")
	}
	for _, b := range []struct{ name, route, mtu string }{
		{"vxlan", `10\.244\.1\.0/24 via 10\.244\.1\.0 dev flannel\.1 .*onlink`, "1450"},
		{"host-gw", `10\.244\.1\.0/24 via 100\.64\.0\.3 dev eth0`, "1500"},
		{"udp", `10\.244\.0\.0/16 dev flannel0`, "1472"},
	} {
		t.Run(b.name, func(t *testing.T) {
			master, node := pair(t)
			master.Sees([]string{"cni plugin not initialized|cni config uninitialized|network plugin is not ready"}, "describe", "node", "master1")
			master.Sees([]string{`coredns-\S+ +0/1 +Pending`}, "get", "pods", "-n", "kube-system")
			said := master.K("apply", "-f", master.File("kube-flannel.yml", manifest(b.name)))
			master.Says(said, "namespace/kube-flannel created", "clusterrole.rbac.authorization.k8s.io/flannel created", "clusterrolebinding.rbac.authorization.k8s.io/flannel created",
				"serviceaccount/flannel created", "configmap/kube-flannel-cfg created", "daemonset.apps/kube-flannel-ds created")
			master.Sees([]string{`master1 +Ready`, `node1 +Ready`}, "get", "nodes")
			master.Sees([]string{`kube-flannel-ds-\S+ +1/1 +Running`}, "get", "pods", "-n", "kube-flannel")
			master.Sees([]string{`coredns-\S+ +1/1 +Running`}, "get", "pods", "-n", "kube-system")
			master.Sees([]string{`"False FlannelIsUp Flannel is running on this node"`}, "get", "node", "node1", "-o",
				`jsonpath="{range .status.conditions[?(@.type=='NetworkUnavailable')]}{.status} {.reason} {.message}{end}"`)
			master.Sees([]string{`flannel.alpha.coreos.com/backend-type: ` + b.name, `flannel.alpha.coreos.com/public-ip: 100\.64\.0\.3`, `flannel.alpha.coreos.com/kube-subnet-manager: "?true`},
				"get", "node", "node1", "-o", "yaml")
			// A node may be Ready a moment before its flanneld is: pods wait for the file.
			const file = "FLANNEL_NETWORK=10.244.0.0/16\nFLANNEL_SUBNET=10.244.0.1/24\nFLANNEL_MTU=%s\nFLANNEL_IPMASQ=true\n"
			prints(master, "^"+fmt.Sprintf(file, b.mtu)+"$", "cat", "/run/flannel/subnet.env")
			prints(master, b.route, "ip", "route")
			master.K("apply", "-f", master.File("web.yaml", spread))
			reach(master, master, node)
			masked(master, node)
			for _, c := range []*lab.Computer{master, node} {
				c.Answers("http://"+strings.TrimSpace(master.K("get", "service", "web", "-o", "jsonpath={.spec.clusterIP}"))+"/", "Welcome to nginx")
				c.Answers("http://100.64.0.2:30080/", "Welcome to nginx")
			}
			verdict(master, "master1", "True PeersReached this node reaches the pods of all other nodes (1)")
			verdict(master, "node1", "True PeersReached")
			if b.name == "vxlan" {
				selftest(master, node)
			}
			life(master, node, b.name)
		})
	}
}

// prints waits until a command on the computer prints what fits.
func prints(c *lab.Computer, want string, argv ...string) {
	c.Helper()
	lab.Until(c, strings.Join(argv, " "), func() error {
		out, err := c.Try(argv...)
		if err != nil || !regexp.MustCompile(want).MatchString(out) {
			return fmt.Errorf("%v: no %q in:\n%s", err, want, out)
		}
		return nil
	})
}

// verdict waits until a node says that of the overlay.
func verdict(master *lab.Computer, name, want string) {
	master.Helper()
	lab.Within(master, 4*lab.Limit, name+" says "+want, func() error {
		out, err := master.Kubectl("get", "node", name, "-o", "jsonpath={range .status.conditions[?(@.type=='OverlayReachable')]}{.status} {.reason} {.message}{end}")
		if err != nil || !strings.Contains(out, want) {
			return fmt.Errorf("%v: %s", err, out)
		}
		return nil
	})
}

// selftest spoils the way between the nodes in three manners, one after the
// other, and puts it in order again.
func selftest(master, node *lab.Computer) {
	master.Helper()
	spoil := func(rule string) {
		node.Sh("nft delete table ip spoil 2>/dev/null; nft add table ip spoil; nft 'add chain ip spoil in { type filter hook input priority 0; }'; nft 'add rule ip spoil in " + rule + " drop'")
		// A flanneld that starts tests at once, one that was content only after a while.
		master.K("delete", "pod", "-n", "kube-flannel", "-l", "app=flannel", "--field-selector=spec.nodeName=master1")
	}
	spoil("udp dport 8474")
	verdict(master, "master1", "False ChecksumsSpoiled node node1 (100.64.0.3)")
	prints(master, "the link's offload is switched off", "sh", "-c", "cat /var/log/pods/kube-flannel_*/kube-flannel/*.log")
	master.Sh("! command -v ethtool || ethtool -k flannel.1 | grep -q 'tx-checksumming: off'")
	spoil("udp dport 8472 meta length > 1400")
	verdict(master, "master1", "False PacketsTooLarge node node1 (100.64.0.3): packets of 1450 bytes do not arrive, smaller ones do")
	spoil("udp dport 8472")
	verdict(master, "master1", "False PeerUnreachable node node1 (100.64.0.3): no answer from its pods' range 10.244.1.0/24")
	node.Sh("nft delete table ip spoil")
	verdict(master, "master1", "True PeersReached")
}

// life is what happens to nodes: one reboots, one leaves.
func life(master, node *lab.Computer, backend string) {
	master.Helper()
	node.Reboot()
	master.Sees([]string{`node1 +Ready`}, "get", "nodes")
	reach(master, master, node)
	if backend != "vxlan" {
		return
	}
	mac := regexp.MustCompile(`\S+ dst 100\.64\.0\.3`)
	prints(master, mac.String(), "bridge", "fdb", "show", "dev", "flannel.1")
	// What somebody takes away comes back.
	master.Sh("ip route del 10.244.1.0/24")
	prints(master, `10\.244\.1\.0/24`, "ip", "route")
	node.StopKubelet()
	node.PowerOff()
	master.K("delete", "node", "node1")
	lab.Until(master, "all traces of a node that left are gone", func() error {
		routes, fdb, neighbours := master.Sh("ip route"), master.Sh("bridge fdb show dev flannel.1"), master.Sh("ip neigh show dev flannel.1")
		if strings.Contains(routes, "10.244.1.0") || mac.MatchString(fdb) || strings.Contains(neighbours, "10.244.1.0") {
			return fmt.Errorf("%s\n%s\n%s", routes, fdb, neighbours)
		}
		return nil
	})
}
