package bootstrap

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/pflag"

	kubeletconfig "github.com/sampan-dev/sampan/kubelet/config"

	"github.com/sampan-dev/sampan/controlplane"
	"github.com/sampan-dev/sampan/storage/etcd"
	"github.com/sampan-dev/sampan/vip"
)

// Config describes one server: a control plane with its node, or, with Join, a
// node alone.
type Config struct {
	DataDir       string
	NodeName      string
	NodeIP        netip.Addr
	BindAddress   string
	Port          int
	ClusterCIDR   netip.Prefix
	ServiceCIDR   netip.Prefix
	ClusterDNS    netip.Addr
	ClusterDomain string
	TLSSANs       []string

	Join   string // the API server to join; empty makes a control plane
	Token  string // a bootstrap token: made valid by a control plane, used by a joining node
	CAFile string // the cluster's authority, for a joining node
	// CAHashes stand for CAFile: what the server says of its authority must have one of them.
	CAHashes []string

	ControlPlane bool // with Join: become another control plane, not only a node
	ClusterInit  bool // let others join as control planes: etcd's member is open to peers
	// ForceNewCluster makes the member of etcd here the only one, and ends.
	ForceNewCluster bool
	// RestoreSnapshot does so with the data of a file that holds a snapshot of etcd.
	RestoreSnapshot string
	// Snapshots are taken of the member of etcd here, if there is a directory for them.
	Snapshots etcd.Backup
	// PublicEndpoint is where machines that kubeadm manages reach the API, host:port.
	PublicEndpoint string
	// CertificateKey encrypts what control planes share: uploaded by one, used by those that join.
	CertificateKey string

	// BalancerPort is where a node reaches all API servers through its balancer; 0 for none.
	BalancerPort int

	VIP vip.Config // a virtual address that the control planes share; zero for none

	ImportImages   []string // directories of image archives
	ManifestDir    string   // of static pods; empty for none
	Registry       string   // loopback registry of the node; empty for none
	CapacityCPU    int
	CapacityMemory int64
	Endpoint       string // a CRI endpoint to use instead of the runtime built in
	EtcdServers    []string
	EtcdCAFile     string
	EtcdCertFile   string
	EtcdKeyFile    string
	NoNode         bool // a control plane only
	// NetworkBackend is how pods of several nodes reach each other, by flannel's names; empty for VXLAN.
	NetworkBackend string
	// EvictionHard are the kubelet's thresholds, "memory.available<100Mi,…"; empty for its defaults.
	EvictionHard map[string]string
	// ImageGCHigh is the percentage of disk use above which unused images go; 0 for the kubelet's default.
	ImageGCHigh int32

	Guard controlplane.Guard // what keeps the API server from harm
	// API is who is believed, who decides, and what admission does, where it is not
	// as a control plane has it by itself; nil for that.
	API *controlplane.Config
}

// Defaults returns the configuration of a one-node cluster on this computer.
func Defaults() Config {
	host, _ := os.Hostname()
	return Config{
		DataDir: "/var/lib/sampan", NodeName: strings.ToLower(host), BindAddress: "0.0.0.0", Port: 6443,
		ClusterCIDR: netip.MustParsePrefix("10.244.0.0/16"), ServiceCIDR: netip.MustParsePrefix("10.96.0.0/12"),
		ClusterDNS: netip.MustParseAddr("10.96.0.10"), ClusterDomain: "cluster.local",
		Registry: "127.0.0.1:5000", ManifestDir: "/etc/kubernetes/manifests",
		BalancerPort: 7445, VIP: vip.Defaults(),
	}
}

// Flags adds the configuration's flags to fs, with its present values as defaults.
func (c *Config) Flags(fs *pflag.FlagSet) {
	fs.StringVar(&c.DataDir, "data-dir", c.DataDir, "where everything that must be kept is kept")
	fs.StringVar(&c.NodeName, "node-name", c.NodeName, "this node's name")
	fs.TextVar(&c.NodeIP, "node-ip", c.NodeIP, "this node's address; the one towards the default route if not set")
	fs.StringVar(&c.BindAddress, "bind-address", c.BindAddress, "where the API server listens")
	fs.IntVar(&c.Port, "secure-port", c.Port, "the API server's port")
	fs.TextVar(&c.ClusterCIDR, "cluster-cidr", c.ClusterCIDR, "the range of pods' addresses")
	fs.TextVar(&c.ServiceCIDR, "service-cluster-ip-range", c.ServiceCIDR, "the range of services' addresses")
	fs.TextVar(&c.ClusterDNS, "cluster-dns", c.ClusterDNS, "the address of cluster DNS")
	fs.StringVar(&c.ClusterDomain, "cluster-domain", c.ClusterDomain, "the domain of cluster DNS")
	fs.StringSliceVar(&c.TLSSANs, "tls-san", nil, "more names and addresses in the API server's certificate")
	fs.StringVar(&c.Join, "join", "", "join the cluster of this API server as a node, instead of making one")
	fs.StringVar(&c.Token, "token", "", "the bootstrap token by which nodes join")
	fs.StringVar(&c.CAFile, "certificate-authority", "", "with --join: the cluster's authority")
	fs.StringSliceVar(&c.CAHashes, "discovery-token-ca-cert-hash", nil, "with --join, instead of --certificate-authority: the hash of the public key of the cluster's authority, sha256:…")
	fs.BoolVar(&c.ControlPlane, "control-plane", false, "with --join: become another control plane of the cluster, with a member of its etcd")
	fs.BoolVar(&c.ClusterInit, "cluster-init", false, "let other control planes join: the etcd built in listens for members over TLS, at ports 2379 and 2380")
	fs.BoolVar(&c.ForceNewCluster, "force-new-cluster", false, "when the majority of control planes is lost for good: make this machine's member of etcd the only one of its cluster, with what it has, and end")
	fs.StringVar(&c.PublicEndpoint, "control-plane-endpoint", "", "the address, HOST[:PORT], by which machines that kubeadm manages reach the API whichever control plane is down; --vip's, or the first control plane's, if not set")
	fs.StringVar(&c.RestoreSnapshot, "restore-snapshot", "", "make the data of this file, a snapshot of etcd, that of this machine's member, the only one of its cluster, and end; the data that was there is kept beside")
	fs.StringVar(&c.Snapshots.Directory, "etcd-snapshot-directory", "", "where to keep snapshots of the etcd built in, taken on a schedule; empty for none")
	fs.DurationVar(&c.Snapshots.Interval, "etcd-snapshot-interval", etcd.BackupInterval, "between two snapshots of etcd")
	fs.IntVar(&c.Snapshots.Keep, "etcd-snapshot-keep", etcd.BackupKeep, "how many snapshots of etcd are kept")
	fs.StringVar(&c.CertificateKey, "certificate-key", "", "the key by which the certificates that control planes share are encrypted: kept for two hours by the one that is joined, used by those that join")
	c.VIP.Flags(fs)
	fs.IntVar(&c.BalancerPort, "balancer-port", c.BalancerPort, "the port, on loopback and for the node's pods, of the balancer over all API servers, which nodes that joined and control planes of several have; 0 for none")
	fs.StringSliceVar(&c.ImportImages, "import-images", nil, "directories of image archives to import at start")
	fs.StringVar(&c.ManifestDir, "pod-manifest-path", c.ManifestDir, "directory of static pods' manifests; empty for none")
	fs.StringVar(&c.Registry, "registry", c.Registry, "loopback address of the node's own registry of imported images; empty for none")
	fs.IntVar(&c.CapacityCPU, "capacity-cpu", 0, "processors to report; 0 for all")
	fs.Int64Var(&c.CapacityMemory, "capacity-memory", 0, "bytes of memory to report; 0 for all")
	fs.Func("eviction-hard", "the kubelet's eviction thresholds, e.g. memory.available<100Mi,nodefs.available<10%", func(v string) (err error) {
		c.EvictionHard, err = kubeletconfig.Pairs(v)
		return err
	})
	fs.Int32Var(&c.ImageGCHigh, "image-gc-high-threshold", 0, "the percentage of disk use above which unused images are removed; 100 for never")
	fs.StringVar(&c.Endpoint, "container-runtime-endpoint", "", "a CRI endpoint to use instead of the containerd built in")
	GuardFlags(fs, &c.Guard)
	fs.StringSliceVar(&c.EtcdServers, "etcd-servers", nil, "an external etcd instead of the one built in")
	fs.StringVar(&c.EtcdCAFile, "etcd-cafile", "", "authority of the external etcd")
	fs.StringVar(&c.EtcdCertFile, "etcd-certfile", "", "client certificate for the external etcd")
	fs.StringVar(&c.EtcdKeyFile, "etcd-keyfile", "", "key of that certificate")
	fs.StringVar(&c.NetworkBackend, "flannel-backend", c.NetworkBackend, "how pods of several nodes reach each other: vxlan (the default), host-gw, udp, or none for a network of your own (CNI)")
	fs.BoolVar(&c.NoNode, "disable-node", false, "run the control plane only")
}

var tokenForm = regexp.MustCompile(`^[a-z0-9]{6}\.[a-z0-9]{16}$`)

// Check says what is wrong with a configuration.
func (c *Config) Check() error {
	var errs []error
	if c.NodeName == "" {
		errs = append(errs, errors.New("--node-name: Required value"))
	}
	if !c.NodeIP.Is4() {
		errs = append(errs, fmt.Errorf("--node-ip %q: want this node's IPv4 address", c.NodeIP))
	}
	if !c.ServiceCIDR.Contains(c.ClusterDNS) {
		errs = append(errs, fmt.Errorf("--cluster-dns %s is not in --service-cluster-ip-range %s", c.ClusterDNS, c.ServiceCIDR))
	}
	if c.ClusterCIDR.Overlaps(c.ServiceCIDR) {
		errs = append(errs, fmt.Errorf("--cluster-cidr %s and --service-cluster-ip-range %s overlap", c.ClusterCIDR, c.ServiceCIDR))
	}
	if c.ServiceCIDR.Contains(c.NodeIP) || c.ClusterCIDR.Contains(c.NodeIP) {
		errs = append(errs, fmt.Errorf("--node-ip %s lies in the range of services or pods: choose other ranges", c.NodeIP))
	}
	if c.Token != "" && !tokenForm.MatchString(c.Token) {
		errs = append(errs, fmt.Errorf("--token: want the form abcdef.0123456789abcdef"))
	}
	if c.VIP.On() {
		c.VIP.Self = c.NodeIP
		errs = append(errs, c.VIP.Check())
		if c.Join != "" && !c.ControlPlane {
			errs = append(errs, errors.New("--vip: only a control plane serves at the virtual address"))
		}
	}
	if c.BalancerPort < 0 || c.BalancerPort > 65535 {
		errs = append(errs, fmt.Errorf("--balancer-port %d: want 0 to 65535", c.BalancerPort))
	}
	return errors.Join(append(errs, c.checkJoin()...)...)
}

// checkJoin says what is wrong with how a cluster is joined or may be.
func (c *Config) checkJoin() (errs []error) {
	if c.Join != "" && (c.Token == "" || c.CAFile == "" && len(c.CAHashes) == 0) {
		errs = append(errs, errors.New("--join needs --token and --certificate-authority or --discovery-token-ca-cert-hash"))
	}
	if c.PublicEndpoint != "" {
		if _, _, err := net.SplitHostPort(c.PublicEndpoint); err != nil {
			c.PublicEndpoint = net.JoinHostPort(c.PublicEndpoint, strconv.Itoa(c.Port))
		}
		if host, port, err := net.SplitHostPort(c.PublicEndpoint); err != nil || host == "" || port == "" {
			errs = append(errs, fmt.Errorf("--control-plane-endpoint %s: want HOST or HOST:PORT", c.PublicEndpoint))
		}
		if c.Join != "" {
			errs = append(errs, errors.New("--control-plane-endpoint: the first control plane says it for all"))
		}
	}
	if c.ControlPlane && c.Join == "" {
		errs = append(errs, errors.New("--control-plane needs --join; the first control plane is started with --cluster-init"))
	}
	if c.ClusterInit && c.Join != "" {
		errs = append(errs, errors.New("--cluster-init: the cluster of --join is there already"))
	}
	if c.several() && len(c.EtcdServers) > 0 {
		errs = append(errs, errors.New("--etcd-servers: control planes with an external etcd need no --cluster-init and no --control-plane: give each the same etcd and the same certificates"))
	}
	if c.ForceNewCluster && !c.several() {
		errs = append(errs, errors.New("--force-new-cluster is for one of several control planes, and goes with its --cluster-init, or --join and --control-plane"))
	}
	if c.RestoreSnapshot != "" && (len(c.EtcdServers) > 0 || c.Join != "" && !c.ControlPlane) {
		errs = append(errs, errors.New("--restore-snapshot is for a control plane with an etcd of its own"))
	}
	if c.RestoreSnapshot != "" && c.ForceNewCluster {
		errs = append(errs, errors.New("--restore-snapshot makes a new cluster by itself, without --force-new-cluster"))
	}
	if c.Snapshots.Directory != "" {
		if len(c.EtcdServers) > 0 || c.Join != "" && !c.ControlPlane {
			errs = append(errs, errors.New("--etcd-snapshot-directory is for a control plane with an etcd of its own"))
		}
		if c.Snapshots.Interval < time.Second {
			errs = append(errs, fmt.Errorf("--etcd-snapshot-interval %v: want at least 1s", c.Snapshots.Interval))
		}
		if c.Snapshots.Keep < 1 {
			errs = append(errs, fmt.Errorf("--etcd-snapshot-keep %d: want at least 1", c.Snapshots.Keep))
		}
	}
	if c.CertificateKey != "" {
		if _, err := sealer(c.CertificateKey); err != nil {
			errs = append(errs, err)
		}
		if !c.several() {
			errs = append(errs, errors.New("--certificate-key needs --cluster-init, or --join with --control-plane"))
		}
	}
	return errs
}

func (c *Config) path(elem ...string) string {
	return filepath.Join(append([]string{c.DataDir}, elem...)...)
}
