package kubelet

import (
	"errors"
	"log/slog"
	"path/filepath"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	corev1 "k8s.io/api/core/v1"

	"github.com/sampan-dev/sampan/client"
	"github.com/sampan-dev/sampan/kubelet/certs"
	"github.com/sampan-dev/sampan/kubelet/cri"
	"github.com/sampan-dev/sampan/kubelet/evict"
)

// Config says what kind of node this is. Fill starts with its defaults.
type Config struct {
	NodeName string
	Root     string // /var/lib/kubelet
	PodLogs  string // /var/log/pods
	// ContainerLogs holds a link per container, for log collectors; "" makes none.
	ContainerLogs string
	StaticPods    string // directory of manifests; "" is none

	Register   bool // create the Node object
	NodeIPs    []string
	Labels     map[string]string
	Taints     []corev1.Taint
	ProviderID string
	// Capacity replaces what is read from the machine, which inside a namespace
	// shows the whole computer. Reserved is kept from pods.
	Capacity, Reserved corev1.ResourceList
	MaxPods            int
	Port               int // of the HTTPS endpoint, as told in the Node

	ClusterDNS    []string
	ClusterDomain string
	ResolvConf    string // file

	// CgroupRoot is the directory below which pods' control groups are made; ""
	// leaves them to the runtime.
	CgroupRoot string
	// Cgroups turns control groups of pods on.
	Cgroups          bool
	CPUQuota         bool
	PodPids          int64 // processes per pod; 0 is no bound
	OOMAdjust        bool  // the runtime may lower oom_score_adj
	SeccompByDefault bool

	ParallelPulls        int // 0 is no bound
	RuntimeName          string
	Relist               time.Duration // how often the runtime is asked for all, besides its events
	StatusEvery          time.Duration // how often the node is looked at
	StatusReport         time.Duration // how often its unchanged status is written
	LeaseDuration        time.Duration
	MaxCrashDelay        time.Duration
	ContainerLogMaxSize  int64
	ContainerLogMaxFiles int
	EnforceAdmission     bool // refuse pods that do not fit
	Version              string

	// Serve is the HTTPS endpoint; nil is none.
	Serve *Serve
	// Plugins lets storage drivers of the node register themselves.
	Plugins bool
	// Certs says which certificates the agent renews by itself; nil is none. Whose
	// they are is said by NodeName and NodeIPs.
	Certs *certs.Config
	// Component is the configuration as the user gave it, shown at /configz.
	Component any
	// ImageGCHigh and ImageGCLow are percent of the images' filesystem: above
	// the first unused images are removed until the second. 0 removes none.
	ImageGCHigh, ImageGCLow int
	ImageMinAge             time.Duration
	ImageMaxAge             time.Duration // unused for longer goes in any case; 0 is never
	// Evict are what must stay free; none evicts nobody. A condition of the node
	// stays for PressureTransition after its cause has gone; EvictMaxGrace bounds, in
	// seconds, the grace of pods that a soft threshold evicts.
	Evict              []evict.Threshold
	PressureTransition time.Duration
	EvictMaxGrace      int64
	// UnsafeSysctls are kernel parameters that pods may set though they could hurt others.
	UnsafeSysctls []string
	AppArmor      bool // the kernel enforces AppArmor's profiles
}

// Default returns the configuration of an ordinary node.
func Default() Config {
	return Config{
		Root: "/var/lib/kubelet", PodLogs: "/var/log/pods", ContainerLogs: "/var/log/containers",
		Register: true, MaxPods: 110, Port: 10250, ClusterDomain: "cluster.local", ResolvConf: "/etc/resolv.conf",
		CPUQuota: true, RuntimeName: "containerd",
		Relist: 5 * time.Minute, StatusEvery: 10 * time.Second, StatusReport: 5 * time.Minute, LeaseDuration: 40 * time.Second,
		MaxCrashDelay: crashMax, ContainerLogMaxSize: 10 << 20, ContainerLogMaxFiles: 5, EnforceAdmission: true,
		Version: "v1.37.2", ImageGCHigh: 85, ImageGCLow: 80, ImageMinAge: 2 * time.Minute,
		PressureTransition: 5 * time.Minute, Plugins: true,
	}
}

// Check says what is missing.
func (c *Config) Check() error {
	switch {
	case c.NodeName == "":
		return errors.New("kubelet: config: NodeName is missing")
	case !filepath.IsAbs(c.Root) || !filepath.IsAbs(c.PodLogs):
		return errors.New("kubelet: config: Root and PodLogs must be absolute paths")
	case c.MaxPods <= 0:
		return errors.New("kubelet: config: MaxPods must be positive")
	}
	return nil
}

// Deps is what the agent works with. Mirrors must be run by the caller.
type Deps struct {
	Client  client.Interface
	Mirrors *client.Mirrors
	Events  *client.EventRecorder
	Runtime cri.Runtime
	Images  cri.Images
	Log     *slog.Logger
	// Metrics takes the agent's own metrics; they are served if it is also a Gatherer.
	Metrics prometheus.Registerer
}
