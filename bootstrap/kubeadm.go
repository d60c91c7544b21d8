package bootstrap

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sampan-dev/sampan/api"
	"github.com/sampan-dev/sampan/client"
	"github.com/sampan-dev/sampan/kit/clock"
)

// groundwork says what the cluster is like that this server began: to other
// servers, and to kubeadm join in its words. Where certificates lie is kubeadm's
// own affair on each machine.
func (s *session) groundwork(ctx context.Context, c client.Interface) error {
	version, _, _ := strings.Cut(api.Version().GitVersion, "+")
	own, err := json.MarshalIndent(s.ground(), "", "  ")
	if err != nil {
		return err
	}
	cluster := fmt.Sprintf(`apiVersion: kubeadm.k8s.io/v1beta4
kind: ClusterConfiguration
certificatesDir: /etc/kubernetes/pki
clusterName: kubernetes
controlPlaneEndpoint: %q
dns: {}
etcd:
  local:
    dataDir: /var/lib/etcd
imageRepository: registry.k8s.io
kubernetesVersion: %s
networking:
  dnsDomain: %s
  podSubnet: %s
  serviceSubnet: %s
`, s.endpoint(), version, s.ClusterDomain, s.ClusterCIDR, s.ServiceCIDR)
	driver := "cgroupfs"
	if _, err := os.Stat("/run/systemd/system"); err == nil {
		driver = "systemd"
	}
	kubelet := fmt.Sprintf(`apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
authentication:
  anonymous: {enabled: false}
  webhook: {cacheTTL: 0s, enabled: true}
  x509: {clientCAFile: /etc/kubernetes/pki/ca.crt}
authorization: {mode: Webhook}
cgroupDriver: %s
clusterDNS: [%s]
clusterDomain: %s
healthzBindAddress: 127.0.0.1
healthzPort: 10248
rotateCertificates: true
staticPodPath: /etc/kubernetes/manifests
`, driver, s.ClusterDNS, s.ClusterDomain)
	for _, m := range []struct{ name, role, key, text string }{
		{groundMap, "sampan:" + groundMap, groundKey, string(own) + "\n"},
		{kubeadmMap, "kubeadm:nodes-kubeadm-config", "ClusterConfiguration", cluster},
		{kubeletMap, "kubeadm:kubelet-config", "kubelet", kubelet},
	} {
		if err := s.say(ctx, c, m.name, m.key, m.text); err != nil {
			return fmt.Errorf("ConfigMap kube-system/%s: %w", m.name, err)
		}
		err := allowAll(ctx, c, &rbacv1.Role{ObjectMeta: metav1.ObjectMeta{Name: m.role, Namespace: metav1.NamespaceSystem}, Rules: []rbacv1.PolicyRule{
			{Verbs: []string{"get"}, APIGroups: []string{""}, Resources: []string{"configmaps"}, ResourceNames: []string{m.name}}}}, nodesOf(joiners, "system:nodes")...)
		if err != nil {
			return err
		}
	}
	return grants(ctx, c)
}

// say keeps a text in a ConfigMap. Kubeadm's are left as they are, since its
// users change them; ours follows the server's flags.
func (s *session) say(ctx context.Context, c client.Interface, name, key, text string) error {
	maps := client.Of[corev1.ConfigMap](c, metav1.NamespaceSystem)
	_, err := maps.Create(ctx, &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: metav1.NamespaceSystem}, Data: map[string]string{key: text}})
	if !apierrors.IsAlreadyExists(err) {
		return err
	}
	old, err := maps.Get(ctx, name)
	if err != nil || name != groundMap || old.Data[key] == text {
		return err
	}
	next := old.DeepCopy()
	next.Data = map[string]string{key: text}
	_, err = maps.Update(ctx, next)
	return err
}

// grants lets those who join see whether their name is free, and makes the
// administrators of kubeadm's machines administrators.
func grants(ctx context.Context, c client.Interface) error {
	const name = "kubeadm:get-nodes"
	_, err := client.Of[rbacv1.ClusterRole](c, "").Create(ctx, &rbacv1.ClusterRole{ObjectMeta: metav1.ObjectMeta{Name: name},
		Rules: []rbacv1.PolicyRule{{Verbs: []string{"get"}, APIGroups: []string{""}, Resources: []string{"nodes"}}}})
	if err != nil && !apierrors.IsAlreadyExists(err) {
		return err
	}
	const admins = "kubeadm:cluster-admins"
	for _, b := range []struct{ name, role, group string }{{name, name, joiners}, {admins, "cluster-admin", admins}} {
		_, err = client.Of[rbacv1.ClusterRoleBinding](c, "").Create(ctx, &rbacv1.ClusterRoleBinding{ObjectMeta: metav1.ObjectMeta{Name: b.name},
			RoleRef: rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: b.role}, Subjects: nodesOf(b.group)})
		if err != nil && !apierrors.IsAlreadyExists(err) {
			return err
		}
	}
	return nil
}

// daemons are for nodes that kubeadm manages in this cluster.
func (s *session) daemons() Daemons {
	version, _, _ := strings.Cut(api.Version().GitVersion, "+")
	d := Daemons{Endpoint: s.endpoint(), ClusterCIDR: s.ClusterCIDR.String(), Backend: cmp.Or(s.NetworkBackend, "vxlan"), Version: version}
	if d.Backend == "none" {
		d.Backend = ""
	}
	return d
}

// builtIn marks a node whose network and proxy are its server's own.
const builtIn = "sampan.dev/built-in"

// hosts gives nodes that kubeadm manages what a server's node has by itself, the
// proxy and the network, as DaemonSets, as soon as there is such a node. A cluster
// of servers alone never has them.
func (s *session) hosts(ctx context.Context, c client.Interface) error {
	for ctx.Err() == nil {
		err := s.host(ctx, c)
		if err != nil && ctx.Err() == nil {
			s.log.Info("nodes that kubeadm manages: trying again", "err", err)
		}
		if err := clock.Sleep(ctx, time.Second); err != nil {
			return err
		}
	}
	return ctx.Err()
}

func (s *session) host(ctx context.Context, c client.Interface) error {
	w, err := c.Watch(ctx, client.Resource[corev1.Node](), "", &metav1.ListOptions{LabelSelector: "!" + builtIn})
	if err != nil {
		return err
	}
	defer w.Stop()
	for {
		e, err := w.Next(ctx)
		if err != nil {
			return nil // watches end
		}
		n, ok := e.Object.(*corev1.Node)
		if !ok || n.Name == s.NodeName { // which is about to be marked
			continue
		}
		return s.daemons().Apply(ctx, c)
	}
}
