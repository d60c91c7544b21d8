package cli

import (
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/sampan-dev/sampan/kubelet/config"
)

// upstreamFlags are those of upstream's help, v1.37.
var upstreamFlags = map[string]string{
	"kube-apiserver": `
		admission-control admission-control-config-file advertise-address aggregator-reject-forwarding-redirect allow-metric-labels
		allow-metric-labels-manifest allow-privileged anonymous-auth api-audiences apiserver-count audit-log-batch-buffer-size audit-log-batch-max-size
		audit-log-batch-max-wait audit-log-batch-throttle-burst audit-log-batch-throttle-enable audit-log-batch-throttle-qps audit-log-compress
		audit-log-format audit-log-maxage audit-log-maxbackup audit-log-maxsize audit-log-mode audit-log-path audit-log-truncate-enabled
		audit-log-truncate-max-batch-size audit-log-truncate-max-event-size audit-log-version audit-policy-file audit-webhook-batch-buffer-size
		audit-webhook-batch-initial-backoff audit-webhook-batch-max-size audit-webhook-batch-max-wait audit-webhook-batch-throttle-burst
		audit-webhook-batch-throttle-enable audit-webhook-batch-throttle-qps audit-webhook-config-file audit-webhook-initial-backoff audit-webhook-mode
		audit-webhook-truncate-enabled audit-webhook-truncate-max-batch-size audit-webhook-truncate-max-event-size audit-webhook-version authentication-config
		authentication-token-webhook-cache-ttl authentication-token-webhook-config-file authentication-token-webhook-version authorization-config
		authorization-mode authorization-policy-file authorization-webhook-cache-authorized-ttl authorization-webhook-cache-unauthorized-ttl
		authorization-webhook-config-file authorization-webhook-version bind-address cert-dir client-ca-file
		contention-profiling coordinated-leadership-lease-duration coordinated-leadership-renew-deadline coordinated-leadership-retry-period
		cors-allowed-origins debug-socket-path default-not-ready-toleration-seconds default-unreachable-toleration-seconds default-watch-cache-size
		delete-collection-workers disable-admission-plugins disable-http2-serving disabled-metrics egress-selector-config-file
		emulated-version emulation-forward-compatible enable-admission-plugins enable-aggregator-routing enable-bootstrap-token-auth enable-garbage-collector
		enable-logs-handler enable-priority-and-fairness encryption-provider-config encryption-provider-config-automatic-reload endpoint-reconciler-type
		etcd-cafile etcd-certfile etcd-compaction-interval etcd-count-metric-poll-period etcd-db-metric-poll-interval etcd-healthcheck-timeout etcd-keyfile
		etcd-prefix etcd-readycheck-timeout etcd-servers etcd-servers-overrides event-ttl external-hostname feature-gates goaway-chance help
		http2-max-streams-per-connection kubelet-certificate-authority kubelet-client-certificate kubelet-client-key kubelet-port
		kubelet-preferred-address-types kubelet-read-only-port kubelet-timeout kubernetes-service-node-port lease-reuse-duration-seconds livez-grace-period
		log-flush-frequency log-json-info-buffer-size log-json-split-stream log-text-info-buffer-size log-text-split-stream logging-format
		max-connection-bytes-per-sec max-mutating-requests-inflight max-requests-inflight min-compatibility-version min-request-timeout oidc-ca-file
		oidc-client-id oidc-groups-claim oidc-groups-prefix oidc-issuer-url oidc-required-claim oidc-signing-algs oidc-username-claim oidc-username-prefix
		peer-advertise-ip peer-advertise-port peer-ca-file permit-address-sharing permit-port-sharing profiling proxy-client-cert-file proxy-client-key-file
		request-timeout requestheader-allowed-names requestheader-client-ca-file requestheader-extra-headers-prefix requestheader-group-headers
		requestheader-uid-headers requestheader-username-headers runtime-config runtime-config-emulation-forward-compatible secure-port
		service-account-extend-token-expiration service-account-issuer service-account-jwks-uri service-account-key-file service-account-lookup
		service-account-max-token-expiration service-account-signing-endpoint service-account-signing-key-file service-cluster-ip-range
		service-node-port-range show-hidden-metrics-for-version shutdown-delay-duration shutdown-send-retry-after shutdown-watch-termination-grace-period
		storage-backend storage-initialization-timeout storage-media-type strict-transport-security-directives tls-cert-file tls-cipher-suites
		tls-curve-preferences tls-min-version tls-private-key-file tls-sni-cert-key token-auth-file tracing-config-file v version vmodule watch-cache
		watch-cache-sizes`,
	"kube-controller-manager": `
		allocate-node-cidrs allow-metric-labels allow-metric-labels-manifest allow-untagged-cloud attach-detach-reconcile-sync-period
		authentication-kubeconfig authentication-skip-lookup authentication-token-webhook-cache-ttl authentication-tolerate-lookup-failure
		authorization-always-allow-paths authorization-kubeconfig authorization-webhook-cache-authorized-ttl authorization-webhook-cache-unauthorized-ttl
		bind-address cert-dir cidr-allocator-type client-ca-file cloud-provider cluster-cidr cluster-name cluster-signing-cert-file cluster-signing-duration
		cluster-signing-key-file cluster-signing-kube-apiserver-client-cert-file cluster-signing-kube-apiserver-client-key-file
		cluster-signing-kubelet-client-cert-file cluster-signing-kubelet-client-key-file cluster-signing-kubelet-serving-cert-file
		cluster-signing-kubelet-serving-key-file cluster-signing-legacy-unknown-cert-file cluster-signing-legacy-unknown-key-file concurrent-cron-job-syncs
		concurrent-daemonset-syncs concurrent-deployment-syncs concurrent-device-taint-eviction-syncs concurrent-endpoint-syncs
		concurrent-ephemeralvolume-syncs concurrent-gc-syncs concurrent-horizontal-pod-autoscaler-syncs concurrent-job-syncs concurrent-namespace-syncs
		concurrent-node-syncs concurrent-rc-syncs concurrent-replicaset-syncs concurrent-resource-quota-syncs concurrent-resourceclaim-syncs
		concurrent-service-endpoint-syncs concurrent-service-syncs concurrent-serviceaccount-token-syncs concurrent-statefulset-syncs
		concurrent-ttl-after-finished-syncs concurrent-validating-admission-policy-status-syncs configure-cloud-routes contention-profiling
		controller-shutdown-timeout controller-start-interval controllers disable-attach-detach-reconcile-sync disable-force-detach-on-timeout
		disable-http2-serving disabled-metrics emulated-version enable-dynamic-provisioning enable-garbage-collector enable-hostpath-provisioner
		enable-leader-migration endpoint-updates-batch-period endpointslice-updates-batch-period external-cloud-volume-plugin feature-gates
		flex-volume-plugin-dir help horizontal-pod-autoscaler-cpu-initialization-period horizontal-pod-autoscaler-downscale-stabilization
		horizontal-pod-autoscaler-initial-readiness-delay horizontal-pod-autoscaler-sync-period horizontal-pod-autoscaler-tolerance
		http2-max-streams-per-connection kube-api-burst kube-api-content-type kube-api-qps kubeconfig large-cluster-size-threshold leader-elect
		leader-elect-lease-duration leader-elect-renew-deadline leader-elect-resource-lock leader-elect-resource-name leader-elect-resource-namespace
		leader-elect-retry-period leader-migration-config legacy-service-account-token-clean-up-period log-flush-frequency log-json-info-buffer-size
		log-json-split-stream log-text-info-buffer-size log-text-split-stream logging-format master max-endpoints-per-slice min-compatibility-version
		min-resync-period mirroring-concurrent-service-endpoint-syncs mirroring-endpointslice-updates-batch-period mirroring-max-endpoints-per-subset
		namespace-sync-period node-cidr-mask-size node-cidr-mask-size-ipv4 node-cidr-mask-size-ipv6 node-eviction-rate node-monitor-grace-period
		node-monitor-period node-startup-grace-period node-sync-period permit-address-sharing permit-port-sharing profiling pv-recycler-increment-timeout-nfs
		pv-recycler-minimum-timeout-hostpath pv-recycler-minimum-timeout-nfs pv-recycler-pod-template-filepath-hostpath pv-recycler-pod-template-filepath-nfs
		pv-recycler-timeout-increment-hostpath pvclaimbinder-sync-period requestheader-allowed-names requestheader-client-ca-file
		requestheader-extra-headers-prefix requestheader-group-headers requestheader-uid-headers requestheader-username-headers resource-quota-sync-period
		root-ca-file route-reconciliation-period secondary-node-eviction-rate secure-port service-account-private-key-file service-cluster-ip-range
		show-hidden-metrics-for-version terminated-pod-gc-threshold tls-cert-file tls-cipher-suites tls-curve-preferences tls-min-version tls-private-key-file
		tls-sni-cert-key unhealthy-zone-threshold use-service-account-credentials v version vmodule`,
	"kube-scheduler": `
		allow-metric-labels allow-metric-labels-manifest authentication-kubeconfig authentication-skip-lookup authentication-token-webhook-cache-ttl
		authentication-tolerate-lookup-failure authorization-always-allow-paths authorization-kubeconfig authorization-webhook-cache-authorized-ttl
		authorization-webhook-cache-unauthorized-ttl bind-address cert-dir client-ca-file config contention-profiling disable-http2-serving disabled-metrics
		emulated-version feature-gates help http2-max-streams-per-connection kube-api-burst kube-api-content-type kube-api-qps kubeconfig leader-elect
		leader-elect-lease-duration leader-elect-renew-deadline leader-elect-resource-lock leader-elect-resource-name leader-elect-resource-namespace
		leader-elect-retry-period log-flush-frequency log-json-info-buffer-size log-json-split-stream log-text-info-buffer-size log-text-split-stream
		logging-format master min-compatibility-version permit-address-sharing permit-port-sharing pod-max-in-unschedulable-pods-duration profiling
		requestheader-allowed-names requestheader-client-ca-file requestheader-extra-headers-prefix requestheader-group-headers requestheader-uid-headers
		requestheader-username-headers secure-port show-hidden-metrics-for-version tls-cert-file tls-cipher-suites tls-curve-preferences tls-min-version
		tls-private-key-file tls-sni-cert-key v version vmodule write-config-to`,
	"kubelet": `
		address allow-metric-labels allow-metric-labels-manifest allowed-unsafe-sysctls anonymous-auth application-metrics-count-limit
		authentication-token-webhook authentication-token-webhook-cache-ttl authorization-mode authorization-webhook-cache-authorized-ttl
		authorization-webhook-cache-unauthorized-ttl boot-id-file bootstrap-kubeconfig cert-dir cgroup-driver cgroup-root cgroups-per-qos client-ca-file
		cloud-provider cluster-dns cluster-domain config config-dir container-hints container-log-max-files container-log-max-size container-runtime-endpoint
		containerd containerd-namespace contention-profiling cpu-cfs-quota cpu-cfs-quota-period cpu-manager-policy cpu-manager-policy-options
		cpu-manager-reconcile-period disabled-metrics emulated-version enable-controller-attach-detach enable-debugging-handlers enable-load-reader
		enable-server enforce-node-allocatable event-burst event-qps event-storage-age-limit event-storage-event-limit eviction-hard
		eviction-max-pod-grace-period eviction-minimum-reclaim eviction-pressure-transition-period eviction-soft eviction-soft-grace-period
		exit-on-lock-contention experimental-allocatable-ignore-eviction experimental-mounter-path fail-cgroupv1 fail-swap-on feature-gates
		file-check-frequency global-housekeeping-interval hairpin-mode healthz-bind-address healthz-port help hostname-override housekeeping-interval
		http-check-frequency image-credential-provider-bin-dir image-credential-provider-config image-gc-high-threshold image-gc-low-threshold
		image-service-endpoint kernel-memcg-notification kube-api-burst kube-api-content-type kube-api-qps kube-reserved kube-reserved-cgroup kubeconfig
		kubelet-cgroups local-storage-capacity-isolation lock-file log-cadvisor-usage log-flush-frequency log-json-info-buffer-size log-json-split-stream
		log-text-info-buffer-size log-text-split-stream logging-format machine-id-file make-iptables-util-chains manifest-url manifest-url-header
		max-open-files max-pods maximum-dead-containers maximum-dead-containers-per-container memory-manager-policy min-compatibility-version
		minimum-container-ttl-duration minimum-image-ttl-duration node-ip node-labels node-status-max-images node-status-update-frequency oom-score-adj
		pod-cidr pod-manifest-path pod-max-pids pods-per-core port protect-kernel-defaults provider-id qos-reserved read-only-port register-node
		register-with-taints registry-burst registry-qps reserved-cpus resolv-conf root-dir rotate-certificates rotate-server-certificates runonce
		runtime-cgroups runtime-request-timeout seccomp-default serialize-image-pulls show-hidden-metrics-for-version storage-driver-buffer-duration
		storage-driver-db storage-driver-host storage-driver-password storage-driver-secure storage-driver-table storage-driver-user
		streaming-connection-idle-timeout sync-frequency system-cgroups system-reserved system-reserved-cgroup tls-cert-file tls-cipher-suites tls-min-version
		tls-private-key-file topology-manager-policy topology-manager-policy-options topology-manager-scope v version vmodule volume-plugin-dir
		volume-stats-agg-period`,
	"kube-proxy": `
		allow-metric-labels allow-metric-labels-manifest bind-address bind-address-hard-fail cleanup cluster-cidr config config-sync-period
		conntrack-max-per-core conntrack-min conntrack-tcp-be-liberal conntrack-tcp-timeout-close-wait conntrack-tcp-timeout-established conntrack-udp-timeout
		conntrack-udp-timeout-stream detect-local-mode disabled-metrics emulated-version feature-gates healthz-bind-address healthz-port help
		hostname-override init-only iptables-localhost-nodeports iptables-masquerade-bit iptables-min-sync-period iptables-sync-period ipvs-exclude-cidrs
		ipvs-min-sync-period ipvs-scheduler ipvs-strict-arp ipvs-sync-period ipvs-tcp-timeout ipvs-tcpfin-timeout ipvs-udp-timeout kube-api-burst
		kube-api-content-type kube-api-qps kubeconfig log-flush-frequency log-json-info-buffer-size log-json-split-stream log-text-info-buffer-size
		log-text-split-stream logging-format masquerade-all master metrics-bind-address metrics-port min-compatibility-version nodeport-addresses
		oom-score-adj pod-bridge-interface pod-interface-name-prefix profiling proxy-mode show-hidden-metrics-for-version v version vmodule write-config-to`,
}

// idle are the flags of a component that are accepted and have no effect, by what
// is so instead.
func idle(t *testing.T, name string) map[string]string {
	t.Helper()
	var f *flags
	switch name {
	case "kubelet":
		return config.Retired()
	case "kube-apiserver":
		c, _ := apiServer()
		f = c.flags
		c.global()
	case "kube-controller-manager":
		c := newControllerManager()
		f = c.component.flags
		c.global()
	case "kube-scheduler":
		c := newScheduler()
		f = c.component.flags
		c.global()
	case "kube-proxy":
		c := newProxy()
		f = c.flags
		c.global()
	}
	out := map[string]string{}
	for _, r := range f.retired {
		for _, name := range slices.Concat(r.bools, r.names) {
			out[name] = r.why
		}
	}
	return out
}

// Every flag of upstream's help is known; those of them that have no effect say so
// in words, and docs/by-hand.md lists them.
func TestFlagsOfUpstream(t *testing.T) {
	page, err := os.ReadFile("../docs/by-hand.md")
	if err != nil {
		t.Fatal(err)
	}
	for name, list := range upstreamFlags {
		s, err := serviceNamed(name)
		if err != nil {
			t.Fatal(err)
		}
		none := idle(t, name)
		var words []string
		for f := range strings.FieldsSeq(list) {
			if name == "kubelet" && (f == "help" || f == "version") {
				continue // looked at before the others: TestComponentsExplainThemselves
			}
			if err := s.check([]string{"--" + f + "=1"}); err != nil && strings.Contains(err.Error(), "unknown flag") {
				t.Errorf("%s: %v", name, err)
			}
			if why, ok := none[f]; ok {
				words = append(words, "`--"+f+"`")
				if len(strings.Fields(why)) < 2 {
					t.Errorf("%s --%s says only %q", name, f, why)
				}
			}
		}
		row := "| " + name + " | " + strings.Join(words, " ") + " |\n"
		if !strings.Contains(string(page), row) {
			t.Errorf("docs/by-hand.md does not have this row:\n%s", row)
		}
	}
}

// What is set aside is told: by its name, and by what is so instead.
func TestRetiredFlagsWarnAndGoOn(t *testing.T) {
	for flag, want := range map[string]string{
		"--profiling=false":                   "Flag --profiling has been deprecated, profiles are at /debug/pprof",
		"--storage-versions=v1":               "Flag --storage-versions has been deprecated, one storage format is written",
		"--enable_garbage_collector":          "Flag --enable-garbage-collector has been deprecated, it is always so",
		"--feature-gates=A=true":              "Flag --feature-gates has been deprecated, no feature here is behind a gate",
		"--emulated-version=1.30":             "Flag --emulated-version has been deprecated, this release behaves as itself",
		"--show-hidden-metrics-for-version=1": "all metrics are shown",
	} {
		c, _ := apiServer()
		if err := c.check([]string{flag}); err != nil || !strings.Contains(strings.Join(c.warnings, "\n"), want) {
			t.Errorf("%s: %v, warnings %q", flag, err, c.warnings)
		}
	}
	o, err := config.Parse([]string{"--cadvisor-port=0", "--network-plugin", "cni", "--enforce-node-allocatable=pods"})
	if err != nil || len(o.Warnings) != 3 || o.Warnings[1] != "Flag --network-plugin has been deprecated, the container runtime's configuration says it" {
		t.Errorf("kubelet: %v, %q", err, o.Warnings)
	}
}
