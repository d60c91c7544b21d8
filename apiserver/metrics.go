package apiserver

import (
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/sampan-dev/sampan/apiserver/request"
	"github.com/sampan-dev/sampan/apiserver/rest"
)

// metrics are the server's, under upstream's names. Labels come from what is
// served, never from what strangers ask for, so that their number is bounded.
type metrics struct {
	registry *rest.Registry

	requests, dropped, ended   *prometheus.CounterVec
	duration, sli, size, sent  *prometheus.HistogramVec
	inflight, long, deprecated *prometheus.GaugeVec
	handshakes                 prometheus.Counter
	events, checks             *prometheus.CounterVec
	check                      *prometheus.GaugeVec
	eventSizes                 *prometheus.HistogramVec

	mu     sync.RWMutex
	series map[seriesKey]*series
}

// seriesKey is what requests are told apart by, but for the answer's code.
type seriesKey struct{ verb, dry, group, version, resource, sub, scope string }

// series are the metrics of one key, looked up once.
type series struct {
	duration, sli, size, sent prometheus.Observer
	codes                     sync.Map // of int to prometheus.Counter
}

const self = "apiserver" // the label component

func newMetrics(reg prometheus.Registerer, registry *rest.Registry) *metrics {
	what := []string{"verb", "group", "version", "resource", "subresource", "scope", "component"}
	dry := []string{"verb", "dry_run", "group", "version", "resource", "subresource", "scope", "component"}
	histogram := func(name, help string, buckets []float64, labels []string) *prometheus.HistogramVec {
		return prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: "apiserver_" + name, Help: help, Buckets: buckets}, labels)
	}
	counter := func(name, help string, labels ...string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Name: "apiserver_" + name, Help: help}, labels)
	}
	gauge := func(name, help string, labels ...string) *prometheus.GaugeVec {
		return prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "apiserver_" + name, Help: help}, labels)
	}
	m := &metrics{
		registry: registry, series: map[seriesKey]*series{},
		requests: counter("request_total", "Counter of apiserver requests broken out for each verb, dry run value, group, version, resource, scope, component, and HTTP response code.",
			append(dry, "code")...),
		duration: histogram("request_duration_seconds", "Response latency distribution in seconds for each verb, dry run value, group, version, resource, subresource, scope and component.",
			[]float64{0.005, 0.025, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1.0, 1.25, 1.5, 2, 3, 4, 5, 6, 8, 10, 15, 20, 30, 45, 60}, dry),
		sli: histogram("request_sli_duration_seconds", "Response latency distribution (not counting webhook duration and priority & fairness queue wait times) in seconds for each verb, group, version, resource, subresource, scope and component.",
			[]float64{0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1.0, 1.25, 1.5, 2, 3, 4, 5, 6, 8, 10, 15, 20, 30, 45, 60}, what),
		size: histogram("response_sizes", "Response size distribution in bytes for each group, version, verb, resource, subresource, scope and component.",
			prometheus.ExponentialBuckets(1000, 10, 7), what),
		sent: histogram("request_body_size_bytes", "Apiserver request body size in bytes broken out by resource and verb.",
			prometheus.LinearBuckets(50000, 100000, 31), []string{"resource", "verb", "group"}),
		inflight: gauge("current_inflight_requests", "Maximal number of currently used inflight request limit of this apiserver per request kind in last second.", "request_kind"),
		long:     gauge("longrunning_requests", "Gauge of all active long-running apiserver requests broken out by verb, group, version, resource, scope and component. Not all requests are tracked this way.", what...),
		dropped:  counter("dropped_requests_total", "Number of requests dropped with 'Try again later' response", "request_kind"),
		ended: counter("request_terminations_total", "Number of requests which apiserver terminated in self-defense.",
			append(what, "code")...),
		deprecated: gauge("requested_deprecated_apis", "Gauge of deprecated APIs that have been requested, broken out by API group, version, resource, subresource, and removed_release.",
			"group", "version", "resource", "subresource", "removed_release"),
		handshakes: prometheus.NewCounter(prometheus.CounterOpts{Name: "apiserver_tls_handshake_errors_total", Help: "Number of requests dropped with 'TLS handshake error from' error"}),
	}
	watched := []string{"group", "resource", "version"}
	m.events = counter("watch_events_total", "Number of events sent in watch clients", watched...)
	m.eventSizes = histogram("watch_events_sizes", "Watch event size distribution in bytes", prometheus.ExponentialBuckets(1024, 2, 8), watched)
	m.check = prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "kubernetes_healthcheck", Help: "This metric records the result of a single healthcheck."}, []string{"name", "type"})
	m.checks = prometheus.NewCounterVec(prometheus.CounterOpts{Name: "kubernetes_healthchecks_total", Help: "This metric records the results of all healthcheck."}, []string{"name", "type", "status"})
	reg.MustRegister(m.check, m.checks, m.events, m.eventSizes, m.requests, m.duration, m.sli, m.size, m.sent, m.inflight, m.long, m.dropped, m.ended, m.deprecated, m.handshakes)
	return m
}

// requestKind is a label.
func requestKind(mutating bool) string {
	if mutating {
		return "mutating"
	}
	return "readOnly"
}

// serving counts short requests that begin and end.
func (m *metrics) serving(mutating bool, delta int) {
	m.inflight.WithLabelValues(requestKind(mutating)).Add(float64(delta))
}

// refused counts a request that was one too many.
func (m *metrics) refused(mutating bool) { m.dropped.WithLabelValues(requestKind(mutating)).Inc() }

// key finds what a request is counted under.
func (m *metrics) key(r *http.Request, i *request.Info) seriesKey {
	k := seriesKey{verb: verbLabel(r, i), scope: scopeLabel(i)}
	if !i.IsResource {
		if known(i.Path) {
			k.sub = i.Path
		}
		return k
	}
	s, ok := m.registry.Find(i.GroupVersion().WithResource(i.Resource))
	if !ok {
		return k
	}
	k.group, k.version, k.resource = i.Group, i.Version, i.Resource
	if i.Subresource != "" && hasSub(s, i.Subresource) {
		k.sub = i.Subresource
	}
	if s.Version != nil && s.Version.Retired {
		m.deprecated.WithLabelValues(i.Group, i.Version, i.Resource, k.sub, removedIn(s.Version.Warning)).Set(1)
	}
	if i.Verb != "get" && i.Verb != "list" && i.Verb != "watch" && strings.Contains(r.URL.RawQuery, "dryRun") {
		if k.dry = r.URL.Query().Get("dryRun"); k.dry != "" && k.dry != "All" {
			k.dry = "invalid"
		}
	}
	return k
}

// hasSub says whether a kind has a subresource.
func hasSub(s *rest.Served, sub string) bool {
	if _, ok := s.Kind.Sub(sub); ok || sub == "scale" && s.Info.HasScale {
		return true
	}
	for i := range s.Info.Connects {
		if s.Info.Connects[i].Name == sub {
			return true
		}
	}
	return false
}

// removedIn reads the release out of "… unavailable in v1.16+; use …".
func removedIn(warning string) string {
	_, rest, ok := strings.Cut(warning, "unavailable in v")
	if !ok {
		return ""
	}
	release, _, _ := strings.Cut(rest, "+")
	return release
}

func (m *metrics) of(k seriesKey) *series {
	m.mu.RLock()
	s := m.series[k]
	m.mu.RUnlock()
	if s != nil {
		return s
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if s = m.series[k]; s != nil {
		return s
	}
	s = &series{}
	if k.verb != "WATCH" && k.verb != "CONNECT" {
		s.duration = m.duration.WithLabelValues(k.verb, k.dry, k.group, k.version, k.resource, k.sub, k.scope, self)
		s.sli = m.sli.WithLabelValues(k.verb, k.group, k.version, k.resource, k.sub, k.scope, self)
	}
	switch k.verb {
	case "GET", "LIST":
		s.size = m.size.WithLabelValues(k.verb, k.group, k.version, k.resource, k.sub, k.scope, self)
	case "POST", "PUT", "PATCH", "APPLY", "DELETE":
		if k.resource != "" {
			s.sent = m.sent.WithLabelValues(k.resource, strings.ToLower(k.verb), k.group)
		}
	}
	m.series[k] = s
	return s
}

// count adds one answer of a code.
func (m *metrics) count(s *series, k seriesKey, code int) {
	c, ok := s.codes.Load(code)
	if !ok {
		c, _ = s.codes.LoadOrStore(code, m.requests.WithLabelValues(k.verb, k.dry, k.group, k.version, k.resource, k.sub, k.scope, self, strconv.Itoa(code)))
	}
	c.(prometheus.Counter).Inc()
	if code == http.StatusTooManyRequests || code == http.StatusGatewayTimeout {
		m.ended.WithLabelValues(k.verb, k.group, k.version, k.resource, k.sub, k.scope, self, strconv.Itoa(code)).Inc()
	}
}

// checked takes in the result of a health check.
func (m *metrics) checked(name, path string, ok bool) {
	value, status := 0.0, "error"
	if ok {
		value, status = 1, "success"
	}
	m.check.WithLabelValues(name, path).Set(value)
	m.checks.WithLabelValues(name, path, status).Inc()
}

// watched returns what counts the events of a watch, each with its size.
func (m *metrics) watched(i *request.Info) func(bytes int) {
	if _, ok := m.registry.Find(i.GroupVersion().WithResource(i.Resource)); !ok {
		return func(int) {}
	}
	n, sizes := m.events.WithLabelValues(i.Group, i.Resource, i.Version), m.eventSizes.WithLabelValues(i.Group, i.Resource, i.Version)
	return func(bytes int) {
		n.Inc()
		sizes.Observe(float64(bytes))
	}
}

// outcome is how a request went.
type outcome struct {
	code         int
	written      int64
	took, waited time.Duration // in all, and for its turn
}

// begin counts a request in and returns what counts it out.
func (m *metrics) begin(r *http.Request, i *request.Info, long bool) func(outcome) {
	k := m.key(r, i)
	s := m.of(k)
	if long {
		g := m.long.WithLabelValues(k.verb, k.group, k.version, k.resource, k.sub, k.scope, self)
		g.Inc()
		return func(o outcome) {
			g.Dec()
			m.count(s, k, o.code)
		}
	}
	return func(o outcome) {
		m.count(s, k, o.code)
		if s.duration != nil && (o.code != http.StatusNotFound || k.resource != "") {
			s.duration.Observe(o.took.Seconds())
			s.sli.Observe((o.took - o.waited).Seconds())
		}
		if s.size != nil && k.resource != "" {
			s.size.Observe(float64(o.written))
		}
		if s.sent != nil && r.ContentLength > 0 {
			s.sent.Observe(float64(r.ContentLength))
		}
	}
}

// known keeps strangers from making up label values.
func known(path string) bool {
	switch path {
	case "/", "/api", "/apis", "/version", "/healthz", "/livez", "/readyz", "/metrics", "/openapi/v2", "/openapi/v3", "/statusz", "/flagz":
		return true
	}
	return false
}

func verbLabel(r *http.Request, i *request.Info) string {
	switch i.Verb {
	case "list":
		return "LIST"
	case "watch":
		return "WATCH"
	case "create":
		return "POST"
	case "update":
		return "PUT"
	case "patch":
		if strings.HasPrefix(r.Header.Get("Content-Type"), "application/apply-patch+") {
			return "APPLY"
		}
		return "PATCH"
	case "delete":
		return "DELETE"
	case "deletecollection":
		return "DELETECOLLECTION"
	}
	switch r.Method {
	case http.MethodGet, http.MethodPost, http.MethodPut, http.MethodHead, http.MethodDelete, http.MethodPatch, http.MethodOptions:
		return r.Method
	}
	return "other"
}

func scopeLabel(i *request.Info) string {
	switch {
	case i.Name != "" || i.Verb == "create":
		return "resource"
	case i.Namespace != "":
		return "namespace"
	case i.IsResource:
		return "cluster"
	}
	return ""
}
