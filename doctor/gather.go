package doctor

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	admissionv1 "k8s.io/api/admissionregistration/v1"
	appsv1 "k8s.io/api/apps/v1"
	certificatesv1 "k8s.io/api/certificates/v1"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	storagev1 "k8s.io/api/storage/v1"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
	apiregistrationv1 "k8s.io/kube-aggregator/pkg/apis/apiregistration/v1"

	"github.com/sampan-dev/sampan/client"
	"github.com/sampan-dev/sampan/kit/clock"
	"github.com/sampan-dev/sampan/kit/pki"
	"github.com/sampan-dev/sampan/kit/run"
)

// Options say where to look.
type Options struct {
	Name       string               // of a cluster that `sampan up` made; empty for another
	Kubeconfig string               // a file; empty for the usual places
	Config     *clientcmdapi.Config // instead of a file
	DataDir    string               // of `sampan server`
	Lacks      []string             // what keeps nodes from running here, each with its remedy
	Machines   []Running
	Timeout    time.Duration // of one question
}

// Gather looks at the cluster and at this machine.
func Gather(ctx context.Context, o Options) *Facts {
	f := &Facts{Now: clock.Now(), Machines: o.Machines}
	f.Machine = lookAtMachine(ctx, o)
	f.Certificates = certificates(o.DataDir)
	f.Members, f.Database = members(ctx, o)
	rc, err := o.target(&f.Target)
	if err == nil {
		err = f.reach(ctx, rc, o.Timeout)
	}
	f.Target.Err = err
	if f.Cluster != nil && f.Machine.Kind != NoNode {
		f.Machine.ask(ctx, f.Cluster, o.Timeout)
	}
	return f
}

// places are where an administrator's kubeconfig is on a control plane.
func (o Options) places() []string {
	return []string{filepath.Join(o.DataDir, "admin.conf"), "/etc/kubernetes/admin.conf"}
}

// target reads the kubeconfig: whom to ask, and as whom.
func (o Options) target(t *Target) (*rest.Config, error) {
	t.Name, t.Kubeconfig = o.Name, o.Kubeconfig
	cfg := o.Config
	if cfg == nil {
		if err := o.find(t); err != nil {
			return nil, err
		}
		var err error
		if cfg, err = clientcmd.LoadFromFile(t.Kubeconfig); err != nil {
			return nil, fmt.Errorf("%s: %w", t.Kubeconfig, err)
		}
		if err := clientcmd.ResolveLocalPaths(cfg); err != nil {
			return nil, err
		}
	}
	t.Context = cfg.CurrentContext
	current := cfg.Contexts[cfg.CurrentContext]
	if current == nil {
		return nil, fmt.Errorf("%w: current-context is %q, and there is no such context", ErrContext, cfg.CurrentContext)
	}
	if cfg.Clusters[current.Cluster] == nil {
		return nil, fmt.Errorf("%w: it names the cluster %q, which is not there", ErrContext, current.Cluster)
	}
	t.Server = cfg.Clusters[current.Cluster].Server
	rc, err := clientcmd.NewDefaultClientConfig(*cfg, &clientcmd.ConfigOverrides{}).ClientConfig()
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrContext, err)
	}
	u, err := url.Parse(t.Server)
	if err != nil {
		return nil, err
	}
	if t.Host = u.Hostname(); rc.ServerName != "" {
		t.Host = rc.ServerName
	}
	t.Local = local(u.Hostname())
	text := rc.CertData
	if rc.CertFile != "" {
		text, _ = os.ReadFile(rc.CertFile) // what is wrong with it the connection tells
	}
	if certs, err := pki.DecodeCerts(text); err == nil && len(certs) > 0 {
		t.Client = certs[0]
	}
	return rc, nil
}

// find fills in the file: the one asked for, $KUBECONFIG's first, those of a
// control plane, the user's own.
func (o Options) find(t *Target) error {
	if t.Kubeconfig != "" {
		return nil
	}
	if env := os.Getenv(clientcmd.RecommendedConfigPathEnvVar); env != "" {
		t.Kubeconfig = filepath.SplitList(env)[0]
		return nil
	}
	for _, path := range append(o.places(), clientcmd.RecommendedHomeFile, "/etc/kubernetes/kubelet.conf") {
		if _, err := os.Stat(path); err == nil {
			t.Kubeconfig = path
			return nil
		}
	}
	return fmt.Errorf("%w: neither $KUBECONFIG nor %s nor %s", ErrNoKubeconfig, strings.Join(o.places(), " nor "), clientcmd.RecommendedHomeFile)
}

// local says whether an address is one of this machine's.
func local(host string) bool {
	ip, err := netip.ParseAddr(host)
	if err != nil {
		return host == "localhost"
	}
	if ip.IsLoopback() {
		return true
	}
	for _, a := range ownAddresses() {
		if a == ip {
			return true
		}
	}
	return false
}

// reach asks the server who it is, and then for everything else.
func (f *Facts) reach(ctx context.Context, rc *rest.Config, timeout time.Duration) error {
	rc.Timeout = timeout
	f.Target.Served = served(ctx, f.Target, timeout)
	ahead, err := f.date(ctx, rc)
	if err != nil {
		return err
	}
	f.Target.Ahead = ahead
	c, err := client.FromREST(rc)
	if err != nil {
		return err
	}
	// Who is nobody to the server may read its version, and nothing else.
	if _, err := c.Raw(ctx, http.MethodGet, "/apis", nil); err != nil {
		return err
	}
	f.Cluster = lookAtCluster(ctx, c, f.Now.Add(ahead))
	return nil
}

// served are the certificates that the server shows, whatever they are worth.
func served(ctx context.Context, t Target, timeout time.Duration) []*x509.Certificate {
	u, err := url.Parse(t.Server)
	if err != nil || u.Scheme != "https" {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	d := tls.Dialer{Config: &tls.Config{InsecureSkipVerify: true, ServerName: t.Host, MinVersion: tls.VersionTLS12}} //nolint:gosec // it is only looked at
	conn, err := d.DialContext(ctx, "tcp", net.JoinHostPort(u.Hostname(), t.port()))
	if err != nil {
		return nil
	}
	defer conn.Close()
	return conn.(*tls.Conn).ConnectionState().PeerCertificates
}

// date is how far the server's clock is ahead of this one's.
func (f *Facts) date(ctx context.Context, rc *rest.Config) (time.Duration, error) {
	h, err := rest.HTTPClientFor(rc)
	if err != nil {
		return 0, err
	}
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, strings.TrimSuffix(f.Target.Server, "/")+"/version", nil)
	if err != nil {
		return 0, err
	}
	answer, err := h.Do(r)
	if err != nil {
		return 0, err
	}
	defer answer.Body.Close()
	at, err := http.ParseTime(answer.Header.Get("Date"))
	if err != nil {
		return 0, nil //nolint:nilerr // a proxy may take it away; then clocks are not compared
	}
	return at.Sub(clock.Now().Truncate(time.Second)), nil
}

// asker lists kinds and remembers which could not be.
type asker struct {
	c      client.Interface
	ctx    context.Context
	group  sync.WaitGroup
	mu     sync.Mutex
	unread map[string]error
}

// ask lists all objects of T, beside the others.
func ask[T any](a *asker, namespace string, into *[]*T) {
	a.group.Add(1)
	what := client.Resource[T]().Resource
	run.Detach(a.ctx, "doctor-"+what, func(ctx context.Context) {
		defer a.group.Done()
		list, err := client.Of[T](a.c, namespace).List(ctx, nil)
		if err != nil {
			a.mu.Lock()
			defer a.mu.Unlock()
			a.unread[what] = err
			return
		}
		*into = list
	})
}

// lookAtCluster reads what the checks need; now is the server's time.
func lookAtCluster(ctx context.Context, c client.Interface, now time.Time) *Cluster {
	f := &Cluster{Time: now, Answers: map[string]error{}}
	a := &asker{c: c, ctx: ctx, unread: map[string]error{}}
	ask[corev1.ComponentStatus](a, "", &f.Components)
	ask[corev1.Node](a, "", &f.Nodes)
	ask[corev1.Pod](a, "", &f.Pods)
	ask[corev1.Namespace](a, "", &f.Namespaces)
	ask[corev1.Service](a, "", &f.Services)
	ask[corev1.PersistentVolumeClaim](a, "", &f.Claims)
	ask[corev1.Event](a, "", &f.Events)
	ask[discoveryv1.EndpointSlice](a, "", &f.Slices)
	ask[storagev1.StorageClass](a, "", &f.Classes)
	ask[appsv1.Deployment](a, "", &f.Deployments)
	ask[certificatesv1.CertificateSigningRequest](a, "", &f.Requests)
	ask[admissionv1.MutatingWebhookConfiguration](a, "", &f.Mutating)
	ask[admissionv1.ValidatingWebhookConfiguration](a, "", &f.Validating)
	ask[apiregistrationv1.APIService](a, "", &f.APIServices)
	ask[apiextensionsv1.CustomResourceDefinition](a, "", &f.Definitions)
	var inNodes, inSystem []*coordinationv1.Lease
	ask[coordinationv1.Lease](a, "kube-node-lease", &inNodes)
	ask[coordinationv1.Lease](a, "kube-system", &inSystem)
	a.group.Wait()
	f.NodeLeases, f.Leaders, f.Unread = inNodes, inSystem, a.unread
	f.Ready = readiness(ctx, c)
	if v, err := serverVersion(ctx, c); err == nil {
		f.Version = v
	}
	for _, p := range f.Pods {
		if p.Namespace == "kube-system" && p.Labels["k8s-app"] == "kube-dns" && ready(p) {
			_, err := c.Raw(ctx, http.MethodGet, "/api/v1/namespaces/kube-system/pods/"+p.Name+":8181/proxy/ready", nil)
			f.Answers[p.Name] = err
		}
	}
	return f
}

func ready(p *corev1.Pod) bool {
	for _, c := range p.Status.Conditions {
		if c.Type == corev1.PodReady {
			return c.Status == corev1.ConditionTrue && p.DeletionTimestamp == nil
		}
	}
	return false
}

func serverVersion(ctx context.Context, c client.Interface) (string, error) {
	text, err := c.Raw(ctx, http.MethodGet, "/version", nil)
	if err != nil {
		return "", err
	}
	var v struct {
		GitVersion string `json:"gitVersion"`
	}
	err = json.Unmarshal(text, &v)
	return v.GitVersion, err
}

// readiness asks for the server's own checks, and why those failed that did.
func readiness(ctx context.Context, c client.Interface) []Probe {
	_, err := c.Raw(ctx, http.MethodGet, "/readyz?verbose=true", nil)
	if err == nil {
		return nil
	}
	var out []Probe
	for _, name := range failedProbes(err.Error()) {
		why := err
		if _, one := c.Raw(ctx, http.MethodGet, "/readyz/"+name, nil); one != nil {
			why = one
		}
		out = append(out, Probe{name, reason(why.Error())})
	}
	if len(out) == 0 {
		out = append(out, Probe{"", err.Error()})
	}
	return out
}

// failedProbes are the names in lines "[-]NAME failed: reason withheld".
func failedProbes(text string) (names []string) {
	for line := range strings.SplitSeq(text, "\n") {
		if _, rest, ok := strings.Cut(line, "[-]"); ok {
			name, _, _ := strings.Cut(rest, " ")
			names = append(names, name)
		}
	}
	return names
}

// reason is what a probe says, without the server's frame around it.
func reason(text string) string {
	if _, after, ok := strings.Cut(text, "internal server error: "); ok {
		text = after
	}
	return strings.Trim(text, "\") \n")
}

// certificates reads all certificates of this machine's control plane and kubelet.
func certificates(dataDir string) (out []Certificate) {
	for _, d := range []struct{ dir, renew string }{
		{"/etc/kubernetes/pki", "kubeadm certs renew all, then restart the control plane's static pods: move /etc/kubernetes/manifests/*.yaml away for 20 s and back"},
		{filepath.Join(dataDir, "pki"), "start `sampan server` again: it renews what nears its end"},
		{filepath.Join(dataDir, "kubelet-pki"), "start `sampan server` again; a node that joined and was off for too long: remove this directory and join with a new token"},
		{"/var/lib/kubelet/pki", "systemctl restart kubelet; if it has ended: kubeadm reset and kubeadm join with a new token"},
	} {
		// A directory that is not there holds none.
		_ = filepath.WalkDir(d.dir, func(path string, e fs.DirEntry, err error) error {
			if err == nil && !e.IsDir() && (strings.HasSuffix(path, ".crt") || strings.HasSuffix(path, "-current.pem")) {
				out = append(out, certificate(path, d.renew))
			}
			return nil
		})
	}
	for _, path := range []string{"admin.conf", "super-admin.conf", "controller-manager.conf", "scheduler.conf", "kubelet.conf"} {
		path = filepath.Join("/etc/kubernetes", path)
		cfg, err := clientcmd.LoadFromFile(path)
		if err != nil {
			continue
		}
		for _, u := range cfg.AuthInfos {
			if certs, err := pki.DecodeCerts(u.ClientCertificateData); err == nil && len(certs) > 0 {
				out = append(out, Certificate{Path: path, Cert: certs[0], Renew: "kubeadm certs renew " + filepath.Base(path)})
			}
		}
	}
	return out
}

func certificate(path, renew string) Certificate {
	c := Certificate{Path: path, Renew: renew}
	text, err := os.ReadFile(path)
	if err != nil {
		c.Err = err
		return c
	}
	certs, err := pki.DecodeCerts(text)
	switch {
	case err != nil:
		c.Err = err
	case len(certs) == 0:
		c.Err = fmt.Errorf("no certificate in it")
	default:
		c.Cert = certs[0]
	}
	return c
}
