package kubeadm

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"
	"sigs.k8s.io/yaml"

	"github.com/sampan-dev/sampan/kubeadm/config"
)

func configCommand() *cobra.Command {
	root := &cobra.Command{Use: "config", Short: "Manage configuration for a kubeadm cluster persisted in a ConfigMap in the cluster"}
	var kubeconfig string
	root.PersistentFlags().StringVar(&kubeconfig, "kubeconfig", usual.file("admin.conf"), "The kubeconfig file to use when talking to the cluster; these commands read files alone.")
	root.AddCommand(configPrint(), configMigrate(), configValidate(), configImages())
	return root
}

// placeholder is the token that printed defaults carry.
const placeholder = "abcdef.0123456789abcdef"

func configPrint() *cobra.Command {
	root := &cobra.Command{Use: "print", Short: "Print configuration",
		Long: "This command prints configurations for subcommands provided.\nFor details, see: https://pkg.go.dev/k8s.io/kubernetes/cmd/kubeadm/app/apis/kubeadm"}
	host := config.Host{Name: "node", CRISocket: "unix:///var/run/containerd/containerd.sock"}
	add := func(kind string, objects func() []any) {
		var parts []string
		c := &cobra.Command{Use: kind + "-defaults", Short: fmt.Sprintf("Print default %s configuration, that can be used for 'kubeadm %[1]s'", kind), Args: cobra.NoArgs}
		c.Flags().StringSliceVar(&parts, "component-configs", nil, fmt.Sprintf("A comma-separated list for component config API objects to print the default values for. Available values: %v. "+
			"If this flag is not set, no component configs will be printed.", componentConfigs))
		c.RunE = func(c *cobra.Command, _ []string) error {
			list := objects()
			for _, p := range parts {
				o, err := componentConfig(p, host)
				if err != nil {
					return err
				}
				list = append(list, o)
			}
			return write(c, list...)
		}
		root.AddCommand(c)
	}
	add("init", func() []any {
		i, cl := &config.Init{BootstrapTokens: []config.BootstrapToken{{Token: placeholder}}}, &config.Cluster{}
		i.Default(host)
		i.LocalAPIEndpoint.AdvertiseAddress = "1.2.3.4"
		i.NodeRegistration.Taints = nil
		cl.Default(Version())
		return []any{i, cl}
	})
	add("join", func() []any {
		j := &config.Join{Discovery: config.Discovery{BootstrapToken: &config.BootstrapTokenDiscovery{Token: placeholder, APIServerEndpoint: "kube-apiserver:6443", UnsafeSkipCAVerification: true}}}
		j.Default(host)
		return []any{j}
	})
	add("reset", func() []any {
		r := &config.Reset{}
		r.Default(host)
		return []any{r}
	})
	add("upgrade", func() []any {
		u := &config.Upgrade{}
		u.Default()
		return []any{u}
	})
	return root
}

// componentConfigs are the kinds of other components that may be printed.
var componentConfigs = []string{"KubeProxyConfiguration", "KubeletConfiguration"}

// componentConfig is the default configuration of another component.
func componentConfig(kind string, host config.Host) (out map[string]any, err error) {
	cl := &config.Cluster{}
	cl.Default(Version())
	var text []byte
	switch kind {
	case "KubeProxyConfiguration":
		text, err = proxyConfig(cl, nil)
	case "KubeletConfiguration":
		text, err = kubeletConfig(machine{cluster: cl, node: config.NodeRegistration{Name: host.Name}}, usual.manifests(), nil)
	default:
		return nil, fmt.Errorf("unknown component config %q; there are %s", kind, strings.Join(componentConfigs, " and "))
	}
	if err != nil {
		return nil, err
	}
	return out, yaml.Unmarshal(text, &out)
}

func write(c *cobra.Command, objects ...any) error {
	text, err := config.Write(objects...)
	if err != nil {
		return err
	}
	_, err = c.OutOrStdout().Write(text)
	return err
}

func configMigrate() *cobra.Command {
	var from, to string
	c := &cobra.Command{Use: "migrate", Short: "Read an older version of the kubeadm configuration API types from a file, and output the similar config object for the newer version", Args: cobra.NoArgs}
	c.Flags().StringVar(&from, "old-config", "", "Path to the kubeadm config file that is using an old API version and should be converted. This flag is mandatory.")
	c.Flags().StringVar(&to, "new-config", "", "Path to the resulting equivalent kubeadm config file using the new API version. Optional, if not specified output will be sent to STDOUT.")
	everyVersion(c)
	c.RunE = func(c *cobra.Command, _ []string) error {
		if from == "" {
			return errors.New("the --old-config flag is mandatory")
		}
		f, err := config.Load(from)
		if err != nil {
			return err
		}
		for _, w := range f.Warnings {
			fmt.Fprintln(c.ErrOrStderr(), "W:", w)
		}
		var objects []any
		if f.Init != nil {
			f.Init.Default(thisHost())
			objects = append(objects, f.Init)
		}
		if f.Cluster != nil {
			f.Cluster.Default(Version())
			objects = append(objects, f.Cluster)
		}
		if f.Join != nil {
			f.Join.Default(thisHost())
			objects = append(objects, f.Join)
		}
		if f.Reset != nil {
			objects = append(objects, f.Reset)
		}
		if f.Upgrade != nil {
			f.Upgrade.Default()
			objects = append(objects, f.Upgrade)
		}
		if to == "" {
			return write(c, objects...)
		}
		text, err := config.Write(objects...)
		if err != nil {
			return err
		}
		return os.WriteFile(to, text, 0o600)
	}
	return c
}

// everyVersion adds the flags that upstream asks for before it reads the newest
// or the oldest versions; all of them are read here.
func everyVersion(c *cobra.Command) {
	var ignored bool
	c.Flags().BoolVar(&ignored, "allow-experimental-api", false, "Allow migration and validation of experimental, unreleased APIs; every version is read.")
	c.Flags().BoolVar(&ignored, "allow-deprecated-api", true, "Allow reading of deprecated versions of the API; every version is read.")
}

func configValidate() *cobra.Command {
	var path string
	c := &cobra.Command{Use: "validate", Short: "Read a file containing the kubeadm configuration API and report any validation errors", Args: cobra.NoArgs}
	c.Flags().StringVar(&path, "config", "", "Path to a kubeadm configuration file.")
	everyVersion(c)
	c.RunE = func(c *cobra.Command, _ []string) error {
		if path == "" {
			return errors.New("the --config flag is mandatory")
		}
		f, err := config.Load(path)
		if err != nil {
			return err
		}
		for _, w := range f.Warnings {
			fmt.Fprintln(c.ErrOrStderr(), "W:", w)
		}
		if f.Init != nil || f.Cluster != nil {
			if _, err := prepareInit(f, thisHost(), io.Discard); err != nil {
				return err
			}
		}
		if f.Join != nil {
			f.Join.Default(thisHost())
			if err := f.Join.Check(); err != nil {
				return err
			}
		}
		if f.Reset != nil {
			f.Reset.Default(thisHost())
			if err := f.Reset.Check(); err != nil {
				return err
			}
		}
		fmt.Fprintln(c.OutOrStdout(), "ok")
		return nil
	}
	return c
}

func configImages() *cobra.Command {
	root := &cobra.Command{Use: "images", Short: "Interact with container images used by kubeadm"}
	var file, repository, version, socket, gates string
	cluster := func() (*config.Cluster, error) {
		c := &config.Cluster{}
		if file != "" {
			f, err := config.Load(file)
			if err != nil {
				return nil, err
			}
			if f.Cluster != nil {
				c = f.Cluster
			}
		}
		lay(&c.ImageRepository, repository)
		lay(&c.KubernetesVersion, version)
		c.Default(Version())
		c.KubernetesVersion = Version()
		return c, nil
	}
	root.PersistentFlags().StringVar(&file, "config", "", "Path to a kubeadm configuration file.")
	root.PersistentFlags().StringVar(&repository, "image-repository", "", "Choose a container registry to pull control plane images from")
	root.PersistentFlags().StringVar(&version, "kubernetes-version", "", "Choose a specific Kubernetes version for the control plane; that of this program is deployed.")
	root.PersistentFlags().StringVar(&gates, "feature-gates", "", "A set of key=value pairs that describe feature gates for various features; none changes an image.")
	pull := &cobra.Command{Use: "pull", Short: "Pull images used by kubeadm", Args: cobra.NoArgs, RunE: func(c *cobra.Command, _ []string) error {
		cl, err := cluster()
		if err != nil {
			return err
		}
		if socket == "" {
			socket = criSocket()
		}
		p := printer{c.OutOrStdout()}
		if err := bringImages(c.Context(), cl, config.NodeRegistration{CRISocket: socket}, requiredImages(cl), p.say); err != nil {
			return err
		}
		for _, i := range requiredImages(cl) {
			p.say("[config/images] Pulled %s", i)
		}
		return nil
	}}
	pull.Flags().StringVar(&socket, "cri-socket", "", "Path to the CRI socket to connect.")
	var o output
	list := &cobra.Command{Use: "list", Short: "Print a list of images kubeadm will use. The configuration file is used in case any images or image repositories are customized", Args: cobra.NoArgs, RunE: func(c *cobra.Command, _ []string) error {
		cl, err := cluster()
		if err != nil {
			return err
		}
		if o.format != "" {
			return o.write(c.OutOrStdout(), map[string]any{"apiVersion": outputVersion, "kind": "Images", "images": requiredImages(cl)})
		}
		for _, i := range requiredImages(cl) {
			fmt.Fprintln(c.OutOrStdout(), i)
		}
		return nil
	}}
	o.templates(list)
	root.AddCommand(pull, list)
	return root
}
