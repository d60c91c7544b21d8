package kubeadm

import (
	"context"
	"fmt"
	"os"
	"path/filepath"

	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sampan-dev/sampan/api"
	"github.com/sampan-dev/sampan/bootstrap"
	"github.com/sampan-dev/sampan/client"
	"github.com/sampan-dev/sampan/kubeadm/config"
)

// The objects' names, kubeadm's.
const (
	configMapName     = "kubeadm-config"
	kubeletMapName    = "kubelet-config"
	certsSecretName   = "kubeadm-certs"
	clusterInfoName   = "cluster-info"
	authenticated     = "system:authenticated"
	bootstrapperGroup = "system:bootstrappers"
)

// apply creates obj, or replaces what is there of its name.
func apply[T any](ctx context.Context, c client.Interface, obj *T) error {
	o := any(obj).(api.Object)
	of := client.Of[T](c, o.GetNamespace())
	_, err := of.Create(ctx, obj)
	if !apierrors.IsAlreadyExists(err) {
		return err
	}
	old, err := of.Get(ctx, o.GetName())
	if err != nil {
		return err
	}
	o.SetResourceVersion(any(old).(api.Object).GetResourceVersion())
	_, err = of.Update(ctx, obj)
	return err
}

// grant binds subjects to a role, which is made if it has rules.
type grant struct {
	name     string
	cluster  bool
	space    string
	rules    []rbacv1.PolicyRule
	role     string // a ClusterRole that is there already, instead of rules
	subjects []rbacv1.Subject
}

func group(name string) rbacv1.Subject {
	return rbacv1.Subject{Kind: rbacv1.GroupKind, APIGroup: rbacv1.GroupName, Name: name}
}

func user(name string) rbacv1.Subject {
	return rbacv1.Subject{Kind: rbacv1.UserKind, APIGroup: rbacv1.GroupName, Name: name}
}

func readOne(resource, name string) []rbacv1.PolicyRule {
	return []rbacv1.PolicyRule{{Verbs: []string{"get"}, APIGroups: []string{""}, Resources: []string{resource}, ResourceNames: []string{name}}}
}

func (g grant) apply(ctx context.Context, c client.Interface) error {
	role := g.role
	kind := "ClusterRole"
	if len(g.rules) > 0 {
		role = g.name
		var err error
		if g.cluster {
			err = apply(ctx, c, &rbacv1.ClusterRole{ObjectMeta: metav1.ObjectMeta{Name: g.name}, Rules: g.rules})
		} else {
			kind = "Role"
			err = apply(ctx, c, &rbacv1.Role{ObjectMeta: metav1.ObjectMeta{Name: g.name, Namespace: g.space}, Rules: g.rules})
		}
		if err != nil {
			return fmt.Errorf("unable to create RBAC role %s: %w", g.name, err)
		}
	}
	ref := rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: kind, Name: role}
	var err error
	if g.cluster {
		err = apply(ctx, c, &rbacv1.ClusterRoleBinding{ObjectMeta: metav1.ObjectMeta{Name: g.name}, RoleRef: ref, Subjects: g.subjects})
	} else {
		err = apply(ctx, c, &rbacv1.RoleBinding{ObjectMeta: metav1.ObjectMeta{Name: g.name, Namespace: g.space}, RoleRef: ref, Subjects: g.subjects})
	}
	if err != nil {
		return fmt.Errorf("unable to create RBAC binding %s: %w", g.name, err)
	}
	return nil
}

// configReaders may read the cluster's configuration: machines that join.
var configReaders = grant{name: "kubeadm:nodes-kubeadm-config", space: metav1.NamespaceSystem, rules: readOne("configmaps", configMapName),
	subjects: []rbacv1.Subject{group("system:bootstrappers:kubeadm:default-node-token"), group("system:nodes")}}

var kubeletReaders = grant{name: "kubeadm:kubelet-config", space: metav1.NamespaceSystem, rules: readOne("configmaps", kubeletMapName),
	subjects: []rbacv1.Subject{group("system:nodes"), group("system:bootstrappers:kubeadm:default-node-token")}}

// joinGrants let a token's holder become a node.
var joinGrants = []struct {
	say string
	grant
}{
	{"Configured RBAC rules to allow Node Bootstrap tokens to get nodes", grant{name: "kubeadm:get-nodes", cluster: true,
		rules:    []rbacv1.PolicyRule{{Verbs: []string{"get"}, APIGroups: []string{""}, Resources: []string{"nodes"}}},
		subjects: []rbacv1.Subject{group("system:bootstrappers:kubeadm:default-node-token")}}},
	{"Configured RBAC rules to allow Node Bootstrap tokens to post CSRs in order for nodes to get long term certificate credentials", grant{name: "kubeadm:kubelet-bootstrap", cluster: true,
		role: "system:node-bootstrapper", subjects: []rbacv1.Subject{group("system:bootstrappers:kubeadm:default-node-token")}}},
	{"Configured RBAC rules to allow the csrapprover controller automatically approve CSRs from a Node Bootstrap Token", grant{name: "kubeadm:node-autoapprove-bootstrap", cluster: true,
		role: "system:certificates.k8s.io:certificatesigningrequests:nodeclient", subjects: []rbacv1.Subject{group("system:bootstrappers:kubeadm:default-node-token")}}},
	{"Configured RBAC rules to allow certificate rotation for all node client certificates in the cluster", grant{name: "kubeadm:node-autoapprove-certificate-rotation", cluster: true,
		role: "system:certificates.k8s.io:certificatesigningrequests:selfnodeclient", subjects: []rbacv1.Subject{group("system:nodes")}}},
}

// adminGrant makes admin.conf's group administrators.
var adminGrant = grant{name: adminGroup, cluster: true, role: "cluster-admin", subjects: []rbacv1.Subject{group(adminGroup)}}

// infoReaders lets anybody see cluster-info, which holds no secret.
var infoReaders = grant{name: "kubeadm:bootstrap-signer-clusterinfo", space: metav1.NamespacePublic, rules: readOne("configmaps", clusterInfoName),
	subjects: []rbacv1.Subject{user("system:anonymous")}}

// uploadConfig keeps the cluster's configuration where joining machines find it.
func uploadConfig(ctx context.Context, c client.Interface, cluster *config.Cluster) error {
	text, err := config.Write(cluster)
	if err != nil {
		return err
	}
	err = apply(ctx, c, &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: configMapName, Namespace: metav1.NamespaceSystem}, Data: map[string]string{"ClusterConfiguration": string(text)}})
	if err != nil {
		return fmt.Errorf("upload-config: %w", err)
	}
	return configReaders.apply(ctx, c)
}

func uploadKubelet(ctx context.Context, c client.Interface, text []byte) error {
	err := apply(ctx, c, &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: kubeletMapName, Namespace: metav1.NamespaceSystem}, Data: map[string]string{"kubelet": string(text)}})
	if err != nil {
		return fmt.Errorf("upload-config: %w", err)
	}
	return kubeletReaders.apply(ctx, c)
}

// fetchCluster reads the configuration back.
func fetchCluster(ctx context.Context, c client.Interface) (*config.Cluster, error) {
	m, err := client.Of[corev1.ConfigMap](c, metav1.NamespaceSystem).Get(ctx, configMapName)
	if err != nil {
		return nil, fmt.Errorf("could not find the cluster's configuration (ConfigMap %s/%s): %w", metav1.NamespaceSystem, configMapName, err)
	}
	f, err := config.Read([]byte(m.Data["ClusterConfiguration"]))
	if err != nil {
		return nil, fmt.Errorf("ConfigMap %s/%s: %w", metav1.NamespaceSystem, configMapName, err)
	}
	if f.Cluster == nil {
		return nil, fmt.Errorf("ConfigMap %s/%s holds no ClusterConfiguration", metav1.NamespaceSystem, configMapName)
	}
	f.Cluster.Default(Version())
	return f.Cluster, nil
}

// sharedFiles are what every control plane must have the same.
func sharedFiles(cluster *config.Cluster) map[string]string {
	files := map[string]string{}
	for _, name := range []string{"ca.crt", "ca.key", "sa.pub", "sa.key", "front-proxy-ca.crt", "front-proxy-ca.key"} {
		files[name] = filepath.Join(cluster.CertificatesDir, name)
	}
	if x := cluster.Etcd.External; x != nil {
		for name, path := range map[string]string{"external-etcd-ca.crt": x.CAFile, "external-etcd.crt": x.CertFile, "external-etcd.key": x.KeyFile} {
			if path != "" {
				files[name] = path
			}
		}
		return files
	}
	for _, name := range []string{"ca.crt", "ca.key"} {
		files["etcd-"+name] = filepath.Join(cluster.CertificatesDir, "etcd", name)
	}
	return files
}

// uploadCerts keeps the shared files, encrypted, for two hours.
func uploadCerts(ctx context.Context, c client.Interface, cluster *config.Cluster, key string) error {
	return bootstrap.ShareFiles(ctx, c, sharedFiles(cluster), key)
}

// downloadCerts writes the shared files that another control plane uploaded.
func downloadCerts(ctx context.Context, c client.Interface, cluster *config.Cluster, key string) error {
	return bootstrap.FetchFiles(ctx, c, sharedFiles(cluster), key, "`kubeadm init phase upload-certs --upload-certs` on a control plane uploads them and prints their key")
}

// clusterInfo publishes where the API is and who its authority is.
func clusterInfo(ctx context.Context, c client.Interface, cluster *config.Cluster, local config.APIEndpoint) error {
	ca, err := os.ReadFile(filepath.Join(cluster.CertificatesDir, "ca.crt"))
	if err != nil {
		return err
	}
	text, err := client.Kubeconfig{Server: "https://" + cluster.Endpoint(local), CA: ca}.Encode()
	if err != nil {
		return err
	}
	maps := client.Of[corev1.ConfigMap](c, metav1.NamespacePublic)
	old, err := maps.Get(ctx, clusterInfoName)
	switch {
	case apierrors.IsNotFound(err):
		_, err = maps.Create(ctx, &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: clusterInfoName, Namespace: metav1.NamespacePublic}, Data: map[string]string{"kubeconfig": string(text)}})
	case err == nil:
		// The signatures beside it are the bootstrap signer's.
		next := old.DeepCopy()
		if next.Data == nil {
			next.Data = map[string]string{}
		}
		next.Data["kubeconfig"] = string(text)
		_, err = maps.Update(ctx, next)
	}
	if err != nil {
		return fmt.Errorf("error creating %s ConfigMap: %w", clusterInfoName, err)
	}
	return infoReaders.apply(ctx, c)
}

// markControlPlane gives a node its role and its taints.
func markControlPlane(ctx context.Context, c client.Interface, name string, taints []corev1.Taint) error {
	nodes := client.Of[corev1.Node](c, "")
	for {
		n, err := nodes.Get(ctx, name)
		if err != nil {
			return err
		}
		next := n.DeepCopy()
		if next.Labels == nil {
			next.Labels = map[string]string{}
		}
		for _, l := range controlPlaneLabels {
			next.Labels[l] = ""
		}
		for _, t := range taints {
			has := false
			for _, h := range next.Spec.Taints {
				has = has || h.MatchTaint(&t)
			}
			if !has {
				next.Spec.Taints = append(next.Spec.Taints, t)
			}
		}
		if _, err = nodes.Update(ctx, next); !apierrors.IsConflict(err) {
			return err
		}
	}
}

var controlPlaneLabels = []string{"node-role.kubernetes.io/control-plane", "node.kubernetes.io/exclude-from-external-load-balancers"}
