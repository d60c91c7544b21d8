package config

import (
	"errors"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"net/url"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// TokenForm is what a bootstrap token looks like.
var TokenForm = regexp.MustCompile(`^([a-z0-9]{6})\.([a-z0-9]{16})$`)

// Check judges an InitConfiguration with its ClusterConfiguration.
func (c *Init) Check(cluster *Cluster) error {
	errs := c.NodeRegistration.check(field.NewPath("nodeRegistration"))
	errs = append(errs, c.LocalAPIEndpoint.check(field.NewPath("localAPIEndpoint"))...)
	for i, t := range c.BootstrapTokens {
		errs = append(errs, t.check(field.NewPath("bootstrapTokens").Index(i))...)
	}
	if c.CertificateKey != "" && !IsCertificateKey(c.CertificateKey) {
		errs = append(errs, field.Invalid(field.NewPath("certificateKey"), c.CertificateKey, "certificate key is not a valid hex encoded AES key of size 32"))
	}
	return errors.Join(errs.ToAggregate(), cluster.Check())
}

// IsCertificateKey says whether k is 32 bytes in hex.
func IsCertificateKey(k string) bool {
	return len(k) == 64 && strings.Trim(strings.ToLower(k), "0123456789abcdef") == ""
}

// Check judges a ClusterConfiguration.
func (c *Cluster) Check() error {
	var errs field.ErrorList
	n := field.NewPath("networking")
	for _, s := range []struct {
		path  string
		value string
		need  bool
	}{{"serviceSubnet", c.Networking.ServiceSubnet, true}, {"podSubnet", c.Networking.PodSubnet, false}} {
		if s.value == "" && !s.need {
			continue
		}
		for p := range strings.SplitSeq(s.value, ",") {
			prefix, err := netip.ParsePrefix(strings.TrimSpace(p))
			if err != nil {
				errs = append(errs, field.Invalid(n.Child(s.path), p, "couldn't parse subnet"))
			} else if bits := prefix.Addr().BitLen() - prefix.Bits(); bits < 3 {
				errs = append(errs, field.Invalid(n.Child(s.path), p, "subnet with "+strconv.Itoa(1<<bits)+" address(es) is too small, the minimum is 10"))
			}
		}
	}
	if a, b, ok := ranges(c.Networking.ServiceSubnet, c.Networking.PodSubnet); ok && a.Overlaps(b) {
		errs = append(errs, field.Invalid(n.Child("podSubnet"), c.Networking.PodSubnet, "overlaps with serviceSubnet "+c.Networking.ServiceSubnet))
	}
	for _, msg := range validation.IsDNS1123Subdomain(c.Networking.DNSDomain) {
		errs = append(errs, field.Invalid(n.Child("dnsDomain"), c.Networking.DNSDomain, msg))
	}
	if c.ControlPlaneEndpoint != "" {
		errs = append(errs, checkEndpoint(c.ControlPlaneEndpoint, field.NewPath("controlPlaneEndpoint"))...)
	}
	if !filepath.IsAbs(c.CertificatesDir) {
		errs = append(errs, field.Invalid(field.NewPath("certificatesDir"), c.CertificatesDir, "path is not absolute"))
	}
	for i, san := range c.APIServer.CertSANs {
		if net.ParseIP(san) == nil && len(validation.IsDNS1123Subdomain(san)) > 0 && len(validation.IsWildcardDNS1123Subdomain(san)) > 0 {
			errs = append(errs, field.Invalid(field.NewPath("apiServer", "certSANs").Index(i), san, "altname is not a valid IP address, DNS label or a DNS label with subdomain wildcards"))
		}
	}
	if !slices.Contains([]string{"RSA-2048", "RSA-3072", "RSA-4096", "ECDSA-P256", "ECDSA-P384"}, c.EncryptionAlgorithm) {
		errs = append(errs, field.NotSupported(field.NewPath("encryptionAlgorithm"), c.EncryptionAlgorithm, []string{"RSA-2048", "RSA-3072", "RSA-4096", "ECDSA-P256", "ECDSA-P384"}))
	}
	errs = append(errs, c.Etcd.check(field.NewPath("etcd"))...)
	return errs.ToAggregate()
}

func ranges(a, b string) (x, y netip.Prefix, ok bool) {
	a, _, _ = strings.Cut(a, ",")
	b, _, _ = strings.Cut(b, ",")
	x, err := netip.ParsePrefix(a)
	if err != nil {
		return x, y, false
	}
	y, err = netip.ParsePrefix(b)
	return x, y, err == nil
}

func (e Etcd) check(path *field.Path) (errs field.ErrorList) {
	if e.Local != nil && e.External != nil {
		return append(errs, field.Invalid(path, "", "setting .etcd.local and .etcd.external is mutually exclusive"))
	}
	if e.Local != nil && !filepath.IsAbs(e.Local.DataDir) {
		errs = append(errs, field.Invalid(path.Child("local", "dataDir"), e.Local.DataDir, "path is not absolute"))
	}
	x := e.External
	if x == nil {
		return errs
	}
	at := path.Child("external")
	if len(x.Endpoints) == 0 {
		errs = append(errs, field.Required(at.Child("endpoints"), "at least one endpoint"))
	}
	secure := false
	for i, s := range x.Endpoints {
		u, err := url.Parse(s)
		if err != nil || u.Host == "" || (u.Scheme != "https" && u.Scheme != "http") {
			errs = append(errs, field.Invalid(at.Child("endpoints").Index(i), s, "want http(s)://host:port"))
			continue
		}
		secure = secure || u.Scheme == "https"
	}
	if secure && x.CAFile == "" {
		errs = append(errs, field.Required(at.Child("caFile"), "endpoints are https"))
	}
	if (x.CertFile == "") != (x.KeyFile == "") {
		errs = append(errs, field.Invalid(at.Child("certFile"), x.CertFile, "certFile and keyFile go together"))
	}
	return errs
}

func (n NodeRegistration) check(path *field.Path) (errs field.ErrorList) {
	if n.Name == "" {
		errs = append(errs, field.Required(path.Child("name"), "--node-name or .nodeRegistration.name in the config file is a required value. It seems like this value couldn't be automatically detected in your environment, please specify the desired value using the CLI or config file."))
	} else {
		for _, msg := range validation.IsDNS1123Subdomain(n.Name) {
			errs = append(errs, field.Invalid(path.Child("name"), n.Name, msg))
		}
	}
	if n.CRISocket != "" && !strings.HasPrefix(n.CRISocket, "unix:///") {
		errs = append(errs, field.Invalid(path.Child("criSocket"), n.CRISocket, "only URL scheme \"unix\" is supported"))
	}
	return errs
}

func (e APIEndpoint) check(path *field.Path) (errs field.ErrorList) {
	if a, err := netip.ParseAddr(e.AdvertiseAddress); err != nil || a.IsUnspecified() {
		errs = append(errs, field.Invalid(path.Child("advertiseAddress"), e.AdvertiseAddress, "ip address is not valid"))
	}
	if e.BindPort < 1 || e.BindPort > 65535 {
		errs = append(errs, field.Invalid(path.Child("bindPort"), e.BindPort, "port number is not valid"))
	}
	return errs
}

func (t BootstrapToken) check(path *field.Path) (errs field.ErrorList) {
	if !TokenForm.MatchString(t.Token) {
		errs = append(errs, field.Invalid(path.Child("token"), t.Token, fmt.Sprintf("the bootstrap token %q was not of the form %q", t.Token, TokenForm)))
	}
	for i, u := range t.Usages {
		if u != "signing" && u != "authentication" {
			errs = append(errs, field.NotSupported(path.Child("usages").Index(i), u, []string{"authentication", "signing"}))
		}
	}
	for i, g := range t.Groups {
		if !strings.HasPrefix(g, "system:bootstrappers:") {
			errs = append(errs, field.Invalid(path.Child("groups").Index(i), g, "bootstrap token group is invalid (must match \\Asystem:bootstrappers:[a-z0-9:-]{0,255}[a-z0-9]\\z)"))
		}
	}
	if t.TTL != nil && t.TTL.Duration < 0 {
		errs = append(errs, field.Invalid(path.Child("ttl"), t.TTL.Duration.String(), "must not be negative; 0 never expires"))
	}
	return errs
}

func checkEndpoint(e string, path *field.Path) (errs field.ErrorList) {
	host, port, err := net.SplitHostPort(e)
	if err != nil {
		host, port = e, "6443"
	}
	if n, err := strconv.Atoi(port); err != nil || n < 1 || n > 65535 {
		errs = append(errs, field.Invalid(path, e, "port is not a valid number"))
	}
	if net.ParseIP(host) == nil && len(validation.IsDNS1123Subdomain(host)) > 0 {
		errs = append(errs, field.Invalid(path, e, "host is not a valid IP address or DNS name"))
	}
	return errs
}

// Check judges a JoinConfiguration.
func (c *Join) Check() error {
	errs := c.NodeRegistration.check(field.NewPath("nodeRegistration"))
	d, path := c.Discovery, field.NewPath("discovery")
	switch {
	case d.BootstrapToken == nil && d.File == nil:
		errs = append(errs, field.Invalid(path, "", "bootstrapToken or file must be set"))
	case d.BootstrapToken != nil && d.File != nil:
		errs = append(errs, field.Invalid(path, "", "bootstrapToken and file cannot both be set"))
	case d.BootstrapToken != nil:
		t, at := d.BootstrapToken, path.Child("bootstrapToken")
		if !TokenForm.MatchString(t.Token) {
			errs = append(errs, field.Invalid(at.Child("token"), t.Token, "the bootstrap token is invalid: want the form abcdef.0123456789abcdef"))
		}
		if t.APIServerEndpoint == "" {
			errs = append(errs, field.Required(at.Child("apiServerEndpoint"), "the API server to join"))
		} else {
			errs = append(errs, checkEndpoint(t.APIServerEndpoint, at.Child("apiServerEndpoint"))...)
		}
		if len(t.CACertHashes) == 0 && !t.UnsafeSkipCAVerification {
			errs = append(errs, field.Invalid(at.Child("caCertHashes"), "", "using token-based discovery without caCertHashes can be unsafe. Set unsafeSkipCAVerification as true in your kubeadm config file or pass --discovery-token-unsafe-skip-ca-verification flag to continue"))
		}
		for i, h := range t.CACertHashes {
			if algorithm, hex, ok := strings.Cut(h, ":"); !ok || algorithm != "sha256" || len(hex) != 64 {
				errs = append(errs, field.Invalid(at.Child("caCertHashes").Index(i), h, "want sha256:<64 hex digits>"))
			}
		}
	}
	if d.File != nil && d.TLSBootstrapToken != "" && !TokenForm.MatchString(d.TLSBootstrapToken) {
		errs = append(errs, field.Invalid(path.Child("tlsBootstrapToken"), d.TLSBootstrapToken, "the bootstrap token is invalid"))
	}
	if cp := c.ControlPlane; cp != nil {
		errs = append(errs, cp.LocalAPIEndpoint.check(field.NewPath("controlPlane", "localAPIEndpoint"))...)
		if cp.CertificateKey != "" && !IsCertificateKey(cp.CertificateKey) {
			errs = append(errs, field.Invalid(field.NewPath("controlPlane", "certificateKey"), cp.CertificateKey, "certificate key is not a valid hex encoded AES key of size 32"))
		}
	}
	return errs.ToAggregate()
}

// Check judges a ResetConfiguration.
func (c *Reset) Check() error {
	var errs field.ErrorList
	for i, f := range c.UnmountFlags {
		if _, ok := UnmountFlags[f]; !ok {
			errs = append(errs, field.NotSupported(field.NewPath("unmountFlags").Index(i), f, slices.Sorted(maps.Keys(UnmountFlags))))
		}
	}
	if slices.Contains(c.UnmountFlags, "MNT_EXPIRE") && (slices.Contains(c.UnmountFlags, "MNT_FORCE") || slices.Contains(c.UnmountFlags, "MNT_DETACH")) {
		errs = append(errs, field.Invalid(field.NewPath("unmountFlags"), c.UnmountFlags, "MNT_EXPIRE cannot be used together with MNT_FORCE or MNT_DETACH"))
	}
	if !filepath.IsAbs(c.CertificatesDir) {
		errs = append(errs, field.Invalid(field.NewPath("certificatesDir"), c.CertificatesDir, "path is not absolute"))
	}
	return errs.ToAggregate()
}
