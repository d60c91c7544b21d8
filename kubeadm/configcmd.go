package kubeadm

import (
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"

	"github.com/sampan-dev/sampan/kubeadm/config"
)

func configCommand() *cobra.Command {
	root := &cobra.Command{Use: "config", Short: "Manage configuration for a kubeadm cluster persisted in a ConfigMap in the cluster"}
	root.AddCommand(configPrint(), configMigrate(), configValidate(), configImages())
	return root
}

// placeholder is the token that printed defaults carry.
const placeholder = "abcdef.0123456789abcdef"

func configPrint() *cobra.Command {
	root := &cobra.Command{Use: "print", Short: "Print configuration"}
	root.AddCommand(
		&cobra.Command{Use: "init-defaults", Short: "Print default init configuration, that can be used for 'kubeadm init'", Args: cobra.NoArgs, RunE: func(c *cobra.Command, _ []string) error {
			i, cl := &config.Init{BootstrapTokens: []config.BootstrapToken{{Token: placeholder}}}, &config.Cluster{}
			i.Default(config.Host{Name: "node", CRISocket: "unix:///var/run/containerd/containerd.sock"})
			i.LocalAPIEndpoint.AdvertiseAddress = "1.2.3.4"
			i.NodeRegistration.Taints = nil
			cl.Default(Version())
			return write(c, i, cl)
		}},
		&cobra.Command{Use: "join-defaults", Short: "Print default join configuration, that can be used for 'kubeadm join'", Args: cobra.NoArgs, RunE: func(c *cobra.Command, _ []string) error {
			j := &config.Join{Discovery: config.Discovery{BootstrapToken: &config.BootstrapTokenDiscovery{Token: placeholder, APIServerEndpoint: "kube-apiserver:6443", UnsafeSkipCAVerification: true}}}
			j.Default(config.Host{Name: "node", CRISocket: "unix:///var/run/containerd/containerd.sock"})
			return write(c, j)
		}},
		&cobra.Command{Use: "reset-defaults", Short: "Print default reset configuration, that can be used for 'kubeadm reset'", Args: cobra.NoArgs, RunE: func(c *cobra.Command, _ []string) error {
			r := &config.Reset{}
			r.Default(config.Host{CRISocket: "unix:///var/run/containerd/containerd.sock"})
			return write(c, r)
		}},
		&cobra.Command{Use: "upgrade-defaults", Short: "Print default upgrade configuration, that can be used for 'kubeadm upgrade'", Args: cobra.NoArgs, RunE: func(c *cobra.Command, _ []string) error {
			u := &config.Upgrade{}
			u.Default()
			return write(c, u)
		}},
	)
	return root
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

func configValidate() *cobra.Command {
	var path string
	c := &cobra.Command{Use: "validate", Short: "Read a file containing the kubeadm configuration API and report any validation errors", Args: cobra.NoArgs}
	c.Flags().StringVar(&path, "config", "", "Path to a kubeadm configuration file.")
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
	var file, repository, version, socket string
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
	pull := &cobra.Command{Use: "pull", Short: "Pull images used by kubeadm", Args: cobra.NoArgs, RunE: func(c *cobra.Command, _ []string) error {
		cl, err := cluster()
		if err != nil {
			return err
		}
		if socket == "" {
			socket = criSocket()
		}
		p := printer{c.OutOrStdout()}
		if err := bringImages(c.Context(), cl, config.NodeRegistration{CRISocket: socket}, p.say); err != nil {
			return err
		}
		for _, i := range requiredImages(cl) {
			p.say("[config/images] Pulled %s", i)
		}
		return nil
	}}
	pull.Flags().StringVar(&socket, "cri-socket", "", "Path to the CRI socket to connect.")
	root.AddCommand(pull, &cobra.Command{Use: "list", Short: "Print a list of images kubeadm will use. The configuration file is used in case any images or image repositories are customized", Args: cobra.NoArgs, RunE: func(c *cobra.Command, _ []string) error {
		cl, err := cluster()
		if err != nil {
			return err
		}
		for _, i := range requiredImages(cl) {
			fmt.Fprintln(c.OutOrStdout(), i)
		}
		return nil
	}})
	return root
}
