package kubeadm

import (
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"text/tabwriter"
	"time"

	"k8s.io/apimachinery/pkg/util/duration"

	"github.com/spf13/cobra"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"

	"github.com/sampan-dev/sampan/bootstrap"
	"github.com/sampan-dev/sampan/kit/clock"
	"github.com/sampan-dev/sampan/kit/pki"
	"github.com/sampan-dev/sampan/kubeadm/config"
)

func hashOf(ca []byte) (string, error) {
	certs, err := pki.DecodeCerts(ca)
	if err != nil {
		return "", err
	}
	return pki.Hash(certs[0]), nil
}

func certsCommand() *cobra.Command {
	dir, conf := config.DefaultCertificatesDir, usual.conf
	root := &cobra.Command{Use: "certs", Aliases: []string{"certificates"}, Short: "Commands related to handling Kubernetes certificates"}
	root.PersistentFlags().StringVar(&dir, "cert-dir", dir, "The path where certificates are stored")
	root.PersistentFlags().StringVar(&conf, "kubeconfig-dir", conf, "The path where the kubeconfig files are stored")
	root.AddCommand(expirationCommand(&dir, &conf),
		&cobra.Command{Use: "certificate-key", Short: "Generate certificate keys", Args: cobra.NoArgs, RunE: func(c *cobra.Command, _ []string) error {
			key, err := bootstrap.NewCertificateKey()
			if err == nil {
				fmt.Fprintln(c.OutOrStdout(), key)
			}
			return err
		}},
		renewCommand(&dir, &conf), csrCommand(&dir, &conf),
	)
	return root
}

// kubeconfigCert reads the client certificate of a kubeconfig.
func kubeconfigCert(path string) (*x509.Certificate, error) {
	c, err := clientcmd.LoadFromFile(path)
	if err != nil {
		return nil, err
	}
	x := c.Contexts[c.CurrentContext]
	if x == nil || c.AuthInfos[x.AuthInfo] == nil {
		return nil, fmt.Errorf("%s: no user in its current context", path)
	}
	text := c.AuthInfos[x.AuthInfo].ClientCertificateData
	if len(text) == 0 {
		if text, err = os.ReadFile(c.AuthInfos[x.AuthInfo].ClientCertificate); err != nil {
			return nil, err
		}
	}
	certs, err := pki.DecodeCerts(text)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return certs[0], nil
}

// editUser changes the user of a kubeconfig's current context.
func editUser(path string, change func(*clientcmdapi.AuthInfo)) error {
	c, err := clientcmd.LoadFromFile(path)
	if err != nil {
		return err
	}
	x := c.Contexts[c.CurrentContext]
	if x == nil || c.AuthInfos[x.AuthInfo] == nil {
		return fmt.Errorf("%s: no user in its current context", path)
	}
	change(c.AuthInfos[x.AuthInfo])
	return clientcmd.WriteToFile(*c, path)
}

// certsFlags are those of commands that may read where certificates lie from a
// file; where returns the directory.
func certsFlags(c *cobra.Command, dir *string) (where func(*cobra.Command) (string, error)) {
	var file, kubeconfig string
	c.PersistentFlags().StringVar(&file, "config", "", "Path to a kubeadm configuration file.")
	c.PersistentFlags().StringVar(&kubeconfig, "kubeconfig", usual.file("admin.conf"), "The kubeconfig file to use when talking to the cluster; what is asked here the files answer.")
	return func(c *cobra.Command) (string, error) {
		if file == "" || c.Flags().Changed("cert-dir") {
			return *dir, nil
		}
		f, err := config.Load(file)
		if err != nil {
			return "", err
		}
		if f.Cluster == nil {
			return *dir, nil
		}
		return orElse(f.Cluster.CertificatesDir, *dir), nil
	}
}

func expirationCommand(dir, conf *string) *cobra.Command {
	var o output
	c := &cobra.Command{Use: "check-expiration", Short: "Check certificates expiration for a Kubernetes cluster", Args: cobra.NoArgs}
	where := certsFlags(c, dir)
	o.templates(c)
	c.RunE = func(c *cobra.Command, _ []string) error {
		at, err := where(c)
		if err != nil {
			return err
		}
		leaves, authorities := expirations(at, *conf)
		if o.format == "" {
			return tellExpirations(c.OutOrStdout(), leaves, authorities)
		}
		return o.write(c.OutOrStdout(), map[string]any{"apiVersion": outputVersion, "kind": "CertificateExpirationInfo", "certificates": leaves, "certificateAuthorities": authorities})
	}
	return c
}

// expiration is how long one certificate lives.
type expiration struct {
	Name    string    `json:"name"`
	Expires time.Time `json:"expirationDate,omitzero"`
	Seconds int64     `json:"residualTime,omitempty"`
	// External says that who signs it is not here: its authority's key is missing.
	External bool   `json:"externallyManaged"`
	CA       string `json:"caName,omitempty"`
	Missing  bool   `json:"missing,omitempty"`

	left time.Duration
	err  error
}

func expirationOf(name string, cert *x509.Certificate, err error, ca string, external bool) expiration {
	x := expiration{Name: name, CA: ca, External: external, Missing: errors.Is(err, fs.ErrNotExist), err: err}
	if err == nil {
		x.Expires, x.left = cert.NotAfter.UTC(), clock.Until(cert.NotAfter)
		x.Seconds = int64(x.left.Seconds())
	}
	return x
}

// expirations reads every certificate, and the authorities.
func expirations(dir, conf string) (leaves, authorities []expiration) {
	external := map[string]bool{}
	for _, x := range certificates {
		if x.ca != "" {
			continue
		}
		cert, err := readCert(dir, x.base)
		if _, noKey := os.Stat(filepath.Join(dir, x.base+".key")); err == nil && errors.Is(noKey, fs.ErrNotExist) {
			external[x.base] = true
		}
		authorities = append(authorities, expirationOf(x.name, cert, err, "", external[x.base]))
	}
	for _, i := range identities {
		if i.file != "kubelet.conf" {
			cert, err := kubeconfigCert(filepath.Join(conf, i.file))
			leaves = append(leaves, expirationOf(i.file, cert, err, "ca", external["ca"]))
		}
	}
	for _, x := range certificates {
		if x.ca != "" {
			cert, err := readCert(dir, x.base)
			leaves = append(leaves, expirationOf(x.name, cert, err, strings.ReplaceAll(x.ca, "etcd/", "etcd-"), external[x.ca]))
		}
	}
	return leaves, authorities
}

// tellExpirations prints how long every certificate lives.
func tellExpirations(out io.Writer, leaves, authorities []expiration) error {
	w := tabwriter.NewWriter(out, 10, 4, 3, ' ', 0)
	lines := func(list []expiration) {
		for _, x := range list {
			ca := "\t" + x.CA
			if x.CA == "" {
				ca = ""
			}
			switch {
			case x.Missing:
				fmt.Fprintf(w, "!MISSING! %s\t\t%s\t\n", x.Name, ca)
			case x.err != nil:
				fmt.Fprintf(w, "!UNREADABLE! %s\t%v\t%s\t\n", x.Name, x.err, ca)
			default:
				left, external := "<invalid>", "no"
				if x.left > 0 {
					left = duration.ShortHumanDuration(x.left)
				}
				if x.External {
					external = "yes"
				}
				fmt.Fprintf(w, "%s\t%s\t%s%s\t%s\n", x.Name, x.Expires.Format("Jan 02, 2006 15:04 MST"), left, ca, external)
			}
		}
	}
	fmt.Fprintln(w, "CERTIFICATE\tEXPIRES\tRESIDUAL TIME\tCERTIFICATE AUTHORITY\tEXTERNALLY MANAGED")
	lines(leaves)
	fmt.Fprintln(w, "\nCERTIFICATE AUTHORITY\tEXPIRES\tRESIDUAL TIME\tEXTERNALLY MANAGED")
	lines(authorities)
	return w.Flush()
}

// renewCommand is `certs renew`: everything, or one by name.
func renewCommand(dir, conf *string) *cobra.Command {
	root := &cobra.Command{Use: "renew", Short: "Renew certificates for a Kubernetes cluster"}
	where := certsFlags(root, dir)
	var all []func(c *cobra.Command) error
	add := func(name, about string, do func(c *cobra.Command, dir string) error) {
		renew := func(c *cobra.Command) error {
			at, err := where(c)
			if err != nil {
				return err
			}
			return do(c, at)
		}
		all = append(all, renew)
		root.AddCommand(&cobra.Command{Use: name, Short: "Renew " + about, Args: cobra.NoArgs, RunE: func(c *cobra.Command, _ []string) error { return renew(c) }})
	}
	for _, i := range identities {
		if i.file == "kubelet.conf" { // the kubelet renews its own
			continue
		}
		add(i.file, i.about, func(c *cobra.Command, dir string) error { return renewKubeconfig(c.OutOrStdout(), i, dir, *conf) })
	}
	for _, x := range certificates {
		if x.ca != "" {
			add(x.name, x.about, func(c *cobra.Command, dir string) error { return renewLeaf(c.OutOrStdout(), x, dir) })
		}
	}
	root.AddCommand(&cobra.Command{Use: "all", Short: "Renew all available certificates", Args: cobra.NoArgs, RunE: func(c *cobra.Command, _ []string) error {
		var errs []error
		for _, renew := range all {
			if err := renew(c); err != nil && !errors.Is(err, fs.ErrNotExist) {
				errs = append(errs, err)
			}
		}
		if err := errors.Join(errs...); err != nil {
			return err
		}
		fmt.Fprintln(c.OutOrStdout(), "Done renewing certificates. You must restart the kube-apiserver, kube-controller-manager, kube-scheduler and etcd, so that they can use the new certificates.")
		return nil
	}})
	return root
}

// renewLeaf signs a certificate like the one there is: the same names, a new
// key and a new life.
func renewLeaf(out io.Writer, x certificate, dir string) error {
	old, err := readCert(dir, x.base)
	if err != nil {
		return err
	}
	ca, err := pki.Load(dir, x.ca)
	if err != nil {
		return fmt.Errorf("renew %s: its authority: %w", x.name, err)
	}
	p, err := ca.Issue(like(old))
	if err != nil {
		return err
	}
	if err := save(p, dir, x.base); err != nil {
		return err
	}
	fmt.Fprintf(out, "%s renewed\n", x.about)
	return nil
}

// like asks for a certificate with the names and the length of life of old.
func like(old *x509.Certificate) pki.Request {
	r := pki.Request{CommonName: old.Subject.CommonName, Organizations: old.Subject.Organization, Hosts: old.DNSNames, Life: old.NotAfter.Sub(old.NotBefore).Round(time.Hour)}
	for _, ip := range old.IPAddresses {
		r.Hosts = append(r.Hosts, ip.String())
	}
	for _, u := range old.ExtKeyUsage {
		r.Server = r.Server || u == x509.ExtKeyUsageServerAuth
		r.Client = r.Client || u == x509.ExtKeyUsageClientAuth
	}
	if old.PublicKeyAlgorithm == x509.RSA {
		r.Algorithm = pki.RSA2048
	}
	return r
}

func renewKubeconfig(out io.Writer, i identity, dir, conf string) error {
	path := filepath.Join(conf, i.file)
	old, err := kubeconfigCert(path)
	if err != nil {
		return err
	}
	ca, err := pki.Load(dir, "ca")
	if err != nil {
		return fmt.Errorf("renew %s: its authority: %w", i.file, err)
	}
	p, err := ca.Issue(like(old))
	if err != nil {
		return err
	}
	key, err := p.KeyPEM()
	if err != nil {
		return err
	}
	if err := editUser(path, func(u *clientcmdapi.AuthInfo) {
		u.ClientCertificate, u.ClientKey, u.ClientCertificateData, u.ClientKeyData = "", "", p.CertPEM(), key
	}); err != nil {
		return err
	}
	fmt.Fprintf(out, "certificate embedded in %s renewed\n", i.about)
	return nil
}
