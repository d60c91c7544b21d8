// Package config reads how the user configures the node agent: the
// KubeletConfiguration file and upstream's flags, the retired ones included.
//
// Job: file and command line to one KubeletConfiguration and a few Options that
// the file cannot say, with warnings about what has no effect.
//
// Not its job: what the settings do.
//
// Invariants: flags win over the file; defaults are upstream's.
package config

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/yaml"
	kubeletv1beta1 "k8s.io/kubelet/config/v1beta1"
)

// Options are what only the command line says.
type Options struct {
	ConfigFile, ConfigDir       string
	Kubeconfig, BootstrapConfig string
	HostnameOverride            string
	NodeIPs                     []string
	Labels                      map[string]string
	RootDir, CertDir            string
	CgroupDriver                string // as the command line says; Component has the file's word
	Verbosity                   int
	Component                   kubeletv1beta1.KubeletConfiguration
	Warnings                    []string
}

func ptr[T any](v T) *T { return &v }

func seconds(n int) metav1.Duration { return metav1.Duration{Duration: time.Duration(n) * time.Second} }

// Default returns upstream's defaults.
func Default() kubeletv1beta1.KubeletConfiguration {
	c := kubeletv1beta1.KubeletConfiguration{
		EnableServer: ptr(true), SyncFrequency: seconds(60), FileCheckFrequency: seconds(20), HTTPCheckFrequency: seconds(20),
		Address: "0.0.0.0", Port: 10250, PodLogsDir: "/var/log/pods",
		RegistryPullQPS: ptr(int32(5)), RegistryBurst: 10, EventRecordQPS: ptr(int32(50)), EventBurst: 100,
		EnableDebuggingHandlers: ptr(true), HealthzPort: ptr(int32(10248)), HealthzBindAddress: "127.0.0.1", OOMScoreAdj: ptr(int32(-999)),
		StreamingConnectionIdleTimeout: seconds(4 * 3600), NodeStatusUpdateFrequency: seconds(10), NodeStatusReportFrequency: seconds(300),
		NodeLeaseDurationSeconds: 40, ImageMinimumGCAge: seconds(120), ImageGCHighThresholdPercent: ptr(int32(85)), ImageGCLowThresholdPercent: ptr(int32(80)),
		CgroupsPerQOS: ptr(true), CgroupDriver: "cgroupfs", CPUManagerPolicy: "none", MemoryManagerPolicy: "None", TopologyManagerPolicy: "none", TopologyManagerScope: "container",
		RuntimeRequestTimeout: seconds(120), HairpinMode: "promiscuous-bridge", MaxPods: 110, PodPidsLimit: ptr(int64(-1)),
		ResolverConfig: ptr("/etc/resolv.conf"), CPUCFSQuota: ptr(true), CPUCFSQuotaPeriod: ptr(metav1.Duration{Duration: 100 * time.Millisecond}),
		NodeStatusMaxImages: ptr(int32(50)), MaxOpenFiles: 1000000, ContentType: "application/vnd.kubernetes.protobuf",
		KubeAPIQPS: ptr(int32(50)), KubeAPIBurst: 100, SerializeImagePulls: ptr(true),
		EvictionHard:                     map[string]string{"memory.available": "100Mi", "nodefs.available": "10%", "nodefs.inodesFree": "5%", "imagefs.available": "15%", "imagefs.inodesFree": "5%"},
		EvictionPressureTransitionPeriod: seconds(300), EnableControllerAttachDetach: ptr(true), MakeIPTablesUtilChains: ptr(true), FailSwapOn: ptr(true),
		ContainerLogMaxSize: "10Mi", ContainerLogMaxFiles: ptr(int32(5)), ContainerLogMaxWorkers: ptr(int32(1)), ContainerLogMonitorInterval: ptr(seconds(10)),
		ConfigMapAndSecretChangeDetectionStrategy: kubeletv1beta1.WatchChangeDetectionStrategy, EnforceNodeAllocatable: []string{"pods"},
		VolumePluginDir: "/usr/libexec/kubernetes/kubelet-plugins/volume/exec/", RegisterNode: ptr(true), SeccompDefault: ptr(false),
		LocalStorageCapacityIsolation: ptr(true), ContainerRuntimeEndpoint: "unix:///run/containerd/containerd.sock",
	}
	c.APIVersion, c.Kind = "kubelet.config.k8s.io/v1beta1", "KubeletConfiguration"
	c.Authentication.Anonymous.Enabled = ptr(false)
	c.Authentication.Webhook.Enabled = ptr(true)
	c.Authentication.Webhook.CacheTTL = seconds(120)
	c.Authorization.Mode = kubeletv1beta1.KubeletAuthorizationModeWebhook
	c.Authorization.Webhook.CacheAuthorizedTTL, c.Authorization.Webhook.CacheUnauthorizedTTL = seconds(300), seconds(30)
	return c
}

// Read lays a configuration file over c.
func Read(r io.Reader, c *kubeletv1beta1.KubeletConfiguration) error {
	data, err := io.ReadAll(r)
	if err != nil {
		return err
	}
	js, err := yaml.ToJSON(data)
	if err != nil {
		return err
	}
	var kind metav1.TypeMeta
	if err := json.Unmarshal(js, &kind); err != nil {
		return err
	}
	if kind.Kind != "KubeletConfiguration" || kind.APIVersion != "kubelet.config.k8s.io/v1beta1" {
		return fmt.Errorf("no kind %q is registered for version %q", kind.Kind, kind.APIVersion)
	}
	before := Default()
	if err := json.Unmarshal(js, c); err != nil {
		return err
	}
	fill(c, &before)
	return nil
}

// fill puts defaults where a file says the empty value outright.
func fill(c, d *kubeletv1beta1.KubeletConfiguration) {
	for _, p := range []struct{ at, or *metav1.Duration }{
		{&c.SyncFrequency, &d.SyncFrequency}, {&c.FileCheckFrequency, &d.FileCheckFrequency},
		{&c.NodeStatusUpdateFrequency, &d.NodeStatusUpdateFrequency}, {&c.NodeStatusReportFrequency, &d.NodeStatusReportFrequency},
		{&c.ImageMinimumGCAge, &d.ImageMinimumGCAge}, {&c.RuntimeRequestTimeout, &d.RuntimeRequestTimeout},
	} {
		if p.at.Duration == 0 {
			*p.at = *p.or
		}
	}
	if c.MaxPods == 0 {
		c.MaxPods = d.MaxPods
	}
	if c.Port == 0 {
		c.Port = d.Port
	}
	if c.NodeLeaseDurationSeconds == 0 {
		c.NodeLeaseDurationSeconds = d.NodeLeaseDurationSeconds
	}
	if c.ContainerLogMaxSize == "" {
		c.ContainerLogMaxSize = d.ContainerLogMaxSize
	}
	if c.ContainerRuntimeEndpoint == "" {
		c.ContainerRuntimeEndpoint = d.ContainerRuntimeEndpoint
	}
}

// flag is one setting of the command line.
type flag struct {
	set  func(o *Options, v string) error
	bool bool
}

func text(f func(*Options) *string) flag {
	return flag{set: func(o *Options, v string) error { *f(o) = v; return nil }}
}

func number(f func(*Options) *int32) flag {
	return flag{set: func(o *Options, v string) error {
		n, err := strconv.ParseInt(v, 10, 32)
		*f(o) = int32(n)
		return err
	}}
}

func truth(f func(*Options) **bool) flag {
	return flag{bool: true, set: func(o *Options, v string) error {
		b, err := strconv.ParseBool(v)
		*f(o) = &b
		return err
	}}
}

func span(f func(*Options) *metav1.Duration) flag {
	return flag{set: func(o *Options, v string) error {
		d, err := time.ParseDuration(v)
		f(o).Duration = d
		return err
	}}
}

func pairs(f func(*Options) *map[string]string) flag {
	return flag{set: func(o *Options, v string) error {
		m, err := Pairs(v)
		*f(o) = m
		return err
	}}
}

// Pairs reads "name=value,…" or, as thresholds are written, "name<value,…".
func Pairs(v string) (map[string]string, error) {
	m := map[string]string{}
	for p := range strings.SplitSeq(v, ",") {
		k, val, ok := strings.Cut(p, "=")
		if !ok {
			k, val, ok = strings.Cut(p, "<")
		}
		if !ok {
			return m, fmt.Errorf("malformed pair, expect string=string: %q", p)
		}
		m[strings.TrimSpace(k)] = strings.TrimSpace(val)
	}
	return m, nil
}

func list(f func(*Options) *[]string) flag {
	return flag{set: func(o *Options, v string) error { *f(o) = strings.Split(v, ","); return nil }}
}

// flags are those that have an effect.
func flags() map[string]flag {
	out := general()
	maps.Copy(out, limits())
	return out
}

// limits are the flags of what a node keeps free and how much is kept.
func limits() map[string]flag {
	return map[string]flag{
		"eviction-soft":                       pairs(func(o *Options) *map[string]string { return &o.Component.EvictionSoft }),
		"eviction-soft-grace-period":          pairs(func(o *Options) *map[string]string { return &o.Component.EvictionSoftGracePeriod }),
		"eviction-minimum-reclaim":            pairs(func(o *Options) *map[string]string { return &o.Component.EvictionMinimumReclaim }),
		"eviction-max-pod-grace-period":       number(func(o *Options) *int32 { return &o.Component.EvictionMaxPodGracePeriod }),
		"eviction-pressure-transition-period": span(func(o *Options) *metav1.Duration { return &o.Component.EvictionPressureTransitionPeriod }),
		"minimum-image-ttl-duration":          span(func(o *Options) *metav1.Duration { return &o.Component.ImageMinimumGCAge }),
		"allowed-unsafe-sysctls":              list(func(o *Options) *[]string { return &o.Component.AllowedUnsafeSysctls }),
		"read-only-port":                      number(func(o *Options) *int32 { return &o.Component.ReadOnlyPort }),
		"rotate-server-certificates": {bool: true, set: func(o *Options, v string) (err error) {
			o.Component.ServerTLSBootstrap, err = strconv.ParseBool(v)
			return err
		}},
		"enable-server": truth(func(o *Options) **bool { return &o.Component.EnableServer }),
		"pod-max-pids": {set: func(o *Options, v string) error {
			n, err := strconv.ParseInt(v, 10, 64)
			o.Component.PodPidsLimit = &n
			return err
		}},
		"container-log-max-files": {set: func(o *Options, v string) error {
			n, err := strconv.ParseInt(v, 10, 32)
			o.Component.ContainerLogMaxFiles = ptr(int32(n))
			return err
		}},
	}
}

func general() map[string]flag {
	return map[string]flag{
		"config":                       text(func(o *Options) *string { return &o.ConfigFile }),
		"config-dir":                   text(func(o *Options) *string { return &o.ConfigDir }),
		"kubeconfig":                   text(func(o *Options) *string { return &o.Kubeconfig }),
		"bootstrap-kubeconfig":         text(func(o *Options) *string { return &o.BootstrapConfig }),
		"hostname-override":            text(func(o *Options) *string { return &o.HostnameOverride }),
		"node-ip":                      list(func(o *Options) *[]string { return &o.NodeIPs }),
		"node-labels":                  pairs(func(o *Options) *map[string]string { return &o.Labels }),
		"root-dir":                     text(func(o *Options) *string { return &o.RootDir }),
		"cert-dir":                     text(func(o *Options) *string { return &o.CertDir }),
		"v":                            {set: func(o *Options, v string) (err error) { o.Verbosity, err = strconv.Atoi(v); return err }},
		"container-runtime-endpoint":   text(func(o *Options) *string { return &o.Component.ContainerRuntimeEndpoint }),
		"image-service-endpoint":       text(func(o *Options) *string { return &o.Component.ImageServiceEndpoint }),
		"pod-manifest-path":            text(func(o *Options) *string { return &o.Component.StaticPodPath }),
		"address":                      text(func(o *Options) *string { return &o.Component.Address }),
		"port":                         number(func(o *Options) *int32 { return &o.Component.Port }),
		"tls-cert-file":                text(func(o *Options) *string { return &o.Component.TLSCertFile }),
		"tls-private-key-file":         text(func(o *Options) *string { return &o.Component.TLSPrivateKeyFile }),
		"client-ca-file":               text(func(o *Options) *string { return &o.Component.Authentication.X509.ClientCAFile }),
		"anonymous-auth":               truth(func(o *Options) **bool { return &o.Component.Authentication.Anonymous.Enabled }),
		"authentication-token-webhook": truth(func(o *Options) **bool { return &o.Component.Authentication.Webhook.Enabled }),
		"authorization-mode": {set: func(o *Options, v string) error {
			o.Component.Authorization.Mode = kubeletv1beta1.KubeletAuthorizationMode(v)
			return nil
		}},
		"cluster-dns":    list(func(o *Options) *[]string { return &o.Component.ClusterDNS }),
		"cluster-domain": text(func(o *Options) *string { return &o.Component.ClusterDomain }),
		"resolv-conf":    {set: func(o *Options, v string) error { o.Component.ResolverConfig = &v; return nil }},
		"max-pods":       number(func(o *Options) *int32 { return &o.Component.MaxPods }),
		"cgroup-driver": {set: func(o *Options, v string) error {
			o.CgroupDriver, o.Component.CgroupDriver = v, v
			return nil
		}},
		"cgroup-root":          text(func(o *Options) *string { return &o.Component.CgroupRoot }),
		"cgroups-per-qos":      truth(func(o *Options) **bool { return &o.Component.CgroupsPerQOS }),
		"cpu-cfs-quota":        truth(func(o *Options) **bool { return &o.Component.CPUCFSQuota }),
		"register-node":        truth(func(o *Options) **bool { return &o.Component.RegisterNode }),
		"register-with-taints": {set: taints},
		"provider-id":          text(func(o *Options) *string { return &o.Component.ProviderID }),
		"eviction-hard":        pairs(func(o *Options) *map[string]string { return &o.Component.EvictionHard }),
		"system-reserved":      pairs(func(o *Options) *map[string]string { return &o.Component.SystemReserved }),
		"kube-reserved":        pairs(func(o *Options) *map[string]string { return &o.Component.KubeReserved }),
		"rotate-certificates": {bool: true, set: func(o *Options, v string) (err error) {
			o.Component.RotateCertificates, err = strconv.ParseBool(v)
			return err
		}},
		"serialize-image-pulls":        truth(func(o *Options) **bool { return &o.Component.SerializeImagePulls }),
		"seccomp-default":              truth(func(o *Options) **bool { return &o.Component.SeccompDefault }),
		"node-status-update-frequency": span(func(o *Options) *metav1.Duration { return &o.Component.NodeStatusUpdateFrequency }),
		"healthz-port": {set: func(o *Options, v string) error {
			n, err := strconv.ParseInt(v, 10, 32)
			o.Component.HealthzPort = ptr(int32(n))
			return err
		}},
		"healthz-bind-address":   text(func(o *Options) *string { return &o.Component.HealthzBindAddress }),
		"container-log-max-size": text(func(o *Options) *string { return &o.Component.ContainerLogMaxSize }),
		"image-gc-high-threshold": {set: func(o *Options, v string) error {
			n, err := strconv.ParseInt(v, 10, 32)
			o.Component.ImageGCHighThresholdPercent = ptr(int32(n))
			return err
		}},
		"image-gc-low-threshold": {set: func(o *Options, v string) error {
			n, err := strconv.ParseInt(v, 10, 32)
			o.Component.ImageGCLowThresholdPercent = ptr(int32(n))
			return err
		}},
	}
}

// retired are flags of earlier releases and of settings that have no effect here,
// by what is so instead.
var retired = map[string][]string{
	"the container runtime's configuration says it": strings.Fields(`pod-infra-container-image container-runtime network-plugin cni-bin-dir cni-conf-dir cni-cache-dir docker-endpoint dockershim-checkpoint-dir
		image-pull-progress-deadline hairpin-mode pod-cidr non-masquerade-cidr seccomp-profile-root redirect-container-streaming azure-container-registry-config
		containerd containerd-namespace docker docker-only docker-root docker-tls docker-tls-ca docker-tls-cert docker-tls-key`),
	"logs go to standard error": strings.Fields(`logtostderr alsologtostderr log-dir log-file stderrthreshold vmodule log-file-max-size skip-headers skip-log-headers add-dir-header one-output
		log-flush-frequency log-backtrace-at logging-format log-json-info-buffer-size log-json-split-stream log-text-info-buffer-size log-text-split-stream`),
	"no feature here is behind a gate":                                           {"feature-gates"},
	"this release behaves as itself":                                             {"emulated-version", "min-compatibility-version"},
	"all metrics are shown, with all their labels":                               strings.Fields("allow-metric-labels allow-metric-labels-manifest disabled-metrics show-hidden-metrics-for-version application-metrics-count-limit"),
	"the client is not limited; the API server is fair to all":                   strings.Fields("event-qps event-burst kube-api-qps kube-api-burst kube-api-content-type"),
	"pulls are limited by --serialize-image-pulls alone":                         {"registry-qps", "registry-burst"},
	"pulls are by the pod's secrets alone":                                       {"image-credential-provider-config", "image-credential-provider-bin-dir"},
	"use --kubeconfig":                                                           strings.Fields("experimental-bootstrap-kubeconfig api-servers require-kubeconfig"),
	"privileged containers are for the namespace's Pod Security level to refuse": strings.Fields("allow-privileged host-network-sources host-pid-sources host-ipc-sources"),
	"usage is read from control groups when somebody asks": strings.Fields(`cadvisor-port container-hints boot-id-file machine-id-file global-housekeeping-interval housekeeping-interval volume-stats-agg-period
		storage-driver-buffer-duration storage-driver-db storage-driver-host storage-driver-password storage-driver-secure storage-driver-table storage-driver-user enable-load-reader
		event-storage-age-limit event-storage-event-limit log-cadvisor-usage docker-env-metadata-whitelist containerd-env-metadata-whitelist`),
	"dead containers go with their pod or by --eviction-hard":                 strings.Fields("keep-terminated-pod-volumes minimum-container-ttl-duration maximum-dead-containers maximum-dead-containers-per-container"),
	"processors and memory are the kernel's to place":                         strings.Fields("cpu-manager-policy cpu-manager-policy-options cpu-manager-reconcile-period topology-manager-policy topology-manager-policy-options topology-manager-scope memory-manager-policy reserved-cpus"),
	"pods are limited by their own control groups, nodes by what is reserved": strings.Fields("enforce-node-allocatable kube-reserved-cgroup system-reserved-cgroup kubelet-cgroups system-cgroups runtime-cgroups kubelet-cgroups-per-qos qos-reserved cpu-cfs-quota-period pods-per-core"),
	"both versions of control groups will do":                                 {"fail-cgroupv1"},
	"memory is looked at every few seconds":                                   {"experimental-kernel-memcg-notification", "kernel-memcg-notification", "experimental-allocatable-ignore-eviction"},
	"nodes without a cloud are the only ones":                                 {"cloud-provider", "cloud-config"},
	"the file of --config is read at start":                                   {"dynamic-config-dir", "bootstrap-checkpoint-path"},
	"manifests are files, followed as they change":                            strings.Fields("file-check-frequency http-check-frequency manifest-url manifest-url-header"),
	"the proxy and the network make their own rules":                          strings.Fields("make-iptables-util-chains iptables-masquerade-bit iptables-drop-bit"),
	"the kubelet's API is always served":                                      strings.Fields("enable-debugging-handlers contention-profiling streaming-connection-idle-timeout"),
	"Go's own rules hold":                                                     strings.Fields("tls-cipher-suites tls-min-version"),
	"reviews are remembered as long as upstream's by default":                 strings.Fields("authentication-token-webhook-cache-ttl authorization-webhook-cache-authorized-ttl authorization-webhook-cache-unauthorized-ttl"),
	"drivers are those of CSI":                                                strings.Fields("volume-plugin-dir experimental-mounter-path experimental-check-node-capabilities-before-mount enable-controller-attach-detach local-storage-capacity-isolation"),
	"the process is left as the init system starts it":                        strings.Fields("oom-score-adj max-open-files protect-kernel-defaults lock-file exit-on-lock-contention runonce chaos-chance really-crash-for-testing"),
	"swap is left to the administrator; kubeadm's preflight warns of it":      {"fail-swap-on"},
	"pods are looked at when something changes, and every minute":             {"sync-frequency"},
	"a call of the runtime may take two minutes":                              {"runtime-request-timeout"},
	"the Node says all it has":                                                strings.Fields("node-status-max-images register-schedulable master-service-namespace"),
}

// Retired are the flags that are accepted with a warning, and what is so instead.
func Retired() map[string]string {
	out := map[string]string{}
	for why, names := range retired {
		for _, name := range names {
			out[name] = why
		}
	}
	return out
}

func taints(o *Options, v string) error {
	o.Component.RegisterWithTaints = nil
	if v == "" {
		return nil
	}
	for t := range strings.SplitSeq(v, ",") {
		head, effect, ok := strings.Cut(t, ":")
		if !ok {
			return fmt.Errorf("invalid taint spec: %v", t)
		}
		key, val, _ := strings.Cut(head, "=")
		o.Component.RegisterWithTaints = append(o.Component.RegisterWithTaints, corev1.Taint{Key: key, Value: val, Effect: corev1.TaintEffect(effect)})
	}
	return nil
}

// Parse reads a command line as upstream's kubelet does, with the file and the
// drop-in directory that it names.
func Parse(args []string) (*Options, error) {
	first := &Options{}
	if _, err := apply(args, first); err != nil {
		return nil, err
	}
	o := &Options{RootDir: "/var/lib/kubelet", CertDir: "/var/lib/kubelet/pki", Component: Default()}
	files := []string{}
	if first.ConfigFile != "" {
		files = append(files, first.ConfigFile)
	}
	if first.ConfigDir != "" {
		more, err := filepath.Glob(filepath.Join(first.ConfigDir, "*.conf"))
		if err != nil {
			return nil, err
		}
		slices.Sort(more)
		files = append(files, more...)
	}
	for _, f := range files {
		data, err := os.ReadFile(f)
		if err != nil {
			return nil, fmt.Errorf("failed to load kubelet config file, path: %s, error: %w", f, err)
		}
		if err := Read(bytes.NewReader(data), &o.Component); err != nil {
			return nil, fmt.Errorf("failed to load kubelet config file, path: %s, error: %w", f, err)
		}
	}
	warnings, err := apply(args, o)
	o.Warnings = warnings
	return o, err
}

// apply sets what args say.
func apply(args []string, o *Options) (warnings []string, err error) {
	known, old := flags(), Retired()
	for i := 0; i < len(args); i++ {
		a := args[i]
		if !strings.HasPrefix(a, "-") {
			return nil, fmt.Errorf("unknown command %q", a)
		}
		name, v, given := strings.Cut(strings.TrimLeft(a, "-"), "=")
		name = strings.ReplaceAll(name, "_", "-")
		f, ok := known[name]
		if !ok && old[name] == "" {
			return nil, fmt.Errorf("unknown flag: --%s", name)
		}
		if !given {
			switch {
			case f.bool || !ok && (i+1 == len(args) || strings.HasPrefix(args[i+1], "-")):
				v = "true"
			case i+1 < len(args):
				i++
				v = args[i]
			default:
				return nil, fmt.Errorf("flag needs an argument: --%s", name)
			}
		}
		if !ok {
			warnings = append(warnings, fmt.Sprintf("Flag --%s has been deprecated, %s", name, old[name]))
			continue
		}
		if err := f.set(o, v); err != nil {
			return nil, fmt.Errorf("invalid argument %q for %q flag: %w", v, "--"+name, err)
		}
	}
	return warnings, nil
}
