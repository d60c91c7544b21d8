package client

import (
	"fmt"

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
