package doctor

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/url"
	"os"
	"strings"
	"syscall"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
)

// ErrNoKubeconfig and ErrContext are of kubeconfigs that lead nowhere.
var (
	ErrNoKubeconfig = errors.New("no kubeconfig was found")
	ErrContext      = errors.New("the kubeconfig's context is not whole")
)

// subject is how the server is named.
func (t Target) subject() string {
	if t.Server == "" {
		return "cluster"
	}
	return "server " + t.Server
}

// port is the server's.
func (t Target) port() string {
	u, err := url.Parse(t.Server)
	if err != nil || u.Port() == "" {
		return "443"
	}
	return u.Port()
}

// start is the command that has an API server run again.
func (f *Facts) start() string {
	t := f.Target
	switch {
	case t.Name != "":
		return "sampan up " + t.Name
	case t.Local && f.Machine != nil && f.Machine.Kind == Kubeadm:
		return "systemctl restart kubelet; then see tail -n 20 /var/log/pods/kube-system_kube-apiserver-*/*/*.log"
	case t.Local:
		return "start `sampan server` (or kube-apiserver) on this machine again"
	}
	return fmt.Sprintf("on %s: systemctl restart kubelet where kubeadm made it, else start `sampan server` again", t.Host)
}

// renewAPIServer is the command that gives the API server a new certificate.
func (f *Facts) renewAPIServer() string {
	if f.Target.Name != "" {
		return fmt.Sprintf("sampan down %s && sampan up %[1]s", f.Target.Name)
	}
	return "on the control plane: kubeadm certs renew apiserver and restart kube-apiserver; `sampan server` renews its own when it starts"
}

// newKubeconfig is the command that gets a kubeconfig that fits.
func (f *Facts) newKubeconfig() string {
	if f.Target.Name != "" {
		return "sampan up " + f.Target.Name + " (it writes kubectl's configuration anew)"
	}
	return "on the control plane: cp /etc/kubernetes/admin.conf ~/.kube/config (of `sampan server`: /var/lib/sampan/admin.conf); if that has ended too: kubeadm certs renew admin.conf"
}

func checkReach(f *Facts, p pen) {
	t, err := f.Target, f.Target.Err
	if err == nil {
		return
	}
	var (
		dns       *net.DNSError
		authority x509.UnknownAuthorityError
		invalid   x509.CertificateInvalidError
		name      x509.HostnameError
		timeout   interface{ Timeout() bool }
		about     = t.subject()
	)
	switch {
	case errors.Is(err, ErrNoKubeconfig) || errors.Is(err, fs.ErrNotExist) && t.Server == "":
		mend := "sampan up makes a cluster; for one that is there: sampan doctor --kubeconfig FILE"
		if f.Machine != nil && f.Machine.Kind == Server {
			mend = "sampan doctor on a control plane, or with a copy of its /var/lib/sampan/admin.conf: --kubeconfig FILE"
		}
		p.fail(about, mend, "%v", err)
	case errors.Is(err, ErrContext):
		p.fail("context "+orUnset(t.Context), "kubectl --kubeconfig="+t.Kubeconfig+" config get-contexts, then config use-context NAME", "%s: %v", t.Kubeconfig, err)
	case errors.As(err, &authority):
		p.fail(about, f.newKubeconfig(), "its certificate is signed by an authority that %s does not trust: another cluster answers there, or its authority was made anew", orUnset(t.Kubeconfig))
	case errors.As(err, &name):
		p.fail(about, fmt.Sprintf("kubectl config set-cluster NAME --server=https://%s, or put %s into the certificate: kubeadm: --apiserver-cert-extra-sans, sampan server: --tls-san", names(name.Certificate), t.Host),
			"its certificate is for %s, not for %s", names(name.Certificate), t.Host)
	case errors.As(err, &invalid) && invalid.Reason == x509.Expired && invalid.Cert != nil && f.Now.Before(invalid.Cert.NotBefore):
		p.fail(about, "set this machine's clock: chronyc makestep (or timedatectl set-ntp true)", "its certificate is valid from %s on, and this machine's clock says %s", stamp(invalid.Cert.NotBefore), stamp(f.Now))
	case errors.As(err, &invalid) && invalid.Reason == x509.Expired && invalid.Cert != nil:
		p.fail(about, f.renewAPIServer(), "its certificate ended on %s", stamp(invalid.Cert.NotAfter))
	case apierrors.IsUnauthorized(err) && t.Client != nil && f.Now.After(t.Client.NotAfter):
		p.fail("kubeconfig "+t.Kubeconfig, f.newKubeconfig(), "its user's certificate (%s) ended on %s", t.Client.Subject.CommonName, stamp(t.Client.NotAfter))
	case apierrors.IsUnauthorized(err):
		p.fail("kubeconfig "+t.Kubeconfig, f.newKubeconfig(), "the server does not know who asks (401 Unauthorized): the token or certificate is of another cluster or has ended")
	case errors.As(err, &dns):
		p.fail(about, fmt.Sprintf("echo 'ADDRESS %s' >> /etc/hosts, or kubectl config set-cluster NAME --server=https://ADDRESS:%s", t.Host, t.port()), "no address is known for the name %s: %v", t.Host, dns)
	case errors.Is(err, syscall.ECONNREFUSED):
		p.fail(about, f.start(), "nothing listens at port %s of %s", t.port(), t.Host)
	case errors.Is(err, syscall.EHOSTUNREACH), errors.Is(err, syscall.ENETUNREACH):
		p.fail(about, "ip route get "+t.Host, "there is no way to %s from here: %v", t.Host, root(err))
	case strings.Contains(err.Error(), "HTTP response to HTTPS client"):
		p.fail(about, fmt.Sprintf("kubectl config set-cluster NAME --server=http://%s:%s", t.Host, t.port()), "it speaks HTTP, not HTTPS")
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, os.ErrDeadlineExceeded), errors.As(err, &timeout) && timeout.Timeout():
		p.fail(about, fmt.Sprintf("see that %s is up and that TCP port %s passes: nc -vz %[1]s %[2]s; there: nft list ruleset | grep -e drop -e reject", t.Host, t.port()), "no answer in time")
	default:
		p.fail(about, f.start(), "%v", err)
	}
}

// root is the innermost error.
func root(err error) error {
	for {
		next := errors.Unwrap(err)
		if next == nil {
			return err
		}
		err = next
	}
}

func orUnset(s string) string {
	if s == "" {
		return "(none)"
	}
	return s
}

func stamp(t time.Time) string { return t.UTC().Format("2006-01-02 15:04 MST") }

// names are whom a certificate is for.
func names(c *x509.Certificate) string {
	if c == nil {
		return "nobody"
	}
	all := append([]string{}, c.DNSNames...)
	for _, ip := range c.IPAddresses {
		all = append(all, ip.String())
	}
	if len(all) == 0 {
		return c.Subject.CommonName
	}
	return strings.Join(all, ", ")
}

// checkServed looks at the certificate that the server shows and at that of who
// asks, which both end some day.
func checkServed(f *Facts, p pen) {
	if f.Cluster == nil {
		return // checkReach tells of it
	}
	if t := f.Target; len(t.Served) > 0 {
		if left, soon := ends(f.Now, t.Served[0]); soon {
			p.warn(t.subject(), f.renewAPIServer(), "its certificate ends on %s, in %s", stamp(t.Served[0].NotAfter), ago(left))
		}
	}
	if c := f.Target.Client; c != nil {
		if left, soon := ends(f.Now, c); soon {
			p.warn("kubeconfig "+f.Target.Kubeconfig, f.newKubeconfig(), "its user's certificate (%s) ends on %s, in %s", c.Subject.CommonName, stamp(c.NotAfter), ago(left))
		}
	}
}

// ends says how long a certificate lives still, and whether that is little: less
// than 30 days, of one that lives shorter less than a tenth of its life.
func ends(now time.Time, c *x509.Certificate) (left time.Duration, soon bool) {
	left = c.NotAfter.Sub(now)
	return left, left < min(30*24*time.Hour, c.NotAfter.Sub(c.NotBefore)/10)
}

// checkCertificates looks at the files on this machine.
func checkCertificates(f *Facts, p pen) {
	for _, c := range f.Certificates {
		about := "certificate " + c.Path
		switch {
		case c.Err != nil:
			p.fail(about, "restore it from another control plane or a backup; kubeadm's: remove it and run kubeadm init phase certs all", "it cannot be read: %v", c.Err)
		case f.Now.After(c.Cert.NotAfter):
			p.fail(about, c.Renew, "it (%s) ended on %s", c.Cert.Subject.CommonName, stamp(c.Cert.NotAfter))
		case f.Now.Before(c.Cert.NotBefore):
			p.fail(about, "set this machine's clock: chronyc makestep (or timedatectl set-ntp true)", "it (%s) is valid from %s on, and this machine's clock says %s", c.Cert.Subject.CommonName, stamp(c.Cert.NotBefore), stamp(f.Now))
		default:
			if left, soon := ends(f.Now, c.Cert); soon {
				p.warn(about, c.Renew, "it (%s) ends on %s, in %s", c.Cert.Subject.CommonName, stamp(c.Cert.NotAfter), ago(left))
			}
		}
	}
}

// checkMachines tells of machines of `sampan up` that are off.
func checkMachines(f *Facts, p pen) {
	for _, m := range f.Machines {
		if !m.Running {
			p.fail("machine "+m.Name, "sampan up "+f.Target.Name, "it is off")
		}
	}
}

// ago rounds a time for people.
func ago(d time.Duration) string {
	switch {
	case d < 2*time.Minute:
		return d.Round(time.Second).String()
	case d < 2*time.Hour:
		return fmt.Sprintf("%d minutes", int(d.Minutes()))
	case d < 48*time.Hour:
		return fmt.Sprintf("%d hours", int(d.Hours()))
	}
	return fmt.Sprintf("%d days", int(d.Hours()/24))
}
