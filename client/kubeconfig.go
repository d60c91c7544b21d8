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

// Write writes the file as kubeadm does: mode 0600, replaced at once.
func (k Kubeconfig) Write(path string) error {
	c := clientcmdapi.NewConfig()
	context := k.User + "@" + k.Cluster
	c.Clusters[k.Cluster] = &clientcmdapi.Cluster{Server: k.Server, CertificateAuthorityData: k.CA}
	c.AuthInfos[k.User] = &clientcmdapi.AuthInfo{
		ClientCertificateData: k.Cert, ClientKeyData: k.Key,
		ClientCertificate: k.CertFile, ClientKey: k.KeyFile, Token: k.Token,
	}
	c.Contexts[context] = &clientcmdapi.Context{Cluster: k.Cluster, AuthInfo: k.User}
	c.CurrentContext = context
	if err := clientcmd.WriteToFile(*c, path); err != nil {
		return fmt.Errorf("kubeconfig %s: %w", path, err)
	}
	return nil
}

// ClusterOf returns the server of a kubeconfig's current context and the
// authority by which it is known.
func ClusterOf(text []byte) (server string, ca []byte, err error) {
	c, err := clientcmd.Load(text)
	if err != nil {
		return "", nil, err
	}
	if c.Contexts[c.CurrentContext] == nil || c.Clusters[c.Contexts[c.CurrentContext].Cluster] == nil {
		return "", nil, fmt.Errorf("no cluster in context %q", c.CurrentContext)
	}
	cluster := c.Clusters[c.Contexts[c.CurrentContext].Cluster]
	ca = cluster.CertificateAuthorityData
	if len(ca) == 0 && cluster.CertificateAuthority != "" {
		ca, err = os.ReadFile(cluster.CertificateAuthority)
	}
	return cluster.Server, ca, err
}
