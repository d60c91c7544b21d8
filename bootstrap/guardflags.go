package bootstrap

import (
	"github.com/spf13/pflag"

	"github.com/sampan-dev/sampan/apiserver/audit"
	"github.com/sampan-dev/sampan/controlplane"
)

// GuardFlags adds the flags of what keeps the API server from harm and puts on
// record who asked for what, under kube-apiserver's names.
func GuardFlags(fs *pflag.FlagSet, g *controlplane.Guard) {
	fs.BoolFunc("enable-priority-and-fairness", "If true, replace the max-in-flight handler with an enhanced one that queues and dispatches with priority and fairness (default true)", func(v string) error {
		g.Unfair = v == "false" || v == "0"
		return nil
	})
	fs.IntVar(&g.MaxReads, "max-requests-inflight", 400, "This and --max-mutating-requests-inflight are summed to determine the server's total concurrency limit (which must be positive) if --enable-priority-and-fairness is true. Otherwise, this flag limits the maximum number of non-mutating requests in flight.")
	fs.IntVar(&g.MaxWrites, "max-mutating-requests-inflight", 200, "This and --max-requests-inflight are summed to determine the server's total concurrency limit (which must be positive) if --enable-priority-and-fairness is true. Otherwise, this flag limits the maximum number of mutating requests in flight.")
	fs.DurationVar(&g.Timeout, "request-timeout", 0, "An optional field indicating the duration a handler must keep a request open before timing it out (default 1m0s)")
	fs.DurationVar(&g.ShutdownDelay, "shutdown-delay-duration", 0, "Time to delay the termination. During that time the server keeps serving requests normally. The endpoints /healthz and /livez will return success, but /readyz immediately returns failure.")
	fs.Float64Var(&g.Goaway, "goaway-chance", 0, "To prevent HTTP/2 clients from getting stuck on a single apiserver, randomly close a connection (GOAWAY). The client's other in-flight requests won't be affected, and the client will reconnect, likely landing on a different apiserver after going through the load balancer again. Min is 0 (off), Max is .02 (1/50 requests).")
	fs.StringSliceVar(&g.CORS, "cors-allowed-origins", nil, "List of allowed origins for CORS, comma separated. An allowed origin can be a regular expression to support subdomain matching.")
	fs.StringSliceVar(&g.StrictTransport, "strict-transport-security-directives", nil, "List of directives for HSTS, comma separated. If this list is empty, then HSTS directives will not be added.")
	fs.IntVar(&g.Streams, "http2-max-streams-per-connection", 0, "The limit that the server gives to clients for the maximum number of streams in an HTTP/2 connection. Zero means to use 1000.")
	fs.StringSliceVar(&g.TLS.Ciphers, "tls-cipher-suites", nil, "Comma-separated list of cipher suites for the server, by their IANA names. If omitted, the default Go cipher suites will be used.")
	fs.StringVar(&g.TLS.MinVersion, "tls-min-version", "", "Minimum TLS version supported. Possible values: VersionTLS10, VersionTLS11, VersionTLS12, VersionTLS13")
	fs.StringArrayVar(&g.TLS.SNI, "tls-sni-cert-key", nil, "A pair of x509 certificate and private key file paths, optionally suffixed with a list of domain patterns which are fully qualified domain names, possibly with prefixed wildcard segments. Examples: \"example.crt,example.key\" or \"foo.crt,foo.key:*.foo.com,foo.com\".")
	fs.StringVar(&g.EncryptionConfig, "encryption-provider-config", "", "The file containing configuration for encryption providers to be used for storing secrets in etcd")
	fs.BoolVar(&g.EncryptionReload, "encryption-provider-config-automatic-reload", false, "Determines if the file set by --encryption-provider-config should be automatically reloaded if the disk contents change.")
	auditFlags(fs, &g.Audit)
}

func auditFlags(fs *pflag.FlagSet, c *audit.Config) {
	c.Log, c.Webhook = audit.DefaultLog(), audit.DefaultWebhook()
	fs.StringVar(&c.PolicyFile, "audit-policy-file", "", "Path to the file that defines the audit policy configuration.")
	l, w := &c.Log, &c.Webhook
	fs.StringVar(&l.Path, "audit-log-path", "", "If set, all requests coming to the apiserver will be logged to this file. '-' means standard out.")
	fs.IntVar(&l.MaxAge, "audit-log-maxage", 0, "The maximum number of days to retain old audit log files based on the timestamp encoded in their filename. 0 removes none for its age.")
	fs.IntVar(&l.MaxFiles, "audit-log-maxbackup", 0, "The maximum number of old audit log files to retain. 0 means there's no restriction on the number of files.")
	fs.IntVar(&l.MaxSize, "audit-log-maxsize", 0, "The maximum size in megabytes of the audit log file before it gets rotated. 0 disables rotation.")
	fs.StringVar(&l.Format, "audit-log-format", l.Format, "Format of saved audits. \"legacy\" indicates 1-line text format for each event. \"json\" indicates structured json format.")
	fs.BoolVar(&l.Compress, "audit-log-compress", false, "If set, the rotated log files will be compressed using gzip.")
	fs.StringVar(&w.ConfigFile, "audit-webhook-config-file", "", "Path to a kubeconfig formatted file that defines the audit webhook configuration.")
	fs.DurationVar(&w.Backoff, "audit-webhook-initial-backoff", w.Backoff, "The amount of time to wait before retrying the first failed request.")
	delivery(fs, "log", &l.Delivery)
	delivery(fs, "webhook", &w.Delivery)
}

func delivery(fs *pflag.FlagSet, plugin string, d *audit.Delivery) {
	name := func(s string) string { return "audit-" + plugin + "-" + s }
	fs.StringVar(&d.Mode, name("mode"), d.Mode, "Strategy for sending audit events. Blocking indicates sending events should block server responses. Batch causes the backend to buffer and write events asynchronously. Known modes are batch,blocking,blocking-strict.")
	fs.IntVar(&d.Buffer, name("batch-buffer-size"), d.Buffer, "The size of the buffer to store events before batching and writing. Only used in batch mode.")
	fs.IntVar(&d.Batch, name("batch-max-size"), d.Batch, "The maximum size of a batch. Only used in batch mode.")
	fs.DurationVar(&d.Wait, name("batch-max-wait"), d.Wait, "The amount of time to wait before force writing the batch that hadn't reached the max size. Only used in batch mode.")
	fs.BoolVar(&d.Throttle, name("batch-throttle-enable"), d.Throttle, "Whether batching throttling is enabled. Only used in batch mode.")
	fs.Float32Var(&d.QPS, name("batch-throttle-qps"), d.QPS, "Maximum average number of batches per second. Only used in batch mode.")
	fs.IntVar(&d.Burst, name("batch-throttle-burst"), d.Burst, "Maximum number of requests sent at the same moment if ThrottleQPS was not utilized before. Only used in batch mode.")
	fs.BoolVar(&d.Truncate, name("truncate-enabled"), false, "Whether event and batch truncating is enabled.")
	fs.Int64Var(&d.MaxBatch, name("truncate-max-batch-size"), d.MaxBatch, "Maximum size of the batch sent to the underlying backend.")
	fs.Int64Var(&d.MaxEvent, name("truncate-max-event-size"), d.MaxEvent, "Maximum size of the audit event sent to the underlying backend. If the size of an event is greater than this number, first request and response are removed, and if this doesn't reduce the size enough, event is discarded.")
}
