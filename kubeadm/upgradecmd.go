package kubeadm

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/yaml"

	"github.com/sampan-dev/sampan/client"
	"github.com/sampan-dev/sampan/kubeadm/config"
	"github.com/sampan-dev/sampan/runtime/image"
)

// upgradeFlags are what the commands of kubeadm upgrade share.
type upgradeFlags struct {
	kubeconfig, file, patches string
	ignore, skip              []string
	yes, force, dryRun, show  bool
	renew, etcd               bool
	context                   int
}

func upgradeCommand() *cobra.Command {
	root := &cobra.Command{Use: "upgrade", Short: "Upgrade your cluster smoothly to a newer version with this command"}
	root.AddCommand(upgradeApply(), upgradeDiff(), upgradeNode(), upgradePlan())
	return root
}

func (o *upgradeFlags) common(c *cobra.Command, kubeconfig string) {
	f := c.Flags()
	f.StringVar(&o.kubeconfig, "kubeconfig", kubeconfig, "The kubeconfig file to use when talking to the cluster.")
	f.StringVar(&o.file, "config", "", "Path to a kubeadm configuration file.")
	f.StringSliceVar(&o.ignore, "ignore-preflight-errors", nil, "A list of checks whose errors will be shown as warnings. Example: 'IsPrivilegedUser,Swap'. Value 'all' ignores errors from all checks.")
}

func (o *upgradeFlags) changing(c *cobra.Command) {
	f := c.Flags()
	f.BoolVar(&o.renew, "certificate-renewal", true, "Perform the renewal of certificates used by component changed during upgrades.")
	f.BoolVar(&o.etcd, "etcd-upgrade", true, "Perform the upgrade of etcd.")
	f.BoolVar(&o.dryRun, "dry-run", false, "Do not change any state, just output what actions would be performed.")
	f.StringVar(&o.patches, "patches", "", patchesUsage)
	f.StringSliceVar(&o.skip, "skip-phases", nil, "List of phases to be skipped")
}

func (o *upgradeFlags) versions(c *cobra.Command) {
	f := c.Flags()
	var ignored bool
	var gates string
	f.StringVar(&gates, "feature-gates", "", "A set of key=value pairs that describe feature gates for various features; here every feature is as its latest stage has it.")
	f.BoolVar(&o.show, "print-config", false, "Specifies whether the configuration file that will be used in the upgrade should be printed or not.")
	f.BoolVar(&ignored, "allow-experimental-upgrades", false, "Show unstable versions of Kubernetes as an upgrade alternative; this program carries one version, and offers that.")
	f.BoolVar(&ignored, "allow-release-candidate-upgrades", false, "Show release candidate versions of Kubernetes as an upgrade alternative; this program carries one version, and offers that.")
}

// read lays the flags that were given over the file's UpgradeConfiguration.
func (o *upgradeFlags) read(c *cobra.Command, p printer) (*config.Upgrade, error) {
	u := &config.Upgrade{}
	if o.file != "" {
		f, err := config.Load(o.file)
		if err != nil {
			return nil, err
		}
		for _, w := range f.Warnings {
			p.say("W: %s", w)
		}
		if f.Upgrade == nil {
			return nil, fmt.Errorf("config %s: no UpgradeConfiguration in it; the cluster's own configuration is changed by: kubeadm init phase upload-config kubeadm --config %[1]s", o.file)
		}
		u = f.Upgrade
	}
	u.Default()
	for _, n := range []*config.UpgradeNode{&u.Node, &u.Apply.UpgradeNode} {
		if c.Flags().Changed("certificate-renewal") {
			n.CertificateRenewal = &o.renew
		}
		if c.Flags().Changed("etcd-upgrade") {
			n.EtcdUpgrade = &o.etcd
		}
		if o.dryRun {
			n.DryRun = &o.dryRun
		}
		if o.patches != "" {
			n.Patches = &config.Patches{Directory: o.patches}
		}
		n.SkipPhases = append(n.SkipPhases, o.skip...)
	}
	if c.Flags().Changed("context-lines") {
		u.Diff.ContextLines = &o.context
	}
	return u, nil
}

// run is one upgrade, whose node's part is n.
func (o *upgradeFlags) run(ctx context.Context, p printer, u *config.Upgrade, n config.UpgradeNode, first bool) (*upgradeRun, error) {
	r := &upgradeRun{printer: p, paths: usual, cfg: n, times: u.Timeouts, first: first, ignore: o.ignore}
	var err error
	if r.patches, err = readPatches(n.Patches); err != nil {
		return nil, err
	}
	return r, r.learn(ctx, o.kubeconfig)
}

func (r *upgradeRun) dry() bool { return r.cfg.DryRun != nil && *r.cfg.DryRun }

// do runs the phases, or says which it would.
func (r *upgradeRun) do(ctx context.Context) error {
	phases := upgradePhases(r.first)
	if err := checkSkips(phases, r.cfg.SkipPhases); err != nil {
		return err
	}
	if r.dry() {
		would(r, phases, "", r.cfg.SkipPhases)
		return nil
	}
	r.patches.tell(r.say)
	return runPhases(ctx, phases, r, r.cfg.SkipPhases, "")
}

// upgradePhaseCommand is upgrade apply phase, when first, or upgrade node phase.
func upgradePhaseCommand(first bool, kubeconfig string) *cobra.Command {
	takes := cobra.NoArgs
	if first {
		takes = cobra.MaximumNArgs(1)
	}
	return phaseCommand(upgradePhases(first), takes, func(c *cobra.Command) func([]string) (*upgradeRun, error) {
		o := &upgradeFlags{}
		o.common(c, kubeconfig)
		o.changing(c)
		return func(args []string) (*upgradeRun, error) {
			p := printer{c.OutOrStdout()}
			u, err := o.read(c, p)
			if err != nil {
				return nil, err
			}
			n := u.Node
			if first {
				n = u.Apply.UpgradeNode
			}
			r, err := o.run(c.Context(), p, u, n, first)
			if err != nil {
				return nil, err
			}
			if len(args) == 1 {
				if err := judge(r.from, "v"+strings.TrimPrefix(args[0], "v"), Version()); err != nil {
					return nil, err
				}
			}
			if first {
				r.cluster.KubernetesVersion = Version()
			}
			return r, nil
		}
	})
}

func upgradeApply() *cobra.Command {
	o := &upgradeFlags{}
	c := &cobra.Command{Use: "apply [version]", Short: "Upgrade your Kubernetes cluster to the specified version", Args: cobra.MaximumNArgs(1),
		Long: "Upgrade your Kubernetes cluster to the specified version\n\n" + describe(upgradePhases(true))}
	o.common(c, usual.file("admin.conf"))
	o.changing(c)
	o.versions(c)
	c.AddCommand(upgradePhaseCommand(true, usual.file("admin.conf")))
	c.Flags().BoolVarP(&o.yes, "yes", "y", false, "Perform the upgrade and do not prompt for confirmation (non-interactive mode).")
	c.Flags().BoolVarP(&o.force, "force", "f", false, "Force upgrading although some requirements might not be met. This also implies non-interactive mode.")
	c.RunE = func(c *cobra.Command, args []string) error {
		p := printer{c.OutOrStdout()}
		u, err := o.read(c, p)
		if err != nil {
			return err
		}
		to := u.Apply.KubernetesVersion
		if len(args) == 1 {
			to = args[0]
		}
		if to == "" {
			return errors.New("missing one or more required arguments. Required arguments: [version]")
		}
		if !strings.HasPrefix(to, "v") {
			to = "v" + to
		}
		r, err := o.run(c.Context(), p, u, u.Apply.UpgradeNode, true)
		if err != nil {
			return err
		}
		if !r.serves {
			return errors.New("[upgrade] no control plane runs on this machine: run kubeadm upgrade apply on one, and kubeadm upgrade node here")
		}
		force := o.force || (u.Apply.ForceUpgrade != nil && *u.Apply.ForceUpgrade)
		p.say("[upgrade/version] You have chosen to upgrade the cluster version to %q", to)
		p.say("[upgrade/versions] Cluster version: %s", r.from)
		p.say("[upgrade/versions] kubeadm version: %s", Version())
		if err := judge(r.from, to, Version()); err != nil && !force {
			return err
		}
		r.cluster.KubernetesVersion = Version()
		if o.show {
			if err := write(c, r.cluster); err != nil {
				return err
			}
		}
		if !o.yes && !force && !r.dry() {
			fmt.Fprint(p.out, "[upgrade] Are you sure you want to proceed? [y/N]: ")
			if !confirmed(c) {
				return errors.New("[upgrade] won't proceed; the user didn't answer (Y|y) in order to continue")
			}
		}
		if err := r.do(c.Context()); err != nil {
			return err
		}
		p.say("\n[upgrade] SUCCESS! A control plane node of your cluster was upgraded to %q.\n\n"+
			"[upgrade] Now please proceed with upgrading the rest of the nodes by following the right order: kubeadm upgrade node on every other control plane, then on every worker.", r.cluster.KubernetesVersion)
		return nil
	}
	return c
}

func upgradeNode() *cobra.Command {
	o := &upgradeFlags{}
	c := &cobra.Command{Use: "node", Short: "Upgrade commands for a node in the cluster", Args: cobra.NoArgs,
		Long: "Upgrade commands for a node in the cluster\n\n" + describe(upgradePhases(false))}
	kubeconfig := usual.file("admin.conf")
	if _, err := os.Stat(kubeconfig); err != nil {
		kubeconfig = usual.file("kubelet.conf")
	}
	o.common(c, kubeconfig)
	o.changing(c)
	c.AddCommand(upgradePhaseCommand(false, kubeconfig))
	c.RunE = func(c *cobra.Command, _ []string) error {
		p := printer{c.OutOrStdout()}
		u, err := o.read(c, p)
		if err != nil {
			return err
		}
		r, err := o.run(c.Context(), p, u, u.Node, false)
		if err != nil {
			return err
		}
		if r.serves && r.from != Version() {
			return fmt.Errorf("[upgrade] the cluster's version is %s and this kubeadm deploys %s: run kubeadm upgrade apply %[2]s on one control plane first", r.from, Version())
		}
		if err := r.do(c.Context()); err != nil {
			return err
		}
		p.say("[upgrade] The configuration for this node was successfully updated!")
		p.say("[upgrade] Now you should go ahead and upgrade the kubelet package using your package manager.")
		return nil
	}
	return c
}

func upgradeDiff() *cobra.Command {
	o := &upgradeFlags{}
	c := &cobra.Command{Use: "diff [version]", Short: "Show what differences would be applied to existing static pod manifests. See also: kubeadm upgrade apply --dry-run", Args: cobra.MaximumNArgs(1)}
	o.common(c, usual.file("admin.conf"))
	c.Flags().IntVarP(&o.context, "context-lines", "c", 3, "How many lines of context in the diff")
	c.RunE = func(c *cobra.Command, args []string) error {
		p := printer{c.OutOrStdout()}
		u, err := o.read(c, printer{c.ErrOrStderr()})
		if err != nil {
			return err
		}
		r, err := o.run(c.Context(), printer{c.ErrOrStderr()}, u, u.Node, true)
		if err != nil {
			return err
		}
		if !r.serves {
			return errors.New("[upgrade/diff] no control plane runs on this machine")
		}
		if len(args) == 1 {
			if err := judge(r.from, "v"+strings.TrimPrefix(args[0], "v"), Version()); err != nil {
				return err
			}
		}
		r.cluster.KubernetesVersion = Version()
		list, err := r.planned()
		if err != nil {
			return err
		}
		for _, x := range list {
			text, err := r.patches.pod(x, r.say)
			if err != nil {
				return err
			}
			path := filepath.Join(r.manifests(), x.name+".yaml")
			old, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			fmt.Fprint(p.out, unified(path, "new manifest", string(old), string(text), *u.Diff.ContextLines))
		}
		return nil
	}
	return c
}

func upgradePlan() *cobra.Command {
	o := &upgradeFlags{}
	c := &cobra.Command{Use: "plan [version]", Short: "Check which versions are available to upgrade to and validate whether your current cluster is upgradeable.", Args: cobra.MaximumNArgs(1)}
	o.common(c, usual.file("admin.conf"))
	o.versions(c)
	c.Flags().BoolVar(&o.etcd, "etcd-upgrade", true, "Perform the upgrade of etcd.")
	c.Flags().BoolVar(&o.dryRun, "dry-run", false, "Do not change any state, just output what actions would be performed; a plan changes none.")
	c.RunE = func(c *cobra.Command, args []string) error {
		p := printer{c.OutOrStdout()}
		u, err := o.read(c, p)
		if err != nil {
			return err
		}
		p.say("[preflight] Running pre-flight checks.")
		r, err := o.run(c.Context(), p, u, u.Node, true)
		if err != nil {
			return err
		}
		if o.show {
			if err := write(c, r.cluster); err != nil {
				return err
			}
		}
		p.say("[upgrade] Running cluster health checks")
		if err := preflight(c.Context(), p, clusterChecks(r.conn), append(o.ignore, u.Plan.IgnorePreflightErrors...)); err != nil {
			return err
		}
		to := orElse(u.Plan.KubernetesVersion, Version())
		if len(args) == 1 {
			to = args[0]
		}
		return r.plan(c.Context(), "v"+strings.TrimPrefix(to, "v"))
	}
	return c
}

// plan prints what runs in which version, and what would.
func (r *upgradeRun) plan(ctx context.Context, to string) error {
	r.say("[upgrade] Fetching available versions to upgrade to")
	r.say("[upgrade/versions] Cluster version: %s", strings.TrimPrefix(r.from, "v"))
	r.say("[upgrade/versions] kubeadm version: %s", Version())
	r.say("[upgrade/versions] Target version: %s", to)
	if err := judge(r.from, to, Version()); err != nil {
		return err
	}
	nodes, err := client.Of[corev1.Node](r.conn, "").List(ctx, nil)
	if err != nil {
		return err
	}
	pods, err := client.Of[corev1.Pod](r.conn, metav1.NamespaceSystem).List(ctx, nil)
	if err != nil {
		return err
	}
	kubelets, parts := versions(nodes, pods)
	if r.from == to && !slices.ContainsFunc(append(kubelets, parts...), func(x running) bool { return x.outdated(to) }) {
		r.say("\nAwesome, you're up-to-date! Enjoy!")
		return nil
	}
	var b bytes.Buffer
	w := tabwriter.NewWriter(&b, 10, 4, 3, ' ', 0)
	fmt.Fprintln(w, "\nComponents that must be upgraded manually after you have upgraded the control plane with 'kubeadm upgrade apply':\nCOMPONENT\tNODE\tCURRENT\tTARGET")
	for _, x := range kubelets {
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\n", x.name, x.node, x.version, to)
	}
	_ = w.Flush()
	fmt.Fprintf(w, "\nUpgrade to the version that this kubeadm carries:\n\nCOMPONENT\tNODE\tCURRENT\tTARGET\n")
	for _, x := range parts {
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\n", x.name, x.node, x.version, x.target(to))
	}
	_ = w.Flush()
	r.say("%s\nYou can now apply the upgrade by executing the following command:\n\n\tkubeadm upgrade apply %s\n\n%s\n", b.String(), to, strings.Repeat("_", 69))
	return nil
}

// running is one component as it is.
type running struct{ name, node, version string }

// target is what it is to be in a cluster of version to.
func (x running) target(to string) string {
	switch x.name {
	case "etcd":
		return EtcdTag
	case "CoreDNS":
		return image.DefaultSystem().CoreDNS
	}
	return to
}

func (x running) outdated(to string) bool { return x.version != x.target(to) }

// versions reads what runs from the nodes, and from the images of the pods.
func versions(nodes []*corev1.Node, pods []*corev1.Pod) (kubelets, parts []running) {
	for _, n := range nodes {
		kubelets = append(kubelets, running{"kubelet", n.Name, n.Status.NodeInfo.KubeletVersion})
	}
	seen := map[running]bool{}
	for _, p := range pods {
		name, node := p.Labels["component"], p.Spec.NodeName
		switch {
		case p.Labels["k8s-app"] == "kube-proxy":
			name, node = "kube-proxy", ""
		case p.Labels["k8s-app"] == "kube-dns":
			name, node = "CoreDNS", ""
		case p.Labels["tier"] != "control-plane":
			continue
		}
		_, tag, _ := cutLast(p.Spec.Containers[0].Image, ":")
		if x := (running{name, node, tag}); !seen[x] {
			seen[x] = true
			parts = append(parts, x)
		}
	}
	order := []string{"kube-apiserver", "kube-controller-manager", "kube-scheduler", "kube-proxy", "CoreDNS", "etcd"}
	slices.SortStableFunc(parts, func(a, b running) int {
		if d := slices.Index(order, a.name) - slices.Index(order, b.name); d != 0 {
			return d
		}
		return strings.Compare(a.node, b.node)
	})
	return kubelets, parts
}

// kubeletMap reads the configuration that all kubelets share.
func kubeletMap(ctx context.Context, c client.Interface) (map[string]any, error) {
	return sharedConfig(ctx, c, kubeletMapName, "kubelet")
}

// proxyMap reads kube-proxy's configuration.
func proxyMap(ctx context.Context, c client.Interface) (map[string]any, error) {
	return sharedConfig(ctx, c, "kube-proxy", "config.conf")
}

func sharedConfig(ctx context.Context, c client.Interface, name, key string) (out map[string]any, err error) {
	m, err := client.Of[corev1.ConfigMap](c, metav1.NamespaceSystem).Get(ctx, name)
	if err != nil {
		return nil, err
	}
	if err := yaml.Unmarshal([]byte(m.Data[key]), &out); err != nil {
		return nil, fmt.Errorf("ConfigMap %s: %w", name, err)
	}
	return out, nil
}
