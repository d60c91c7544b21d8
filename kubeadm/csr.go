package kubeadm

import (
	"crypto"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/sampan-dev/sampan/client"
	"github.com/sampan-dev/sampan/kit/pki"
	"github.com/sampan-dev/sampan/kubeadm/config"
)

// csrCommand is `certs generate-csr`: keys, and requests that an authority
// outside of the cluster signs.
func csrCommand(dir, conf *string) *cobra.Command {
	var file string
	c := &cobra.Command{Use: "generate-csr", Short: "Generate keys and certificate signing requests", Args: cobra.NoArgs,
		Long: "Generates keys and certificate signing requests (CSRs) for all the certificates required to run the control plane, beside where the certificates belong, " +
			"and partial kubeconfig files in --kubeconfig-dir. What is there already is not replaced."}
	c.Flags().StringVar(&file, "config", "", "Path to a kubeadm configuration file.")
	c.RunE = func(c *cobra.Command, _ []string) error {
		f := &config.File{}
		if file != "" {
			var err error
			if f, err = config.Load(file); err != nil {
				return err
			}
		}
		r, err := prepareInit(f, thisHost(), c.OutOrStdout())
		if err != nil {
			return err
		}
		m := r.machine()
		m.cluster.CertificatesDir = *dir
		return requests(m, *conf, r.say)
	}
	return c
}

// requests writes a key and a request for every certificate that is not there.
func requests(m machine, conf string, say func(string, ...any)) error {
	for _, x := range wanted(m.cluster) {
		if x.ca == "" {
			continue
		}
		req, err := x.make(m)
		if err != nil {
			return err
		}
		base := filepath.Join(m.cluster.CertificatesDir, x.base)
		if _, err := os.Stat(base + ".crt"); err == nil {
			say("[certs] %s.crt is there already", base)
			continue
		}
		if _, err := request(req, pki.Algorithm(m.cluster.EncryptionAlgorithm), base+".key", base+".csr", say); err != nil {
			return err
		}
	}
	for _, i := range identities {
		if err := i.request(m, conf, say); err != nil {
			return err
		}
	}
	return nil
}

// request writes a request by the key of a file, which is made if it is not there.
func request(r pki.Request, a pki.Algorithm, keyFile, csrFile string, say func(string, ...any)) (crypto.Signer, error) {
	key, err := pki.LoadSigner(keyFile)
	if errors.Is(err, fs.ErrNotExist) {
		if key, err = pki.NewKey(a); err != nil {
			return nil, err
		}
		text, encErr := pki.EncodeKey(key)
		if encErr != nil {
			return nil, encErr
		}
		if err = os.MkdirAll(filepath.Dir(keyFile), 0o755); err == nil {
			err = pki.WriteFile(keyFile, text, 0o600)
		}
	}
	if err != nil {
		return nil, err
	}
	say("[certs] Generating the request %s", csrFile)
	return key, writeRequest(r, key, csrFile)
}

func writeRequest(r pki.Request, key crypto.Signer, file string) error {
	t := &x509.CertificateRequest{Subject: pkix.Name{CommonName: r.CommonName, Organization: r.Organizations}}
	for _, h := range r.Hosts {
		if ip := net.ParseIP(h); ip != nil {
			t.IPAddresses = append(t.IPAddresses, ip)
		} else {
			t.DNSNames = append(t.DNSNames, h)
		}
	}
	der, err := x509.CreateCertificateRequest(rand.Reader, t, key)
	if err != nil {
		return fmt.Errorf("request %s: %w", file, err)
	}
	return pki.WriteFile(file, pki.EncodeRequest(der), 0o644)
}

// request writes a kubeconfig with a key and without its certificate, and the
// request for that.
func (i identity) request(m machine, conf string, say func(string, ...any)) error {
	path := filepath.Join(conf, i.file)
	if _, err := os.Stat(path); err == nil {
		say("[kubeconfig] %s is there already", path)
		return nil
	}
	key, err := pki.NewKey(pki.Algorithm(m.cluster.EncryptionAlgorithm))
	if err != nil {
		return err
	}
	text, err := pki.EncodeKey(key)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(conf, 0o755); err != nil {
		return err
	}
	name := i.user(m.node.Name)
	k := client.Kubeconfig{Cluster: m.cluster.ClusterName, User: name, Server: i.server(m), Key: text}
	if ca, err := os.ReadFile(filepath.Join(m.cluster.CertificatesDir, "ca.crt")); err == nil {
		k.CA = ca
	}
	if err := k.Write(path); err != nil {
		return err
	}
	say("[kubeconfig] Generating the request %s.csr", path)
	return writeRequest(pki.Request{CommonName: name, Organizations: i.groups}, key, path+".csr")
}
