package kubeadm

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/yaml"

	"github.com/sampan-dev/sampan/client"
	"github.com/sampan-dev/sampan/kubeadm/config"
)

// joinRun is one join.
type joinRun struct {
	printer
	paths
	cfg     *config.Join
	ignore  []string
	found   *found
	boot    client.Interface // as the token's holder
	cluster *config.Cluster
	patches *patches
	resumed bool // an earlier try of this join ended half-way
}

func (r *joinRun) dry() bool { return r.cfg.DryRun }

func (r *joinRun) local() config.APIEndpoint {
	if r.cfg.ControlPlane == nil {
		return config.APIEndpoint{BindPort: config.DefaultBindPort}
	}
	return r.cfg.ControlPlane.LocalAPIEndpoint
}

func (r *joinRun) machine() machine {
	return machine{cluster: r.cluster, node: r.cfg.NodeRegistration, local: r.local()}
}

// learn finds the cluster and reads its configuration, once.
func (r *joinRun) learn(ctx context.Context) error {
	if r.cluster != nil {
		return nil
	}
	var err error
	if r.found, err = discover(ctx, r.cfg.Discovery, r.cfg.Timeouts.Discovery.Duration, r.say); err != nil {
		return err
	}
	if err := preflight(ctx, r.printer, []check{skewed(r.found)}, append(r.ignore, r.cfg.NodeRegistration.IgnorePreflightErrors...)); err != nil {
		return err
	}
	conf := r.found.bootstrapConf(r.cfg.Discovery.TLSBootstrapToken)
	boot, err := client.New(client.Config{Servers: []string{conf.Server}, CAData: conf.CA, BearerToken: conf.Token, UserAgent: "kubeadm"})
	if err != nil {
		return err
	}
	r.boot = boot.Patient(r.cfg.Timeouts.KubernetesAPICall.Duration)
	return r.read(ctx)
}

// read gets the cluster's configuration.
func (r *joinRun) read(ctx context.Context) (err error) {
	r.say("[preflight] Reading configuration from the %q ConfigMap in namespace %q...", configMapName, "kube-system")
	r.say("[preflight] Use 'kubeadm init phase upload-config kubeadm --config your-config-file' to re-upload it.")
	r.cluster, err = fetchCluster(ctx, r.boot)
	if apierrors.IsUnauthorized(err) {
		return fmt.Errorf("the cluster refuses the token: %w; it may have expired: `kubeadm token create --print-join-command` on a control plane makes another", err)
	}
	return err
}

// controlPlane makes a phase that only control planes have.
func controlPlane(name, about string, run func(ctx context.Context, r *joinRun) error) phase[*joinRun] {
	return phase[*joinRun]{name: name, about: about, run: func(ctx context.Context, r *joinRun) error {
		if r.cfg.ControlPlane == nil {
			return nil
		}
		if err := r.learn(ctx); err != nil { // a phase that runs alone
			return err
		}
		return run(ctx, r)
	}}
}

// joinPhases are join's, in order. A control plane's kubelet talks to the API
// server of its own machine, so that its member of etcd joins first.
func joinPhases() []phase[*joinRun] {
	return []phase[*joinRun]{
		{name: "preflight", about: "Run join pre-flight checks", run: joinPreflight},
		{name: "control-plane-prepare", about: "Prepare the machine for serving a control plane", parts: []phase[*joinRun]{
			controlPlane("download-certs", "Download certificates from the kubeadm-certs Secret", func(ctx context.Context, r *joinRun) error {
				key := r.cfg.ControlPlane.CertificateKey
				if key == "" {
					return nil
				}
				r.say("[download-certs] Downloading the certificates in Secret %q in the %q Namespace", certsSecretName, "kube-system")
				r.say("[download-certs] Saving the certificates to the folder: %q", r.cluster.CertificatesDir)
				return downloadCerts(ctx, r.boot, r.cluster, key)
			}),
			controlPlane("certs", "Generate the certificates for the new control plane components", func(_ context.Context, r *joinRun) error {
				r.say("[certs] Using certificateDir folder %q", r.cluster.CertificatesDir)
				for _, c := range wanted(r.cluster) {
					if err := c.ensure(r.machine(), r.say); err != nil {
						return err
					}
				}
				return ensureAccounts(r.cluster, r.say)
			}),
			controlPlane("kubeconfig", "Generate the kubeconfig for the new control plane components", func(_ context.Context, r *joinRun) error {
				r.say("[kubeconfig] Generating kubeconfig files")
				r.say("[kubeconfig] Using kubeconfig folder %q", r.conf)
				for _, i := range identities {
					if i.file == "kubelet.conf" || i.file == "super-admin.conf" {
						continue
					}
					if err := i.ensure(r.conf, r.machine(), r.say); err != nil {
						return err
					}
				}
				return nil
			}),
			controlPlane("control-plane", "Generate the manifests for the new control plane components", func(_ context.Context, r *joinRun) error {
				r.say("[control-plane] Using manifest folder %q", r.manifests())
				for _, c := range []component{apiServer(r.machine()), controllers(r.machine(), r.conf), scheduling(r.machine(), r.conf)} {
					r.say("[control-plane] Creating static Pod manifest for %q", c.name)
					if err := r.patches.manifest(r.manifests(), c, r.say); err != nil {
						return err
					}
				}
				return nil
			}),
		}},
		controlPlane("check-etcd", "Check cluster health for the etcd nodes", func(ctx context.Context, r *joinRun) error {
			if r.cluster.Etcd.Local == nil {
				r.say("[check-etcd] Skipping etcd check in external mode")
				return nil
			}
			r.say("[check-etcd] Checking that the etcd cluster is healthy")
			c, err := r.admin()
			if err != nil {
				return err
			}
			return stackedHealthy(ctx, c, r.cluster, r.local().AdvertiseAddress)
		}),
		{name: "kubelet-start", about: "Write kubelet settings, certificates and (re)start the kubelet", run: joinKubelet},
		controlPlane("etcd-join", "Join etcd for control plane nodes", func(ctx context.Context, r *joinRun) error {
			if r.cluster.Etcd.Local == nil {
				r.say("[control-plane-join] Using external etcd - no local stacked instance added")
				return nil
			}
			if err := os.MkdirAll(r.cluster.Etcd.Local.DataDir, 0o700); err != nil {
				return err
			}
			// Through the shared endpoint: this machine's own API server waits for this member.
			c, err := r.admin()
			if err != nil {
				return err
			}
			return joinEtcd(ctx, c, r.machine(), func(e component) error { return r.patches.manifest(r.manifests(), e, r.say) }, r.say)
		}),
		{name: "kubelet-wait-bootstrap", about: "Wait for the kubelet to bootstrap itself", run: joinedKubelet},
		{name: "control-plane-join", about: "Join a machine as a control plane instance", parts: []phase[*joinRun]{
			controlPlane("mark-control-plane", "Mark a node as a control-plane", func(ctx context.Context, r *joinRun) error {
				c, err := r.admin()
				if err != nil {
					return err
				}
				return mark(ctx, c, r.cfg.NodeRegistration, r.cfg.Timeouts.KubernetesAPICall.Duration, r.say)
			}),
		}},
		controlPlane("wait-control-plane", "Wait for the control plane to start", func(ctx context.Context, r *joinRun) error {
			return componentsHealthy(ctx, r.machine(), r.cfg.Timeouts.ControlPlaneComponentHealthCheck.Duration, r.say)
		}),
	}
}

// admin is the administrator's connection by the endpoint that was joined.
func (r *joinRun) admin() (client.Interface, error) {
	c, err := client.FromKubeconfigAt(r.file("admin.conf"), r.found.server)
	if err != nil {
		return nil, err
	}
	return c.Patient(r.cfg.Timeouts.KubernetesAPICall.Duration), nil
}

func joinPreflight(ctx context.Context, r *joinRun) error {
	r.say("[preflight] Running pre-flight checks")
	ignore := append(r.ignore, r.cfg.NodeRegistration.IgnorePreflightErrors...)
	r.resumed = r.unfinished(joinName)
	if r.resumed {
		r.say("[preflight] A join ended half-way here: going on with what it left")
	}
	if err := r.preflight(ctx, joinChecks(r.cfg.NodeRegistration, r.paths, r.cfg.CACertPath, r.cfg.ControlPlane != nil), ignore); err != nil {
		return err
	}
	if err := r.welcome(ctx, ignore); err != nil {
		return err
	}
	return r.begin(joinName)
}

// welcome finds the cluster, and asks whether it takes this machine.
func (r *joinRun) welcome(ctx context.Context, ignore []string) error {
	if err := r.learn(ctx); err != nil {
		return err
	}
	if err := r.preflight(ctx, versionChecks(r.cluster.KubernetesVersion, Version(), r.cfg.ControlPlane != nil), ignore); err != nil {
		return err
	}
	if r.cfg.ControlPlane != nil {
		if err := r.canServe(ctx, ignore); err != nil {
			return err
		}
	}
	return r.nameFree(ctx)
}

// joinName is how an unfinished join marks a machine.
const joinName = "join"

// preflight leaves out what an earlier try of this join left.
func (r *joinRun) preflight(ctx context.Context, checks []check, ignore []string) error {
	if r.resumed {
		checks = slices.DeleteFunc(checks, left)
	}
	return preflight(ctx, r.printer, checks, ignore)
}

// canServe looks whether this machine can be one more control plane.
func (r *joinRun) canServe(ctx context.Context, ignore []string) error {
	if r.cluster.ControlPlaneEndpoint == "" {
		return errors.New("One or more conditions for hosting a new control plane instance is not satisfied.\n\n" +
			"unable to add a new control plane instance to a cluster that doesn't have a stable controlPlaneEndpoint address\n\n" +
			"Please ensure that:\n* The cluster has a stable controlPlaneEndpoint address.\n* The certificates that must be shared among control plane instances are provided.\n\n" +
			"On a control plane: write controlPlaneEndpoint into a configuration file and run `kubeadm init phase upload-config kubeadm --config FILE`")
	}
	if r.cfg.ControlPlane.CertificateKey == "" {
		for _, path := range sharedFiles(r.cluster) {
			if _, err := os.Stat(path); err != nil {
				return fmt.Errorf("failure loading %s: %w; copy the certificates from another control plane, or pass --certificate-key as `kubeadm init phase upload-certs --upload-certs` prints it", path, err)
			}
		}
	}
	if err := r.preflight(ctx, controlPlaneChecks(r.machine(), r.manifests(), !r.arriving()), ignore); err != nil {
		return err
	}
	r.say("[preflight] Pulling images required for setting up a Kubernetes cluster")
	return bringImages(ctx, r.cluster, r.cfg.NodeRegistration, requiredImages(r.cluster), r.say)
}

// arriving says that the files of an external etcd come with the certificates.
func (r *joinRun) arriving() bool { return r.cfg.ControlPlane.CertificateKey != "" }

// nameFree refuses a name that a living node has.
func (r *joinRun) nameFree(ctx context.Context) error {
	if r.resumed { // it may be this machine's own
		return nil
	}
	n, err := client.Of[corev1.Node](r.boot, "").Get(ctx, r.cfg.NodeRegistration.Name)
	if apierrors.IsNotFound(err) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("cannot get Node %q: %w", r.cfg.NodeRegistration.Name, err)
	}
	for _, c := range n.Status.Conditions {
		if c.Type == corev1.NodeReady && c.Status == corev1.ConditionTrue {
			return fmt.Errorf("a Node with name %q and status \"Ready\" already exists in the cluster. You must delete the existing Node (kubectl delete node %[1]s) or change the name of this new joining Node (--node-name)", n.Name)
		}
	}
	return nil
}

// joinKubelet writes the kubelet's files and starts it.
func joinKubelet(ctx context.Context, r *joinRun) error {
	if err := r.learn(ctx); err != nil {
		return err
	}
	if err := os.MkdirAll(r.conf, 0o755); err != nil {
		return err
	}
	if r.cfg.ControlPlane == nil { // a control plane's preflight has brought all of them
		nodeHas(ctx, r.cluster, r.cfg.NodeRegistration.CRISocket, r.say)
	}
	conf := r.found.bootstrapConf(r.cfg.Discovery.TLSBootstrapToken)
	if r.cfg.ControlPlane != nil {
		conf.Server = "https://" + r.local().HostPort()
	}
	if err := conf.Write(r.bootstrap()); err != nil {
		return err
	}
	if _, err := os.Stat(r.cfg.CACertPath); err != nil {
		if err := os.MkdirAll(filepath.Dir(r.cfg.CACertPath), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(r.cfg.CACertPath, r.found.ca, 0o644); err != nil {
			return err
		}
	}
	m, err := client.Of[corev1.ConfigMap](r.boot, metav1.NamespaceSystem).Get(ctx, kubeletMapName)
	if err != nil {
		return fmt.Errorf("failed to get the kubelets' configuration: %w", err)
	}
	var user map[string]any
	if err := yaml.Unmarshal([]byte(m.Data["kubelet"]), &user); err != nil {
		return fmt.Errorf("ConfigMap %s: %w", kubeletMapName, err)
	}
	cfg, err := kubeletConfig(r.machine(), r.manifests(), user)
	if err != nil {
		return err
	}
	if cfg, err = r.patches.apply("kubeletconfiguration", cfg, r.say); err != nil {
		return err
	}
	env := kubeletFlags(r.cfg.NodeRegistration, r.cfg.NodeRegistration.Taints, "")
	return startKubelet(ctx, r.kubelet, cfg, env, r.say)
}

func (p paths) bootstrap() string { return p.file("bootstrap-kubelet.conf") }

// joinedKubelet waits for the kubelet to have become a member of the cluster.
func joinedKubelet(ctx context.Context, r *joinRun) error {
	if err := kubeletHealthy(ctx, r.cfg.Timeouts.KubeletHealthCheck.Duration, r.say); err != nil {
		return err
	}
	r.say("[kubelet-start] Waiting for the kubelet to perform the TLS Bootstrap")
	if err := patiently(ctx, r.cfg.Timeouts.TLSBootstrap.Duration, func(context.Context) error {
		_, err := os.Stat(r.file("kubelet.conf"))
		return err
	}); err != nil {
		return fmt.Errorf("the kubelet has not got its certificate: %w; `kubectl get csr` shows whether its request was approved, journalctl -xeu kubelet what it says", err)
	}
	if err := os.Remove(r.bootstrap()); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// prepareJoin completes a join's configuration.
func prepareJoin(cfg *config.Join, host config.Host, out io.Writer) (*joinRun, error) {
	cfg.Default(host)
	if err := cfg.Check(); err != nil {
		return nil, err
	}
	p, err := readPatches(cfg.Patches)
	if err != nil {
		return nil, err
	}
	return &joinRun{printer: printer{out}, paths: usual, cfg: cfg, patches: p}, nil
}

// done is what a successful join says.
func (r *joinRun) done() {
	if r.cfg.ControlPlane == nil {
		r.say("\nThis node has joined the cluster:\n* Certificate signing request was sent to apiserver and a response was received.\n" +
			"* The Kubelet was informed of the new secure connection details.\n\nRun 'kubectl get nodes' on the control-plane to see this node join the cluster.\n")
		return
	}
	etcd := "* The Kubelet was informed of the new secure connection details.\n* Control plane label and taint were applied to the new node.\n* The Kubernetes control plane instances scaled up.\n"
	if r.cluster.Etcd.Local != nil {
		etcd += "* A new etcd member was added to the local/stacked etcd cluster.\n"
	}
	r.say("\nThis node has joined the cluster and a new control plane instance was created:\n\n* Certificate signing request was sent to apiserver and approval was received.\n%s\n"+
		"To start administering your cluster from this node, you need to run the following as a regular user:\n\n"+
		"\tmkdir -p $HOME/.kube\n\tsudo cp -i %s $HOME/.kube/config\n\tsudo chown $(id -u):$(id -g) $HOME/.kube/config\n\nRun 'kubectl get nodes' to see this node join the cluster.\n",
		strings.TrimRight(etcd, "\n")+"\n", r.file("admin.conf"))
}
