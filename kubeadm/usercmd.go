package kubeadm

import (
	"errors"
	"fmt"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"github.com/sampan-dev/sampan/client"
	"github.com/sampan-dev/sampan/kit/pki"
	"github.com/sampan-dev/sampan/kubeadm/config"
)

func kubeconfigCommand() *cobra.Command {
	root := &cobra.Command{Use: "kubeconfig", Short: "Kubeconfig file utilities"}
	root.AddCommand(userCommand())
	return root
}

// userCommand makes a kubeconfig for somebody.
func userCommand() *cobra.Command {
	var file, name, token string
	var groups []string
	var life time.Duration
	c := &cobra.Command{Use: "user", Short: "Output a kubeconfig file for an additional user", Args: cobra.NoArgs}
	f := c.Flags()
	f.StringVar(&file, "config", "", "Path to a kubeadm configuration file.")
	f.StringVar(&name, "client-name", "", "The name of user. It will be used as the CN if client certificates are created")
	f.StringVar(&token, "token", "", "The token that should be used as the authentication mechanism for this kubeconfig, instead of client certificates")
	f.StringSliceVar(&groups, "org", nil, "The organizations of the client certificate. It will be used as the O if client certificates are created")
	f.DurationVar(&life, "validity-period", 365*24*time.Hour, "The validity period of the client certificate. It is an offset from the current time.")
	c.RunE = func(c *cobra.Command, _ []string) error {
		if name == "" {
			return errors.New("required flag(s) \"client-name\" not set")
		}
		in := &config.File{}
		if file != "" {
			var err error
			if in, err = config.Load(file); err != nil {
				return err
			}
		}
		r, err := prepareInit(in, thisHost(), c.ErrOrStderr())
		if err != nil {
			return err
		}
		text, err := userConf(r.machine(), name, token, groups, life)
		if err != nil {
			return err
		}
		_, err = c.OutOrStdout().Write(text)
		return err
	}
	return c
}

func userConf(m machine, name, token string, groups []string, life time.Duration) ([]byte, error) {
	k := client.Kubeconfig{Cluster: m.cluster.ClusterName, User: name, Server: "https://" + m.cluster.Endpoint(m.local), Token: token}
	cert, err := readCert(m.cluster.CertificatesDir, "ca")
	if err != nil {
		return nil, fmt.Errorf("the cluster's authority: %w", err)
	}
	k.CA = pki.EncodeCerts(cert)
	if token != "" {
		return k.Encode()
	}
	ca, err := pki.Load(m.cluster.CertificatesDir, "ca")
	if err != nil {
		return nil, fmt.Errorf("%s, which would sign: %w", filepath.Join(m.cluster.CertificatesDir, "ca.key"), err)
	}
	leaf, err := ca.Issue(pki.Request{CommonName: name, Organizations: groups, Client: true, Life: life, Algorithm: pki.Algorithm(m.cluster.EncryptionAlgorithm)})
	if err != nil {
		return nil, err
	}
	k.Cert = leaf.CertPEM()
	if k.Key, err = leaf.KeyPEM(); err != nil {
		return nil, err
	}
	return k.Encode()
}

// alphaCommand has what was first called kubeadm alpha, under its old names.
func alphaCommand() *cobra.Command {
	root := &cobra.Command{Use: "alpha", Short: "Commands under the names that they first had", Hidden: true}
	certs := certsCommand()
	renamed(certs, "use the command kubeadm certs")
	conf := kubeconfigCommand()
	renamed(conf, "use the command kubeadm kubeconfig")
	phase := initPhaseCommand()
	renamed(phase, "use the command kubeadm init phase")
	root.AddCommand(certs, conf, phase)
	return root
}

// renamed makes a command, and those below it, say what they are called now.
func renamed(c *cobra.Command, notice string) {
	if c.Runnable() {
		c.Deprecated = notice
	}
	for _, s := range c.Commands() {
		renamed(s, notice)
	}
}
