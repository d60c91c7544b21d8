package controller

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/sampan-dev/sampan/client"
)

// Config is what may be chosen about the controllers of a cluster. Defaults are upstream's.
type Config struct {
	Controllers []string // names to run; "*" is all that run by default, "-name" takes one out

	ClusterCIDR       string // of pods, one per family, joined by commas
	AllocateNodeCIDRs bool
	NodeMaskIPv4      int // size of one node's pod range
	NodeMaskIPv6      int
	ServiceCIDR       string

	ClusterSigningCert, ClusterSigningKey string        // files of the authority that signs certificates
	SigningDuration                       time.Duration // the longest life of a certificate
	RootCAFile                            string        // published in every namespace
	ServiceAccountKeyFile                 string

	NodeMonitorPeriod      time.Duration
	NodeMonitorGracePeriod time.Duration // a node silent for so long is unreachable
	TerminatedPodThreshold int           // finished pods beyond this many are removed

	Election    client.ElectionConfig
	Kubeconfig  string
	BindAddress string
	SecurePort  int
	// OwnAccounts gives every controller its own service account's rights.
	OwnAccounts bool
	ClusterName string
}

// Check fills in defaults and tells what is wrong.
func (c *Config) Check() error {
	if len(c.Controllers) == 0 {
		c.Controllers = []string{"*"}
	}
	setZero(&c.NodeMaskIPv4, 24)
	setZero(&c.NodeMaskIPv6, 64)
	setZero(&c.SigningDuration, 365*24*time.Hour)
	setZero(&c.NodeMonitorPeriod, 5*time.Second)
	setZero(&c.NodeMonitorGracePeriod, 50*time.Second)
	setZero(&c.TerminatedPodThreshold, 12500)
	if c.AllocateNodeCIDRs && c.ClusterCIDR == "" {
		return errors.New("controller: --cluster-cidr is required with --allocate-node-cidrs")
	}
	if (c.ClusterSigningCert == "") != (c.ClusterSigningKey == "") {
		return errors.New("controller: --cluster-signing-cert-file and --cluster-signing-key-file must be given together")
	}
	if c.NodeMonitorGracePeriod <= c.NodeMonitorPeriod {
		return errors.New("controller: --node-monitor-grace-period must be longer than --node-monitor-period")
	}
	return nil
}

func setZero[T comparable](p *T, v T) {
	if *p == *new(T) {
		*p = v
	}
}

// Enabled says whether the named controller is to run. off says that it does not by default.
func (c *Config) Enabled(name string, off bool) bool {
	if slices.Contains(c.Controllers, "-"+name) {
		return false
	}
	return slices.Contains(c.Controllers, name) || !off && slices.Contains(c.Controllers, "*")
}

// CheckNames brings the names that --controllers had before v1.28 up to date,
// and tells of names that no controller has.
func (c *Config) CheckNames(known []string) error {
	for i, n := range c.Controllers {
		name, off := strings.CutPrefix(n, "-")
		if now, ok := oldNames[name]; ok {
			name = now
			c.Controllers[i] = name
			if off {
				c.Controllers[i] = "-" + name
			}
		}
		if name != "*" && !slices.Contains(known, name) && !slices.Contains(elsewhere, name) {
			return fmt.Errorf("controller: %q is not in the list of known controllers", name)
		}
	}
	return nil
}

// elsewhere are controllers of upstream that have nothing to do here: clouds'
// are their own programs, and what others did is done by the API server.
var elsewhere = []string{
	"service-lb-controller", "node-route-controller", "cloud-node-lifecycle-controller", "storageversion-garbage-collector-controller", "storage-version-migrator-controller",
	"selinux-warning-controller", "kube-apiserver-serving-clustertrustbundle-publisher-controller",
	"validatingadmissionpolicy-status-controller",
}

// oldNames are the names of before (upstream's cmd/kube-controller-manager/names).
var oldNames = map[string]string{
	"serviceaccount-token": "serviceaccount-token-controller", "endpoint": "endpoints-controller", "endpointslice": "endpointslice-controller",
	"endpointslicemirroring": "endpointslice-mirroring-controller", "replicationcontroller": "replicationcontroller-controller",
	"podgc": "pod-garbage-collector-controller", "resourcequota": "resourcequota-controller", "namespace": "namespace-controller",
	"serviceaccount": "serviceaccount-controller", "garbagecollector": "garbage-collector-controller", "daemonset": "daemonset-controller",
	"job": "job-controller", "deployment": "deployment-controller", "replicaset": "replicaset-controller",
	"horizontalpodautoscaling": "horizontal-pod-autoscaler-controller", "disruption": "disruption-controller", "statefulset": "statefulset-controller",
	"cronjob": "cronjob-controller", "csrsigning": "certificatesigningrequest-signing-controller", "csrapproving": "certificatesigningrequest-approving-controller",
	"csrcleaner": "certificatesigningrequest-cleaner-controller", "ttl": "ttl-controller", "bootstrapsigner": "bootstrap-signer-controller",
	"tokencleaner": "token-cleaner-controller", "nodeipam": "node-ipam-controller", "nodelifecycle": "node-lifecycle-controller",
	"service": "service-lb-controller", "route": "node-route-controller", "cloud-node-lifecycle": "cloud-node-lifecycle-controller",
	"persistentvolume-binder": "persistentvolume-binder-controller", "attachdetach": "persistentvolume-attach-detach-controller",
	"persistentvolume-expander": "persistentvolume-expander-controller", "clusterrole-aggregation": "clusterrole-aggregation-controller",
	"pvc-protection": "persistentvolumeclaim-protection-controller", "pv-protection": "persistentvolume-protection-controller",
	"ttl-after-finished": "ttl-after-finished-controller", "root-ca-cert-publisher": "root-ca-certificate-publisher-controller",
	"ephemeral-volume": "ephemeral-volume-controller", "storage-version-gc": "storageversion-garbage-collector-controller",
	"resource-claim-controller": "resourceclaim-controller", "legacy-service-account-token-cleaner": "legacy-serviceaccount-token-cleaner-controller",
	"validatingadmissionpolicy-status-controller": "validatingadmissionpolicy-status-controller",
}

// FlagSet is the part of pflag.FlagSet that declaring flags needs.
type FlagSet interface {
	StringVar(p *string, name, value, usage string)
	StringSliceVar(p *[]string, name string, value []string, usage string)
	BoolVar(p *bool, name string, value bool, usage string)
	IntVar(p *int, name string, value int, usage string)
	DurationVar(p *time.Duration, name string, value time.Duration, usage string)
}

// Flags declares kube-controller-manager's flags, whose values arrive in c. The
// returned function is to be called once the flags are parsed.
func (c *Config) Flags(f FlagSet) func() {
	elect := true
	f.StringSliceVar(&c.Controllers, "controllers", []string{"*"}, "A list of controllers to enable. '*' enables all on-by-default controllers, 'foo' enables the controller named 'foo', '-foo' disables the controller named 'foo'.")
	f.StringVar(&c.ClusterCIDR, "cluster-cidr", "", "CIDR Range for Pods in cluster. Requires --allocate-node-cidrs to be true.")
	f.BoolVar(&c.AllocateNodeCIDRs, "allocate-node-cidrs", false, "Should CIDRs for Pods be allocated and set on the cloud provider.")
	f.IntVar(&c.NodeMaskIPv4, "node-cidr-mask-size", 24, "Mask size for node cidr in cluster.")
	f.IntVar(&c.NodeMaskIPv6, "node-cidr-mask-size-ipv6", 64, "Mask size for IPv6 node cidr in dual-stack cluster.")
	f.StringVar(&c.ServiceCIDR, "service-cluster-ip-range", "", "CIDR Range for Services in cluster.")
	f.StringVar(&c.ClusterSigningCert, "cluster-signing-cert-file", "", "Filename containing a PEM-encoded X509 CA certificate used to issue cluster-scoped certificates.")
	f.StringVar(&c.ClusterSigningKey, "cluster-signing-key-file", "", "Filename containing a PEM-encoded RSA or ECDSA private key used to sign cluster-scoped certificates.")
	f.DurationVar(&c.SigningDuration, "cluster-signing-duration", 365*24*time.Hour, "The max length of duration signed certificates will be given.")
	f.StringVar(&c.RootCAFile, "root-ca-file", "", "If set, this root certificate authority will be included in service account's token secret.")
	f.StringVar(&c.ServiceAccountKeyFile, "service-account-private-key-file", "", "Filename containing a PEM-encoded private RSA or ECDSA key used to sign service account tokens.")
	f.DurationVar(&c.NodeMonitorPeriod, "node-monitor-period", 5*time.Second, "The period for syncing NodeStatus in cloud-node-lifecycle-controller.")
	f.DurationVar(&c.NodeMonitorGracePeriod, "node-monitor-grace-period", 50*time.Second, "Amount of time which we allow running Node to be unresponsive before marking it unhealthy.")
	f.IntVar(&c.TerminatedPodThreshold, "terminated-pod-gc-threshold", 12500, "Number of terminated pods that can exist before the terminated pod garbage collector starts deleting terminated pods. If <= 0, the terminated pod garbage collector is disabled.")
	f.StringVar(&c.Kubeconfig, "kubeconfig", "", "Path to kubeconfig file with authorization and master location information.")
	f.StringVar(&c.BindAddress, "bind-address", "0.0.0.0", "The IP address on which to listen for the --secure-port port.")
	f.IntVar(&c.SecurePort, "secure-port", 10257, "The port on which to serve HTTPS. If 0, don't serve HTTPS at all.")
	f.BoolVar(&c.OwnAccounts, "use-service-account-credentials", false, "If true, use individual service account credentials for each controller.")
	f.StringVar(&c.ClusterName, "cluster-name", "kubernetes", "The instance prefix for the cluster.")
	f.BoolVar(&elect, "leader-elect", true, "Start a leader election client and gain leadership before executing the main loop.")
	e := &c.Election
	f.DurationVar(&e.LeaseDuration, "leader-elect-lease-duration", 15*time.Second, "The duration that non-leader candidates will wait after observing a leadership renewal until attempting to acquire leadership.")
	f.DurationVar(&e.RenewDeadline, "leader-elect-renew-deadline", 10*time.Second, "The interval between attempts by the acting master to renew a leadership slot before it stops leading.")
	f.DurationVar(&e.RetryPeriod, "leader-elect-retry-period", 2*time.Second, "The duration the clients should wait between attempting acquisition and renewal of a leadership.")
	f.StringVar(&e.Name, "leader-elect-resource-name", "kube-controller-manager", "The name of resource object that is used for locking during leader election.")
	f.StringVar(&e.Namespace, "leader-elect-resource-namespace", "kube-system", "The namespace of resource object that is used for locking during leader election.")
	return func() { e.Disabled = !elect }
}
