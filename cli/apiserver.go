package cli

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/pflag"

	"github.com/sampan-dev/sampan/bootstrap"
	"github.com/sampan-dev/sampan/controlplane"
	"github.com/sampan-dev/sampan/kit/pki"
	"github.com/sampan-dev/sampan/kit/run"
)

// apiServerFlags are kube-apiserver's flags, under upstream's names.
type apiServerFlags struct {
	cfg                      controlplane.Config
	serviceCIDRs             []string
	clientCA, cert, key      string
	certDir                  string
	signingKey               string
	accountKeys              []string
	kubeletCert, kubeletKey  string
	requestHeaderCA          string
	advertise                netip.Addr
	basicAuth, signer        string
	allowRemote, apiAudience bool
	privileged               bool
	admissionOld             []string
	access                   accessFlags
	offer                    offerFlags
}

// apiServer declares kube-apiserver's flags.
func apiServer() (*component, *apiServerFlags) {
	c := newComponent("kube-apiserver", "kube-apiserver serves the Kubernetes API over an etcd.")
	f := &apiServerFlags{}
	f.declare(c)
	f.declareServing(c)
	f.access.declare(c, &f.cfg)
	f.offer.declare(c, &f.cfg.Offer)
	f.retire(c)
	return c, f
}

// APIServer is the kube-apiserver program.
func APIServer(ctx context.Context, args []string) int {
	c, f := apiServer()
	return c.run(ctx, args, func(ctx context.Context) error {
		if err := f.load(c.log); err != nil {
			return err
		}
		f.cfg.NoPrivileged = !f.privileged
		f.access.clientCA, f.access.requestHeaderCA, f.access.accountKeys = f.clientCA, f.requestHeaderCA, f.accountKeys
		if err := f.access.load(c, &f.cfg); err != nil {
			return err
		}
		cp, err := controlplane.New(f.cfg, controlplane.Deps{Log: c.log, Metrics: c.metrics})
		if err != nil {
			return err
		}
		run.Detach(ctx, "readiness", func(ctx context.Context) { c.tellReady(ctx, cp.Serving, f.cfg.BindAddress, f.cfg.Port) })
		return cp.RunServer(ctx)
	})
}

func (f *apiServerFlags) declare(c *component) {
	cfg := &f.cfg
	fs := c.in(genericFlags)
	fs.TextVar(&f.advertise, "advertise-address", netip.Addr{}, "The IP address on which to advertise the apiserver to members of the cluster. If unset, the address of --bind-address or of this machine's first interface.")
	fs = c.in("Etcd")
	fs.StringSliceVar(&cfg.EtcdServers, "etcd-servers", nil, "List of etcd servers to connect with (scheme://ip:port), comma separated.")
	fs.StringVar(&cfg.EtcdPrefix, "etcd-prefix", "/registry", "The prefix to prepend to all resource paths in etcd.")
	fs.StringVar(&cfg.EtcdTLS.CA, "etcd-cafile", "", "SSL Certificate Authority file used to secure etcd communication.")
	fs.StringVar(&cfg.EtcdTLS.Cert, "etcd-certfile", "", "SSL certification file used to secure etcd communication.")
	fs.StringVar(&cfg.EtcdTLS.Key, "etcd-keyfile", "", "SSL key file used to secure etcd communication.")
	fs = c.in(authnFlags)
	fs.BoolVar(&cfg.Anonymous, "anonymous-auth", true, "Enables anonymous requests to the secure port of the API server.")
	fs.StringVar(&f.clientCA, "client-ca-file", "", "If set, any request presenting a client certificate signed by one of the authorities in the client-ca-file is authenticated with an identity corresponding to the CommonName of the client certificate.")
	fs.StringVar(&cfg.TokenFile, "token-auth-file", "", "If set, the file that will be used to secure the secure port of the API server via token authentication.")
	fs.StringVar(&f.requestHeaderCA, "requestheader-client-ca-file", "", "Root certificate bundle to use to verify client certificates on incoming requests before trusting usernames in headers.")
	fs.StringSliceVar(&f.accountKeys, "service-account-key-file", nil, "File containing PEM-encoded x509 RSA or ECDSA private or public keys, used to verify ServiceAccount tokens. If unspecified, --service-account-signing-key-file is used.")
	fs.StringVar(&f.signingKey, "service-account-signing-key-file", "", "Path to the file that contains the current private key of the service account token issuer. If unspecified, the private key of --service-account-key-file is used.")
	fs = c.in(authzFlags)
	fs.StringSliceVar(&cfg.AuthorizationModes, "authorization-mode", []string{"AlwaysAllow"}, "Ordered list of plug-ins to do authorization on secure port: AlwaysAllow,AlwaysDeny,ABAC,Webhook,RBAC,Node.")
	fs = c.in("Admission")
	fs.StringSliceVar(&cfg.EnableAdmission, "enable-admission-plugins", nil, "admission plugins that should be enabled in addition to default enabled ones")
	fs.StringVar(&cfg.AdmissionConfig, "admission-control-config-file", "", "file with admission control configuration")
	fs.StringSliceVar(&cfg.DisableAdmission, "disable-admission-plugins", nil, "admission plugins that should be disabled although they are in the default enabled plugins list")
	guards := pflag.NewFlagSet("guards", pflag.ContinueOnError)
	bootstrap.GuardFlags(guards, &cfg.Guard)
	c.sort(guards, guardHeading)
	fs = c.in("Misc")
	fs.BoolVar(&f.privileged, "allow-privileged", true, "If true, allow privileged containers; upstream's default is false. Namespaces restrict them by their Pod Security labels.")
	fs.StringSliceVar(&f.serviceCIDRs, "service-cluster-ip-range", []string{"10.0.0.0/24"}, "A CIDR notation IP range from which to assign service cluster IPs.")
	fs.StringVar(&f.kubeletCert, "kubelet-client-certificate", "", "Path to a client cert file for TLS.")
	fs.StringVar(&f.kubeletKey, "kubelet-client-key", "", "Path to a client key file for TLS.")
}

// guardHeading is the heading under which upstream has a flag.
func guardHeading(name string) string {
	switch {
	case strings.HasPrefix(name, "audit-"):
		return "Auditing"
	case strings.HasPrefix(name, "encryption-"):
		return "Etcd"
	case strings.HasPrefix(name, "tls-"), strings.HasPrefix(name, "http2-"):
		return servingFlags
	}
	return genericFlags
}

func (f *apiServerFlags) declareServing(c *component) {
	fs := c.in(servingFlags)
	fs.StringVar(&f.cfg.BindAddress, "bind-address", "0.0.0.0", "The IP address on which to listen for the --secure-port port.")
	fs.IntVar(&f.cfg.Port, "secure-port", 6443, "The port on which to serve HTTPS with authentication and authorization.")
	fs.StringVar(&f.cert, "tls-cert-file", "", "File containing the default x509 Certificate for HTTPS. If HTTPS serving is enabled, and --tls-cert-file and --tls-private-key-file are not provided, a self-signed certificate and key are generated for the public address and saved to the directory specified by --cert-dir.")
	fs.StringVar(&f.key, "tls-private-key-file", "", "File containing the default x509 private key matching --tls-cert-file.")
	fs.StringVar(&f.certDir, "cert-dir", "/var/run/kubernetes", "The directory where the TLS certs are located. If --tls-cert-file and --tls-private-key-file are provided, this flag will be ignored.")
	fs = c.in(insecureFlags)
	fs.IntVar(&f.cfg.InsecurePort, "insecure-port", 0, "The port on which to serve HTTP without authentication or authorization: whoever reaches it may do everything. 0 serves none.")
	fs.StringVar(&f.cfg.InsecureAddress, "insecure-bind-address", "127.0.0.1", "The IP address for --insecure-port. Another than a loopback address is refused in favour of 127.0.0.1 unless --insecure-allow-remote is given.")
	fs.BoolVar(&f.allowRemote, "insecure-allow-remote", false, "Serve --insecure-port on an address that other machines reach, too.")
}

func (f *apiServerFlags) retire(c *component) {
	c.aliases["address"], c.aliases["port"], c.aliases["public-address-override"] = "insecure-bind-address", "insecure-port", "bind-address"
	c.aliases["experimental-encryption-provider-config"], c.aliases["audit-webhook-batch-initial-backoff"] = "encryption-provider-config", "audit-webhook-initial-backoff"
	c.aliases["service-account-api-audiences"] = "api-audiences"
	c.in(authnFlags).StringVar(&f.basicAuth, "basic-auth-file", "", "")
	_ = c.in(authnFlags).MarkHidden("basic-auth-file")
	c.in("Admission").StringSliceVar(&f.admissionOld, "admission-control", nil, "")
	_ = c.in("Admission").MarkHidden("admission-control")
	c.in(authnFlags).StringVar(&f.signer, "service-account-signing-endpoint", "", "")
	_ = c.in(authnFlags).MarkHidden("service-account-signing-endpoint")
	c.retired = append(c.retired, apiServerRetired()...)
}

// apiServerRetired are the flags that have no effect on this kube-apiserver.
func apiServerRetired() []retired {
	return []retired{
		{why: "it is always so", bools: strings.Fields("enable-swagger-ui etcd-quorum-read watch-cache enable-garbage-collector kubelet-https")},
		{why: "profiles are at /debug/pprof, for who may read that path", bools: strings.Fields("profiling contention-profiling"), names: []string{"debug-socket-path"}},
		{why: "one storage format is written, upstream's, in one etcd", names: strings.Fields("storage-backend storage-media-type storage-versions etcd-servers-overrides etcd-config")},
		{why: "watches are served from a log of changes that sizes itself", names: strings.Fields("delete-collection-workers deserialization-cache-size watch-cache-sizes default-watch-cache-size target-ram-mb")},
		{why: "etcd is asked when somebody asks, and compacts itself", names: strings.Fields("etcd-compaction-interval etcd-count-metric-poll-period etcd-db-metric-poll-interval etcd-healthcheck-timeout etcd-readycheck-timeout storage-initialization-timeout lease-reuse-duration-seconds lease-max-object-count")},
		{why: "API servers know each other by their leases in etcd", names: strings.Fields("apiserver-count endpoint-reconciler-type peer-advertise-ip peer-advertise-port peer-ca-file identity-lease-duration-seconds identity-lease-renew-interval-seconds coordinated-leadership-lease-duration coordinated-leadership-renew-deadline coordinated-leadership-retry-period")},
		{why: "the Service kubernetes has a cluster address only", names: strings.Fields("kubernetes-service-node-port kubernetes-service-read-only-port repair-malformed-updates master-service-namespace")},
		{why: "kubelets are asked at the port that their Node tells, as long as the client waits", names: strings.Fields("kubelet-port kubelet-timeout kubelet-read-only-port ssh-user ssh-keyfile")},
		{why: "a watch lasts until its client's or its own end", names: strings.Fields("min-request-timeout long-running-request-regexp max-connection-bytes-per-sec shutdown-watch-termination-grace-period")},
		{why: "see --shutdown-delay-duration", names: []string{"livez-grace-period"}, bools: []string{"shutdown-send-retry-after"}},
		{why: "clusters without a cloud are the only ones", names: strings.Fields("cloud-provider cloud-config cluster-name google-json-key experimental-keystone-url external-hostname")},
		{why: "connections go out directly", names: []string{"egress-selector-config-file"}},
		{why: "nothing here is traced", names: []string{"tracing-config-file"}},
		{why: "a port is one process's, HTTP/2 is served, over the curves of Go", bools: strings.Fields("permit-address-sharing permit-port-sharing disable-http2-serving"), names: []string{"tls-curve-preferences"}},
		{why: "/logs is not served", bools: []string{"enable-logs-handler"}},
		{why: "see --runtime-config", bools: strings.Fields("emulation-forward-compatible runtime-config-emulation-forward-compatible")},
		{why: "events have one version", names: strings.Fields("audit-log-version audit-webhook-version")},
	}
}

// load reads the files that the flags name.
func (f *apiServerFlags) load(log *slog.Logger) error {
	if f.basicAuth != "" {
		return errors.New("--basic-auth-file: passwords in a file were removed in v1.19, since they are sent with every request and never expire; use --token-auth-file, client certificates or service account tokens")
	}
	if f.signer != "" {
		return errors.New("--service-account-signing-endpoint: tokens are signed by this server alone; use --service-account-signing-key-file")
	}
	for _, s := range f.serviceCIDRs {
		p, err := netip.ParsePrefix(s)
		if err != nil {
			return fmt.Errorf("--service-cluster-ip-range: %w", err)
		}
		f.cfg.ServiceCIDRs = append(f.cfg.ServiceCIDRs, p.Masked())
	}
	f.insecure(log)
	f.oldAdmission(log)
	f.cfg.Host, _ = os.Hostname()
	if f.cfg.Advertise = f.advertise; !f.advertise.IsValid() {
		if a, err := netip.ParseAddr(f.cfg.BindAddress); err == nil && !a.IsUnspecified() {
			f.cfg.Advertise = a
		} else {
			f.cfg.Advertise = outboundIP(log)
		}
	}
	return errors.Join(f.authorities(), f.accounts(log), f.serving(), f.offer.load(&f.cfg.Offer))
}

// insecure settles where unprotected HTTP is served, if it was asked for.
func (f *apiServerFlags) insecure(log *slog.Logger) {
	if f.cfg.InsecurePort == 0 {
		return
	}
	if !loopback(f.cfg.InsecureAddress) && !f.allowRemote {
		log.Warn("--insecure-bind-address: whoever reaches the insecure port may do everything, so it is served on 127.0.0.1 only; --insecure-allow-remote overrides", "asked", f.cfg.InsecureAddress)
		f.cfg.InsecureAddress = "127.0.0.1"
	}
	log.Warn("Flag --insecure-port has been deprecated, whoever reaches it may do everything", "address", f.cfg.InsecureAddress, "port", f.cfg.InsecurePort)
}

// oldAdmission reads --admission-control, which once was the list of all plugins.
// Those that came since stay; a list that leaves out ServiceAccount is of a time
// when pods ran without a token, in clusters that have no authority for one.
func (f *apiServerFlags) oldAdmission(log *slog.Logger) {
	if len(f.admissionOld) == 0 {
		return
	}
	log.Warn("Flag --admission-control has been deprecated, use --enable-admission-plugins or --disable-admission-plugins")
	f.cfg.EnableAdmission = append(f.cfg.EnableAdmission, f.admissionOld...)
	if !slices.Contains(f.admissionOld, "ServiceAccount") {
		log.Warn("--admission-control leaves ServiceAccount out: pods get no token")
		f.cfg.DisableAdmission = append(f.cfg.DisableAdmission, "ServiceAccount")
	}
}

// authorities reads whom to believe.
func (f *apiServerFlags) authorities() error {
	var err error
	if f.clientCA == "" { // nobody's certificates are accepted: the authority is forgotten at once
		f.cfg.ClientCA, err = pki.NewCA("nobody", "")
	} else {
		f.cfg.ClientCA, err = authority(f.clientCA)
	}
	if err != nil {
		return fmt.Errorf("--client-ca-file: %w", err)
	}
	if f.requestHeaderCA != "" {
		if f.cfg.FrontProxyCA, err = authority(f.requestHeaderCA); err != nil {
			return fmt.Errorf("--requestheader-client-ca-file: %w", err)
		}
	}
	if f.kubeletCert != "" {
		if f.cfg.Kubelet, err = tls.LoadX509KeyPair(f.kubeletCert, f.kubeletKey); err != nil {
			return fmt.Errorf("--kubelet-client-certificate: %w", err)
		}
	}
	return nil
}

// accounts finds the key that signs service accounts' tokens: the one named, the
// private one among those that verify, or one kept in --cert-dir.
func (f *apiServerFlags) accounts(log *slog.Logger) error {
	var err error
	if f.signingKey != "" {
		if f.cfg.AccountKey, err = pki.LoadSigner(f.signingKey); err != nil {
			return fmt.Errorf("--service-account-signing-key-file: %w", err)
		}
		return nil
	}
	for _, file := range f.accountKeys {
		if f.cfg.AccountKey, err = pki.LoadSigner(file); err == nil {
			return nil
		}
	}
	if len(f.accountKeys) > 0 {
		return fmt.Errorf("--service-account-signing-key-file: Required value: --service-account-key-file holds no private key: %w", err)
	}
	log.Warn("--service-account-signing-key-file is not set: a key of this server's own is used; another API server would not know it", "kept", f.certDir)
	if f.cfg.AccountKey, err = pki.LoadSigner(filepath.Join(f.certDir, "sa.key")); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if f.cfg.AccountKey, err = pki.NewKey(""); err != nil {
		return err
	}
	return pki.SaveSigner(f.cfg.AccountKey, f.certDir, "sa")
}

// serving finds what the server shows to clients.
func (f *apiServerFlags) serving() error {
	if (f.cert == "") != (f.key == "") {
		return errors.New("--tls-cert-file and --tls-private-key-file must be given together")
	}
	if f.cert == "" {
		_, err := pki.LoadOrMake(f.certDir, "apiserver", func() (*pki.Pair, error) {
			ca, err := pki.NewCA(f.cfg.Host+"-ca", "")
			if err != nil {
				return nil, err
			}
			return ca.Issue(pki.Request{CommonName: f.cfg.Host, Server: true, Hosts: []string{
				f.cfg.Host, "localhost", "127.0.0.1", f.cfg.Advertise.String(), f.cfg.ServiceCIDRs[0].Addr().Next().String(),
				"kubernetes", "kubernetes.default", "kubernetes.default.svc", "kubernetes.default.svc.cluster.local"}})
		})
		if err != nil {
			return fmt.Errorf("--cert-dir: %w", err)
		}
		f.cert, f.key = filepath.Join(f.certDir, "apiserver.crt"), filepath.Join(f.certDir, "apiserver.key")
	}
	if _, err := tls.LoadX509KeyPair(f.cert, f.key); err != nil {
		return fmt.Errorf("--tls-cert-file: %w", err)
	}
	f.cfg.Serving = pki.Reloaded(f.cert, f.key)
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
