package kubeadm

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sampan-dev/sampan/client"
	"github.com/sampan-dev/sampan/kit/clock"
	"github.com/sampan-dev/sampan/kubeadm/config"
	"github.com/sampan-dev/sampan/storage/etcd"
)

// etcdAnswers says whether an external etcd can be used.
func etcdAnswers(ctx context.Context, x *config.ExternalEtcd) error {
	for _, f := range []string{x.CAFile, x.CertFile, x.KeyFile} {
		if f == "" {
			continue
		}
		if _, err := os.Stat(f); err != nil {
			return fmt.Errorf("external etcd: %w", err)
		}
	}
	m, err := etcd.OpenMembers(x.Endpoints, etcd.TLS{CA: x.CAFile, Cert: x.CertFile, Key: x.KeyFile})
	if err != nil {
		return err
	}
	defer m.Close()
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	return m.Answers(ctx)
}

// stackedMembers connects to the etcd of the control planes that are there, as
// their static pods say, leaving out this machine.
func stackedMembers(ctx context.Context, c client.Interface, cluster *config.Cluster, self string) (*etcd.Members, error) {
	pods, err := client.Of[corev1.Pod](c, metav1.NamespaceSystem).List(ctx, &metav1.ListOptions{LabelSelector: "component=etcd,tier=control-plane"})
	if err != nil {
		return nil, fmt.Errorf("find etcd's members: %w", err)
	}
	var endpoints []string
	for i := range pods {
		if u := pods[i].Annotations["kubeadm.kubernetes.io/etcd.advertise-client-urls"]; u != "" && !strings.Contains(u, "//"+self+":") {
			endpoints = append(endpoints, u)
		}
	}
	if len(endpoints) == 0 { // control planes that are one process each have no such pods
		if endpoints, err = beside(ctx, c, self); err != nil {
			return nil, err
		}
	}
	if len(endpoints) == 0 {
		return nil, errNoMembers
	}
	at := func(name string) string { return filepath.Join(cluster.CertificatesDir, "etcd", name) }
	return etcd.OpenMembers(endpoints, etcd.TLS{CA: at("ca.crt"), Cert: at("healthcheck-client.crt"), Key: at("healthcheck-client.key")})
}

// beside are etcd's members where the API servers are.
func beside(ctx context.Context, c client.Interface, self string) (out []string, err error) {
	slice, err := client.Of[discoveryv1.EndpointSlice](c, metav1.NamespaceDefault).Get(ctx, "kubernetes")
	if apierrors.IsNotFound(err) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("find etcd's members: %w", err)
	}
	for _, e := range slice.Endpoints {
		if len(e.Addresses) == 1 && e.Addresses[0] != self {
			out = append(out, "https://"+net.JoinHostPort(e.Addresses[0], strconv.Itoa(etcdClient)))
		}
	}
	return out, nil
}

func peerURL(address string) string {
	return "https://" + net.JoinHostPort(address, strconv.Itoa(etcdPeer))
}

// stackedHealthy asks every member for its state, so that a machine does not
// join a cluster that could not take it.
func stackedHealthy(ctx context.Context, c client.Interface, cluster *config.Cluster, self string) error {
	ms, err := stackedMembers(ctx, c, cluster, self)
	if err != nil {
		return err
	}
	defer ms.Close()
	if err := patiently(ctx, time.Minute, func(ctx context.Context) error {
		_, err := ms.List(ctx)
		return err
	}); err != nil {
		return fmt.Errorf("etcd cluster is not healthy: %w; `etcdctl endpoint health --cluster` on a control plane says which member is not", err)
	}
	return nil
}

// joinEtcd adds this machine's member, writes its static pod, and gives it a
// vote once it has the data.
func joinEtcd(ctx context.Context, c client.Interface, m machine, write func(component) error, say func(string, ...any)) error {
	ms, err := stackedMembers(ctx, c, m.cluster, m.local.AdvertiseAddress)
	if err != nil {
		return err
	}
	defer ms.Close()
	peer := peerURL(m.local.AdvertiseAddress)
	var all []etcd.Member
	// One learner at a time is etcd's rule, so that others who join are waited for.
	if err := patiently(ctx, 2*time.Minute, func(ctx context.Context) (err error) {
		if err := strangersData(ctx, ms, peer, m.cluster.Etcd.Local.DataDir); err != nil {
			return err
		}
		all, err = ms.Add(ctx, peer)
		return err
	}); err != nil {
		return err
	}
	say("[etcd] Announced new etcd member joining to the existing etcd cluster")
	id, others := acquainted(all, m.node.Name, peer)
	say("[etcd] Creating static Pod manifest for %q", "etcd")
	if err := write(etcdMember(m, others)); err != nil {
		return err
	}
	say("[etcd] Waiting for the new etcd member to join the cluster. This can take up to 40s")
	return patiently(ctx, 2*time.Minute, func(ctx context.Context) error {
		list, err := ms.List(ctx)
		if err != nil {
			return err
		}
		for _, o := range list {
			if o.ID == id && !o.Learner {
				return nil
			}
		}
		return ms.Promote(ctx, id)
	})
}

// acquainted is what a new member is told of its cluster: everybody who has started,
// and itself. A learner that somebody else announced a moment ago has no name
// yet, and is learnt of later.
func acquainted(all []etcd.Member, name, peer string) (id uint64, others []member) {
	for _, o := range all {
		if slices.Contains(o.PeerURLs, peer) {
			id, o.Name = o.ID, name
		}
		if o.Name != "" && len(o.PeerURLs) > 0 {
			others = append(others, member{o.Name, o.PeerURLs[0]})
		}
	}
	return id, others
}

// strangersData refuses to start a new member over the data of one that was
// taken out: etcd would refuse it later, and say less.
func strangersData(ctx context.Context, ms *etcd.Members, peer, dir string) error {
	list, err := ms.List(ctx)
	if err != nil {
		return err
	}
	for _, o := range list {
		if slices.Contains(o.PeerURLs, peer) {
			return nil
		}
	}
	if _, err := os.Stat(filepath.Join(dir, "member")); err == nil {
		return fmt.Errorf("%s holds the data of a member that is no longer in the cluster: remove it (kubeadm reset does) and join again", dir)
	}
	return nil
}

// leaveEtcd takes this machine's member out of the cluster; left is false if no
// other member is there.
func leaveEtcd(ctx context.Context, c client.Interface, cluster *config.Cluster, address string) (left bool, err error) {
	ms, err := stackedMembers(ctx, c, cluster, address)
	if errors.Is(err, errNoMembers) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	defer ms.Close()
	list, err := ms.List(ctx)
	if err != nil {
		return false, err
	}
	for _, o := range list {
		if slices.Contains(o.PeerURLs, peerURL(address)) {
			return true, patiently(ctx, 20*time.Second, func(ctx context.Context) error { return ms.Remove(ctx, o.ID) })
		}
	}
	return true, nil
}

// errNoMembers means that no other machine has a member.
var errNoMembers = errors.New("find etcd's members: no pod of etcd says where it is reached")

// patiently does fn until it succeeds, for at most wait; the error is the last
// that says more than that time is up.
func patiently(ctx context.Context, wait time.Duration, fn func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, wait)
	defer cancel()
	var last error
	for {
		try, stop := context.WithTimeout(ctx, 10*time.Second)
		err := fn(try)
		stop()
		if err == nil {
			return nil
		}
		if last == nil || !errors.Is(err, context.DeadlineExceeded) {
			last = err
		}
		if clock.Sleep(ctx, 250*time.Millisecond) != nil {
			return last
		}
	}
}
