package cli

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"

	"github.com/sampan-dev/sampan/machine"
)

// contextName is what kubectl calls a cluster of ours.
func contextName(cluster string) string { return "sampan-" + cluster }

// kubeconfigPath is the file that kubectl writes to: the first of $KUBECONFIG,
// else ~/.kube/config.
func kubeconfigPath() string {
	if p := os.Getenv(clientcmd.RecommendedConfigPathEnvVar); p != "" {
		return filepath.SplitList(p)[0]
	}
	return clientcmd.RecommendedHomeFile
}

// readKubeconfig returns a cluster's administrator's configuration, with the
// server as this computer reaches it.
func readKubeconfig(m *machine.Machine) (*clientcmdapi.Config, error) {
	c, err := clientcmd.LoadFromFile(inside(m, adminConf))
	if err != nil {
		return nil, fmt.Errorf("kubeconfig of cluster %s: %w", m.Spec.Cluster, err)
	}
	name := contextName(m.Spec.Cluster)
	out := clientcmdapi.NewConfig()
	listen, err := listenerOf(m)
	if err != nil {
		return nil, err
	}
	for _, cluster := range c.Clusters {
		if listen != "" {
			cluster.Server = "https://" + listen
		}
		out.Clusters[name] = cluster
	}
	for _, user := range c.AuthInfos {
		out.AuthInfos[name] = user
	}
	out.Contexts[name] = &clientcmdapi.Context{Cluster: name, AuthInfo: name}
	out.CurrentContext = name
	return out, nil
}

// mergeKubeconfig adds a cluster to the user's file and makes it current.
func mergeKubeconfig(c *clientcmdapi.Config) error {
	return changeKubeconfig(func(into *clientcmdapi.Config) {
		maps.Copy(into.Clusters, c.Clusters)
		maps.Copy(into.AuthInfos, c.AuthInfos)
		maps.Copy(into.Contexts, c.Contexts)
		into.CurrentContext = c.CurrentContext
	})
}

// forgetKubeconfig takes a cluster out of the user's file.
func forgetKubeconfig(cluster string) error {
	if _, err := os.Stat(kubeconfigPath()); os.IsNotExist(err) {
		return nil
	}
	return changeKubeconfig(func(c *clientcmdapi.Config) {
		name := contextName(cluster)
		delete(c.Clusters, name)
		delete(c.AuthInfos, name)
		delete(c.Contexts, name)
		if c.CurrentContext == name {
			c.CurrentContext = ""
		}
	})
}

func changeKubeconfig(change func(*clientcmdapi.Config)) error {
	path := kubeconfigPath()
	c, err := clientcmd.LoadFromFile(path)
	if os.IsNotExist(err) {
		c, err = clientcmdapi.NewConfig(), nil
	}
	if err != nil {
		return fmt.Errorf("%s: %w; mend or move that file, or set KUBECONFIG to another", path, err)
	}
	change(c)
	return clientcmd.WriteToFile(*c, path)
}

func kubeconfigCommand() *cobra.Command {
	return &cobra.Command{
		Use: "kubeconfig [NAME]", Short: "Print a cluster's kubeconfig", Args: cobra.MaximumNArgs(1),
		Example: "  sampan kubeconfig > admin.conf",
		RunE: func(cmd *cobra.Command, args []string) error {
			ms, err := clusterMachines(nameArg(args))
			if err != nil {
				return err
			}
			if len(ms) == 0 {
				return noCluster(nameArg(args))
			}
			c, err := readKubeconfig(ms[0])
			if err != nil {
				return err
			}
			text, err := clientcmd.Write(*c)
			if err != nil {
				return err
			}
			_, err = cmd.OutOrStdout().Write(text)
			return err
		},
	}
}
