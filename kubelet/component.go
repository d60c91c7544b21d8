package kubelet

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	kubeletv1beta1 "k8s.io/kubelet/config/v1beta1"

	"github.com/sampan-dev/sampan/kubelet/certs"
	"github.com/sampan-dev/sampan/kubelet/config"
	"github.com/sampan-dev/sampan/kubelet/evict"
	"github.com/sampan-dev/sampan/kubelet/server"
)

// Flags reads upstream's command line into a configuration. What remains for
// the caller, such as the kubeconfig and the runtime's endpoint, is in the options.
func Flags(args []string, hostname string) (Config, *config.Options, error) {
	o, err := config.Parse(args)
	if err != nil {
		return Config{}, nil, err
	}
	c, err := FromOptions(o, hostname)
	return c, o, err
}

// FromOptions turns upstream's settings into ours.
func FromOptions(o *config.Options, hostname string) (Config, error) {
	u := &o.Component
	c := Default()
	c.NodeName = strings.ToLower(strings.TrimSpace(hostname))
	if o.HostnameOverride != "" {
		c.NodeName = strings.ToLower(strings.TrimSpace(o.HostnameOverride))
	}
	c.Root, c.PodLogs, c.StaticPods = o.RootDir, u.PodLogsDir, u.StaticPodPath
	c.NodeIPs, c.Labels, c.Taints, c.ProviderID = o.NodeIPs, o.Labels, u.RegisterWithTaints, u.ProviderID
	c.MaxPods, c.Port = int(u.MaxPods), int(u.Port)
	c.ClusterDNS, c.ClusterDomain = u.ClusterDNS, u.ClusterDomain
	c.ResolvConf = deref(u.ResolverConfig)
	c.Register, c.CPUQuota = deref(u.RegisterNode), deref(u.CPUCFSQuota)
	c.Cgroups, c.CgroupRoot, c.SeccompByDefault = deref(u.CgroupsPerQOS), u.CgroupRoot, deref(u.SeccompDefault)
	c.StatusEvery, c.StatusReport = u.NodeStatusUpdateFrequency.Duration, u.NodeStatusReportFrequency.Duration
	c.LeaseDuration = time.Duration(u.NodeLeaseDurationSeconds) * time.Second
	c.ImageGCHigh, c.ImageGCLow, c.ImageMinAge = int(deref(u.ImageGCHighThresholdPercent)), int(deref(u.ImageGCLowThresholdPercent)), u.ImageMinimumGCAge.Duration
	c.ContainerLogMaxFiles = int(deref(u.ContainerLogMaxFiles))
	if d := u.CrashLoopBackOff.MaxContainerRestartPeriod; d != nil {
		c.MaxCrashDelay = d.Duration
	}
	switch {
	case deref(u.SerializeImagePulls):
		c.ParallelPulls = 1
	case u.MaxParallelImagePulls != nil:
		c.ParallelPulls = int(*u.MaxParallelImagePulls)
	}
	size, err := resource.ParseQuantity(u.ContainerLogMaxSize)
	if err != nil {
		return c, fmt.Errorf("containerLogMaxSize: %w", err)
	}
	c.ContainerLogMaxSize = size.Value()
	if c.Reserved, err = reserved(u.SystemReserved, u.KubeReserved); err != nil {
		return c, err
	}
	if c.Evict, err = evict.Parse(evict.Config{Hard: u.EvictionHard, Soft: u.EvictionSoft, SoftGrace: u.EvictionSoftGracePeriod, MinReclaim: u.EvictionMinimumReclaim}); err != nil {
		return c, err
	}
	c.PressureTransition, c.EvictMaxGrace = u.EvictionPressureTransitionPeriod.Duration, int64(u.EvictionMaxPodGracePeriod)
	c.UnsafeSysctls, c.AppArmor = u.AllowedUnsafeSysctls, apparmor()
	c.ImageMaxAge = u.ImageMaximumGCAge.Duration
	c.PodPids = max(deref(u.PodPidsLimit), 0)
	c.Certs = rotation(o, u)
	c.Component = u
	if deref(u.EnableServer) {
		c.Serve = serveConfig(o, u)
	}
	return c, c.Check()
}

// apparmor says whether the kernel enforces AppArmor's profiles.
func apparmor() bool {
	b, err := os.ReadFile("/sys/module/apparmor/parameters/enabled")
	return err == nil && strings.HasPrefix(string(b), "Y")
}

// rotation says which certificates the agent shall renew: its client
// certificate where TLS bootstrap has put it, and the endpoint's.
func rotation(o *config.Options, u *kubeletv1beta1.KubeletConfiguration) *certs.Config {
	out := &certs.Config{}
	if u.ServerTLSBootstrap && u.TLSCertFile == "" {
		out.Serving = certs.ServingFile(o.CertDir)
	}
	if u.RotateCertificates {
		one := filepath.Join(o.CertDir, "kubelet-client-current.pem")
		crt, key := filepath.Join(o.CertDir, "kubelet-client.crt"), filepath.Join(o.CertDir, "kubelet-client.key") // of a join to servers
		if exists(one) || toBootstrap(o) {
			out.ClientCert, out.ClientKey = one, one
		} else if exists(crt) {
			out.ClientCert, out.ClientKey = crt, key
		} // else it came some other way, and is not ours to renew
	}
	if out.Serving == "" && out.ClientCert == "" {
		return nil
	}
	return out
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// toBootstrap says that the client certificate is still to come by a token.
func toBootstrap(o *config.Options) bool {
	_, err := os.Stat(o.Kubeconfig)
	return o.BootstrapConfig != "" && err != nil
}

func serveConfig(o *config.Options, u *kubeletv1beta1.KubeletConfiguration) *Serve {
	s := &Serve{
		Config: server.Config{
			Address: u.Address, Port: int(u.Port), CertFile: u.TLSCertFile, KeyFile: u.TLSPrivateKeyFile,
			ClientCA: u.Authentication.X509.ClientCAFile, Anonymous: deref(u.Authentication.Anonymous.Enabled), LogDir: "/var/log",
		},
		Tokens:   deref(u.Authentication.Webhook.Enabled),
		AllowAll: u.Authorization.Mode == kubeletv1beta1.KubeletAuthorizationModeAlwaysAllow,
	}
	if s.CertFile == "" {
		s.CertFile, s.KeyFile = filepath.Join(o.CertDir, "kubelet.crt"), filepath.Join(o.CertDir, "kubelet.key")
	}
	if u.ReadOnlyPort > 0 {
		s.ReadOnly = net.JoinHostPort(u.Address, strconv.Itoa(int(u.ReadOnlyPort)))
	}
	if p := deref(u.HealthzPort); p > 0 {
		s.Healthz = net.JoinHostPort(u.HealthzBindAddress, strconv.Itoa(int(p)))
	}
	return s
}

func deref[T any](p *T) T {
	var zero T
	if p == nil {
		return zero
	}
	return *p
}

func reserved(all ...map[string]string) (corev1.ResourceList, error) {
	out := corev1.ResourceList{}
	for _, m := range all {
		for k, v := range m {
			q, err := resource.ParseQuantity(v)
			if err != nil {
				return nil, fmt.Errorf("reserved %s: %w", k, err)
			}
			sum := out[corev1.ResourceName(k)]
			sum.Add(q)
			out[corev1.ResourceName(k)] = sum
		}
	}
	return out, nil
}
