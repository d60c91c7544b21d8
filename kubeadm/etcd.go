package kubeadm

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
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
	if len(endpoints) == 0 {
		return nil, errors.New("find etcd's members: no pod of etcd says where it is reached")
	}
	at := func(name string) string { return filepath.Join(cluster.CertificatesDir, "etcd", name) }
	return etcd.OpenMembers(endpoints, etcd.TLS{CA: at("ca.crt"), Cert: at("healthcheck-client.crt"), Key: at("healthcheck-client.key")})
}

func peerURL(address string) string {
	return "https://" + net.JoinHostPort(address, strconv.Itoa(etcdPeer))
}

// joinEtcd adds this machine's member, writes its static pod, and gives it a
// vote once it has the data.
func joinEtcd(ctx context.Context, c client.Interface, m machine, manifests string, say func(string, ...any)) error {
	ms, err := stackedMembers(ctx, c, m.cluster, m.local.AdvertiseAddress)
	if err != nil {
		return err
	}
	defer ms.Close()
	peer := peerURL(m.local.AdvertiseAddress)
	var all []etcd.Member
	// One learner at a time is etcd's rule, so that others who join are waited for.
	if err := patiently(ctx, 2*time.Minute, func(ctx context.Context) (err error) {
		all, err = ms.Add(ctx, peer)
		return err
	}); err != nil {
		return err
	}
	say("[etcd] Announced new etcd member joining to the existing etcd cluster")
	var others []member
	var id uint64
	for _, o := range all {
		name := o.Name
		for _, u := range o.PeerURLs {
			if u == peer {
				name, id = m.node.Name, o.ID
			}
		}
		if name != "" && len(o.PeerURLs) > 0 {
			others = append(others, member{name, o.PeerURLs[0]})
		}
	}
	say("[etcd] Creating static Pod manifest for %q", "etcd")
	if err := writeManifest(manifests, etcdMember(m, others)); err != nil {
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

// leaveEtcd takes this machine's member out of the cluster.
func leaveEtcd(ctx context.Context, c client.Interface, cluster *config.Cluster, address string) error {
	ms, err := stackedMembers(ctx, c, cluster, address)
	if err != nil {
		return err
	}
	defer ms.Close()
	list, err := ms.List(ctx)
	if err != nil {
		return err
	}
	for _, o := range list {
		for _, u := range o.PeerURLs {
			if u == peerURL(address) {
				return ms.Remove(ctx, o.ID)
			}
		}
	}
	return nil
}

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
