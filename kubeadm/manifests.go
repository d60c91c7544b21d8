package kubeadm

import (
	"bytes"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/sampan-dev/sampan/kubeadm/config"
)

// etcdClient and the others are the components' ports, upstream's.
const (
	etcdClient        = 2379
	etcdPeer          = 2380
	etcdMetrics       = 2381
	controllerManager = 10257
	schedulerPort     = 10259
)

// component is one static pod before it is written.
type component struct {
	name    string
	image   string
	command []string
	mounts  []config.HostPathMount
	env     []corev1.EnvVar
	cpu     string
	memory  string
	notes   map[string]string
	// Where liveness, readiness and startup are asked.
	host        string
	port        int
	scheme      corev1.URIScheme
	live, ready string
	start       string
}

// pod is the manifest of a component.
func (c component) pod() *corev1.Pod {
	req := corev1.ResourceList{corev1.ResourceCPU: resource.MustParse(c.cpu)}
	if c.memory != "" {
		req[corev1.ResourceMemory] = resource.MustParse(c.memory)
	}
	p := &corev1.Pod{
		TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Pod"},
		ObjectMeta: metav1.ObjectMeta{Name: c.name, Namespace: metav1.NamespaceSystem, Annotations: c.notes,
			Labels: map[string]string{"component": c.name, "tier": "control-plane"}},
		Spec: corev1.PodSpec{
			HostNetwork: true, PriorityClassName: "system-node-critical",
			SecurityContext: &corev1.PodSecurityContext{SeccompProfile: &corev1.SeccompProfile{Type: corev1.SeccompProfileTypeRuntimeDefault}},
			Containers: []corev1.Container{{
				Name: c.name, Image: c.image, ImagePullPolicy: corev1.PullIfNotPresent, Command: c.command, Env: c.env,
				Resources:      corev1.ResourceRequirements{Requests: req},
				LivenessProbe:  c.probe(c.live, 10, 15, 8),
				ReadinessProbe: c.probe(c.ready, 0, 15, 3),
				StartupProbe:   c.probe(c.start, 10, 15, 24),
			}},
		},
	}
	if p.Spec.Containers[0].ReadinessProbe != nil {
		p.Spec.Containers[0].ReadinessProbe.PeriodSeconds = 1
	}
	for _, m := range c.mounts {
		kind := m.PathType
		p.Spec.Containers[0].VolumeMounts = append(p.Spec.Containers[0].VolumeMounts, corev1.VolumeMount{Name: m.Name, MountPath: m.MountPath, ReadOnly: m.ReadOnly})
		p.Spec.Volumes = append(p.Spec.Volumes, corev1.Volume{Name: m.Name,
			VolumeSource: corev1.VolumeSource{HostPath: &corev1.HostPathVolumeSource{Path: m.HostPath, Type: &kind}}})
	}
	return p
}

func (c component) probe(path string, delay, timeout, failures int32) *corev1.Probe {
	if path == "" {
		return nil
	}
	return &corev1.Probe{
		ProbeHandler:        corev1.ProbeHandler{HTTPGet: &corev1.HTTPGetAction{Host: c.host, Path: path, Port: intstr.FromInt(c.port), Scheme: c.scheme}},
		InitialDelaySeconds: delay, TimeoutSeconds: timeout, PeriodSeconds: 10, FailureThreshold: failures,
	}
}

// pair is one flag.
func pair(name, value string) config.Arg { return config.Arg{Name: name, Value: value} }

// pairs are flags, name and value in turn.
func pairs(text ...string) []config.Arg {
	var out []config.Arg
	for i := 0; i+1 < len(text); i += 2 {
		out = append(out, pair(text[i], text[i+1]))
	}
	return out
}

// flags joins a component's own flags with the user's, who win. The order is
// that of the names, so that a manifest changes only when a flag does.
func flags(program string, own []config.Arg, extra []config.Arg) []string {
	all := slices.Clone(own)
	for _, a := range extra {
		all = slices.DeleteFunc(all, func(o config.Arg) bool {
			return o.Name == a.Name && !slices.ContainsFunc(extra, func(e config.Arg) bool { return e == o })
		})
		all = append(all, a)
	}
	slices.SortStableFunc(all, func(a, b config.Arg) int { return strings.Compare(a.Name, b.Name) })
	out := []string{program}
	for _, a := range all {
		out = append(out, "--"+a.Name+"="+a.Value)
	}
	return out
}

func imageName(cluster *config.Cluster, name, tag string) string {
	return strings.TrimSuffix(cluster.ImageRepository, "/") + "/" + name + ":" + tag
}

func dir(name, path string) config.HostPathMount {
	return config.HostPathMount{Name: name, HostPath: path, MountPath: path, ReadOnly: true, PathType: corev1.HostPathDirectoryOrCreate}
}

func file(name, path string) config.HostPathMount {
	return config.HostPathMount{Name: name, HostPath: path, MountPath: path, ReadOnly: true, PathType: corev1.HostPathFileOrCreate}
}

// trust are the directories of the host's own authorities that are there.
func trust() []config.HostPathMount {
	out := []config.HostPathMount{dir("ca-certs", "/etc/ssl/certs")}
	for _, d := range []struct{ name, path string }{
		{"etc-ca-certificates", "/etc/ca-certificates"}, {"etc-pki-ca-trust", "/etc/pki/ca-trust"}, {"etc-pki-tls-certs", "/etc/pki/tls/certs"},
		{"usr-local-share-ca-certificates", "/usr/local/share/ca-certificates"}, {"usr-share-ca-certificates", "/usr/share/ca-certificates"},
	} {
		if _, err := os.Stat(d.path); err == nil {
			out = append(out, dir(d.name, d.path))
		}
	}
	return out
}

// apiServer is kube-apiserver's static pod.
func apiServer(m machine) component {
	c := m.cluster
	at := func(name string) string { return filepath.Join(c.CertificatesDir, name) }
	port := strconv.Itoa(int(m.local.BindPort))
	own := pairs(
		"advertise-address", m.local.AdvertiseAddress, "allow-privileged", "true", "authorization-mode", "Node,RBAC",
		"client-ca-file", at("ca.crt"), "enable-admission-plugins", "NodeRestriction", "enable-bootstrap-token-auth", "true",
		"kubelet-client-certificate", at("apiserver-kubelet-client.crt"), "kubelet-client-key", at("apiserver-kubelet-client.key"),
		"kubelet-preferred-address-types", "InternalIP,ExternalIP,Hostname",
		"proxy-client-cert-file", at("front-proxy-client.crt"), "proxy-client-key-file", at("front-proxy-client.key"),
		"requestheader-allowed-names", "front-proxy-client", "requestheader-client-ca-file", at("front-proxy-ca.crt"),
		"requestheader-extra-headers-prefix", "X-Remote-Extra-", "requestheader-group-headers", "X-Remote-Group", "requestheader-username-headers", "X-Remote-User",
		"secure-port", port, "service-account-issuer", "https://kubernetes.default.svc."+c.Networking.DNSDomain,
		"service-account-key-file", at("sa.pub"), "service-account-signing-key-file", at("sa.key"),
		"service-cluster-ip-range", c.Networking.ServiceSubnet,
		"tls-cert-file", at("apiserver.crt"), "tls-private-key-file", at("apiserver.key"))
	mounts := append([]config.HostPathMount{dir("k8s-certs", c.CertificatesDir)}, trust()...)
	if x := c.Etcd.External; x != nil {
		own = append(own, pair("etcd-servers", strings.Join(x.Endpoints, ",")))
		for _, f := range []struct{ flag, volume, path string }{
			{"etcd-cafile", "etcd-certs-ca", x.CAFile}, {"etcd-certfile", "etcd-certs-cert", x.CertFile}, {"etcd-keyfile", "etcd-certs-key", x.KeyFile}} {
			if f.path != "" {
				own = append(own, config.Arg{Name: f.flag, Value: f.path})
				if !strings.HasPrefix(f.path, c.CertificatesDir+"/") {
					mounts = append(mounts, file(f.volume, f.path))
				}
			}
		}
	} else {
		own = append(own, pair("etcd-servers", "https://127.0.0.1:"+strconv.Itoa(etcdClient)), pair("etcd-cafile", at("etcd/ca.crt")),
			pair("etcd-certfile", at("apiserver-etcd-client.crt")), pair("etcd-keyfile", at("apiserver-etcd-client.key")))
	}
	return component{
		name: "kube-apiserver", image: imageName(c, "kube-apiserver", c.KubernetesVersion), command: flags("kube-apiserver", own, c.APIServer.ExtraArgs),
		mounts: append(mounts, c.APIServer.ExtraVolumes...), env: c.APIServer.ExtraEnvs, cpu: "250m",
		notes: map[string]string{endpointNote: m.local.HostPort()},
		host:  m.local.AdvertiseAddress, port: int(m.local.BindPort), scheme: corev1.URISchemeHTTPS, live: "/livez", ready: "/readyz", start: "/livez",
	}
}

// controllers is kube-controller-manager's static pod.
func controllers(m machine, confDir string) component {
	c := m.cluster
	at := func(name string) string { return filepath.Join(c.CertificatesDir, name) }
	conf := filepath.Join(confDir, "controller-manager.conf")
	own := pairs(
		"authentication-kubeconfig", conf, "authorization-kubeconfig", conf, "bind-address", "127.0.0.1", "client-ca-file", at("ca.crt"),
		"cluster-name", c.ClusterName, "cluster-signing-cert-file", at("ca.crt"), "cluster-signing-key-file", at("ca.key"),
		"controllers", "*,bootstrapsigner,tokencleaner", "kubeconfig", conf, "leader-elect", "true", "requestheader-client-ca-file", at("front-proxy-ca.crt"),
		"root-ca-file", at("ca.crt"), "service-account-private-key-file", at("sa.key"), "use-service-account-credentials", "true")
	own = append(own, elections()...)
	if c.Networking.PodSubnet != "" {
		own = append(own, pair("allocate-node-cidrs", "true"), pair("cluster-cidr", c.Networking.PodSubnet),
			pair("service-cluster-ip-range", c.Networking.ServiceSubnet))
	}
	if _, err := os.Stat(at("ca.key")); err != nil { // an external authority: there is nothing to sign with
		own = slices.DeleteFunc(own, func(a config.Arg) bool { return strings.HasPrefix(a.Name, "cluster-signing-") })
	}
	mounts := append([]config.HostPathMount{dir("k8s-certs", c.CertificatesDir), file("kubeconfig", conf)}, trust()...)
	return component{
		name: "kube-controller-manager", image: imageName(c, "kube-controller-manager", c.KubernetesVersion),
		command: flags("kube-controller-manager", own, c.ControllerManager.ExtraArgs), mounts: append(mounts, c.ControllerManager.ExtraVolumes...),
		env: c.ControllerManager.ExtraEnvs, cpu: "200m", host: "127.0.0.1", port: controllerManager, scheme: corev1.URISchemeHTTPS, live: "/healthz", start: "/healthz",
	}
}

// elections are the times by which another control plane takes over: within ten
// seconds of a leader's last word, where the components' own would need eighteen.
func elections() []config.Arg {
	return pairs("leader-elect-lease-duration", "7s", "leader-elect-renew-deadline", "5s", "leader-elect-retry-period", "1s")
}

// scheduling is kube-scheduler's static pod.
func scheduling(m machine, confDir string) component {
	conf := filepath.Join(confDir, "scheduler.conf")
	own := append(pairs("authentication-kubeconfig", conf, "authorization-kubeconfig", conf, "bind-address", "127.0.0.1", "kubeconfig", conf, "leader-elect", "true"), elections()...)
	c := m.cluster
	return component{
		name: "kube-scheduler", image: imageName(c, "kube-scheduler", c.KubernetesVersion), command: flags("kube-scheduler", own, c.Scheduler.ExtraArgs),
		mounts: append([]config.HostPathMount{file("kubeconfig", conf)}, c.Scheduler.ExtraVolumes...), env: c.Scheduler.ExtraEnvs, cpu: "100m",
		host: "127.0.0.1", port: schedulerPort, scheme: corev1.URISchemeHTTPS, live: "/livez", ready: "/readyz", start: "/livez",
	}
}

// member is a name and a peer URL of etcd.
type member struct{ name, peer string }

// etcdMember is etcd's static pod. others are the members that are there
// already; with any, this one joins them.
func etcdMember(m machine, others []member) component {
	c, e := m.cluster, m.cluster.Etcd.Local
	at := func(name string) string { return filepath.Join(c.CertificatesDir, "etcd", name) }
	url := func(host string, port int) string { return "https://" + net.JoinHostPort(host, strconv.Itoa(port)) }
	self, local := m.local.AdvertiseAddress, "127.0.0.1"
	own := pairs(
		"advertise-client-urls", url(self, etcdClient), "cert-file", at("server.crt"), "client-cert-auth", "true", "data-dir", e.DataDir,
		"initial-advertise-peer-urls", url(self, etcdPeer), "key-file", at("server.key"),
		"listen-client-urls", url(local, etcdClient)+","+url(self, etcdClient), "listen-metrics-urls", fmt.Sprintf("http://%s:%d", local, etcdMetrics),
		"listen-peer-urls", url(self, etcdPeer), "name", m.node.Name, "peer-cert-file", at("peer.crt"), "peer-client-cert-auth", "true",
		"peer-key-file", at("peer.key"), "peer-trusted-ca-file", at("ca.crt"), "snapshot-count", "10000", "trusted-ca-file", at("ca.crt"))
	all := []string{m.node.Name + "=" + url(self, etcdPeer)}
	if len(others) > 0 {
		all = nil
		for _, o := range others {
			all = append(all, o.name+"="+o.peer)
		}
		own = append(own, pair("initial-cluster-state", "existing"))
	}
	own = append(own, pair("initial-cluster", strings.Join(all, ",")))
	img := imageName(c, "etcd", EtcdTag)
	if e.ImageRepository != "" {
		img = strings.TrimSuffix(e.ImageRepository, "/") + "/etcd:" + EtcdTag
	}
	if e.ImageTag != "" {
		img = img[:strings.LastIndex(img, ":")+1] + e.ImageTag
	}
	data := config.HostPathMount{Name: "etcd-data", HostPath: e.DataDir, MountPath: e.DataDir, PathType: corev1.HostPathDirectoryOrCreate}
	return component{
		name: "etcd", image: img, command: flags("etcd", own, e.ExtraArgs), mounts: []config.HostPathMount{data, dir("etcd-certs", filepath.Join(c.CertificatesDir, "etcd"))},
		env: e.ExtraEnvs, cpu: "100m", memory: "100Mi", notes: map[string]string{"kubeadm.kubernetes.io/etcd.advertise-client-urls": url(self, etcdClient)},
		host: local, port: etcdMetrics, scheme: corev1.URISchemeHTTP, live: "/livez", ready: "/readyz", start: "/readyz",
	}
}

// writeManifest puts a static pod where the kubelet finds it, at once whole. One
// that is there and the same is left alone.
func writeManifest(dir, name string, text []byte) error {
	path := filepath.Join(dir, name+".yaml")
	if have, err := os.ReadFile(path); err == nil && bytes.Equal(have, text) {
		return nil
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	// Outside the directory first: the kubelet reads every file it sees there.
	tmp := filepath.Join(filepath.Dir(dir), "."+name+".yaml.new")
	if err := os.WriteFile(tmp, text, 0o600); err != nil {
		return err
	}
	return os.Rename(tmp, path)
}
