package config

import (
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Group and Version of the types below.
const (
	Group   = "kubeadm.k8s.io"
	Version = Group + "/v1beta4"
)

// Arg is one flag of a component. A name may occur more than once.
type Arg struct {
	Name  string `json:"name"`
	Value string `json:"value"`
}

// Init is an InitConfiguration: what concerns the first control plane alone.
type Init struct {
	metav1.TypeMeta  `json:",inline"`
	BootstrapTokens  []BootstrapToken `json:"bootstrapTokens,omitempty"`
	DryRun           bool             `json:"dryRun,omitempty"`
	NodeRegistration NodeRegistration `json:"nodeRegistration,omitempty"`
	LocalAPIEndpoint APIEndpoint      `json:"localAPIEndpoint,omitempty"`
	CertificateKey   string           `json:"certificateKey,omitempty"`
	SkipPhases       []string         `json:"skipPhases,omitempty"`
	Patches          *Patches         `json:"patches,omitempty"`
	Timeouts         *Timeouts        `json:"timeouts,omitempty"`
}

// Cluster is a ClusterConfiguration: what all control planes share. It is kept
// in the ConfigMap kube-system/kubeadm-config.
type Cluster struct {
	metav1.TypeMeta             `json:",inline"`
	Etcd                        Etcd                  `json:"etcd,omitempty"`
	Networking                  Networking            `json:"networking,omitempty"`
	KubernetesVersion           string                `json:"kubernetesVersion,omitempty"`
	ControlPlaneEndpoint        string                `json:"controlPlaneEndpoint,omitempty"`
	APIServer                   APIServer             `json:"apiServer,omitempty"`
	ControllerManager           ControlPlaneComponent `json:"controllerManager,omitempty"`
	Scheduler                   ControlPlaneComponent `json:"scheduler,omitempty"`
	DNS                         DNS                   `json:"dns,omitempty"`
	Proxy                       Proxy                 `json:"proxy,omitempty"`
	CertificatesDir             string                `json:"certificatesDir,omitempty"`
	ImageRepository             string                `json:"imageRepository,omitempty"`
	FeatureGates                map[string]bool       `json:"featureGates,omitempty"`
	ClusterName                 string                `json:"clusterName,omitempty"`
	EncryptionAlgorithm         string                `json:"encryptionAlgorithm,omitempty"`
	CertificateValidityPeriod   *metav1.Duration      `json:"certificateValidityPeriod,omitempty"`
	CACertificateValidityPeriod *metav1.Duration      `json:"caCertificateValidityPeriod,omitempty"`
}

// Join is a JoinConfiguration.
type Join struct {
	metav1.TypeMeta  `json:",inline"`
	DryRun           bool              `json:"dryRun,omitempty"`
	NodeRegistration NodeRegistration  `json:"nodeRegistration,omitempty"`
	CACertPath       string            `json:"caCertPath,omitempty"`
	Discovery        Discovery         `json:"discovery"`
	ControlPlane     *JoinControlPlane `json:"controlPlane,omitempty"`
	SkipPhases       []string          `json:"skipPhases,omitempty"`
	Patches          *Patches          `json:"patches,omitempty"`
	Timeouts         *Timeouts         `json:"timeouts,omitempty"`
}

// Reset is a ResetConfiguration.
type Reset struct {
	metav1.TypeMeta       `json:",inline"`
	CleanupTmpDir         bool      `json:"cleanupTmpDir,omitempty"`
	CertificatesDir       string    `json:"certificatesDir,omitempty"`
	CRISocket             string    `json:"criSocket,omitempty"`
	DryRun                bool      `json:"dryRun,omitempty"`
	Force                 bool      `json:"force,omitempty"`
	IgnorePreflightErrors []string  `json:"ignorePreflightErrors,omitempty"`
	SkipPhases            []string  `json:"skipPhases,omitempty"`
	UnmountFlags          []string  `json:"unmountFlags,omitempty"`
	Timeouts              *Timeouts `json:"timeouts,omitempty"`
}

// Upgrade is an UpgradeConfiguration: what the commands of kubeadm upgrade are told.
type Upgrade struct {
	metav1.TypeMeta `json:",inline"`
	Apply           UpgradeApply `json:"apply,omitempty"`
	Diff            UpgradeDiff  `json:"diff,omitempty"`
	Node            UpgradeNode  `json:"node,omitempty"`
	Plan            UpgradePlan  `json:"plan,omitempty"`
	Timeouts        *Timeouts    `json:"timeouts,omitempty"`
}

// UpgradeApply is for the first control plane that is upgraded.
type UpgradeApply struct {
	UpgradeVersions `json:",inline"`
	UpgradeNode     `json:",inline"`
	ForceUpgrade    *bool `json:"forceUpgrade,omitempty"`
	PrintConfig     *bool `json:"printConfig,omitempty"`
}

// UpgradeVersions say to which version.
type UpgradeVersions struct {
	KubernetesVersion         string `json:"kubernetesVersion,omitempty"`
	AllowExperimentalUpgrades *bool  `json:"allowExperimentalUpgrades,omitempty"`
	AllowRCUpgrades           *bool  `json:"allowRCUpgrades,omitempty"`
}

// UpgradeNode is for every other machine.
type UpgradeNode struct {
	CertificateRenewal    *bool             `json:"certificateRenewal,omitempty"`
	DryRun                *bool             `json:"dryRun,omitempty"`
	EtcdUpgrade           *bool             `json:"etcdUpgrade,omitempty"`
	IgnorePreflightErrors []string          `json:"ignorePreflightErrors,omitempty"`
	SkipPhases            []string          `json:"skipPhases,omitempty"`
	Patches               *Patches          `json:"patches,omitempty"`
	ImagePullPolicy       corev1.PullPolicy `json:"imagePullPolicy,omitempty"`
	ImagePullSerial       *bool             `json:"imagePullSerial,omitempty"`
}

// UpgradePlan is for looking first.
type UpgradePlan struct {
	UpgradeVersions       `json:",inline"`
	DryRun                *bool    `json:"dryRun,omitempty"`
	IgnorePreflightErrors []string `json:"ignorePreflightErrors,omitempty"`
	PrintConfig           *bool    `json:"printConfig,omitempty"`
}

// UpgradeDiff is for looking closely.
type UpgradeDiff struct {
	ContextLines *int `json:"contextLines,omitempty"`
}

// APIServer is the API server's own part of a Cluster.
type APIServer struct {
	ControlPlaneComponent `json:",inline"`
	CertSANs              []string `json:"certSANs,omitempty"`
}

// ControlPlaneComponent is what may be said of any static pod.
type ControlPlaneComponent struct {
	ExtraArgs    []Arg           `json:"extraArgs,omitempty"`
	ExtraVolumes []HostPathMount `json:"extraVolumes,omitempty"`
	ExtraEnvs    []corev1.EnvVar `json:"extraEnvs,omitempty"`
}

// HostPathMount shows a path of the host in a static pod.
type HostPathMount struct {
	Name      string              `json:"name"`
	HostPath  string              `json:"hostPath"`
	MountPath string              `json:"mountPath"`
	ReadOnly  bool                `json:"readOnly,omitempty"`
	PathType  corev1.HostPathType `json:"pathType,omitempty"`
}

// ImageMeta overrides parts of an image's name.
type ImageMeta struct {
	ImageRepository string `json:"imageRepository,omitempty"`
	ImageTag        string `json:"imageTag,omitempty"`
}

// DNS and Proxy are the add-ons.
type (
	DNS struct {
		ImageMeta `json:",inline"`
		Disabled  bool `json:"disabled,omitempty"`
	}
	Proxy struct {
		Disabled bool `json:"disabled,omitempty"`
	}
)

// APIEndpoint is where one API server serves.
type APIEndpoint struct {
	AdvertiseAddress string `json:"advertiseAddress,omitempty"`
	BindPort         int32  `json:"bindPort,omitempty"`
}

// NodeRegistration is how a machine becomes a node.
type NodeRegistration struct {
	Name      string `json:"name,omitempty"`
	CRISocket string `json:"criSocket,omitempty"`
	// Taints is nil for the default (a control plane's), empty for none.
	Taints                []corev1.Taint    `json:"taints"`
	KubeletExtraArgs      []Arg             `json:"kubeletExtraArgs,omitempty"`
	IgnorePreflightErrors []string          `json:"ignorePreflightErrors,omitempty"`
	ImagePullPolicy       corev1.PullPolicy `json:"imagePullPolicy,omitempty"`
	ImagePullSerial       *bool             `json:"imagePullSerial,omitempty"`
}

// Networking is the cluster's address plan.
type Networking struct {
	ServiceSubnet string `json:"serviceSubnet,omitempty"`
	PodSubnet     string `json:"podSubnet,omitempty"`
	DNSDomain     string `json:"dnsDomain,omitempty"`
}

// BootstrapToken is a token made at init.
type BootstrapToken struct {
	Token       string           `json:"token"`
	Description string           `json:"description,omitempty"`
	TTL         *metav1.Duration `json:"ttl,omitempty"`
	Expires     *metav1.Time     `json:"expires,omitempty"`
	Usages      []string         `json:"usages,omitempty"`
	Groups      []string         `json:"groups,omitempty"`
}

// Etcd is either a member on each control plane or somebody else's.
type Etcd struct {
	Local    *LocalEtcd    `json:"local,omitempty"`
	External *ExternalEtcd `json:"external,omitempty"`
}

// LocalEtcd is the member that runs beside the API server.
type LocalEtcd struct {
	ImageMeta      `json:",inline"`
	DataDir        string          `json:"dataDir"`
	ExtraArgs      []Arg           `json:"extraArgs,omitempty"`
	ExtraEnvs      []corev1.EnvVar `json:"extraEnvs,omitempty"`
	ServerCertSANs []string        `json:"serverCertSANs,omitempty"`
	PeerCertSANs   []string        `json:"peerCertSANs,omitempty"`
}

// ExternalEtcd is a cluster that kubeadm does not look after.
type ExternalEtcd struct {
	Endpoints []string `json:"endpoints"`
	CAFile    string   `json:"caFile"`
	CertFile  string   `json:"certFile"`
	KeyFile   string   `json:"keyFile"`
}

// Discovery is how a joining machine finds the cluster and comes to trust it.
type Discovery struct {
	BootstrapToken    *BootstrapTokenDiscovery `json:"bootstrapToken,omitempty"`
	File              *FileDiscovery           `json:"file,omitempty"`
	TLSBootstrapToken string                   `json:"tlsBootstrapToken,omitempty"`
}

// BootstrapTokenDiscovery trusts a cluster that knows the token.
type BootstrapTokenDiscovery struct {
	Token                    string   `json:"token"`
	APIServerEndpoint        string   `json:"apiServerEndpoint,omitempty"`
	CACertHashes             []string `json:"caCertHashes,omitempty"`
	UnsafeSkipCAVerification bool     `json:"unsafeSkipCAVerification,omitempty"`
}

// FileDiscovery trusts a kubeconfig.
type FileDiscovery struct {
	KubeConfigPath string `json:"kubeConfigPath"`
}

// JoinControlPlane makes the joining machine a control plane.
type JoinControlPlane struct {
	LocalAPIEndpoint APIEndpoint `json:"localAPIEndpoint,omitempty"`
	CertificateKey   string      `json:"certificateKey,omitempty"`
}

// Patches names a directory of patches to static pods.
type Patches struct {
	Directory string `json:"directory,omitempty"`
}

// Timeouts bound kubeadm's waiting.
type Timeouts struct {
	ControlPlaneComponentHealthCheck *metav1.Duration `json:"controlPlaneComponentHealthCheck,omitempty"`
	KubeletHealthCheck               *metav1.Duration `json:"kubeletHealthCheck,omitempty"`
	KubernetesAPICall                *metav1.Duration `json:"kubernetesAPICall,omitempty"`
	EtcdAPICall                      *metav1.Duration `json:"etcdAPICall,omitempty"`
	TLSBootstrap                     *metav1.Duration `json:"tlsBootstrap,omitempty"`
	Discovery                        *metav1.Duration `json:"discovery,omitempty"`
	UpgradeManifests                 *metav1.Duration `json:"upgradeManifests,omitempty"`
}

// File is all that one configuration file says.
type File struct {
	Init    *Init
	Cluster *Cluster
	Join    *Join
	Reset   *Reset
	Upgrade *Upgrade
	// Others are the documents of other components, as they are, by kind:
	// KubeletConfiguration, KubeProxyConfiguration.
	Others map[string]map[string]any
	// Warnings are about the file: old versions, fields that have no effect.
	Warnings []string
}
