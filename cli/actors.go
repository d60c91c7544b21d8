package cli

import (
	"context"
	"fmt"
	"os"
	"strings"

	"github.com/spf13/pflag"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/sampan-dev/sampan/client"
	"github.com/sampan-dev/sampan/controller"
	"github.com/sampan-dev/sampan/controlplane"
	"github.com/sampan-dev/sampan/kit/run"
	"github.com/sampan-dev/sampan/scheduler"
)

// actor is what kube-scheduler and kube-controller-manager have in common.
type actor struct {
	*component
	serving
	kubeconfig, master string
}

func newActor(name, about string, declare func(fs *pflag.FlagSet)) *actor {
	a := &actor{component: newComponent(name, about)}
	declared := pflag.NewFlagSet(name, pflag.ContinueOnError)
	declare(declared)
	a.in(genericFlags).StringVar(&a.master, "master", "", "The address of the Kubernetes API server (overrides any value in kubeconfig).")
	a.sort(declared, func(name string) string {
		switch {
		case strings.HasPrefix(name, "leader-elect"):
			return electionFlags
		case name == "bind-address" || name == "secure-port":
			return servingFlags
		}
		return genericFlags
	})
	a.serving.flags(a.component)
	a.aliases["address"] = "bind-address"
	a.retired = append(a.retired,
		retired{why: "health and metrics are served over HTTPS, see --secure-port", names: []string{"port", "cert-dir", "permit-port-sharing", "permit-address-sharing", "http2-max-streams-per-connection", "tls-min-version", "tls-cipher-suites", "tls-sni-cert-key", "tls-curve-preferences", "disable-http2-serving"}},
		retired{why: "the client is not limited; the API server is fair to all", names: []string{"kube-api-qps", "kube-api-burst", "kube-api-content-type"}},
		retired{why: "profiles are the API server's and the kubelet's", bools: []string{"profiling", "contention-profiling"}},
		retired{why: "leases are the only lock", names: []string{"leader-elect-resource-lock", "lock-object-name", "lock-object-namespace"}},
	)
	return a
}

// connect is the API as the kubeconfig says. Actors have its identity, or with
// separate each its own service account's.
func (a *actor) connect(kubeconfig string, separate bool) (*controlplane.Actors, error) {
	rc, err := clientcmd.BuildConfigFromFlags(a.master, kubeconfig)
	if err != nil {
		return nil, fmt.Errorf("--kubeconfig: %w", err)
	}
	kc, err := client.FromREST(rc)
	if err != nil {
		return nil, err
	}
	a.guard.api = kc
	host, _ := os.Hostname()
	actors := &controlplane.Actors{As: func(string) client.Interface { return kc }, Log: a.log, Metrics: a.metrics, Host: host}
	if separate {
		actors.As = newAccounts(rc, kc).as
	}
	return actors, a.guard.load()
}

// serve runs work beside the component's own pages.
func (a *actor) serve(ctx context.Context, work func(context.Context) error) error {
	g := run.New(ctx)
	g.Go("serving", func(ctx context.Context) error { return a.serving.run(ctx, a.component, nil) })
	g.Go(a.name, work)
	return g.Wait()
}

// schedulerActor is kube-scheduler with its flags; parsed settles cfg after them.
type schedulerActor struct {
	*actor
	cfg    scheduler.Config
	parsed func()
}

func newScheduler() *schedulerActor {
	a := &schedulerActor{}
	a.actor = newActor("kube-scheduler", "kube-scheduler finds a node for every pod that has none.", func(fs *pflag.FlagSet) { a.parsed = a.cfg.Flags(fs) })
	a.retired = append(a.retired, retired{why: "see --config", names: []string{"write-config-to", "algorithm-provider", "policy-config-file", "policy-configmap", "policy-configmap-namespace", "scheduler-name", "hard-pod-affinity-symmetric-weight", "failure-domains", "pod-max-in-unschedulable-pods-duration"},
		bools: []string{"use-legacy-policy-config"}})
	return a
}

// Scheduler is the kube-scheduler program.
func Scheduler(ctx context.Context, args []string) int {
	a := newScheduler()
	return a.component.run(ctx, args, func(ctx context.Context) error {
		a.parsed()
		cfg := a.cfg
		if err := schedulerFile(cfg.ConfigFile, &cfg, a.effective); err != nil {
			return err
		}
		if err := cfg.Check(); err != nil {
			return err
		}
		actors, err := a.connect(cfg.Kubeconfig, false)
		if err != nil {
			return err
		}
		a.bind, a.port, cfg.Election.Identity = cfg.BindAddress, cfg.SecurePort, actors.Host
		return a.serve(ctx, func(ctx context.Context) error { return actors.RunScheduler(ctx, cfg) })
	})
}

// controllerActor is kube-controller-manager with its flags; parsed settles cfg
// after them.
type controllerActor struct {
	*actor
	cfg    controller.Config
	parsed func()
}

func newControllerManager() *controllerActor {
	a := &controllerActor{}
	a.actor = newActor("kube-controller-manager", "kube-controller-manager runs the control loops.", func(fs *pflag.FlagSet) { a.parsed = a.cfg.Flags(fs) })
	a.aliases["experimental-cluster-signing-duration"] = "cluster-signing-duration"
	a.in(genericFlags).IntVar(&a.cfg.NodeMaskIPv4, "node-cidr-mask-size-ipv4", 24, "Mask size for IPv4 node cidr in cluster, the same as --node-cidr-mask-size.")
	a.retired = append(a.retired,
		retired{why: "controllers work as fast as the API server lets them", names: strings.Fields(controllerSpeeds)},
		retired{why: "nodes without a cloud are the only ones", names: []string{"cloud-provider", "cloud-config", "external-cloud-volume-plugin", "route-reconciliation-period", "configure-cloud-routes", "cidr-allocator-type", "node-sync-period"}},
		retired{why: "evicting by taints is the only way", names: []string{"pod-eviction-timeout", "deleting-pods-qps", "deleting-pods-burst", "register-retry-count", "large-cluster-size-threshold", "unhealthy-zone-threshold", "node-eviction-rate", "secondary-node-eviction-rate", "node-startup-grace-period"}, bools: []string{"enable-taint-manager"}},
		retired{why: "one authority signs for every signer: --cluster-signing-cert-file", names: strings.Fields(`cluster-signing-kubelet-serving-cert-file cluster-signing-kubelet-serving-key-file
			cluster-signing-kubelet-client-cert-file cluster-signing-kubelet-client-key-file cluster-signing-kube-apiserver-client-cert-file cluster-signing-kube-apiserver-client-key-file
			cluster-signing-legacy-unknown-cert-file cluster-signing-legacy-unknown-key-file`)},
		retired{why: "volumes are recycled by their drivers", names: strings.Fields(`flex-volume-plugin-dir pv-recycler-increment-timeout-nfs pv-recycler-minimum-timeout-hostpath pv-recycler-minimum-timeout-nfs
			pv-recycler-pod-template-filepath-hostpath pv-recycler-pod-template-filepath-nfs pv-recycler-timeout-increment-hostpath`), bools: []string{"disable-force-detach-on-timeout"}},
		retired{why: "unused tokens of before go after a year", names: []string{"legacy-service-account-token-clean-up-period"}},
		retired{why: "loops stop as soon as they are told to, and there is one program of them", names: []string{"controller-shutdown-timeout", "leader-migration-config"}, bools: []string{"enable-leader-migration"}},
		retired{why: "it follows from the kinds that the API server serves", bools: []string{"enable-garbage-collector", "enable-dynamic-provisioning", "enable-hostpath-provisioner", "allow-untagged-cloud"}},
	)
	return a
}

// ControllerManager is the kube-controller-manager program.
func ControllerManager(ctx context.Context, args []string) int {
	a := newControllerManager()
	return a.component.run(ctx, args, func(ctx context.Context) error {
		a.parsed()
		cfg := a.cfg
		if err := cfg.Check(); err != nil {
			return err
		}
		if err := cfg.CheckNames(controlplane.LoopNames()); err != nil {
			return err
		}
		secrets, err := controlplane.LoadSecrets(cfg)
		if err != nil {
			return err
		}
		actors, err := a.connect(cfg.Kubeconfig, cfg.OwnAccounts)
		if err != nil {
			return err
		}
		a.bind, a.port, cfg.Election.Identity = cfg.BindAddress, cfg.SecurePort, actors.Host
		return a.serve(ctx, func(ctx context.Context) error { return actors.RunControllers(ctx, cfg, secrets) })
	})
}

// controllerSpeeds are how many workers and how often, upstream's way.
const controllerSpeeds = `concurrent-device-taint-eviction-syncs concurrent-node-syncs concurrent-resourceclaim-syncs concurrent-cron-job-syncs concurrent-deployment-syncs concurrent-daemonset-syncs concurrent-endpoint-syncs
	concurrent-ephemeralvolume-syncs concurrent-gc-syncs concurrent-horizontal-pod-autoscaler-syncs concurrent-job-syncs concurrent-namespace-syncs
	concurrent-rc-syncs concurrent-replicaset-syncs concurrent-resource-quota-syncs concurrent-service-endpoint-syncs concurrent-service-syncs
	concurrent-serviceaccount-token-syncs concurrent-statefulset-syncs concurrent-ttl-after-finished-syncs concurrent-validating-admission-policy-status-syncs
	mirroring-concurrent-service-endpoint-syncs mirroring-endpointslice-updates-batch-period mirroring-max-endpoints-per-subset
	endpoint-updates-batch-period endpointslice-updates-batch-period max-endpoints-per-slice min-resync-period controller-start-interval
	namespace-sync-period resource-quota-sync-period service-sync-period deployment-controller-sync-period pvclaimbinder-sync-period
	attach-detach-reconcile-sync-period disable-attach-detach-reconcile-sync
	horizontal-pod-autoscaler-use-rest-clients horizontal-pod-autoscaler-sync-period horizontal-pod-autoscaler-downscale-stabilization
	horizontal-pod-autoscaler-tolerance horizontal-pod-autoscaler-cpu-initialization-period horizontal-pod-autoscaler-initial-readiness-delay`
