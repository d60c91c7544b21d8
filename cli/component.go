package cli

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/spf13/pflag"
	"golang.org/x/term"

	"github.com/sampan-dev/sampan/api"
	"github.com/sampan-dev/sampan/kit/clock"
	"github.com/sampan-dev/sampan/kit/httpx"
	"github.com/sampan-dev/sampan/kit/logx"
	"github.com/sampan-dev/sampan/kit/notify"
)

// component is what every component run alone has in common: flags, logs,
// metrics, and one exit.
type component struct {
	*flags
	about     string
	verbosity int
	format    string
	version   bool
	effective map[string]string // the flags in effect, shown at /configz
	metrics   *prometheus.Registry
	log       *slog.Logger
}

// Headings of help, upstream's.
const (
	genericFlags  = "Generic"
	globalFlags   = "Global"
	servingFlags  = "Secure serving"
	insecureFlags = "Insecure serving"
	authnFlags    = "Authentication"
	authzFlags    = "Authorization"
	electionFlags = "Leader election"
)

func newComponent(name, about string) *component {
	c := &component{flags: newFlags(name), about: about, metrics: prometheus.NewRegistry()}
	c.metrics.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return c
}

// global adds what all components have; it comes last in help.
func (c *component) global() {
	fs := c.in(globalFlags)
	fs.IntVarP(&c.verbosity, "v", "v", 0, "number for the log level verbosity")
	fs.StringVar(&c.format, "logging-format", "text", `Sets the log format. Permitted formats: "json", "text".`)
	fs.BoolVar(&c.version, "version", false, "print version information and quit")
	fs.BoolP("help", "h", false, "help for "+c.name)
	c.retired = append(c.retired,
		retired{why: "logs go to standard error", bools: []string{"logtostderr", "alsologtostderr", "skip-headers", "skip-log-headers", "add-dir-header", "one-output"},
			names: []string{"log-dir", "log-file", "log-file-max-size", "stderrthreshold", "log-backtrace-at", "log-flush-frequency", "log-json-split-stream", "log-json-info-buffer-size", "log-text-split-stream", "log-text-info-buffer-size"}},
		retired{why: "use --v", names: []string{"vmodule"}},
		retired{why: "no feature here is behind a gate", names: []string{"feature-gates"}},
		retired{why: "all metrics are shown, with all their labels", names: []string{"allow-metric-labels", "allow-metric-labels-manifest", "disabled-metrics", "show-hidden-metrics-for-version"}},
		retired{why: "this release behaves as itself", names: []string{"emulated-version", "min-compatibility-version"}},
	)
}

// run parses the flags and does the component's work until ctx ends.
func (c *component) run(ctx context.Context, args []string, work func(ctx context.Context) error) int {
	c.global()
	set, err := c.parse(args)
	if err != nil && !errors.Is(err, pflag.ErrHelp) {
		return c.misused(err)
	}
	if wants, _ := set.GetBool("help"); wants || err != nil {
		c.help(os.Stdout, c.about, terminalWidth())
		return 0
	}
	c.effective = map[string]string{}
	set.VisitAll(func(f *pflag.Flag) {
		if !f.Hidden && f.Name != "help" && f.Name != "version" {
			c.effective[f.Name] = f.Value.String()
		}
	})
	return c.exit(ctx, work)
}

func (c *component) misused(err error) int {
	fmt.Fprintf(os.Stderr, "%s: %v\nsee %s --help\n", c.name, err, c.name)
	return 2
}

func (c *component) exit(ctx context.Context, work func(ctx context.Context) error) int {
	if c.version {
		fmt.Printf("Kubernetes %s\n", api.Version().GitVersion)
		return 0
	}
	c.log = logx.Setup(os.Stderr, logx.Options{Level: logx.ForVerbosity(c.verbosity), Component: c.name, JSON: c.format == "json"})
	for _, w := range c.warnings {
		c.log.Warn(w)
	}
	if err := work(ctx); err != nil && ctx.Err() == nil {
		fmt.Fprintf(os.Stderr, "%s: %v\n", c.name, err)
		return 1
	}
	return 0
}

// tellReady tells the init system when the component serves: wait has returned
// and its port takes connections.
func (c *component) tellReady(ctx context.Context, wait func(context.Context) error, bind string, port int) {
	if err := wait(ctx); err != nil {
		return // it ended instead
	}
	if ip := net.ParseIP(bind); ip == nil || ip.IsUnspecified() {
		bind = "localhost"
	}
	var dialer net.Dialer
	for {
		conn, err := dialer.DialContext(ctx, "tcp", net.JoinHostPort(bind, strconv.Itoa(port)))
		if err == nil {
			conn.Close()
			break
		}
		if clock.Sleep(ctx, 20*time.Millisecond) != nil {
			return
		}
	}
	if err := notify.Ready(); err != nil {
		c.log.Warn("the init system was not told", "err", err)
	}
}

// terminalWidth is how wide help may be; 0 on what is no terminal.
func terminalWidth() int {
	w, _, err := term.GetSize(int(os.Stdout.Fd()))
	if err != nil {
		return 0
	}
	return w
}

// serving is where a component that is no server by trade answers: upstream's
// secure port, over TLS.
type serving struct {
	bind      string
	port      int
	cert, key string // files; none makes a certificate for the occasion
	guard     *delegate
}

func (s *serving) flags(c *component) {
	fs := c.in(servingFlags)
	fs.StringVar(&s.cert, "tls-cert-file", "", "File containing the default x509 Certificate for HTTPS. If none is given, one is made for the occasion.")
	fs.StringVar(&s.key, "tls-private-key-file", "", "File containing the default x509 private key matching --tls-cert-file.")
	s.guard = &delegate{}
	s.guard.flags(c)
}

// run serves the component's pages until ctx ends; port 0 serves nothing.
func (s *serving) run(ctx context.Context, c *component, health func(context.Context) error) error {
	if s.port <= 0 {
		return nil
	}
	certificate, err := httpx.Certificate(c.name)
	if s.cert != "" {
		certificate = func() (*tls.Certificate, error) {
			pair, err := tls.LoadX509KeyPair(s.cert, s.key)
			return &pair, err
		}
		_, err = certificate()
	}
	if err != nil {
		return fmt.Errorf("--tls-cert-file: %w", err)
	}
	pages := httpx.Pages{Health: health, Metrics: c.metrics, Config: map[string]any{"componentconfig": c.effective}, Guard: s.guard.pass}
	return httpx.ListenAndServeTLS(ctx, net.JoinHostPort(s.bind, strconv.Itoa(s.port)), pages.Handler(), certificate)
}
