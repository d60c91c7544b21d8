package kubeadm

import (
	"context"
	"fmt"
	"maps"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/yaml"

	"github.com/sampan-dev/sampan/bootstrap"
	"github.com/sampan-dev/sampan/client"
	"github.com/sampan-dev/sampan/kubeadm/config"
)

// addonDNS deploys CoreDNS.
func addonDNS(ctx context.Context, c client.Interface, cluster *config.Cluster, p *patches, say func(string, ...any)) error {
	if cluster.DNS.Disabled {
		say("[addons] Skipping the CoreDNS addon, which is disabled")
		return nil
	}
	dns, err := cluster.ServiceAddress(10)
	if err != nil {
		return err
	}
	err = bootstrap.Addons{ClusterDomain: cluster.Networking.DNSDomain, ClusterDNS: dns.String(), Image: dnsImage(cluster), Replicas: 2}.Apply(ctx, c)
	if err != nil {
		return err
	}
	if err := p.deployment(ctx, c, "coredns", "corednsdeployment", say); err != nil {
		return fmt.Errorf("add-on coredns: %w", err)
	}
	say("[addons] Applied essential addon: CoreDNS")
	return nil
}

// addonProxy deploys kube-proxy on every node.
func addonProxy(ctx context.Context, c client.Interface, m machine, user map[string]any, say func(string, ...any)) error {
	if m.cluster.Proxy.Disabled {
		say("[addons] Skipping the kube-proxy addon, which is disabled")
		return nil
	}
	text, err := proxyConfig(m.cluster, user)
	if err != nil {
		return err
	}
	const space, name = metav1.NamespaceSystem, "kube-proxy"
	conf := fmt.Sprintf(`apiVersion: v1
kind: Config
clusters:
- cluster:
    certificate-authority: /var/run/secrets/kubernetes.io/serviceaccount/ca.crt
    server: https://%s
  name: default
contexts:
- context:
    cluster: default
    namespace: default
    user: default
  name: default
current-context: default
users:
- name: default
  user:
    tokenFile: /var/run/secrets/kubernetes.io/serviceaccount/token
`, m.cluster.Endpoint(m.local))
	account := rbacv1.Subject{Kind: rbacv1.ServiceAccountKind, Name: name, Namespace: space}
	for _, err := range []error{
		apply(ctx, c, &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: space}}),
		apply(ctx, c, &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: space, Labels: map[string]string{"app": name}},
			Data: map[string]string{"config.conf": string(text), "kubeconfig.conf": conf}}),
		grant{name: "kubeadm:node-proxier", cluster: true, role: "system:node-proxier", subjects: []rbacv1.Subject{account}}.apply(ctx, c),
		apply(ctx, c, proxyDaemonSet(imageName(m.cluster, name, m.cluster.KubernetesVersion))),
	} {
		if err != nil {
			return fmt.Errorf("add-on kube-proxy: %w", err)
		}
	}
	say("[addons] Applied essential addon: kube-proxy")
	return nil
}

// proxyConfig is kube-proxy's configuration: the user's with what the cluster needs.
func proxyConfig(cluster *config.Cluster, user map[string]any) ([]byte, error) {
	c := map[string]any{
		"apiVersion": "kubeproxy.config.k8s.io/v1alpha1", "kind": "KubeProxyConfiguration", "bindAddress": "0.0.0.0",
		"clientConnection": map[string]any{"kubeconfig": "/var/lib/kube-proxy/kubeconfig.conf"}, "clusterCIDR": cluster.Networking.PodSubnet,
		"mode": "nftables",
	}
	maps.Copy(c, user)
	return yaml.Marshal(c)
}

func proxyDaemonSet(img string) *appsv1.DaemonSet {
	labels := map[string]string{"k8s-app": "kube-proxy"}
	yes := true
	create := corev1.HostPathFileOrCreate
	host := func(name, path string, t *corev1.HostPathType) corev1.Volume {
		return corev1.Volume{Name: name, VolumeSource: corev1.VolumeSource{HostPath: &corev1.HostPathVolumeSource{Path: path, Type: t}}}
	}
	return &appsv1.DaemonSet{
		ObjectMeta: metav1.ObjectMeta{Name: "kube-proxy", Namespace: metav1.NamespaceSystem, Labels: labels},
		Spec: appsv1.DaemonSetSpec{
			Selector:       &metav1.LabelSelector{MatchLabels: labels},
			UpdateStrategy: appsv1.DaemonSetUpdateStrategy{Type: appsv1.RollingUpdateDaemonSetStrategyType},
			Template: corev1.PodTemplateSpec{
				ObjectMeta: metav1.ObjectMeta{Labels: labels},
				Spec: corev1.PodSpec{
					PriorityClassName: "system-node-critical", HostNetwork: true, ServiceAccountName: "kube-proxy",
					NodeSelector: map[string]string{"kubernetes.io/os": "linux"}, Tolerations: []corev1.Toleration{{Operator: corev1.TolerationOpExists}},
					Containers: []corev1.Container{{
						Name: "kube-proxy", Image: img, ImagePullPolicy: corev1.PullIfNotPresent,
						Command:         []string{"/usr/local/bin/kube-proxy", "--config=/var/lib/kube-proxy/config.conf", "--hostname-override=$(NODE_NAME)"},
						SecurityContext: &corev1.SecurityContext{Privileged: &yes},
						Env:             []corev1.EnvVar{{Name: "NODE_NAME", ValueFrom: &corev1.EnvVarSource{FieldRef: &corev1.ObjectFieldSelector{FieldPath: "spec.nodeName"}}}},
						VolumeMounts: []corev1.VolumeMount{{Name: "kube-proxy", MountPath: "/var/lib/kube-proxy"},
							{Name: "xtables-lock", MountPath: "/run/xtables.lock"}, {Name: "lib-modules", MountPath: "/lib/modules", ReadOnly: true}},
					}},
					Volumes: []corev1.Volume{
						{Name: "kube-proxy", VolumeSource: corev1.VolumeSource{ConfigMap: &corev1.ConfigMapVolumeSource{LocalObjectReference: corev1.LocalObjectReference{Name: "kube-proxy"}}}},
						host("xtables-lock", "/run/xtables.lock", &create), host("lib-modules", "/lib/modules", nil),
					},
				},
			},
		},
	}
}
