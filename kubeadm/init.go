package kubeadm

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sampan-dev/sampan/api"
	"github.com/sampan-dev/sampan/bootstrap"
	"github.com/sampan-dev/sampan/client"
	"github.com/sampan-dev/sampan/kit/pki"
	"github.com/sampan-dev/sampan/kubeadm/config"
	"github.com/sampan-dev/sampan/runtime/image"
)

// EtcdTag is the etcd image's tag.
var EtcdTag = image.DefaultSystem().Etcd

// Version is the Kubernetes that this program deploys, "v1.37.2".
func Version() string {
	v, _, _ := strings.Cut(api.Version().GitVersion, "+")
	return v
}

// paths are where everything lies.
type paths struct {
	conf    string // /etc/kubernetes
	kubelet string // /var/lib/kubelet
}

var usual = paths{conf: "/etc/kubernetes", kubelet: "/var/lib/kubelet"}

func (p paths) manifests() string       { return filepath.Join(p.conf, "manifests") }
func (p paths) file(name string) string { return filepath.Join(p.conf, name) }

// initRun is one init: what it was told and what its phases learn.
type initRun struct {
	printer
	paths
	cfg         *config.Init
	cluster     *config.Cluster
	others      map[string]map[string]any
	ignore      []string
	uploadCerts bool
	key         string // the certificates are uploaded under it
	skipKeyShow bool
	hideTokens  bool
	patches     *patches
	conn        client.Interface
}

func (r *initRun) machine() machine {
	return machine{cluster: r.cluster, node: r.cfg.NodeRegistration, local: r.cfg.LocalAPIEndpoint}
}

func (r *initRun) dry() bool { return r.cfg.DryRun }

// client is the administrator's connection.
func (r *initRun) client() (client.Interface, error) {
	if r.conn == nil {
		c, err := client.FromKubeconfig(r.file("admin.conf"), "")
		if err != nil {
			return nil, fmt.Errorf("connect with %s: %w", r.file("admin.conf"), err)
		}
		r.conn = c.Patient(r.cfg.Timeouts.KubernetesAPICall.Duration)
	}
	return r.conn, nil
}

// withClient makes a phase of a function that needs the API.
func withClient(fn func(ctx context.Context, r *initRun, c client.Interface) error) func(context.Context, *initRun) error {
	return func(ctx context.Context, r *initRun) error {
		c, err := r.client()
		if err != nil {
			return err
		}
		return fn(ctx, r, c)
	}
}

// initPhases are init's, in order.
func initPhases() []phase[*initRun] {
	return []phase[*initRun]{
		{name: "preflight", about: "Run pre-flight checks", run: initPreflight},
		{name: "certs", about: "Certificate generation", run: func(_ context.Context, r *initRun) error {
			r.say("[certs] Using certificateDir folder %q", r.cluster.CertificatesDir)
			return nil
		}, parts: certPhases()},
		{name: "kubeconfig", about: "Generate all kubeconfig files necessary to establish the control plane and the admin kubeconfig file", run: func(_ context.Context, r *initRun) error {
			r.say("[kubeconfig] Using kubeconfig folder %q", r.conf)
			return nil
		}, parts: kubeconfigPhases()},
		{name: "etcd", about: "Generate static Pod manifest file for local etcd", parts: []phase[*initRun]{
			{name: "local", about: "Generate the static Pod manifest file for a local, single-node local etcd instance", run: func(_ context.Context, r *initRun) error {
				if r.cluster.Etcd.Local == nil {
					r.say("[etcd] External etcd mode: Skipping the creation of a manifest for local etcd")
					return nil
				}
				r.say("[etcd] Creating static Pod manifest for local etcd in %q", r.manifests())
				if err := os.MkdirAll(r.cluster.Etcd.Local.DataDir, 0o700); err != nil {
					return err
				}
				return r.patches.manifest(r.manifests(), etcdMember(r.machine(), nil), r.say)
			}}}},
		{name: "control-plane", about: "Generate all static Pod manifest files necessary to establish the control plane", parts: []phase[*initRun]{
			manifestPhase("apiserver", "kube-apiserver", func(r *initRun) component { return apiServer(r.machine()) }),
			manifestPhase("controller-manager", "kube-controller-manager", func(r *initRun) component { return controllers(r.machine(), r.conf) }),
			manifestPhase("scheduler", "kube-scheduler", func(r *initRun) component { return scheduling(r.machine(), r.conf) }),
		}},
		{name: "kubelet-start", about: "Write kubelet settings and (re)start the kubelet", run: func(ctx context.Context, r *initRun) error {
			cfg, err := kubeletConfig(r.machine(), r.manifests(), r.others["KubeletConfiguration"])
			if err != nil {
				return err
			}
			if cfg, err = r.patches.apply("kubeletconfiguration", cfg, r.say); err != nil {
				return err
			}
			return startKubelet(ctx, r.kubelet, cfg, kubeletFlags(r.cfg.NodeRegistration, nil, ""), r.say)
		}},
		{name: "wait-control-plane", about: "Wait for the control plane to start", run: waitControlPlane},
		{name: "upload-config", about: "Upload the kubeadm and kubelet configuration to a ConfigMap", parts: configPhases()},
		{name: "upload-certs", about: "Upload certificates to kubeadm-certs", run: withClient(func(ctx context.Context, r *initRun, c client.Interface) (err error) {
			if !r.uploadCerts {
				r.say("[upload-certs] Skipping phase. Please see --upload-certs")
				return nil
			}
			if r.key == "" {
				if r.key, err = bootstrap.NewCertificateKey(); err != nil {
					return err
				}
			}
			r.say("[upload-certs] Storing the certificates in Secret %q in the %q Namespace", certsSecretName, "kube-system")
			if err := uploadCerts(ctx, c, r.cluster, r.key); err != nil {
				return err
			}
			if !r.skipKeyShow {
				r.say("[upload-certs] Using certificate key:\n%s", r.key)
			}
			return nil
		})},
		{name: "mark-control-plane", about: "Mark a node as a control-plane", run: withClient(func(ctx context.Context, r *initRun, c client.Interface) error {
			return mark(ctx, c, r.cfg.NodeRegistration, r.cfg.Timeouts.KubernetesAPICall.Duration, r.say)
		})},
		{name: "bootstrap-token", about: "Generates bootstrap tokens used to join a node to a cluster", run: withClient(bootstrapTokens)},
		{name: "kubelet-finalize", about: "Updates settings relevant to the kubelet after TLS bootstrap", parts: []phase[*initRun]{
			{name: "enable-client-cert-rotation", about: "Enable kubelet client certificate rotation", run: func(_ context.Context, r *initRun) error {
				return rotating(r.file("kubelet.conf"), r.kubelet, r.say)
			}},
		}},
		{name: "addon", about: "Install required addons for passing conformance tests", parts: []phase[*initRun]{
			{name: "coredns", about: "Install the CoreDNS addon to a Kubernetes cluster", run: withClient(func(ctx context.Context, r *initRun, c client.Interface) error {
				return addonDNS(ctx, c, r.cluster, r.patches, r.say)
			})},
			{name: "kube-proxy", about: "Install the kube-proxy addon to a Kubernetes cluster", run: withClient(func(ctx context.Context, r *initRun, c client.Interface) error {
				return addonProxy(ctx, c, r.machine(), r.others["KubeProxyConfiguration"], r.say)
			})},
		}},
		{name: "show-join-command", about: "Show the join command for control-plane and worker node", run: showJoin},
	}
}

// configPhases keep the configuration in the cluster.
func configPhases() []phase[*initRun] {
	return []phase[*initRun]{
		{name: "kubeadm", about: "Upload the kubeadm ClusterConfiguration to a ConfigMap", run: withClient(func(ctx context.Context, r *initRun, c client.Interface) error {
			r.say("[upload-config] Storing the configuration used in ConfigMap %q in the %q Namespace", configMapName, "kube-system")
			return uploadConfig(ctx, c, r.cluster)
		})},
		{name: "kubelet", about: "Upload the kubelet component config to a ConfigMap", run: withClient(func(ctx context.Context, r *initRun, c client.Interface) error {
			r.say("[kubelet] Creating a ConfigMap %q in namespace %s with the configuration for the kubelets in the cluster", kubeletMapName, "kube-system")
			cfg, err := kubeletConfig(r.machine(), r.manifests(), r.others["KubeletConfiguration"])
			if err != nil {
				return err
			}
			return uploadKubelet(ctx, c, cfg)
		})},
	}
}

func certPhases() []phase[*initRun] {
	var out []phase[*initRun]
	for _, c := range certificates {
		out = append(out, phase[*initRun]{name: c.name, about: "Generate " + c.about, run: func(_ context.Context, r *initRun) error {
			if c.ofEtcd() && r.cluster.Etcd.External != nil {
				r.say("[certs] External etcd mode: Skipping %s certificate generation", c.base)
				return nil
			}
			return c.ensure(r.machine(), r.say)
		}})
	}
	return append(out, phase[*initRun]{name: "sa", about: "Generate a private key for signing service account tokens along with its public key",
		run: func(_ context.Context, r *initRun) error { return ensureAccounts(r.cluster, r.say) }})
}

func kubeconfigPhases() []phase[*initRun] {
	var out []phase[*initRun]
	for _, i := range identities {
		out = append(out, phase[*initRun]{name: i.phase(), about: "Generate " + i.about, run: func(_ context.Context, r *initRun) error {
			return i.ensure(r.conf, r.machine(), r.say)
		}})
	}
	return out
}

func manifestPhase(name, program string, make func(*initRun) component) phase[*initRun] {
	return phase[*initRun]{name: name, about: "Generates the " + program + " static Pod manifest", run: func(_ context.Context, r *initRun) error {
		r.say("[control-plane] Creating static Pod manifest for %q", program)
		return r.patches.manifest(r.manifests(), make(r), r.say)
	}}
}

// waitControlPlane waits for the kubelet and what it should have started.
func waitControlPlane(ctx context.Context, r *initRun) error {
	r.say("[wait-control-plane] Waiting for the kubelet to boot up the control plane as static Pods from directory %q", r.manifests())
	if err := kubeletHealthy(ctx, r.cfg.Timeouts.KubeletHealthCheck.Duration, r.say); err != nil {
		return err
	}
	if err := componentsHealthy(ctx, r.machine(), r.cfg.Timeouts.ControlPlaneComponentHealthCheck.Duration, r.say); err != nil {
		return err
	}
	// The administrators' group is bound by one who needs no binding.
	super, err := client.FromKubeconfig(r.file("super-admin.conf"), "")
	if err != nil {
		return err
	}
	limit := r.cfg.Timeouts.KubernetesAPICall.Duration
	if err := patiently(ctx, limit, func(ctx context.Context) error { return adminGrant.apply(ctx, super) }); err != nil {
		return err
	}
	// The server judges by what it has heard of; a grant is heard of a moment after it is made.
	admin, err := client.FromKubeconfig(r.file("admin.conf"), "")
	if err != nil {
		return err
	}
	return patiently(ctx, limit, func(ctx context.Context) error {
		_, err := client.Of[corev1.ConfigMap](admin, metav1.NamespaceSystem).List(ctx, &metav1.ListOptions{Limit: 1})
		return err
	})
}

// componentsHealthy asks each component of this machine until it is well.
func componentsHealthy(ctx context.Context, m machine, wait time.Duration, say func(string, ...any)) error {
	say("[control-plane-check] Waiting for healthy control plane components. This can take up to %s", wait)
	// Whether they live is asked here; who they are is asked by what follows.
	insecure := &http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}} //nolint:gosec // health only
	defer insecure.CloseIdleConnections()
	for _, c := range []struct{ name, url string }{
		{"kube-apiserver", "https://" + m.local.HostPort() + "/livez"},
		{"kube-controller-manager", fmt.Sprintf("https://127.0.0.1:%d/healthz", controllerManager)},
		{"kube-scheduler", fmt.Sprintf("https://127.0.0.1:%d/livez", schedulerPort)},
	} {
		say("[control-plane-check] Checking %s at %s", c.name, c.url)
		if err := patiently(ctx, wait, func(ctx context.Context) error { return healthy(ctx, insecure, c.url) }); err != nil {
			return fmt.Errorf("%s is not healthy after %s: %w\nWhat it says: crictl ps -a | grep kube, or the newest file of /var/log/pods/kube-system_%s-%s_*", c.name, wait, err, c.name, m.node.Name)
		}
		say("[control-plane-check] %s is healthy", c.name)
	}
	return nil
}

// initPreflight looks at the machine, and brings the images.
func initPreflight(ctx context.Context, r *initRun) error {
	r.say("[preflight] Running pre-flight checks")
	checks := initChecks(r.machine(), r.manifests())
	if r.unfinished(initName) {
		r.say("[preflight] An init ended half-way here: going on with what it left")
		checks = slices.DeleteFunc(checks, left)
	}
	if err := preflight(ctx, r.printer, checks, append(r.ignore, r.cfg.NodeRegistration.IgnorePreflightErrors...)); err != nil {
		return err
	}
	r.say("[preflight] Pulling images required for setting up a Kubernetes cluster")
	r.say("[preflight] This might take a minute or two, depending on the speed of your internet connection")
	r.say("[preflight] You can also perform this action beforehand using 'kubeadm config images pull'")
	if err := bringImages(ctx, r.cluster, r.cfg.NodeRegistration, requiredImages(r.cluster), r.say); err != nil {
		return err
	}
	return r.begin(initName)
}

// initName is how an unfinished init marks a machine.
const initName = "init"

// mark waits for a machine's node to register and marks it.
func mark(ctx context.Context, c client.Interface, n config.NodeRegistration, wait time.Duration, say func(string, ...any)) error {
	say("[mark-control-plane] Marking the node %s as control-plane by adding the labels: %v", n.Name, controlPlaneLabels)
	if len(n.Taints) > 0 {
		var list []string
		for _, t := range n.Taints {
			list = append(list, t.ToString())
		}
		say("[mark-control-plane] Marking the node %s as control-plane by adding the taints %v", n.Name, list)
	}
	return patiently(ctx, wait, func(ctx context.Context) error { return markControlPlane(ctx, c, n.Name, n.Taints) })
}

func bootstrapTokens(ctx context.Context, r *initRun, c client.Interface) error {
	for _, t := range r.cfg.BootstrapTokens {
		if !r.hideTokens {
			r.say("[bootstrap-token] Using token: %s", t.Token)
		}
	}
	r.say("[bootstrap-token] Configuring bootstrap tokens, cluster-info ConfigMap, RBAC Roles")
	if err := createTokens(ctx, c, r.cfg.BootstrapTokens, true); err != nil {
		return err
	}
	for _, g := range joinGrants {
		if err := g.apply(ctx, c); err != nil {
			return err
		}
		r.say("[bootstrap-token] %s", g.say)
	}
	if err := kubeletReaders.apply(ctx, c); err != nil {
		return err
	}
	r.say("[bootstrap-token] Creating the %q ConfigMap in the %q namespace", clusterInfoName, "kube-public")
	return clusterInfo(ctx, c, r.cluster, r.cfg.LocalAPIEndpoint)
}

// joinCommand is the line by which a machine joins.
func joinCommand(cluster *config.Cluster, local config.APIEndpoint, token, key string) (string, error) {
	ca, err := readCert(cluster.CertificatesDir, "ca")
	if err != nil {
		return "", err
	}
	line := fmt.Sprintf("kubeadm join %s --token %s \\\n\t--discovery-token-ca-cert-hash %s", cluster.Endpoint(local), token, pki.Hash(ca))
	if key != "" {
		line += " \\\n\t--control-plane --certificate-key " + key
	}
	return line, nil
}

func showJoin(_ context.Context, r *initRun) error {
	r.say("\nYour Kubernetes control-plane has initialized successfully!\n\nTo start using your cluster, you need to run the following as a regular user:\n\n"+
		"  mkdir -p $HOME/.kube\n  sudo cp -i %s $HOME/.kube/config\n  sudo chown $(id -u):$(id -g) $HOME/.kube/config\n\n"+
		"Alternatively, if you are the root user, you can run:\n\n  export KUBECONFIG=/etc/kubernetes/admin.conf\n\n"+
		"You should now deploy a pod network to the cluster.\nRun \"kubectl apply -f [podnetwork].yaml\" with one of the options listed at:\n"+
		"  https://kubernetes.io/docs/concepts/cluster-administration/addons/\n", r.file("admin.conf"))
	if len(r.cfg.BootstrapTokens) == 0 {
		return nil
	}
	token := r.cfg.BootstrapTokens[0].Token
	if r.hideTokens {
		token = "<value withheld>"
	}
	if r.cluster.ControlPlaneEndpoint != "" {
		if r.uploadCerts {
			line, err := joinCommand(r.cluster, r.cfg.LocalAPIEndpoint, token, r.key)
			if err != nil {
				return err
			}
			r.say("You can now join any number of the control-plane node running the following command on each as root:\n\n  %s\n\n"+
				"Please note that the certificate-key gives access to cluster sensitive data, keep it secret!\n"+
				"As a safeguard, uploaded-certs will be deleted in two hours; If necessary, you can use\n"+
				"\"kubeadm init phase upload-certs --upload-certs\" to reload certs afterward.\n", line)
		} else {
			line, err := joinCommand(r.cluster, r.cfg.LocalAPIEndpoint, token, "")
			if err != nil {
				return err
			}
			r.say("You can now join any number of control-plane nodes by copying certificate authorities\nand service account keys on each node and then running the following as root:\n\n  %s \\\n\t--control-plane\n", line)
		}
	}
	line, err := joinCommand(r.cluster, r.cfg.LocalAPIEndpoint, token, "")
	if err != nil {
		return err
	}
	r.say("Then you can join any number of worker nodes by running the following on each as root:\n\n%s", line)
	return nil
}

// prepareInit reads and completes an init's configuration.
func prepareInit(f *config.File, host config.Host, out io.Writer) (*initRun, error) {
	r := &initRun{printer: printer{out}, paths: usual, cfg: f.Init, cluster: f.Cluster, others: f.Others}
	if r.cfg == nil {
		r.cfg = &config.Init{}
	}
	if r.cluster == nil {
		r.cluster = &config.Cluster{}
	}
	for _, w := range f.Warnings {
		r.say("W: %s", w)
	}
	if len(r.cfg.BootstrapTokens) == 0 {
		r.cfg.BootstrapTokens = []config.BootstrapToken{{}}
	}
	for i := range r.cfg.BootstrapTokens {
		if t := &r.cfg.BootstrapTokens[i]; t.Token == "" {
			token, err := newToken()
			if err != nil {
				return nil, err
			}
			t.Token = token
		}
	}
	r.cfg.Default(host)
	r.cluster.Default(Version())
	if v := r.cluster.KubernetesVersion; v != Version() {
		r.say("W: kubernetesVersion %s: this program carries Kubernetes %s, and deploys that", v, Version())
		r.cluster.KubernetesVersion = Version()
	}
	for _, field := range idle(r.cfg, r.cluster) {
		r.say("W: %s is read and has no effect", field)
	}
	var err error
	if r.patches, err = readPatches(r.cfg.Patches); err != nil {
		return nil, err
	}
	r.key = r.cfg.CertificateKey
	if err := r.cfg.Check(r.cluster); err != nil {
		return nil, err
	}
	return r, nil
}

// idle names the fields that somebody set and that change nothing here.
func idle(i *config.Init, c *config.Cluster) (out []string) {
	for field, set := range map[string]bool{
		"nodeRegistration.imagePullSerial": i.NodeRegistration.ImagePullSerial != nil,
		"featureGates":                     len(c.FeatureGates) > 0, "caCertificateValidityPeriod": c.CACertificateValidityPeriod.Duration != pki.CALife,
		"timeouts.upgradeManifests": i.Timeouts.UpgradeManifests.Duration != 5*time.Minute,
	} {
		if set {
			out = append(out, field)
		}
	}
	slices.Sort(out)
	return out
}
