package audit

import (
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// Config says what is put on record, and where. The fields are kube-apiserver's
// flags; zero ones are upstream's defaults.
type Config struct {
	PolicyFile string
	Log        Log
	Webhook    Webhook
}

// Log is a file of events.
type Log struct {
	Path     string // "-" is standard output, "" no log
	Format   string // json or legacy
	MaxAge   int    // days old files are kept; 0 is for ever
	MaxFiles int    // old files that are kept; 0 is all
	MaxSize  int    // megabytes before a file is put aside; 0 is never
	Compress bool   // old files
	Delivery
}

// Webhook is a server that is sent events.
type Webhook struct {
	// ConfigFile is a kubeconfig; Client and URL are made of it by who has the
	// means to read it.
	ConfigFile string
	Client     *http.Client
	URL        string
	Backoff    time.Duration // before the first repetition; 10 s when 0
	Delivery
}

// Delivery is how events get to a backend.
type Delivery struct {
	Mode     string // batch, blocking or blocking-strict
	Buffer   int    // events that wait for their batch; 10,000
	Batch    int    // events of a batch; 400, and 1 for a log
	Wait     time.Duration
	Throttle bool
	QPS      float32
	Burst    int
	Truncate bool
	MaxBatch int64 // bytes, when Truncate
	MaxEvent int64
}

// Modes of delivery.
const (
	ModeBatch          = "batch"
	ModeBlocking       = "blocking"
	ModeBlockingStrict = "blocking-strict"
)

// Deps are what auditing needs of its surroundings.
type Deps struct {
	Log     *slog.Logger
	Metrics prometheus.Registerer
}

// DefaultLog and DefaultWebhook are upstream's.
func DefaultLog() Log {
	d := delivery(ModeBlocking)
	d.Batch = 1
	return Log{Format: "json", Delivery: d}
}

// DefaultWebhook is how upstream sends events.
func DefaultWebhook() Webhook {
	d := delivery(ModeBatch)
	d.Throttle = true
	return Webhook{Backoff: 10 * time.Second, Delivery: d}
}

func delivery(mode string) Delivery {
	return Delivery{Mode: mode, Buffer: 10_000, Batch: 400, Wait: 30 * time.Second, QPS: 10, Burst: 15, MaxBatch: 10 << 20, MaxEvent: 100 << 10}
}

// Enabled says whether anything is to be put on record.
func (c *Config) Enabled() bool {
	return c.PolicyFile != "" && (c.Log.Path != "" || c.Webhook.ConfigFile != "" || c.Webhook.Client != nil)
}

// Check fills in defaults and says what is wrong.
func (c *Config) Check() error {
	if err := c.Log.check("log", DefaultLog().Delivery); err != nil {
		return err
	}
	if err := c.Webhook.check("webhook", DefaultWebhook().Delivery); err != nil {
		return err
	}
	if c.Log.Format == "" {
		c.Log.Format = "json"
	}
	if !slices.Contains([]string{"legacy", "json"}, c.Log.Format) {
		return fmt.Errorf("invalid audit log format %s, allowed formats are %q", c.Log.Format, "legacy,json")
	}
	for flag, n := range map[string]int{"maxage": c.Log.MaxAge, "maxbackup": c.Log.MaxFiles, "maxsize": c.Log.MaxSize} {
		if n < 0 {
			return fmt.Errorf("--audit-log-%s %v can't be a negative number", flag, n)
		}
	}
	if c.Webhook.Backoff == 0 {
		c.Webhook.Backoff = DefaultWebhook().Backoff
	}
	return nil
}

func (d *Delivery) check(plugin string, fallback Delivery) error {
	if d.Mode == "" {
		truncate := d.Truncate
		*d = fallback
		d.Truncate = truncate
	}
	if !slices.Contains([]string{ModeBatch, ModeBlocking, ModeBlockingStrict}, d.Mode) {
		return fmt.Errorf("invalid audit %s mode %s, allowed modes are %q", plugin, d.Mode, "batch,blocking,blocking-strict")
	}
	if d.Mode != ModeBatch {
		return nil
	}
	switch {
	case d.Buffer <= 0:
		return fmt.Errorf("invalid audit batch %s buffer size %v, must be a positive number", plugin, d.Buffer)
	case d.Batch <= 0:
		return fmt.Errorf("invalid audit batch %s max batch size %v, must be a positive number", plugin, d.Batch)
	case d.Batch > d.Buffer:
		return fmt.Errorf("invalid audit batch %s max batch size %v, can't be greater than buffer size %v", plugin, d.Batch, d.Buffer)
	case d.Throttle && (d.QPS <= 0 || d.Burst <= 0):
		return fmt.Errorf("invalid audit batch %s throttle QPS %v and burst %v, must be positive numbers", plugin, d.QPS, d.Burst)
	}
	return nil
}
