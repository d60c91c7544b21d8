package kubeadm

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/version"

	"github.com/sampan-dev/sampan/client"
	"github.com/sampan-dev/sampan/kit/clock"
	"github.com/sampan-dev/sampan/kubeadm/config"
)

// upgradeRun is one upgrade of this machine.
type upgradeRun struct {
	printer
	paths
	cfg     config.UpgradeNode
	times   *config.Timeouts
	cluster *config.Cluster // as it is to be
	node    config.NodeRegistration
	local   config.APIEndpoint
	serves  bool // a control plane runs here
	first   bool // of the cluster: apply
	from    string
	patches *patches
	ignore  []string
	conn    client.Interface
	stamp   string // names this run's backups
}

func (r *upgradeRun) machine() machine {
	return machine{cluster: r.cluster, node: r.node, local: r.local}
}

// learn reads what this machine and its cluster are.
func (r *upgradeRun) learn(ctx context.Context, kubeconfig string) error {
	r.say("[upgrade/config] Reading configuration from the %q ConfigMap in namespace %q...", configMapName, "kube-system")
	r.say("[upgrade/config] Use 'kubeadm init phase upload-config kubeadm --config your-config-file' to re-upload it.")
	var err error
	if r.conn, err = client.FromKubeconfig(kubeconfig, ""); err != nil {
		return fmt.Errorf("couldn't create a Kubernetes client from file %q: %w", kubeconfig, err)
	}
	if r.cluster, err = fetchCluster(ctx, r.conn); err != nil {
		return fmt.Errorf("[upgrade/config] FATAL: %w", err)
	}
	r.from = r.cluster.KubernetesVersion
	host := thisHost()
	r.node = config.NodeRegistration{Name: r.nodeName(host.Name), CRISocket: host.CRISocket, ImagePullPolicy: r.cfg.ImagePullPolicy}
	r.local, err = servesAt(r.manifests())
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	r.serves = err == nil
	r.stamp = clock.Now().UTC().Format("2006-01-02-15-04-05")
	return nil
}

// servesAt reads from its manifest where this machine's API server is reached.
func servesAt(manifests string) (e config.APIEndpoint, err error) {
	pod, err := readManifest(manifests, "kube-apiserver")
	if err != nil {
		return e, err
	}
	host, port, err := net.SplitHostPort(pod.Annotations[endpointNote])
	if err != nil {
		return e, fmt.Errorf("%s: annotation %s: %w", filepath.Join(manifests, "kube-apiserver.yaml"), endpointNote, err)
	}
	n, err := strconv.ParseUint(port, 10, 16)
	return config.APIEndpoint{AdvertiseAddress: host, BindPort: int32(n)}, err
}

const endpointNote = "kubeadm.kubernetes.io/kube-apiserver.advertise-address.endpoint"

// upgradePhases are those of apply, when first, or of node.
func upgradePhases(first bool) []phase[*upgradeRun] {
	list := []phase[*upgradeRun]{
		{name: "preflight", about: "Run preflight checks before upgrade", run: upgradePreflight},
		{name: "control-plane", about: "Upgrade the control plane", run: upgradeControlPlane},
	}
	if first {
		list = append(list, phase[*upgradeRun]{name: "upload-config", about: "Upload the kubeadm and kubelet configurations to ConfigMaps", parts: []phase[*upgradeRun]{
			{name: "kubeadm", about: "Upload the kubeadm ClusterConfiguration to a ConfigMap", run: func(ctx context.Context, r *upgradeRun) error {
				r.say("[upload-config] Storing the configuration used in ConfigMap %q in the %q Namespace", configMapName, "kube-system")
				return uploadConfig(ctx, r.conn, r.cluster)
			}},
			{name: "kubelet", about: "Upload the kubelet configuration to a ConfigMap", run: func(ctx context.Context, r *upgradeRun) error {
				r.say("[kubelet] Creating a ConfigMap %q in namespace %s with the configuration for the kubelets in the cluster", kubeletMapName, "kube-system")
				user, err := kubeletMap(ctx, r.conn)
				if err != nil {
					return err
				}
				cfg, err := kubeletConfig(r.machine(), r.manifests(), user)
				if err != nil {
					return err
				}
				return uploadKubelet(ctx, r.conn, cfg)
			}},
		}})
	}
	list = append(list, phase[*upgradeRun]{name: "kubelet-config", about: "Upgrade the kubelet configuration for this node", run: upgradeKubelet})
	if first {
		list = append(list, phase[*upgradeRun]{name: "bootstrap-token", about: "Configures bootstrap token and cluster-info RBAC rules", run: func(ctx context.Context, r *upgradeRun) error {
			for _, g := range joinGrants {
				if err := g.apply(ctx, r.conn); err != nil {
					return err
				}
				r.say("[bootstrap-token] %s", g.say)
			}
			return infoReaders.apply(ctx, r.conn)
		}})
	}
	list = append(list, phase[*upgradeRun]{name: "addon", about: "Upgrade the default kubeadm addons", parts: []phase[*upgradeRun]{
		{name: "coredns", about: "Upgrade the CoreDNS addon", run: func(ctx context.Context, r *upgradeRun) error {
			if !r.serves {
				return nil
			}
			return addonDNS(ctx, r.conn, r.cluster, r.patches, r.say)
		}},
		{name: "kube-proxy", about: "Upgrade the kube-proxy addon", run: func(ctx context.Context, r *upgradeRun) error {
			if !r.serves {
				return nil
			}
			user, err := proxyMap(ctx, r.conn)
			if err != nil {
				return err
			}
			return addonProxy(ctx, r.conn, r.machine(), user, r.say)
		}},
	}})
	return append(list, phase[*upgradeRun]{name: "post-upgrade", about: "Run post upgrade tasks", run: func(context.Context, *upgradeRun) error { return nil }})
}

// upgradePreflight looks whether the cluster is well enough to be changed.
func upgradePreflight(ctx context.Context, r *upgradeRun) error {
	r.say("[upgrade/preflight] Running pre-flight checks")
	checks := []check{privileged()}
	if r.first {
		r.say("[upgrade] Running cluster health checks")
		checks = append(checks, clusterChecks(r.conn)...)
	}
	if err := preflight(ctx, r.printer, checks, append(r.ignore, r.cfg.IgnorePreflightErrors...)); err != nil {
		return err
	}
	if !r.serves {
		r.say("[upgrade/preflight] Skipping prepull. Not a control plane node.")
		nodeHas(ctx, r.cluster, r.node.CRISocket, r.say)
		return nil
	}
	r.say("[upgrade/preflight] Pulling images required for setting up a Kubernetes cluster")
	r.say("[upgrade/preflight] This might take a minute or two, depending on the speed of your internet connection")
	r.say("[upgrade/preflight] You can also perform this action beforehand using 'kubeadm config images pull'")
	return bringImages(ctx, r.cluster, r.node, requiredImages(r.cluster), r.say)
}

// clusterChecks are upstream's: every control plane is ready, and its manifests
// are where they belong.
func clusterChecks(c client.Interface) []check {
	return []check{{"ControlPlaneNodesReady", func(ctx context.Context) (w, e []string) {
		nodes, err := client.Of[corev1.Node](c, "").List(ctx, &metav1.ListOptions{LabelSelector: "node-role.kubernetes.io/control-plane"})
		if err != nil {
			return nil, one("couldn't list control-planes in cluster: " + err.Error())
		}
		var not []string
		for _, n := range nodes {
			ready := false
			for _, c := range n.Status.Conditions {
				ready = ready || (c.Type == corev1.NodeReady && c.Status == corev1.ConditionTrue)
			}
			if !ready {
				not = append(not, n.Name)
			}
		}
		if len(not) > 0 {
			return nil, one(fmt.Sprintf("there are NotReady control-planes in the cluster: %v; kubectl describe node says why", not))
		}
		return nil, nil
	}}}
}

// judge says whether a cluster may go from one version to another with this
// program, mine.
func judge(from, to, mine string) error {
	v, err := version.ParseGeneric(to)
	if err != nil {
		return fmt.Errorf("[upgrade/version] FATAL: couldn't parse version %q: %w", to, err)
	}
	old, err := version.ParseGeneric(from)
	if err != nil {
		return fmt.Errorf("[upgrade/version] FATAL: the cluster's version %q: %w", from, err)
	}
	own := version.MustParseGeneric(mine)
	var why []string
	switch {
	case own.LessThan(v):
		why = append(why, fmt.Sprintf("Specified version to upgrade to %q is higher than the kubeadm version %q. Upgrade kubeadm first using the tool you used to install kubeadm", "v"+v.String(), mine))
	case v.LessThan(own):
		why = append(why, fmt.Sprintf("Specified version to upgrade to %q is not the kubeadm version %q, the only one that it deploys. Run: kubeadm upgrade apply %[2]s", "v"+v.String(), mine))
	}
	switch {
	case v.LessThan(old):
		why = append(why, fmt.Sprintf("Specified version to upgrade to %q is lower than the current cluster version %q. This is not supported", "v"+v.String(), from))
	case v.Minor() > old.Minor()+1:
		why = append(why, fmt.Sprintf("Specified version to upgrade to %q is too high; kubeadm can upgrade only 1 minor version at a time", "v"+v.String()))
	}
	if len(why) > 0 {
		return errors.New("[upgrade/version] FATAL: the --version argument is invalid due to these errors:\n\n\t- " + strings.Join(why, "\n\t- ") + "\n\nCan be bypassed if you pass the --force flag")
	}
	return nil
}

// planned are this machine's static pods as they are to be, in the order in
// which they change: etcd, then who uses it.
func (r *upgradeRun) planned() ([]component, error) {
	m := r.machine()
	var out []component
	if r.cluster.Etcd.Local != nil && *r.cfg.EtcdUpgrade {
		pod, err := readManifest(r.manifests(), "etcd")
		if err != nil {
			return nil, err
		}
		out = append(out, etcdMember(m, told(pod)))
	}
	return append(out, apiServer(m), controllers(m, r.conf), scheduling(m, r.conf)), nil
}

// told are the members that a member's manifest names, if it joined others.
func told(pod *corev1.Pod) (out []member) {
	joined := false
	for _, a := range pod.Spec.Containers[0].Command {
		joined = joined || a == "--initial-cluster-state=existing"
		list, ok := strings.CutPrefix(a, "--initial-cluster=")
		if !ok {
			continue
		}
		for m := range strings.SplitSeq(list, ",") {
			name, peer, _ := strings.Cut(m, "=")
			out = append(out, member{name, peer})
		}
	}
	if !joined {
		return nil
	}
	return out
}

// upgradeControlPlane changes the static pods one after the other; when one does
// not come back, all are as they were.
func upgradeControlPlane(ctx context.Context, r *upgradeRun) error {
	if !r.serves {
		r.say("[upgrade/control-plane] Skipping phase. Not a control plane node.")
		return nil
	}
	r.say("[upgrade/control-plane] Upgrading your Static Pod-hosted control plane to version %q (timeout: %s)...", r.cluster.KubernetesVersion, r.times.UpgradeManifests.Duration)
	list, err := r.planned()
	if err != nil {
		return err
	}
	if *r.cfg.CertificateRenewal {
		if err := r.renew(); err != nil {
			return fmt.Errorf("[upgrade/staticpods] renew certificates: %w", err)
		}
	}
	backup := filepath.Join(r.tmp(), "kubeadm-backup-manifests-"+r.stamp)
	var changed []string
	for _, c := range list {
		r.say("[upgrade/staticpods] Preparing for %q upgrade", c.name)
		did, err := r.replace(ctx, c, backup)
		if did {
			changed = append(changed, c.name)
		}
		if err != nil {
			return r.restore(changed, backup, err)
		}
	}
	return nil
}

// replace changes one static pod and waits for it; did says that its manifest
// changed.
func (r *upgradeRun) replace(ctx context.Context, c component, backup string) (did bool, err error) {
	text, err := r.patches.pod(c, r.say)
	if err != nil {
		return false, err
	}
	path := filepath.Join(r.manifests(), c.name+".yaml")
	old, err := os.ReadFile(path)
	if err != nil {
		return false, err
	}
	if string(old) == string(text) {
		r.say("[upgrade/staticpods] Current and new manifests of %s are equal, skipping upgrade", c.name)
		return false, nil
	}
	if err := os.MkdirAll(backup, 0o700); err != nil {
		return false, err
	}
	if err := os.WriteFile(filepath.Join(backup, c.name+".yaml"), old, 0o600); err != nil {
		return false, err
	}
	pods := client.Of[corev1.Pod](r.conn, metav1.NamespaceSystem)
	var before *corev1.Pod
	if err := patiently(ctx, r.times.KubernetesAPICall.Duration, func(ctx context.Context) (err error) {
		before, err = pods.Get(ctx, c.name+"-"+r.node.Name)
		return err
	}); err != nil {
		return false, err
	}
	if err := writeManifest(r.manifests(), c.name, text); err != nil {
		return false, err
	}
	r.say("[upgrade/staticpods] Moving new manifest to %q and backing up old manifest to %q", path, filepath.Join(backup, c.name+".yaml"))
	r.say("[upgrade/staticpods] Waiting for the kubelet to restart the component")
	r.say("[upgrade/staticpods] This can take up to %s", r.times.UpgradeManifests.Duration)
	if err := patiently(ctx, r.times.UpgradeManifests.Duration, func(ctx context.Context) error {
		now, err := pods.Get(ctx, before.Name)
		if err != nil {
			return err
		}
		return renewed(before, now)
	}); err != nil {
		return true, err
	}
	r.say("[upgrade/staticpods] Component %q upgraded successfully!", c.name)
	return true, nil
}

// renewed says whether now is the successor of before, and ready.
func renewed(before, now *corev1.Pod) error {
	const hash = "kubernetes.io/config.hash"
	if now.Annotations[hash] == before.Annotations[hash] {
		return fmt.Errorf("static Pod hash for component %s on Node %s did not change", now.Name, now.Spec.NodeName)
	}
	for _, c := range now.Status.Conditions {
		if c.Type == corev1.PodReady && c.Status == corev1.ConditionTrue {
			return nil
		}
	}
	return fmt.Errorf("%s is not ready: kubectl -n kube-system describe pod %[1]s says why", now.Name)
}

// restore puts the old manifests back.
func (r *upgradeRun) restore(names []string, backup string, why error) error {
	errs := []error{fmt.Errorf("couldn't upgrade control plane. kubeadm has tried to recover everything into the earlier state. Errors faced: %w", why)}
	for _, name := range names {
		text, err := os.ReadFile(filepath.Join(backup, name+".yaml"))
		if err == nil {
			err = writeManifest(r.manifests(), name, text)
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// renew gives the components certificates with a whole life before them. What an
// external authority signs stays.
func (r *upgradeRun) renew() error {
	for _, x := range wanted(r.cluster) {
		if x.ca == "" {
			continue
		}
		r.say("[upgrade/staticpods] Renewing %s certificate", x.name)
		if err := renewLeaf(r.out, x, r.cluster.CertificatesDir); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	for _, i := range identities {
		if i.file == "kubelet.conf" {
			continue
		}
		r.say("[upgrade/staticpods] Renewing %s certificate", i.file)
		if err := renewKubeconfig(r.out, i, r.cluster.CertificatesDir, r.conf); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}

// upgradeKubelet writes the kubelet's configuration as the cluster has it now.
func upgradeKubelet(ctx context.Context, r *upgradeRun) error {
	user, err := kubeletMap(ctx, r.conn)
	if err != nil {
		return err
	}
	cfg, err := kubeletConfig(r.machine(), r.manifests(), user)
	if err != nil {
		return err
	}
	if cfg, err = r.patches.apply("kubeletconfiguration", cfg, r.say); err != nil {
		return err
	}
	path := filepath.Join(r.kubelet, kubeletConfigFile)
	backup := filepath.Join(r.tmp(), "kubeadm-kubelet-config-"+r.stamp)
	if old, err := os.ReadFile(path); err == nil {
		if err := os.MkdirAll(backup, 0o700); err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(backup, kubeletConfigFile), old, 0o600); err != nil {
			return err
		}
		r.say("[upgrade/kubelet-config] Backing up kubelet config file to %s", filepath.Join(backup, kubeletConfigFile))
	}
	r.say("[kubelet-start] Writing kubelet configuration to file %q", path)
	if err := os.WriteFile(path, cfg, 0o644); err != nil {
		return err
	}
	r.say("[upgrade/kubelet-config] The kubelet configuration for this node was successfully upgraded!")
	return nil
}
