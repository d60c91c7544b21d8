package kubeadm

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/sampan-dev/sampan/api"
	"github.com/sampan-dev/sampan/kubeadm/config"
)

// Main is the kubeadm program; it returns the exit code.
func Main(ctx context.Context, args []string) int {
	root := program()
	root.SetArgs(args)
	if err := root.ExecuteContext(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "error:", err)
		return 1
	}
	return 0
}

// program is kubeadm, all of it.
func program() *cobra.Command {
	root := &cobra.Command{
		Use: "kubeadm", Short: "kubeadm: easily bootstrap a secure Kubernetes cluster", SilenceUsage: true, SilenceErrors: true,
		Long: "kubeadm makes clusters of many machines.\n\nOn the first: kubeadm init. On every other, as root: the `kubeadm join` line that it prints.",
	}
	root.AddCommand(Commands()...)
	version := versionCommand()
	everywhere(version)
	root.AddCommand(version)
	return root
}

// Commands are kubeadm's, for whoever offers them under another name.
func Commands() []*cobra.Command {
	all := []*cobra.Command{initCommand(), joinCommandOf(), resetCommand(), tokenCommand(), certsCommand(), configCommand(), upgradeCommand(), kubeconfigCommand(), alphaCommand()}
	for _, c := range all {
		everywhere(c)
	}
	return all
}

// everywhere adds the flags that every command has.
func everywhere(c *cobra.Command) {
	var root string
	var loud int
	f := c.PersistentFlags()
	f.StringVar(&root, "rootfs", "", "The path to the 'real' host root filesystem. This will cause kubeadm to chroot into the provided path.")
	f.IntVarP(&loud, "v", "v", 0, "Number for the log level verbosity; what is done is said whatever it is.")
	c.PersistentPreRunE = func(*cobra.Command, []string) error {
		if root == "" {
			return nil
		}
		if err := unix.Chroot(root); err != nil {
			return fmt.Errorf("failed to chroot to %s: %w", root, err)
		}
		return os.Chdir("/")
	}
}

func versionCommand() *cobra.Command {
	var p output
	c := &cobra.Command{Use: "version", Short: "Print the version of kubeadm", Args: cobra.NoArgs}
	p.flags(c, "short", "yaml", "json")
	c.RunE = func(c *cobra.Command, _ []string) error {
		v := api.Version()
		switch p.format {
		case "short":
			fmt.Fprintln(c.OutOrStdout(), Version())
			return nil
		case "":
			fmt.Fprintf(c.OutOrStdout(), "kubeadm version: &%#v\n", v)
			return nil
		}
		return p.write(c.OutOrStdout(), map[string]any{"clientVersion": v})
	}
	return c
}

// thisHost is what defaults are taken from.
func thisHost() config.Host {
	name, _ := os.Hostname()
	return config.Host{Name: name, Addr: address(), CRISocket: criSocket()}
}

// criSockets are where a runtime listens: containerd's own, and that of the one
// built in.
var criSockets = []string{"/run/containerd/containerd.sock", "/run/sampan/containerd/containerd.sock", "/var/run/crio/crio.sock"}

func criSocket() string {
	for _, s := range criSockets {
		if st, err := os.Stat(s); err == nil && st.Mode()&os.ModeSocket != 0 {
			return "unix://" + s
		}
	}
	return "unix://" + criSockets[0]
}

// address is this machine's towards the default route, or else the first that
// reaches other machines. Nothing is sent: a UDP socket only asks the routes.
func address() netip.Addr {
	if c, err := net.Dial("udp", "192.0.2.1:9"); err == nil {
		defer c.Close()
		if a, ok := c.LocalAddr().(*net.UDPAddr); ok {
			return a.AddrPort().Addr().Unmap()
		}
	}
	list, err := net.InterfaceAddrs()
	if err != nil {
		return netip.Addr{}
	}
	for _, a := range list {
		if p, err := netip.ParsePrefix(a.String()); err == nil && p.Addr().Is4() && p.Addr().IsGlobalUnicast() {
			return p.Addr()
		}
	}
	return netip.Addr{}
}

// common are flags that init and join share.
type common struct {
	file      string
	node      config.NodeRegistration
	ignore    []string
	skip      []string
	dryRun    bool
	advertise string
	port      int32
	certsKey  string
	patches   string
}

func (o *common) flags(c *cobra.Command) {
	f := c.Flags()
	f.StringVar(&o.file, "config", "", "Path to a kubeadm configuration file.")
	f.StringVar(&o.node.Name, "node-name", "", "Specify the node name.")
	f.StringVar(&o.node.CRISocket, "cri-socket", "", "Path to the CRI socket to connect. If empty kubeadm will try to auto-detect this value.")
	f.StringSliceVar(&o.ignore, "ignore-preflight-errors", nil, "A list of checks whose errors will be shown as warnings. Example: 'IsPrivilegedUser,Swap'. Value 'all' ignores errors from all checks.")
	f.StringSliceVar(&o.skip, "skip-phases", nil, "List of phases to be skipped")
	f.BoolVar(&o.dryRun, "dry-run", false, "Don't apply any changes; just output what would be done.")
	f.StringVar(&o.advertise, "apiserver-advertise-address", "", "The IP address the API Server will advertise it's listening on.")
	f.Int32Var(&o.port, "apiserver-bind-port", 0, "Port for the API Server to bind to. (default 6443)")
	f.StringVar(&o.certsKey, "certificate-key", "", "Key used to encrypt the control-plane certificates in the kubeadm-certs Secret: 32 bytes in hex.")
	f.StringVar(&o.patches, "patches", "", patchesUsage)
}

const patchesUsage = "Path to a directory that contains files named \"target[suffix][+patchtype].extension\". For example, \"kube-apiserver0+merge.yaml\" or just \"etcd.json\". " +
	"\"target\" can be one of \"kube-apiserver\", \"kube-controller-manager\", \"kube-scheduler\", \"etcd\", \"kubeletconfiguration\", \"corednsdeployment\". " +
	"\"patchtype\" can be one of \"strategic\", \"merge\" or \"json\" and they match the patch formats supported by kubectl. The default \"patchtype\" is \"strategic\". " +
	"\"extension\" must be either \"json\" or \"yaml\". \"suffix\" is an optional string that can be used to determine which patches are applied first alpha-numerically."

// overPatches lays --patches over a file's.
func (o *common) overPatches(p **config.Patches) {
	if o.patches != "" {
		*p = &config.Patches{Directory: o.patches}
	}
}

// overNode lays the flags over a file's node.
func (o *common) overNode(n *config.NodeRegistration) {
	lay(&n.Name, o.node.Name)
	lay(&n.CRISocket, o.node.CRISocket)
}

func (o *common) overEndpoint(e *config.APIEndpoint) {
	lay(&e.AdvertiseAddress, o.advertise)
	if o.port != 0 {
		e.BindPort = o.port
	}
}

func lay(s *string, value string) {
	if value != "" {
		*s = value
	}
}

func (o *common) read() (*config.File, error) {
	if o.file == "" {
		return &config.File{Others: map[string]map[string]any{}}, nil
	}
	return config.Load(o.file)
}

func initCommand() *cobra.Command {
	c := &cobra.Command{Use: "init", Short: "Run this command in order to set up the Kubernetes control plane", Args: cobra.NoArgs,
		Long: "Run this command in order to set up the Kubernetes control plane\n\n" + describe(initPhases())}
	o := initFlags(c)
	c.RunE = func(c *cobra.Command, _ []string) error {
		r, err := o.build(c.OutOrStdout())
		if err != nil {
			return err
		}
		skip := append(o.skip, r.cfg.SkipPhases...)
		if err := checkSkips(initPhases(), skip); err != nil {
			return err
		}
		r.say("[init] Using Kubernetes version: %s", r.cluster.KubernetesVersion)
		if r.dry() {
			return r.show(skip)
		}
		r.patches.tell(r.say)
		if err := runPhases(c.Context(), initPhases(), r, skip, ""); err != nil {
			return err
		}
		return r.finish()
	}
	c.AddCommand(initPhaseCommand())
	return c
}

// initPhaseCommand is init phase.
func initPhaseCommand() *cobra.Command {
	return phaseCommand(initPhases(), cobra.NoArgs, func(c *cobra.Command) func([]string) (*initRun, error) {
		o := initFlags(c)
		return func([]string) (*initRun, error) { return o.build(c.OutOrStdout()) }
	})
}

type initOptions struct {
	common
	endpoint, pods, services, domain, version, repository, certDir, token string
	ttl                                                                   durationFlag
	sans                                                                  []string
	upload, hideKey, hideToken                                            bool
}

func initFlags(c *cobra.Command) *initOptions {
	o := &initOptions{}
	o.flags(c)
	f := c.Flags()
	f.StringVar(&o.endpoint, "control-plane-endpoint", "", "Specify a stable IP address or DNS name for the control plane.")
	f.StringVar(&o.pods, "pod-network-cidr", "", "Specify range of IP addresses for the pod network. If set, the control plane will automatically allocate CIDRs for every node.")
	f.StringVar(&o.services, "service-cidr", "", "Use alternative range of IP address for service VIPs. (default \"10.96.0.0/12\")")
	f.StringVar(&o.domain, "service-dns-domain", "", "Use alternative domain for services, e.g. \"myorg.internal\". (default \"cluster.local\")")
	f.StringVar(&o.version, "kubernetes-version", "", "Choose a specific Kubernetes version for the control plane; that of this program is deployed.")
	f.StringVar(&o.repository, "image-repository", "", "Choose a container registry to pull control plane images from (default \"registry.k8s.io\")")
	f.StringVar(&o.certDir, "cert-dir", "", "The path where to save and store the certificates. (default \"/etc/kubernetes/pki\")")
	f.StringSliceVar(&o.sans, "apiserver-cert-extra-sans", nil, "Optional extra Subject Alternative Names (SANs) to use for the API Server serving certificate.")
	f.StringVar(&o.token, "token", "", "The token to use for establishing bidirectional trust between nodes and control-plane nodes.")
	f.Var(&o.ttl, "token-ttl", "The duration before the token is automatically deleted (e.g. 1s, 2m, 3h). If set to '0', the token will never expire (default 24h0m0s)")
	var gates string
	f.StringVar(&gates, "feature-gates", "", "A set of key=value pairs that describe feature gates for various features; here every feature is as its latest stage has it.")
	f.BoolVar(&o.upload, "experimental-upload-certs", false, "")
	_ = f.MarkHidden("experimental-upload-certs")
	f.BoolVar(&o.upload, "upload-certs", false, "Upload control-plane certificates to the kubeadm-certs Secret.")
	f.BoolVar(&o.hideKey, "skip-certificate-key-print", false, "Don't print the key used to encrypt the control-plane certificates.")
	f.BoolVar(&o.hideToken, "skip-token-print", false, "Skip printing of the default bootstrap token.")
	return o
}

func (o *initOptions) build(out io.Writer) (*initRun, error) {
	f, err := o.read()
	if err != nil {
		return nil, err
	}
	if f.Init == nil {
		f.Init = &config.Init{}
	}
	if f.Cluster == nil {
		f.Cluster = &config.Cluster{}
	}
	o.overNode(&f.Init.NodeRegistration)
	o.overEndpoint(&f.Init.LocalAPIEndpoint)
	o.overPatches(&f.Init.Patches)
	lay(&f.Init.CertificateKey, o.certsKey)
	f.Init.DryRun = f.Init.DryRun || o.dryRun
	c := f.Cluster
	lay(&c.ControlPlaneEndpoint, o.endpoint)
	lay(&c.Networking.PodSubnet, o.pods)
	lay(&c.Networking.ServiceSubnet, o.services)
	lay(&c.Networking.DNSDomain, o.domain)
	lay(&c.KubernetesVersion, o.version)
	lay(&c.ImageRepository, o.repository)
	lay(&c.CertificatesDir, o.certDir)
	c.APIServer.CertSANs = append(c.APIServer.CertSANs, o.sans...)
	if o.token != "" || o.ttl.set {
		if len(f.Init.BootstrapTokens) == 0 {
			f.Init.BootstrapTokens = []config.BootstrapToken{{}}
		}
		lay(&f.Init.BootstrapTokens[0].Token, o.token)
		if o.ttl.set {
			f.Init.BootstrapTokens[0].TTL = o.ttl.value()
		}
	}
	r, err := prepareInit(f, thisHost(), out)
	if err != nil {
		return nil, err
	}
	r.ignore, r.uploadCerts, r.skipKeyShow, r.hideTokens = o.ignore, o.upload, o.hideKey, o.hideToken
	return r, nil
}

// show says what init would do, and writes nothing.
func (r *initRun) show(skip []string) error {
	text, err := config.Write(r.cfg, r.cluster)
	if err != nil {
		return err
	}
	r.say("[dryrun] The configuration, completed:\n%s", text)
	would(r, initPhases(), "", skip)
	return nil
}

func orElse(a, b string) string {
	if a != "" {
		return a
	}
	return b
}

// confirmed reads the answer to "[y/N]".
func confirmed(c *cobra.Command) bool {
	var answer string
	_, err := fmt.Fscanln(c.InOrStdin(), &answer)
	return err == nil && (strings.EqualFold(answer, "y") || strings.EqualFold(answer, "yes"))
}

// nodeName is this machine's among the nodes: that of its kubelet's certificate,
// or else its host name.
func (p paths) nodeName(host string) string {
	if cert, err := kubeconfigCert(p.file("kubelet.conf")); err == nil {
		if name, ok := strings.CutPrefix(cert.Subject.CommonName, "system:node:"); ok {
			return name
		}
	}
	return strings.ToLower(host)
}
