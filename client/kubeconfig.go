package client

import (
	"fmt"
	"os"

	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
)

// Kubeconfig describes one kubeconfig file: one cluster, one user.
type Kubeconfig struct {
	Cluster, User string // names
	Server        string
	CA            []byte // PEM
	Cert, Key     []byte // PEM; or
	CertFile      string // files, for certificates that rotate
	KeyFile       string
	Token         string
}

// Encode returns the file's text. Without a user it names the cluster alone, as
// the ConfigMap cluster-info does.
func (k Kubeconfig) Encode() ([]byte, error) { return clientcmd.Write(k.config()) }

// Write writes the file as kubeadm does: mode 0600, replaced at once, so that
// who reads it meanwhile sees the old one or the new one whole.
func (k Kubeconfig) Write(path string) error {
	tmp := path + ".new"
	err := clientcmd.WriteToFile(k.config(), tmp)
	if err == nil {
		err = os.Rename(tmp, path)
	}
	if err != nil {
		return fmt.Errorf("kubeconfig %s: %w", path, err)
	}
	return nil
}

func (k Kubeconfig) config() clientcmdapi.Config {
	c := clientcmdapi.NewConfig()
	c.Clusters[k.Cluster] = &clientcmdapi.Cluster{Server: k.Server, CertificateAuthorityData: k.CA}
	if k.User == "" {
		return *c
	}
	context := k.User + "@" + k.Cluster
	c.AuthInfos[k.User] = &clientcmdapi.AuthInfo{
		ClientCertificateData: k.Cert, ClientKeyData: k.Key,
		ClientCertificate: k.CertFile, ClientKey: k.KeyFile, Token: k.Token,
	}
	c.Contexts[context] = &clientcmdapi.Context{Cluster: k.Cluster, AuthInfo: k.User}
	c.CurrentContext = context
	return *c
}

// ClusterOf returns the server of a kubeconfig's current context, or of its only
// cluster, and the authority by which it is known.
func ClusterOf(text []byte) (server string, ca []byte, err error) {
	c, err := clientcmd.Load(text)
	if err != nil {
		return "", nil, err
	}
	var cluster *clientcmdapi.Cluster
	if current := c.Contexts[c.CurrentContext]; current != nil {
		cluster = c.Clusters[current.Cluster]
	} else if len(c.Clusters) == 1 {
		for _, cluster = range c.Clusters {
		}
	}
	if cluster == nil {
		return "", nil, fmt.Errorf("no cluster in context %q", c.CurrentContext)
	}
	ca = cluster.CertificateAuthorityData
	if len(ca) == 0 && cluster.CertificateAuthority != "" {
		ca, err = os.ReadFile(cluster.CertificateAuthority)
	}
	return cluster.Server, ca, err
}
