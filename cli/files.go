package cli

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/yaml"

	"github.com/sampan-dev/sampan/proxy"
	"github.com/sampan-dev/sampan/scheduler"
)

// clientConnection and leaderElection are parts of every component's file.
type clientConnection struct {
	Kubeconfig string `json:"kubeconfig"`
}

type leaderElection struct {
	LeaderElect       *bool            `json:"leaderElect"`
	LeaseDuration     *metav1.Duration `json:"leaseDuration"`
	RenewDeadline     *metav1.Duration `json:"renewDeadline"`
	RetryPeriod       *metav1.Duration `json:"retryPeriod"`
	ResourceName      string           `json:"resourceName"`
	ResourceNamespace string           `json:"resourceNamespace"`
}

// readFile reads a component's configuration file of one of the versions that
// kind ever had, which are alike in what is read here.
func readFile(path, kind string, versions []string, into any) error {
	text, err := os.ReadFile(path)
	if err != nil {
		return fmt.Errorf("--config: %w", err)
	}
	js, err := yaml.YAMLToJSON(text)
	if err != nil {
		return fmt.Errorf("--config %s: %w", path, err)
	}
	var is metav1.TypeMeta
	if err := json.Unmarshal(js, &is); err != nil {
		return fmt.Errorf("--config %s: %w", path, err)
	}
	if is.Kind != kind || !slices.Contains(versions, is.APIVersion) {
		return fmt.Errorf("--config %s: no kind %q is registered for version %q; want kind %s of %s", path, is.Kind, is.APIVersion, kind, versions[0])
	}
	if err := json.Unmarshal(js, into); err != nil {
		return fmt.Errorf("--config %s: %w", path, err)
	}
	return nil
}

// schedulerConfiguration is what is understood of a KubeSchedulerConfiguration.
type schedulerConfiguration struct {
	Parallelism              *int                    `json:"parallelism"`
	PodInitialBackoffSeconds *int                    `json:"podInitialBackoffSeconds"`
	PodMaxBackoffSeconds     *int                    `json:"podMaxBackoffSeconds"`
	PercentageOfNodesToScore *int32                  `json:"percentageOfNodesToScore"`
	LeaderElection           leaderElection          `json:"leaderElection"`
	ClientConnection         clientConnection        `json:"clientConnection"`
	Extenders                []any                   `json:"extenders"`
	Profiles                 []scheduler.ProfileFile `json:"profiles"`
}

// schedulerFile lays a file over cfg; as upstream's, it wins over flags. What is
// not understood is refused: a plugin left out in silence places pods wrongly.
func schedulerFile(path string, cfg *scheduler.Config, effective map[string]string) error {
	if path == "" {
		return nil
	}
	var f schedulerConfiguration
	err := readFile(path, "KubeSchedulerConfiguration", []string{"kubescheduler.config.k8s.io/v1", "kubescheduler.config.k8s.io/v1beta3", "kubescheduler.config.k8s.io/v1beta2", "kubescheduler.config.k8s.io/v1beta1"}, &f)
	if err != nil {
		return err
	}
	if err := f.check(); err != nil {
		return fmt.Errorf("--config %s: %w", path, err)
	}
	for i := range f.Profiles {
		p, err := f.Profiles[i].Profile()
		if err != nil {
			return fmt.Errorf("--config %s: profiles[%d].%w", path, i, err)
		}
		cfg.Profiles = append(cfg.Profiles, p)
	}
	if f.Parallelism != nil {
		cfg.Parallelism = *f.Parallelism
	}
	if f.PodInitialBackoffSeconds != nil {
		cfg.InitialBackoff = time.Duration(*f.PodInitialBackoffSeconds) * time.Second
	}
	if f.PodMaxBackoffSeconds != nil {
		cfg.MaxBackoff = time.Duration(*f.PodMaxBackoffSeconds) * time.Second
	}
	cfg.Kubeconfig = orElse(f.ClientConnection.Kubeconfig, cfg.Kubeconfig)
	e, l := &cfg.Election, f.LeaderElection
	if l.LeaderElect != nil {
		e.Disabled = !*l.LeaderElect
	}
	e.LeaseDuration, e.RenewDeadline, e.RetryPeriod = span(l.LeaseDuration, e.LeaseDuration), span(l.RenewDeadline, e.RenewDeadline), span(l.RetryPeriod, e.RetryPeriod)
	e.Name, e.Namespace = orElse(l.ResourceName, e.Name), orElse(l.ResourceNamespace, e.Namespace)
	effective["config"] = path
	return nil
}

// check tells what is wrong with a scheduler's file, in the fields' words.
func (f *schedulerConfiguration) check() error {
	first, most := 1, 10
	for _, v := range []struct{ p, at *int }{{f.PodInitialBackoffSeconds, &first}, {f.PodMaxBackoffSeconds, &most}} {
		if v.p != nil {
			*v.at = *v.p
		}
	}
	if p := f.PercentageOfNodesToScore; p != nil && (*p < 0 || *p > 100) {
		return fmt.Errorf("percentageOfNodesToScore: Invalid value: %d: not in valid range [0-100]", *p)
	}
	seen := map[string]bool{}
	for i := range f.Profiles {
		name := f.Profiles[i].SchedulerName
		if name == "" && len(f.Profiles) > 1 {
			return fmt.Errorf("profiles[%d].schedulerName: Required value", i)
		}
		if seen[name] {
			return fmt.Errorf("profiles[%d].schedulerName: Duplicate value: %q", i, name)
		}
		seen[name] = true
	}
	switch {
	case f.Parallelism != nil && *f.Parallelism <= 0:
		return fmt.Errorf("parallelism: Invalid value: %d: should be an integer value greater than zero", *f.Parallelism)
	case first <= 0:
		return fmt.Errorf("podInitialBackoffSeconds: Invalid value: %d: must be greater than 0", first)
	case most < first:
		return fmt.Errorf("podMaxBackoffSeconds: Invalid value: %d: must be greater than or equal to PodInitialBackoffSeconds", most)
	case len(f.Extenders) > 0:
		return fmt.Errorf("extenders: Forbidden: this scheduler calls none")
	}
	return nil
}

// proxyConfiguration is what is understood of a KubeProxyConfiguration.
type proxyConfiguration struct {
	ClusterCIDR        string           `json:"clusterCIDR"`
	HostnameOverride   string           `json:"hostnameOverride"`
	Mode               string           `json:"mode"`
	HealthzBindAddress *string          `json:"healthzBindAddress"`
	MetricsBindAddress *string          `json:"metricsBindAddress"`
	ClientConnection   clientConnection `json:"clientConnection"`
}

// proxyFile lays a file over o; as upstream's, it wins over flags.
func proxyFile(path string, o *proxyOptions, cfg *proxy.Config) error {
	if path == "" {
		return nil
	}
	var f proxyConfiguration
	if err := readFile(path, "KubeProxyConfiguration", []string{"kubeproxy.config.k8s.io/v1alpha1"}, &f); err != nil {
		return err
	}
	if f.ClusterCIDR != "" {
		p, err := netip.ParsePrefix(f.ClusterCIDR)
		if err != nil {
			return fmt.Errorf("--config %s: clusterCIDR: %w", path, err)
		}
		cfg.ClusterCIDR = p
	}
	cfg.NodeName = orElse(f.HostnameOverride, cfg.NodeName)
	o.mode, o.kubeconfig = orElse(f.Mode, o.mode), orElse(f.ClientConnection.Kubeconfig, o.kubeconfig)
	if f.HealthzBindAddress != nil && *f.HealthzBindAddress != "" {
		o.healthz = *f.HealthzBindAddress
	}
	if f.MetricsBindAddress != nil && *f.MetricsBindAddress != "" {
		o.metrics = *f.MetricsBindAddress
	}
	return nil
}

func span(d *metav1.Duration, otherwise time.Duration) time.Duration {
	if d == nil {
		return otherwise
	}
	return d.Duration
}

func orElse[T comparable](v, otherwise T) T {
	var zero T
	if v == zero {
		return otherwise
	}
	return v
}
