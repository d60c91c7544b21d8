package cli

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net/netip"
	"os"

	"github.com/sampan-dev/sampan/controlplane"
	"github.com/sampan-dev/sampan/kit/pki"
)

// apiServerFlags are kube-apiserver's flags, under upstream's names.
type apiServerFlags struct {
	cfg                                 controlplane.Config
	serviceCIDRs                        []string
	clientCA, cert, key                 string
	accountKey, kubeletCert, kubeletKey string
	requestHeaderCA                     string
	advertise                           netip.Addr
}

// APIServer is the kube-apiserver program.
func APIServer(ctx context.Context, args []string) int {
	c := newComponent("kube-apiserver", "kube-apiserver serves the Kubernetes API over an etcd.")
	f := &apiServerFlags{}
	fs := c.flags
	fs.StringSliceVar(&f.cfg.EtcdServers, "etcd-servers", nil, "List of etcd servers to connect with (scheme://ip:port), comma separated.")
	fs.StringVar(&f.cfg.EtcdTLS.CA, "etcd-cafile", "", "SSL Certificate Authority file used to secure etcd communication.")
	fs.StringVar(&f.cfg.EtcdTLS.Cert, "etcd-certfile", "", "SSL certification file used to secure etcd communication.")
	fs.StringVar(&f.cfg.EtcdTLS.Key, "etcd-keyfile", "", "SSL key file used to secure etcd communication.")
	fs.StringVar(&f.cfg.BindAddress, "bind-address", "0.0.0.0", "The IP address on which to listen for the --secure-port port.")
	fs.IntVar(&f.cfg.Port, "secure-port", 6443, "The port on which to serve HTTPS with authentication and authorization.")
	fs.TextVar(&f.advertise, "advertise-address", netip.Addr{}, "The IP address on which to advertise the apiserver to members of the cluster.")
	fs.StringSliceVar(&f.serviceCIDRs, "service-cluster-ip-range", []string{"10.0.0.0/24"}, "CIDR notation IP ranges from which to assign service cluster IPs.")
	fs.StringVar(&f.clientCA, "client-ca-file", "", "Any request presenting a client certificate signed by one of the authorities in this file is authenticated with the identity in its CommonName.")
	fs.StringVar(&f.cert, "tls-cert-file", "", "File containing the default x509 Certificate for HTTPS.")
	fs.StringVar(&f.key, "tls-private-key-file", "", "File containing the default x509 private key matching --tls-cert-file.")
	fs.StringVar(&f.accountKey, "service-account-signing-key-file", "", "Path to the file that contains the current private key of the service account token issuer.")
	fs.StringVar(&f.kubeletCert, "kubelet-client-certificate", "", "Path to a client cert file for TLS to kubelets.")
	fs.StringVar(&f.kubeletKey, "kubelet-client-key", "", "Path to a client key file for TLS to kubelets.")
	fs.StringVar(&f.requestHeaderCA, "requestheader-client-ca-file", "", "Root certificate bundle of front proxies.")
	fs.StringVar(&f.cfg.TokenFile, "token-auth-file", "", "If set, the file that will be used to secure the secure port of the API server via token authentication.")
	fs.StringSliceVar(&f.cfg.AuthorizationModes, "authorization-mode", []string{"AlwaysAllow"}, "Ordered list of plug-ins to do authorization on secure port: AlwaysAllow,AlwaysDeny,Node,RBAC.")
	fs.StringSliceVar(&f.cfg.EnableAdmission, "enable-admission-plugins", nil, "admission plugins that should be enabled in addition to default enabled ones")
	fs.StringSliceVar(&f.cfg.DisableAdmission, "disable-admission-plugins", nil, "admission plugins that should be disabled although they are in the default enabled plugins list")
	fs.BoolVar(&f.cfg.Anonymous, "anonymous-auth", true, "Enables anonymous requests to the secure port of the API server.")
	return c.run(ctx, args, func(ctx context.Context) error {
		if err := f.load(); err != nil {
			return err
		}
		cp, err := controlplane.New(f.cfg, controlplane.Deps{Log: c.log, Metrics: c.metrics})
		if err != nil {
			return err
		}
		return cp.RunServer(ctx)
	})
}

// load reads the files that the flags name.
func (f *apiServerFlags) load() error {
	for _, s := range f.serviceCIDRs {
		p, err := netip.ParsePrefix(s)
		if err != nil {
			return fmt.Errorf("--service-cluster-ip-range: %w", err)
		}
		f.cfg.ServiceCIDRs = append(f.cfg.ServiceCIDRs, p)
	}
	for flag, file := range map[string]string{
		"--client-ca-file": f.clientCA, "--tls-cert-file": f.cert, "--tls-private-key-file": f.key, "--service-account-signing-key-file": f.accountKey,
	} {
		if file == "" {
			return errors.New(flag + ": Required value")
		}
	}
	f.cfg.Advertise = f.advertise
	f.cfg.Host, _ = os.Hostname()
	var err error
	if f.cfg.ClientCA, err = authority(f.clientCA); err != nil {
		return fmt.Errorf("--client-ca-file: %w", err)
	}
	if f.requestHeaderCA != "" {
		if f.cfg.FrontProxyCA, err = authority(f.requestHeaderCA); err != nil {
			return fmt.Errorf("--requestheader-client-ca-file: %w", err)
		}
	}
	if f.cfg.AccountKey, err = pki.LoadSigner(f.accountKey); err != nil {
		return fmt.Errorf("--service-account-signing-key-file: %w", err)
	}
	if f.kubeletCert != "" {
		if f.cfg.Kubelet, err = tls.LoadX509KeyPair(f.kubeletCert, f.kubeletKey); err != nil {
			return fmt.Errorf("--kubelet-client-certificate: %w", err)
		}
	}
	f.cfg.Serving = func() (*tls.Certificate, error) {
		cert, err := tls.LoadX509KeyPair(f.cert, f.key)
		return &cert, err
	}
	return nil
}

// authority reads a certificate without its key.
func authority(file string) (*pki.Pair, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	certs, err := pki.DecodeCerts(text)
	if err != nil {
		return nil, err
	}
	if len(certs) == 0 {
		return nil, fmt.Errorf("%s holds no certificate", file)
	}
	return &pki.Pair{Cert: certs[0]}, nil
}
