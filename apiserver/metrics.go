package apiserver

import (
	"net/http"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/sampan-dev/sampan/apiserver/request"
)

// metrics are the server's, under upstream's names.
type metrics struct {
	requests, dropped *prometheus.CounterVec
	duration, size    *prometheus.HistogramVec
	inflight, long    *prometheus.GaugeVec
}

func newMetrics(reg prometheus.Registerer) *metrics {
	labels := []string{"verb", "group", "version", "resource", "subresource", "scope"}
	m := &metrics{
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "apiserver_request_total",
			Help: "Counter of apiserver requests broken out for each verb, dry run value, group, version, resource, scope, component, and HTTP response code."},
			[]string{"verb", "dry_run", "group", "version", "resource", "subresource", "scope", "component", "code"}),
		duration: prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: "apiserver_request_duration_seconds",
			Help:    "Response latency distribution in seconds for each verb, dry run value, group, version, resource, subresource, scope and component.",
			Buckets: []float64{0.005, 0.025, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1, 1.5, 2, 5, 10, 30, 60}},
			[]string{"verb", "dry_run", "group", "version", "resource", "subresource", "scope", "component"}),
		size: prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: "apiserver_response_sizes",
			Help:    "Response size distribution in bytes for each group, version, verb, resource, subresource, scope and component.",
			Buckets: prometheus.ExponentialBuckets(1000, 10, 7)},
			[]string{"verb", "group", "version", "resource", "subresource", "scope", "component"}),
		inflight: prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "apiserver_current_inflight_requests",
			Help: "Maximal number of currently used inflight request limit of this apiserver per request kind in last second."}, []string{"request_kind"}),
		long: prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "apiserver_longrunning_requests",
			Help: "Gauge of all active long-running apiserver requests broken out by verb, group, version, resource, scope and component. Not all requests are tracked this way."},
			append(labels, "component")),
		dropped: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "apiserver_dropped_requests_total",
			Help: "Number of requests dropped with 'Try again later' response"}, []string{"request_kind"}),
	}
	reg.MustRegister(m.requests, m.duration, m.size, m.inflight, m.long, m.dropped)
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

// begin counts a request in and returns what counts it out.
func (m *metrics) begin(r *http.Request, i *request.Info, long bool) func(code int, written int64, took time.Duration) {
	verb, scope := verbLabel(r, i), scopeLabel(i)
	group, version, resource, sub := i.Group, i.Version, i.Resource, i.Subresource
	if !i.IsResource {
		sub = i.Path
		if !known(i.Path) {
			sub = ""
		}
	}
	dry := ""
	if i.Verb != "get" && i.Verb != "list" && i.Verb != "watch" {
		dry = r.URL.Query().Get("dryRun")
		if dry != "" && dry != "All" {
			dry = "invalid"
		}
	}
	if long {
		g := m.long.WithLabelValues(verb, group, version, resource, sub, scope, "apiserver")
		g.Inc()
		return func(code int, _ int64, _ time.Duration) {
			g.Dec()
			m.requests.WithLabelValues(verb, dry, group, version, resource, sub, scope, "apiserver", strconv.Itoa(code)).Inc()
		}
	}
	return func(code int, written int64, took time.Duration) {
		if code == http.StatusNotFound && i.IsResource && resource == "" {
			return
		}
		m.requests.WithLabelValues(verb, dry, group, version, resource, sub, scope, "apiserver", strconv.Itoa(code)).Inc()
		if code == http.StatusNotFound && !i.IsResource {
			return
		}
		m.duration.WithLabelValues(verb, dry, group, version, resource, sub, scope, "apiserver").Observe(took.Seconds())
		if i.Verb == "get" || i.Verb == "list" {
			m.size.WithLabelValues(verb, group, version, resource, sub, scope, "apiserver").Observe(float64(written))
		}
	}
}

// known keeps strangers from making up label values.
func known(path string) bool {
	switch path {
	case "/", "/api", "/apis", "/version", "/healthz", "/livez", "/readyz", "/metrics", "/openapi/v2", "/openapi/v3":
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
		if r.Header.Get("Content-Type") == "application/apply-patch+yaml" {
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
