package doctor

import (
	"cmp"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"

	certificatesv1 "k8s.io/api/certificates/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/version"
)

// condition returns a node's condition, nil if it has none of that type.
func condition(n *corev1.Node, t corev1.NodeConditionType) *corev1.NodeCondition {
	for i := range n.Status.Conditions {
		if n.Status.Conditions[i].Type == t {
			return &n.Status.Conditions[i]
		}
	}
	return nil
}

// restart is the command by which a node's kubelet runs again.
func (f *Facts) restart(n *corev1.Node) string {
	if up := f.upAgain(n.Name); up != "" {
		return up
	}
	if f.Target.Name != "" {
		return fmt.Sprintf("sampan exec --cluster %s --node %s -- ps aux; then sampan down %[1]s && sampan up %[1]s", f.Target.Name, n.Name)
	}
	if _, ok := n.Annotations["kubeadm.alpha.kubernetes.io/cri-socket"]; ok {
		return "on " + n.Name + ": systemctl restart kubelet; if it does not stay: journalctl -u kubelet -n 30"
	}
	return "on " + n.Name + ": systemctl restart kubelet, or start `sampan server` again; a machine that is gone for good: kubectl delete node " + n.Name
}

func checkKubelets(f *Facts, p pen) {
	if f.Cluster == nil {
		return
	}
	if len(f.Cluster.Nodes) == 0 && f.Cluster.Unread["nodes"] == nil {
		p.fail("nodes", "kubeadm token create --print-join-command and run that on a machine; or sampan server --join", "the cluster has none")
	}
	for _, n := range f.Cluster.Nodes {
		about := "node " + n.Name
		c := condition(n, corev1.NodeReady)
		switch {
		case c == nil:
			p.fail(about, f.restart(n), "its kubelet has never reported")
		case c.Status == corev1.ConditionUnknown:
			p.fail(about, f.restart(n), "its kubelet has not reported for %s (%s)", ago(f.Cluster.Time.Sub(c.LastHeartbeatTime.Time)), c.Reason)
		case c.Status == corev1.ConditionFalse && unconnected(c.Message):
			p.fail(about, f.network(n), "NotReady, no network for pods is configured: %s", c.Message)
		case c.Status == corev1.ConditionFalse:
			p.fail(about, f.restart(n), "NotReady (%s): %s", c.Reason, c.Message)
		}
		if n.Spec.Unschedulable {
			p.note(about, "kubectl uncordon "+n.Name, "it is cordoned: no new pods")
		}
	}
}

// unconnected says that a kubelet's message means there is no CNI configuration.
func unconnected(message string) bool {
	return strings.Contains(message, "cni plugin not initialized") || strings.Contains(message, "cni config uninitialized") || strings.Contains(message, "NetworkPluginNotReady")
}

// network is the command by which a node gets a network.
func (f *Facts) network(n *corev1.Node) string {
	if _, ok := n.Annotations["kubeadm.alpha.kubernetes.io/cri-socket"]; ok {
		return "kubectl apply -f kube-flannel.yml (or another network's manifest); if it is applied: kubectl get pods -A -o wide --field-selector spec.nodeName=" + n.Name
	}
	return "on " + n.Name + ": ls /etc/cni/net.d; with --flannel-backend=none put your network's configuration there, else see the log of `sampan server`"
}

func checkPressure(f *Facts, p pen) {
	if f.Cluster == nil {
		return
	}
	mends := map[corev1.NodeConditionType]string{
		corev1.NodeDiskPressure:   "there: df -h; du -xsh /var/lib/* /var/log/*; journalctl --vacuum-size=200M (unused images go by themselves)",
		corev1.NodeMemoryPressure: "kubectl top pods -A --sort-by=memory; set memory limits, or move pods: kubectl drain",
		corev1.NodePIDPressure:    "there: ps -eLf | awk '{print $1}' | sort | uniq -c | sort -n | tail; set podPidsLimit",
	}
	for _, n := range f.Cluster.Nodes {
		for _, t := range []corev1.NodeConditionType{corev1.NodeDiskPressure, corev1.NodeMemoryPressure, corev1.NodePIDPressure} {
			if c := condition(n, t); c != nil && c.Status == corev1.ConditionTrue {
				p.fail("node "+n.Name, mends[t], "%s: pods are evicted: %s", t, c.Message)
			}
		}
	}
}

// overlayReachable is the condition that each node's network writes of the others.
const overlayReachable corev1.NodeConditionType = "OverlayReachable"

// checkOverlay tells what nodes say of the ways to each other. A node that is
// down is told of by checkKubelets, not once more by each other node.
func checkOverlay(f *Facts, p pen) {
	if f.Cluster == nil {
		return
	}
	down := map[string]bool{}
	for _, n := range f.Cluster.Nodes {
		c := condition(n, corev1.NodeReady)
		down[n.Name] = c == nil || c.Status != corev1.ConditionTrue
	}
	for _, n := range f.Cluster.Nodes {
		if c := condition(n, corev1.NodeNetworkUnavailable); c != nil && c.Status == corev1.ConditionTrue {
			p.fail("node "+n.Name, f.network(n), "its network is not there (%s): %s", c.Reason, c.Message)
		}
		c := condition(n, overlayReachable)
		if c == nil || c.Status != corev1.ConditionFalse || down[n.Name] || down[peer(c.Message)] {
			continue
		}
		var mend string
		switch c.Reason {
		case "PacketsTooLarge":
			mend = "set the MTU in net-conf.json of ConfigMap kube-flannel-cfg: \"Backend\": {\"Type\": \"vxlan\", \"MTU\": …} and restart its pods; or raise the link's: ip link set eth0 mtu 1500"
		case "ChecksumsSpoiled":
			mend = "on both nodes: ethtool -K flannel.1 tx-checksum-ip-generic off, and on the link that the message names"
		default:
			mend = fmt.Sprintf("on both nodes: nft list ruleset | grep -e drop -e reject; firewall-cmd --add-port=8472/udp --permanent && firewall-cmd --reload; ip route get %s", address(c.Message))
		}
		p.fail("overlay from node "+n.Name, mend, "%s: %s", c.Reason, c.Message)
	}
}

// peerName is how a verdict names the other node: "node NAME (ADDRESS)…".
var peerName = regexp.MustCompile(`^node (\S+) \(([0-9.]+)\)`)

func peer(message string) string {
	if m := peerName.FindStringSubmatch(message); m != nil {
		return m[1]
	}
	return ""
}

func address(message string) string {
	if m := peerName.FindStringSubmatch(message); m != nil {
		return m[2]
	}
	return "ADDRESS"
}

// Bounds of clocks: a lease is renewed every 10 s, and stamped by its node.
const (
	renewal  = 10 * time.Second
	skewWarn = 10 * time.Second
	skewFail = 5 * time.Minute
)

// checkClocks compares the clocks of nodes and of this machine with the API
// server's. A lease stamped later than now comes from a clock that is ahead; one
// stamped long ago, of a node that is known to renew it, from one that is behind.
func checkClocks(f *Facts, p pen) {
	if f.Cluster == nil {
		return
	}
	ready := map[string]bool{}
	for _, n := range f.Cluster.Nodes {
		c := condition(n, corev1.NodeReady)
		ready[n.Name] = c != nil && c.Status == corev1.ConditionTrue
	}
	tell := func(about, where string, skew time.Duration) {
		way := "ahead of"
		if skew < 0 {
			skew, way = -skew, "behind"
		}
		write := p.warn
		if skew >= skewFail {
			write = p.fail
		}
		if skew >= skewWarn {
			write(about, where+"chronyc makestep (or timedatectl set-ntp true)", "its clock is %s %s the API server's: certificates and tokens may not be valid there", ago(skew), way)
		}
	}
	for _, l := range f.Cluster.NodeLeases {
		if l.Spec.RenewTime == nil || !ready[l.Name] {
			continue
		}
		skew := l.Spec.RenewTime.Sub(f.Cluster.Time)
		if skew < 0 { // it is renewed, perhaps a grace period of 40 s ago
			skew = min(0, skew+renewal+40*time.Second)
		}
		tell("node "+l.Name, "on "+l.Name+": ", skew)
	}
	if f.Target.Name == "" && !f.Target.Local {
		tell("this machine", "", -f.Target.Ahead)
	}
}

func checkVersions(f *Facts, p pen) {
	if f.Cluster == nil || f.Cluster.Version == "" {
		return
	}
	server, err := version.ParseGeneric(f.Cluster.Version)
	if err != nil {
		return
	}
	for _, n := range f.Cluster.Nodes {
		v, err := version.ParseGeneric(n.Status.NodeInfo.KubeletVersion)
		if err != nil {
			continue
		}
		switch {
		case v.Major() == server.Major() && v.Minor() > server.Minor():
			p.fail("node "+n.Name, "kubeadm upgrade apply "+n.Status.NodeInfo.KubeletVersion+" on a control plane (kubelets come after it)", "its kubelet %s is newer than the API server %s", n.Status.NodeInfo.KubeletVersion, f.Cluster.Version)
		case v.Major() == server.Major() && v.Minor()+3 < server.Minor():
			p.fail("node "+n.Name, fmt.Sprintf("kubectl drain %s --ignore-daemonsets, there: kubeadm upgrade node and the new kubelet, kubectl uncordon %[1]s", n.Name), "its kubelet %s is more than three minor versions older than the API server %s", n.Status.NodeInfo.KubeletVersion, f.Cluster.Version)
		case v.Minor() != server.Minor():
			p.note("node "+n.Name, "on "+n.Name+": kubeadm upgrade node and the new kubelet", "its kubelet is %s, the API server %s", n.Status.NodeInfo.KubeletVersion, f.Cluster.Version)
		}
	}
}

// checkAddresses sees that no two nodes have the same address or range, and that
// all have a range where one has.
func checkAddresses(f *Facts, p pen) {
	if f.Cluster == nil {
		return
	}
	nodes := slices.SortedFunc(slices.Values(f.Cluster.Nodes), func(a, b *corev1.Node) int { return cmp.Compare(a.Name, b.Name) })
	addresses, ranges := map[string]string{}, map[string]string{}
	for _, n := range nodes {
		for _, a := range n.Status.Addresses {
			if a.Type != corev1.NodeInternalIP {
				continue
			}
			if other := addresses[a.Address]; other != "" {
				p.fail("node "+n.Name, "kubectl delete node "+other+" if it is the same machine under an earlier name; else give one of them another --node-ip", "it has the address %s, as node %s has", a.Address, other)
			}
			addresses[a.Address] = n.Name
		}
		if n.Spec.PodCIDR == "" {
			continue
		}
		if other := ranges[n.Spec.PodCIDR]; other != "" {
			p.fail("node "+n.Name, "kubectl drain and kubectl delete node "+n.Name+", and join it again", "it has the pods' range %s, as node %s has", n.Spec.PodCIDR, other)
		}
		ranges[n.Spec.PodCIDR] = n.Name
	}
	for _, n := range nodes {
		if n.Spec.PodCIDR == "" && len(ranges) > 0 {
			p.fail("node "+n.Name, "kube-controller-manager --allocate-node-cidrs=true --cluster-cidr with a range large enough for all nodes (kubeadm: --pod-network-cidr)", "it has no range for its pods, others have one")
		}
	}
}

// checkRequests tells of certificates that nobody approved.
func checkRequests(f *Facts, p pen) {
	if f.Cluster == nil {
		return
	}
	waiting := map[string][]string{}
	for _, r := range f.Cluster.Requests {
		if len(r.Status.Certificate) == 0 && len(r.Status.Conditions) == 0 && f.Cluster.Time.Sub(r.CreationTimestamp.Time) > time.Minute {
			key := r.Spec.Username + " by " + r.Spec.SignerName
			waiting[key] = append(waiting[key], r.Name)
			if r.Spec.SignerName == certificatesv1.KubeAPIServerClientKubeletSignerName {
				p.fail("certificate request "+r.Name, "kubectl certificate approve "+r.Name, "a node waits for its first certificate (%s): it cannot join", r.Spec.Username)
				delete(waiting, key)
			}
		}
	}
	for _, key := range sorted(waiting) {
		p.warn("certificate request "+waiting[key][0], "kubectl certificate approve "+strings.Join(waiting[key], " "), "%s of %s waits to be approved", plural(len(waiting[key]), "request"), key)
	}
}
