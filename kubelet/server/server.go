// Package server is the node agent's HTTPS endpoint.
//
// Job: who may ask (client certificates, tokens, reviews), logs, exec, attach,
// port forwarding, pods, statistics, metrics, health.
//
// Not its job: knowing pods (Host), streaming itself (the runtime does it; the
// server passes the connection on).
//
// Invariants: nothing but /healthz on the loopback listener is answered to a
// caller who was not authorized.
package server

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/sampan-dev/sampan/kit/clock"
	"github.com/sampan-dev/sampan/kit/pki"
	"github.com/sampan-dev/sampan/kit/run"
	"github.com/sampan-dev/sampan/kubelet/cri"
)

// Host is what the server asks of the agent.
type Host interface {
	Pods() []*corev1.Pod
	// Find returns a container's id; "" for container means the pod's sandbox.
	Find(ctx context.Context, namespace, pod, container string) (id string, err error)
	Logs(ctx context.Context, namespace, pod, container string, o *corev1.PodLogOptions, stdout, stderr io.Writer) error
	Configuration() any
	Healthy(ctx context.Context) error
	NodeName() string
	// Machine, Disk and Cores tell what the node has and what is used of it.
	Machine() Machine
	Disk(ctx context.Context, pod *corev1.Pod) Disk
	Cores() int
}

// Config says where and for whom to listen.
type Config struct {
	Address  string // "" is all addresses
	Port     int
	Healthz  string // address of the plain health endpoint; "" is none
	ReadOnly string // address at which anybody may read pods and figures; "" is none
	CertFile string // read again when they change
	KeyFile  string
	// Certificate is used instead of the files when it is set, as by a rotation.
	Certificate func() (*tls.Certificate, error)
	ClientCA    string // PEM file of the authority whose certificates name callers
	Anonymous   bool
	LogDir      string // /var/log, served under /logs/
}

// Deps is what the server works with.
type Deps struct {
	Host    Host
	Runtime cri.Runtime
	Images  cri.Images
	Auth    Auth
	Metrics prometheus.Gatherer
	Probes  prometheus.Gatherer // at /metrics/probes
	Log     *slog.Logger
}

// Server answers requests. Make one with New.
type Server struct {
	cfg     Config
	d       Deps
	started time.Time

	mu        sync.Mutex
	lastCPU   uint64 // of the node when somebody last asked
	lastAsked time.Time
}

// New returns a server that does not listen yet.
func New(cfg Config, d Deps) *Server { return &Server{cfg: cfg, d: d, started: clock.Now()} }

// Run listens until ctx ends.
func (s *Server) Run(ctx context.Context) error {
	g := run.New(ctx)
	if s.cfg.Healthz != "" {
		g.Go("healthz", func(ctx context.Context) error {
			mux := http.NewServeMux()
			mux.HandleFunc("/healthz", s.healthz)
			return serve(ctx, s.cfg.Healthz, nil, mux)
		})
	}
	if s.cfg.ReadOnly != "" {
		g.Go("read only", func(ctx context.Context) error { return serve(ctx, s.cfg.ReadOnly, nil, s.readOnly()) })
	}
	conf, err := s.tls()
	if err != nil {
		return fmt.Errorf("kubelet: server: %w", err)
	}
	g.Go("https", func(ctx context.Context) error {
		return serve(ctx, net.JoinHostPort(s.cfg.Address, strconv.Itoa(s.cfg.Port)), conf, s.Handler())
	})
	return g.Wait()
}

func serve(ctx context.Context, addr string, conf *tls.Config, h http.Handler) error {
	l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", addr)
	if err != nil {
		return err
	}
	if conf != nil {
		l = tls.NewListener(l, conf)
	}
	srv := &http.Server{Handler: h, ReadHeaderTimeout: 10 * time.Second, BaseContext: func(net.Listener) context.Context { return ctx }}
	stop := context.AfterFunc(ctx, func() { _ = srv.Close() })
	defer stop()
	if err := srv.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return ctx.Err()
}

func (s *Server) tls() (*tls.Config, error) {
	// Upgraded connections need HTTP/1.1: HTTP/2 has no Upgrade.
	conf := &tls.Config{MinVersion: tls.VersionTLS12, NextProtos: []string{"http/1.1"}}
	if s.cfg.Certificate == nil {
		if _, err := os.Stat(s.cfg.CertFile); errors.Is(err, fs.ErrNotExist) {
			own, err := selfSigned(s.d.Host.NodeName())
			if err != nil {
				return nil, err
			}
			s.cfg.Certificate = func() (*tls.Certificate, error) { return own, nil }
		}
	}
	conf.GetCertificate = func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
		if s.cfg.Certificate != nil {
			return s.cfg.Certificate()
		}
		c, err := tls.LoadX509KeyPair(s.cfg.CertFile, s.cfg.KeyFile)
		return &c, err
	}
	if s.cfg.ClientCA != "" {
		pem, err := os.ReadFile(s.cfg.ClientCA)
		if err != nil {
			return nil, err
		}
		conf.ClientCAs = x509.NewCertPool()
		if !conf.ClientCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("%s: no certificates", s.cfg.ClientCA)
		}
		conf.ClientAuth = tls.VerifyClientCertIfGiven
	}
	return conf, nil
}

// selfSigned makes a certificate for a node that was given none.
func selfSigned(node string) (*tls.Certificate, error) {
	ca, err := pki.NewCA(node+"-ca", "")
	if err != nil {
		return nil, err
	}
	leaf, err := ca.Issue(pki.Request{CommonName: node, Hosts: []string{node, "127.0.0.1"}, Server: true})
	if err != nil {
		return nil, err
	}
	c := leaf.TLS()
	c.Certificate = append(c.Certificate, ca.Cert.Raw)
	return &c, nil
}

// Handler returns all routes behind authentication and authorization.
func (s *Server) Handler() http.Handler {
	mux := s.routes()
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		code, err := s.d.Auth.Check(r.Context(), r, s.cfg.Anonymous)
		if err != nil {
			http.Error(w, err.Error(), code)
			return
		}
		mux.ServeHTTP(w, r)
	})
}

func (s *Server) routes() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("/healthz", s.healthz)
	mux.HandleFunc("/healthz/ping", func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "ok") })
	mux.HandleFunc("/healthz/log", func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "ok") })
	mux.HandleFunc("GET /pods", s.pods)
	mux.HandleFunc("GET /runningpods/", s.running)
	mux.HandleFunc("GET /containerLogs/{namespace}/{pod}/{container}", s.logs)
	for _, verb := range []string{"exec", "attach"} {
		h := s.stream(verb)
		mux.HandleFunc("/"+verb+"/{namespace}/{pod}/{container}", h)
		mux.HandleFunc("/"+verb+"/{namespace}/{pod}/{uid}/{container}", h)
	}
	mux.HandleFunc("/portForward/{namespace}/{pod}", s.stream("portForward"))
	mux.HandleFunc("/portForward/{namespace}/{pod}/{uid}", s.stream("portForward"))
	mux.HandleFunc("POST /run/{namespace}/{pod}/{container}", s.run)
	mux.HandleFunc("POST /run/{namespace}/{pod}/{uid}/{container}", s.run)
	mux.HandleFunc("GET /stats/summary", s.summary)
	mux.HandleFunc("GET /configz", s.configz)
	s.older(mux)
	if s.d.Metrics != nil {
		mux.Handle("GET /metrics", promhttp.HandlerFor(s.d.Metrics, promhttp.HandlerOpts{}))
	}
	for path, c := range map[string]prometheus.Collector{
		"GET /metrics/resource": resourceMetrics{s}, "GET /metrics/cadvisor": cadvisorMetrics{s},
	} {
		reg := prometheus.NewRegistry()
		reg.MustRegister(c)
		mux.Handle(path, promhttp.HandlerFor(reg, promhttp.HandlerOpts{}))
	}
	if s.d.Probes != nil {
		mux.Handle("GET /metrics/probes", promhttp.HandlerFor(s.d.Probes, promhttp.HandlerOpts{}))
	}
	if s.cfg.LogDir != "" {
		mux.Handle("GET /logs/", http.StripPrefix("/logs/", http.FileServer(http.Dir(s.cfg.LogDir))))
	}
	return mux
}

// readOnly are the routes that change nothing and tell no secrets.
func (s *Server) readOnly() http.Handler {
	all, mux := s.routes(), http.NewServeMux()
	for _, path := range []string{"/healthz", "GET /pods", "GET /stats/summary", "GET /metrics", "GET /metrics/"} {
		mux.Handle(path, all)
	}
	return mux
}

func (s *Server) healthz(w http.ResponseWriter, r *http.Request) {
	if err := s.d.Host.Healthy(r.Context()); err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	_, _ = io.WriteString(w, "ok")
}

func answer(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	if err := json.NewEncoder(w).Encode(v); err != nil {
		panic(http.ErrAbortHandler) // the connection is gone
	}
}

func podList(pods []*corev1.Pod) *corev1.PodList {
	l := &corev1.PodList{TypeMeta: metav1.TypeMeta{Kind: "PodList", APIVersion: "v1"}, Items: []corev1.Pod{}}
	for _, p := range pods {
		l.Items = append(l.Items, *p)
	}
	return l
}

func (s *Server) pods(w http.ResponseWriter, _ *http.Request) { answer(w, podList(s.d.Host.Pods())) }

func (s *Server) running(w http.ResponseWriter, _ *http.Request) {
	var out []*corev1.Pod
	for _, p := range s.d.Host.Pods() {
		if p.Status.Phase == corev1.PodRunning {
			out = append(out, p)
		}
	}
	answer(w, podList(out))
}

func (s *Server) configz(w http.ResponseWriter, _ *http.Request) {
	answer(w, map[string]any{"kubeletconfig": s.d.Host.Configuration()})
}

// flusher sends every write on at once, for followers.
type flusher struct {
	w io.Writer
	f http.Flusher
}

func (f flusher) Write(p []byte) (int, error) {
	n, err := f.w.Write(p)
	if f.f != nil {
		f.f.Flush()
	}
	return n, err
}

func (s *Server) logs(w http.ResponseWriter, r *http.Request) {
	o, err := logOptions(r.URL.Query())
	if err != nil {
		http.Error(w, err.Error(), http.StatusUnprocessableEntity)
		return
	}
	w.Header().Set("Content-Type", "text/plain")
	f, _ := w.(http.Flusher)
	out := flusher{w, nil}
	if o.Follow {
		out.f = f
		if f != nil {
			f.Flush()
		}
	}
	counted := &counter{Writer: out}
	if err := s.d.Host.Logs(r.Context(), r.PathValue("namespace"), r.PathValue("pod"), r.PathValue("container"), o, counted, counted); err != nil && counted.n == 0 && !o.Follow {
		code := http.StatusBadRequest
		if errors.Is(err, ErrNotFound) {
			code = http.StatusNotFound
		}
		http.Error(w, err.Error(), code)
	}
}

type counter struct {
	io.Writer
	n int
}

func (c *counter) Write(p []byte) (int, error) { c.n += len(p); return c.Writer.Write(p) }

// ErrNotFound is what Find and Logs wrap when the node has no such pod or container.
var ErrNotFound = errors.New("not found")

func logOptions(q url.Values) (*corev1.PodLogOptions, error) {
	o := &corev1.PodLogOptions{}
	number := func(name string, dst **int64) error {
		if v := q.Get(name); v != "" {
			n, err := strconv.ParseInt(v, 10, 64)
			if err != nil {
				return fmt.Errorf("%s: %w", name, err)
			}
			*dst = &n
		}
		return nil
	}
	if err := errors.Join(number("tailLines", &o.TailLines), number("limitBytes", &o.LimitBytes), number("sinceSeconds", &o.SinceSeconds)); err != nil {
		return nil, err
	}
	if q.Get("tailLines") == "" && q.Get("tail") != "" && q.Get("tail") != "all" {
		q.Set("tailLines", q.Get("tail"))
		if err := number("tailLines", &o.TailLines); err != nil {
			return nil, err
		}
	}
	if v := q.Get("sinceTime"); v != "" {
		t, err := time.Parse(time.RFC3339, v)
		if err != nil {
			return nil, fmt.Errorf("sinceTime: %w", err)
		}
		o.SinceTime = &metav1.Time{Time: t}
	}
	o.Follow, o.Previous, o.Timestamps = yes(q, "follow"), yes(q, "previous"), yes(q, "timestamps")
	if v := q.Get("stream"); v != "" {
		o.Stream = &v
	}
	return o, nil
}

// yes reads a boolean the way upstream does: present without a value is true.
func yes(q url.Values, name string) bool {
	if !q.Has(name) {
		return false
	}
	switch strings.ToLower(q.Get(name)) {
	case "false", "0":
		return false
	}
	return true
}

// stream asks the runtime for a streaming endpoint and passes the connection on to it.
func (s *Server) stream(verb string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		to, err := s.endpoint(r, verb)
		if err != nil {
			code := http.StatusInternalServerError
			if errors.Is(err, ErrNotFound) {
				code = http.StatusNotFound
			}
			http.Error(w, err.Error(), code)
			return
		}
		u, err := url.Parse(to)
		if err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		p := &httputil.ReverseProxy{
			Rewrite: func(pr *httputil.ProxyRequest) {
				pr.Out.URL, pr.Out.Host = u, u.Host
				pr.Out.Header.Del("Authorization")
			},
			FlushInterval: -1,
			ErrorLog:      slog.NewLogLogger(s.d.Log.Handler(), slog.LevelDebug),
		}
		p.ServeHTTP(w, r)
	}
}

func (s *Server) endpoint(r *http.Request, verb string) (string, error) {
	q := r.URL.Query()
	ctx := r.Context()
	id, err := s.d.Host.Find(ctx, r.PathValue("namespace"), r.PathValue("pod"), r.PathValue("container"))
	if err != nil {
		return "", err
	}
	flag := func(names ...string) bool {
		for _, n := range names {
			if v := q.Get(n); v == "1" || v == "true" {
				return true
			}
		}
		return false
	}
	in, out, errs, tty := flag("input", "stdin"), flag("output", "stdout"), flag("error", "stderr"), flag("tty")
	switch verb {
	case "exec":
		resp, err := s.d.Runtime.Exec(ctx, &runtimeapi.ExecRequest{ContainerId: id, Cmd: q["command"], Stdin: in, Stdout: out, Stderr: errs && !tty, Tty: tty})
		return resp.GetUrl(), err
	case "attach":
		resp, err := s.d.Runtime.Attach(ctx, &runtimeapi.AttachRequest{ContainerId: id, Stdin: in, Stdout: out, Stderr: errs && !tty, Tty: tty})
		return resp.GetUrl(), err
	}
	var ports []int32
	for _, list := range append(q["port"], q["ports"]...) {
		for p := range strings.SplitSeq(list, ",") {
			n, err := strconv.ParseInt(p, 10, 32)
			if err != nil {
				return "", fmt.Errorf("port %q: %w", p, err)
			}
			ports = append(ports, int32(n))
		}
	}
	resp, err := s.d.Runtime.PortForward(ctx, &runtimeapi.PortForwardRequest{PodSandboxId: id, Port: ports})
	return resp.GetUrl(), err
}

// run runs a command and answers with what it says.
func (s *Server) run(w http.ResponseWriter, r *http.Request) {
	id, err := s.d.Host.Find(r.Context(), r.PathValue("namespace"), r.PathValue("pod"), r.PathValue("container"))
	if err != nil {
		http.Error(w, err.Error(), http.StatusNotFound)
		return
	}
	out, errs, err := s.d.Runtime.ExecSync(r.Context(), id, strings.Fields(r.URL.Query().Get("cmd")), 0)
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	_, _ = w.Write(append(out, errs...))
}
