package doctor

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func checkReady(f *Facts, p pen) {
	if f.Cluster == nil {
		return
	}
	for _, r := range f.Cluster.Ready {
		mend := "kubectl get --raw /readyz/" + r.Name + " says why; then see the API server's log"
		switch {
		case strings.Contains(r.Reason, "NOSPACE"):
			mend = spaceMend
		case r.Name == "etcd":
			mend = "on each control plane: etcdctl endpoint health --cluster, and df -h of etcd's directory"
		}
		p.fail("readyz/"+r.Name, mend, "the API server is not ready: %s", orUnset(r.Reason))
	}
}

const spaceMend = "etcdctl compact $(etcdctl endpoint status -w json | grep -o '\"revision\":[0-9]*' | head -1 | cut -d: -f2), then etcdctl defrag --cluster, then etcdctl alarm disarm"

// etcdQuota is etcd's own when nobody set another.
const etcdQuota = 2 << 30

func checkEtcd(f *Facts, p pen) {
	for _, m := range f.Members {
		about := "etcd " + orElse(m.Name, m.Endpoint)
		if m.Err != nil {
			p.fail(about, "on that machine: see etcd's log; etcdctl member list shows who is missing; docs/etcd.md has the recovery", "it does not answer at %s: %v", m.Endpoint, m.Err)
			continue
		}
		for _, a := range m.Alarms {
			switch a {
			case "NOSPACE":
				p.fail(about, spaceMend, "alarm NOSPACE: its database reached its quota, nothing can be written")
			default:
				p.fail(about, "replace the member: etcdctl member remove ID, empty its directory, join again", "alarm %s", a)
			}
		}
		if !m.Leader {
			p.fail(about, "bring the majority of members back; if it is lost for good: docs/high-availability.md, --force-new-cluster", "it knows no leader: writes are refused")
		}
		if m.Learner {
			p.warn(about, "etcdctl member promote ID", "it is a learner still and has no vote")
		}
		size(p, about, m.Size, m.InUse, m.Quota)
	}
	if len(f.Members) == 0 && f.Database > 0 {
		size(p, "etcd", f.Database, 0, etcdQuota)
	}
}

// size warns before the database is full.
func size(p pen, about string, size, used, quota int64) {
	if quota <= 0 {
		quota = etcdQuota
	}
	switch {
	case size < quota*8/10:
	case used > 0 && used < size/2:
		p.warn(about, "etcdctl defrag --cluster", "its database has %s of a quota of %s, more than half of it is free inside", human(size), human(quota))
	default:
		p.warn(about, "etcd --quota-backend-bytes larger; or find what is so much: etcdctl get /registry --prefix --keys-only | cut -d/ -f3 | sort | uniq -c | sort -n", "its database has %s of a quota of %s; when it is full nothing can be written", human(size), human(quota))
	}
}

func human(n int64) string {
	switch {
	case n >= 1<<30:
		return fmt.Sprintf("%.1f GiB", float64(n)/(1<<30))
	default:
		return fmt.Sprintf("%d MiB", n>>20)
	}
}

// checkComponents sees whether the scheduler and the controllers act: they say
// so themselves, or renew their leases.
func checkComponents(f *Facts, p pen) {
	if f.Cluster == nil {
		return
	}
	leases := map[string]time.Time{}
	for _, l := range f.Cluster.Leaders {
		if l.Spec.RenewTime != nil && l.Spec.HolderIdentity != nil && *l.Spec.HolderIdentity != "" {
			leases[l.Name] = l.Spec.RenewTime.Time
		}
	}
	several := len(serversOf(f.Cluster)) > 1
	for _, c := range f.Cluster.Components {
		well, why := healthy(c)
		lease := map[string]string{"scheduler": "kube-scheduler", "controller-manager": "kube-controller-manager"}[c.Name]
		renewed, held := leases[lease]
		stale := !held || f.Cluster.Time.Sub(renewed) > time.Minute
		mend := f.restartComponent(lease)
		switch {
		case lease == "" && !well:
			p.fail("component "+c.Name, "etcdctl endpoint health --cluster on a control plane", "unhealthy: %s", why)
		case lease != "" && !well && stale:
			p.fail("component "+c.Name, mend, "it does not act: %s", why)
		case lease != "" && several && held && stale:
			p.fail("component "+c.Name, mend, "nobody has led for %s: its lease is not renewed", ago(f.Cluster.Time.Sub(renewed)))
		}
	}
}

func (f *Facts) restartComponent(name string) string {
	if f.Target.Name != "" || f.Machine != nil && f.Machine.Kind == Server {
		return f.start()
	}
	return fmt.Sprintf("on a control plane: see tail -n 20 /var/log/pods/kube-system_%s-*/*/*.log, and ls /etc/kubernetes/manifests/%[1]s.yaml; of bare binaries: systemctl restart %[1]s", name)
}

func healthy(c *corev1.ComponentStatus) (bool, string) {
	for _, k := range c.Conditions {
		if k.Type == corev1.ComponentHealthy {
			return k.Status == corev1.ConditionTrue, orElse(k.Error, k.Message)
		}
	}
	return true, ""
}

// serversOf are the API servers' addresses, as default/kubernetes has them.
func serversOf(c *Cluster) map[string]bool {
	all := map[string]bool{}
	for _, s := range c.Slices {
		if s.Namespace != metav1.NamespaceDefault || s.Labels[discoveryv1.LabelServiceName] != "kubernetes" {
			continue
		}
		for _, e := range s.Endpoints {
			for _, a := range e.Addresses {
				if e.Conditions.Ready == nil || *e.Conditions.Ready {
					all[a] = true
				}
			}
		}
	}
	return all
}

// controlPlaneLabel is on nodes with a control plane.
const controlPlaneLabel = "node-role.kubernetes.io/control-plane"

// checkPlanes tells which control planes' API servers are gone, and how many
// more may be.
func checkPlanes(f *Facts, p pen) {
	if f.Cluster == nil {
		return
	}
	serves := serversOf(f.Cluster)
	var planes, lost []string
	for _, n := range f.Cluster.Nodes {
		if _, is := n.Labels[controlPlaneLabel]; !is {
			continue
		}
		planes = append(planes, n.Name)
		if len(serves) > 0 && !slices.ContainsFunc(n.Status.Addresses, func(a corev1.NodeAddress) bool { return serves[a.Address] }) {
			lost = append(lost, n.Name)
		}
	}
	if len(planes) < 2 {
		return
	}
	for _, name := range lost {
		p.fail("control plane "+name, orElse(f.upAgain(name), "on "+name+": systemctl restart kubelet where kubeadm made it, else start `sampan server` again"),
			"its API server is not among those that serve (%d of %d do); %s", len(serves), len(planes), spare(len(planes), len(lost)))
	}
	if len(planes) == 2 && len(lost) == 0 {
		p.warn("control planes", "kubeadm join … --control-plane on a third machine (or sampan server --join … --control-plane)", "two of them survive the loss of none: etcd needs a majority")
	}
}

func spare(all, lost int) string {
	switch left := (all-1)/2 - lost; {
	case left <= 0:
		return "one more lost and nothing can be written"
	case left == 1:
		return "one more may be lost"
	default:
		return fmt.Sprintf("%d more may be lost", left)
	}
}

// upAgain is the command for a node that is a machine of `sampan up` and is off.
func (f *Facts) upAgain(node string) string {
	for _, m := range f.Machines {
		if m.Name == node && !m.Running {
			return "sampan up " + f.Target.Name
		}
	}
	return ""
}

// checkUnread tells what was not looked at.
func checkUnread(f *Facts, p pen) {
	if f.Cluster == nil {
		return
	}
	for _, what := range slices.Sorted(maps.Keys(f.Cluster.Unread)) {
		p.note(what, "kubectl auth can-i list "+what, "not looked at: %v", f.Cluster.Unread[what])
	}
}

func orElse(s, other string) string {
	if s == "" {
		return other
	}
	return s
}
