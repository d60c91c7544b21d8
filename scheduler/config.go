package scheduler

import (
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/sampan-dev/sampan/client"
)

// Config is what may be chosen about a scheduler. The zero value is upstream's default.
type Config struct {
	Name           string        // of the scheduler that pods ask for; "" is default-scheduler
	Profiles       []Profile     // how pods are placed, by the name they ask for; nil is the default under Name
	InitialBackoff time.Duration // first wait of a pod that found no node; 0 is 1s
	MaxBackoff     time.Duration // 0 is 10s
	Parallelism    int           // bindings and status writes under way at once; 0 is 64
	Seed           uint64        // for breaking ties; 0 takes a fresh one

	Election client.ElectionConfig

	// What only the program around the scheduler reads.
	Kubeconfig  string
	BindAddress string
	SecurePort  int
	ConfigFile  string
}

// Check fills in defaults and tells what is wrong.
func (c *Config) Check() error {
	if c.Name == "" {
		c.Name = "default-scheduler"
	}
	if len(c.Profiles) == 0 {
		c.Profiles = []Profile{DefaultProfile(c.Name)}
	}
	c.Name = c.Profiles[0].Name
	names := map[string]bool{}
	for _, p := range c.Profiles {
		if p.Name == "" || names[p.Name] {
			return fmt.Errorf("scheduler: profiles: schedulerName %q: want one each, all different", p.Name)
		}
		names[p.Name] = true
	}
	if c.InitialBackoff == 0 {
		c.InitialBackoff = time.Second
	}
	if c.MaxBackoff == 0 {
		c.MaxBackoff = 10 * time.Second
	}
	if c.Parallelism == 0 {
		c.Parallelism = 64
	}
	if c.InitialBackoff < 0 || c.MaxBackoff < c.InitialBackoff {
		return errors.New("scheduler: podMaxBackoffSeconds: must be greater than or equal to podInitialBackoffSeconds")
	}
	if c.Parallelism < 0 {
		return errors.New("scheduler: parallelism: should be an integer value greater than zero")
	}
	return nil
}

// FlagSet is the part of pflag.FlagSet that declaring flags needs.
type FlagSet interface {
	StringVar(p *string, name, value, usage string)
	BoolVar(p *bool, name string, value bool, usage string)
	IntVar(p *int, name string, value int, usage string)
	DurationVar(p *time.Duration, name string, value time.Duration, usage string)
}

// Flags declares kube-scheduler's flags, whose values arrive in c. The returned
// function is to be called once the flags are parsed.
func (c *Config) Flags(f FlagSet) func() {
	elect := true
	f.StringVar(&c.ConfigFile, "config", "", "The path to the configuration file.")
	f.StringVar(&c.Kubeconfig, "kubeconfig", "", "Path to kubeconfig file with authorization and master location information.")
	f.StringVar(&c.BindAddress, "bind-address", "0.0.0.0", "The IP address on which to listen for the --secure-port port.")
	f.IntVar(&c.SecurePort, "secure-port", 10259, "The port on which to serve HTTPS. If 0, don't serve HTTPS at all.")
	f.BoolVar(&elect, "leader-elect", true, "Start a leader election client and gain leadership before executing the main loop.")
	e := &c.Election
	f.DurationVar(&e.LeaseDuration, "leader-elect-lease-duration", 15*time.Second, "The duration that non-leader candidates will wait after observing a leadership renewal until attempting to acquire leadership.")
	f.DurationVar(&e.RenewDeadline, "leader-elect-renew-deadline", 10*time.Second, "The interval between attempts by the acting master to renew a leadership slot before it stops leading.")
	f.DurationVar(&e.RetryPeriod, "leader-elect-retry-period", 2*time.Second, "The duration the clients should wait between attempting acquisition and renewal of a leadership.")
	f.StringVar(&e.Name, "leader-elect-resource-name", "kube-scheduler", "The name of resource object that is used for locking during leader election.")
	f.StringVar(&e.Namespace, "leader-elect-resource-namespace", "kube-system", "The namespace of resource object that is used for locking during leader election.")
	return func() { e.Disabled = !elect }
}

// Deps are what a scheduler needs.
type Deps struct {
	Client  client.Interface
	Mirrors *client.Mirrors
	Metrics prometheus.Registerer // may be nil
	Log     *slog.Logger          // may be nil
	Host    string                // named in events
}
