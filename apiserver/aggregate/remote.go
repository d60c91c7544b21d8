package aggregate

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	v2 "k8s.io/api/apidiscovery/v2"
	"k8s.io/apimachinery/pkg/runtime/schema"
	apiregistrationv1 "k8s.io/kube-aggregator/pkg/apis/apiregistration/v1"

	"github.com/sampan-dev/sampan/apiserver/request"
	"github.com/sampan-dev/sampan/kit/clock"
)

// remote is another server, as one APIService names it.
type remote struct {
	a    *Aggregator
	name string
	gv   schema.GroupVersion
	spec apiregistrationv1.APIServiceSpec
	host string // SERVICE.NAMESPACE.svc:PORT, resolved when dialled

	bad     error           // why there can be no connection: a bundle that cannot be read
	plain   *http.Transport // HTTP/2 where the server has it
	upgrade *http.Transport // HTTP/1.1, which upgrades need

	available atomic.Bool
	silent    atomic.Int64 // since when it does not answer, in Unix nanoseconds; 0: it does

	mu     sync.Mutex
	state  uint64 // grows when what is below changes
	serves *v2.APIVersionDiscovery
	tag    string // of the document that serves was found in
	// documents are OpenAPI\'s, by path, once somebody asked for them.
	documents map[string]document
}

func newRemote(a *Aggregator, s *apiregistrationv1.APIService) *remote {
	ref := s.Spec.Service
	r := &remote{
		a: a, name: s.Name, gv: schema.GroupVersion{Group: s.Spec.Group, Version: s.Spec.Version}, spec: *s.Spec.DeepCopy(),
		host: net.JoinHostPort(ref.Name+"."+ref.Namespace+".svc", strconv.Itoa(int(portOf(ref)))),
	}
	conf := &tls.Config{MinVersion: tls.VersionTLS12, ServerName: ref.Name + "." + ref.Namespace + ".svc", InsecureSkipVerify: s.Spec.InsecureSkipTLSVerify}
	if len(s.Spec.CABundle) > 0 {
		conf.RootCAs = x509.NewCertPool()
		if !conf.RootCAs.AppendCertsFromPEM(s.Spec.CABundle) {
			r.bad = errors.New("unable to load root certificates: unable to parse bytes as PEM block")
		}
	}
	if a.c.ProxyClient != nil {
		conf.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return a.c.ProxyClient() }
	}
	one := conf.Clone()
	one.NextProtos = []string{"http/1.1"}
	r.upgrade = &http.Transport{DialContext: r.dial, TLSClientConfig: one, TLSHandshakeTimeout: dialTimeout, MaxIdleConns: 1}
	r.plain = &http.Transport{
		DialContext: r.dial, TLSClientConfig: conf, TLSHandshakeTimeout: dialTimeout, ForceAttemptHTTP2: true,
		MaxIdleConnsPerHost: 25, IdleConnTimeout: 90 * time.Second,
		HTTP2: &http.HTTP2Config{SendPingTimeout: 30 * time.Second, PingTimeout: 15 * time.Second},
	}
	r.silent.Store(clock.Now().UnixNano())
	return r
}

// adopt takes over what was known of the same group and version.
func (r *remote) adopt(old *remote) {
	old.mu.Lock()
	r.serves, r.state = old.serves, old.state+1
	old.mu.Unlock()
	r.silent.Store(old.silent.Load())
}

// say takes over what an APIService's condition says: another replica of the
// control plane may have found it.
func (r *remote) say(s *apiregistrationv1.APIService) {
	c := conditionOf(s)
	yes := c != nil && c.Status == apiregistrationv1.ConditionTrue
	if r.available.Swap(yes) != yes {
		r.touch()
	}
	r.quiet(!yes)
}

// quiet notes since when the server has not answered.
func (r *remote) quiet(silent bool) {
	if !silent {
		r.silent.Store(0)
		return
	}
	r.silent.CompareAndSwap(0, clock.Now().UnixNano())
}

// quarantined says whether the server has been silent for too long for others to
// wait for it.
func (r *remote) quarantined() bool {
	since := r.silent.Load()
	return since != 0 && clock.Since(time.Unix(0, since)) > r.a.c.Quarantine
}

// touch tells the makers of documents that something changed.
func (r *remote) touch() {
	r.mu.Lock()
	r.state++
	r.mu.Unlock()
}

func (r *remote) idle() {
	r.plain.CloseIdleConnections()
	r.upgrade.CloseIdleConnections()
}

func (r *remote) close() { r.idle() }

// found takes what a check came to.
func (r *remote) found(c apiregistrationv1.APIServiceCondition, failed error) {
	yes := c.Status == apiregistrationv1.ConditionTrue
	changed := r.available.Swap(yes) != yes
	r.quiet(!yes)
	if changed {
		r.touch()
	}
	if failed != nil {
		r.idle()
	}
}

// check finds out whether the server is there and what it serves. failed asks
// for another try soon.
func (r *remote) check(ctx context.Context) (c apiregistrationv1.APIServiceCondition, failed error) {
	no := func(reason, message string) apiregistrationv1.APIServiceCondition {
		return condition(apiregistrationv1.ConditionFalse, reason, message, clock.Now())
	}
	ref := r.spec.Service
	svc, list, err := r.a.lookUp(ctx, ref)
	if err != nil {
		return condition(apiregistrationv1.ConditionUnknown, "ServiceAccessError",
			fmt.Sprintf("service/%s in %q cannot be checked due to: %v", ref.Name, ref.Namespace, err), clock.Now()), err
	}
	if reason, message := lacks(ref, svc, list); reason != "" {
		return no(reason, message), nil
	}
	for range attempts {
		if err = r.probe(ctx); err == nil || ctx.Err() != nil {
			break
		}
		r.idle()
	}
	if err != nil {
		return no("FailedDiscoveryCheck", err.Error()), err
	}
	if err := r.discover(ctx); err != nil {
		r.a.log.Debug("apiservice: discovery", "name", r.name, "err", err)
	}

	return condition(apiregistrationv1.ConditionTrue, "Passed", "all checks passed", clock.Now()), nil
}

const (
	attempts     = 3
	probeTimeout = 5 * time.Second
	maxDocument  = 64 << 20 // of discovery or OpenAPI
)

// base is the path of the group and version.
func (r *remote) base() string {
	if r.gv.Group == "" {
		return "/api/" + r.gv.Version
	}
	return "/apis/" + r.gv.Group + "/" + r.gv.Version
}

// aggregatorUser is who the aggregator is to other servers when it asks for itself.
func aggregatorUser() *request.User {
	return &request.User{Name: "system:kube-aggregator", Groups: []string{request.Masters}}
}

// ask gets a path in the aggregator's own name.
func (r *remote) ask(ctx context.Context, path string, header http.Header) (*http.Response, []byte, error) {
	if r.bad != nil {
		return nil, nil, r.bad
	}
	ctx, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "https://"+r.host+path, nil)
	if err != nil {
		return nil, nil, err
	}
	if header != nil {
		req.Header = header
	}
	SetIdentity(req.Header, aggregatorUser())
	resp, err := r.plain.RoundTrip(req)
	if err != nil {
		return nil, nil, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxDocument))
	return resp, body, err
}

// probe asks for what every aggregated server must serve.
func (r *remote) probe(ctx context.Context) error {
	url := "https://" + r.host + r.base()
	resp, _, err := r.ask(ctx, r.base(), nil)
	if err != nil {
		return fmt.Errorf("failing or missing response from %v: %w", url, err)
	}
	if resp.StatusCode < 200 || resp.StatusCode >= 300 {
		return fmt.Errorf("failing or missing response from %v: bad status from %v: %d", url, url, resp.StatusCode)
	}
	return nil
}

// dial connects to the service's place of this moment.
func (r *remote) dial(ctx context.Context, network, _ string) (net.Conn, error) {
	ref := r.spec.Service
	if ref.Namespace == "default" && ref.Name == "kubernetes" && r.a.c.Self != "" {
		return r.a.c.Dial(ctx, network, r.a.c.Self)
	}
	svc, list, err := r.a.lookUp(privileged(ctx), ref)
	if err != nil {
		return nil, err
	}
	if svc == nil {
		return nil, fmt.Errorf("service %q not found", ref.Name)
	}
	at, err := places(ref, svc, list, r.a.c.EndpointRouting, clock.Rand(clock.Seed()).Shuffle)
	if err != nil {
		return nil, err
	}
	var errs []error
	for _, place := range at {
		conn, err := r.a.c.Dial(ctx, network, place)
		if err == nil {
			return conn, nil
		}
		errs = append(errs, err)
		if ctx.Err() != nil {
			break
		}
	}
	return nil, errors.Join(errs...)
}
