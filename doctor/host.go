package doctor

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
)

type storageClass = storagev1.StorageClass

func (m *Machine) subject() string { return "machine " + m.Hostname }

// checkHost looks at what a kernel must do for nodes.
func checkHost(f *Facts, p pen) {
	m := f.Machine
	if m == nil {
		return
	}
	for _, lack := range m.Lacks {
		what, mend, _ := strings.Cut(lack, ": ")
		p.fail(m.subject(), mend, "%s", what)
	}
	if m.NFTables != nil {
		p.fail(m.subject(), "modprobe nf_tables (in a container: give it CAP_NET_ADMIN)", "nf_tables cannot be used, and services with it: %v", m.NFTables)
	}
	if m.Kind == NoNode {
		return
	}
	if m.Forwarding != "1" && m.Forwarding != "" {
		p.fail(m.subject(), "sysctl -w net.ipv4.ip_forward=1; echo net.ipv4.ip_forward=1 > /etc/sysctl.d/90-kubernetes.conf", "net.ipv4.ip_forward is %s: its pods reach no other machine", m.Forwarding)
	}
	if m.BridgeFilter == "0" && m.CNI.Flannel {
		p.note(m.subject(), "sysctl -w net.bridge.bridge-nf-call-iptables=1", "bridged packets do not pass nftables: pods of this node do not reach each other by services of other proxies than Sampan's")
	}
	if m.Swap && !m.SwapTaken {
		p.warn(m.subject(), "swapoff -a, and take it out of /etc/fstab; or failSwapOn: false in the kubelet's configuration", "swap is on: pods' memory limits do not hold")
	}
	if m.Unsynced {
		p.note(m.subject(), "systemctl enable --now chronyd (or timedatectl set-ntp true)", "nobody keeps its clock")
	}
}

// nearly says that more than nine tenths of a limit are taken.
func nearly(used, limit int64) bool { return limit > 0 && used > limit/10*9 }

// Least limits of inotify: each kubelet, proxy and container's tail takes one.
const (
	leastInstances = 256
	leastWatches   = 65536
)

func checkLimits(f *Facts, p pen) {
	m := f.Machine
	if m == nil {
		return
	}
	about := m.subject()
	switch {
	case nearly(m.Instances, m.MaxInstances):
		p.fail(about, "sysctl -w fs.inotify.max_user_instances=8192", "%d of %d inotify instances are taken: \"too many open files\"", m.Instances, m.MaxInstances)
	case m.MaxInstances > 0 && m.MaxInstances < leastInstances:
		p.note(about, "sysctl -w fs.inotify.max_user_instances=8192", "fs.inotify.max_user_instances is %d: several nodes on one computer, or many pods that follow files, need more", m.MaxInstances)
	}
	if m.MaxWatches > 0 && m.MaxWatches < leastWatches {
		p.note(about, "sysctl -w fs.inotify.max_user_watches=524288", "fs.inotify.max_user_watches is %d", m.MaxWatches)
	}
	for _, l := range []struct {
		used, limit   int64
		what, setting string
		means         string
	}{
		{m.Tracked, m.MaxTracked, "tracked connections", "net.netfilter.nf_conntrack_max", "new connections are dropped when it is full"},
		{m.Tasks, m.MaxTasks, "tasks", "kernel.pid_max", "no process can be started when it is full"},
		{m.Files, m.MaxFiles, "open files", "fs.file-max", "no file can be opened when it is full"},
	} {
		if nearly(l.used, l.limit) {
			p.fail(about, fmt.Sprintf("sysctl -w %s=%d", l.setting, l.limit*2), "%d of %d %s: %s", l.used, l.limit, l.what, l.means)
		}
	}
	if m.Memory > 0 && m.Available < 100<<20 {
		p.fail(about, "ps aux --sort=-rss | head; add memory or move pods", "only %s of %s of memory is available", human(m.Available), human(m.Memory))
	}
}

func checkDisks(f *Facts, p pen) {
	if f.Machine == nil {
		return
	}
	for _, d := range f.Machine.Disks {
		about := "disk of " + d.Path
		find := fmt.Sprintf("du -xh --max-depth=2 %s | sort -h | tail", d.Path)
		switch {
		case d.ReadOnly:
			p.fail(about, "dmesg | tail; mount -o remount,rw "+d.Path, "it is mounted read-only")
		case d.Size > 0 && d.Free < d.Size/20 && d.Free < 2<<30:
			p.fail(about, find, "%s of %s is free: etcd and images need more, and pods are evicted", human(int64(d.Free)), human(int64(d.Size)))
		case d.Size > 0 && d.Free < d.Size/10 && d.Free < 10<<30:
			p.warn(about, find, "%s of %s is free", human(int64(d.Free)), human(int64(d.Size)))
		case d.AllInodes > 0 && d.FreeInodes < d.AllInodes/20:
			p.fail(about, fmt.Sprintf("find %s -xdev -printf '%%h\\n' | sort | uniq -c | sort -n | tail", d.Path), "%d of %d inodes are free", d.FreeInodes, d.AllInodes)
		}
	}
}

// checkServices sees whether what must run on a node runs, and whether its ports
// are its own.
func checkServices(f *Facts, p pen) {
	m := f.Machine
	if m == nil {
		return
	}
	for _, port := range m.Ports {
		switch {
		case port.Holder != "" && !port.Ours && m.Kind != NoNode:
			p.fail(m.subject(), fmt.Sprintf("ss -ltnp 'sport = :%d', and stop that program", port.Number), "port %d, which %s needs, is held by %s", port.Number, port.What, port.Holder)
		case port.Holder == "" && m.Kind == Kubeadm:
			p.fail(m.subject(), "systemctl restart kubelet; journalctl -u kubelet -n 30; ls /etc/kubernetes/manifests", "nothing listens at port %d: %s does not run", port.Number, port.What)
		case port.Holder == "" && m.Kind == Server:
			p.fail(m.subject(), "start `sampan server` again; its log says why it ended", "nothing listens at port %d: %s does not run", port.Number, port.What)
		}
	}
	if m.Kubelet != nil {
		p.fail(m.subject(), "journalctl -u kubelet -n 30 (or the log of `sampan server`)", "the kubelet is not well: %v", m.Kubelet)
	}
}

func checkCNI(f *Facts, p pen) {
	m := f.Machine
	if m == nil || m.Kind == NoNode {
		return
	}
	about := m.subject()
	if len(m.CNI.Files) == 0 {
		p.fail(about, "kubectl apply -f kube-flannel.yml; with another network put its configuration there", "no network for pods is configured: %s is empty", m.CNI.Dir)
	}
	for _, name := range sorted(m.CNI.Bad) {
		p.fail(about, "mend or remove that file", "%s cannot be read: %s", name, m.CNI.Bad[name])
	}
	for _, name := range m.CNI.Missing {
		p.fail(about, "sampan install (Debian: apt-get install containernetworking-plugins)", "%s names the plugin %s, which is not in /opt/cni/bin", m.CNI.Files[0], name)
	}
	if m.CNI.Flannel && !m.CNI.Subnet {
		p.fail(about, "kubectl -n kube-flannel get pods -o wide; kubectl -n kube-flannel delete pod NAME of this node", "/run/flannel/subnet.env is missing: flannel has not run since this machine started, and no pod can be connected")
	}
}

// checkIdentity sees whether this machine still is what the cluster knows: a
// machine whose address changed is another one to everybody.
func checkIdentity(f *Facts, p pen) {
	m := f.Machine
	if m == nil || f.Cluster == nil || m.Kind == NoNode || len(m.Addresses) == 0 {
		return
	}
	i := slices.IndexFunc(f.Cluster.Nodes, func(n *corev1.Node) bool { return n.Name == strings.ToLower(m.Hostname) })
	if i < 0 {
		return
	}
	for _, a := range f.Cluster.Nodes[i].Status.Addresses {
		if a.Type == corev1.NodeInternalIP && !slices.ContainsFunc(m.Addresses, func(own netip.Addr) bool { return own.String() == a.Address }) {
			p.fail("node "+f.Cluster.Nodes[i].Name, "restart the kubelet here without --node-ip of old (sampan server --node-ip NEW); an API server's certificate: kubeadm init phase certs apiserver", "the cluster knows it at %s, and no link of this machine has that address (%s)", a.Address, join(m))
		}
	}
}

func join(m *Machine) string {
	var out []string
	for _, a := range m.Addresses {
		out = append(out, a.String())
	}
	return strings.Join(out, ", ")
}
