package controlplane

import (
	"crypto"
	"fmt"
	"net/netip"
	"os"
	"strings"

	"github.com/sampan-dev/sampan/controller"
	"github.com/sampan-dev/sampan/controller/attachdetach"
	"github.com/sampan-dev/sampan/controller/bootstraptoken"
	"github.com/sampan-dev/sampan/controller/certificates"
	"github.com/sampan-dev/sampan/controller/clusterrole"
	"github.com/sampan-dev/sampan/controller/cronjob"
	"github.com/sampan-dev/sampan/controller/daemonset"
	"github.com/sampan-dev/sampan/controller/deployment"
	"github.com/sampan-dev/sampan/controller/devicetainteviction"
	"github.com/sampan-dev/sampan/controller/disruption"
	"github.com/sampan-dev/sampan/controller/endpoints"
	"github.com/sampan-dev/sampan/controller/endpointslice"
	"github.com/sampan-dev/sampan/controller/endpointslicemirroring"
	"github.com/sampan-dev/sampan/controller/ephemeralvolume"
	"github.com/sampan-dev/sampan/controller/garbagecollector"
	"github.com/sampan-dev/sampan/controller/job"
	"github.com/sampan-dev/sampan/controller/legacytoken"
	"github.com/sampan-dev/sampan/controller/namespace"
	"github.com/sampan-dev/sampan/controller/nodeipam"
	"github.com/sampan-dev/sampan/controller/nodelifecycle"
	"github.com/sampan-dev/sampan/controller/nodettl"
	"github.com/sampan-dev/sampan/controller/podautoscaler"
	"github.com/sampan-dev/sampan/controller/podgc"
	"github.com/sampan-dev/sampan/controller/protection"
	"github.com/sampan-dev/sampan/controller/replicaset"
	"github.com/sampan-dev/sampan/controller/resourceclaim"
	"github.com/sampan-dev/sampan/controller/resourcequota"
	"github.com/sampan-dev/sampan/controller/rootca"
	"github.com/sampan-dev/sampan/controller/serviceaccount"
	"github.com/sampan-dev/sampan/controller/servicecidr"
	"github.com/sampan-dev/sampan/controller/statefulset"
	"github.com/sampan-dev/sampan/controller/storagemigration"
	"github.com/sampan-dev/sampan/controller/tainteviction"
	"github.com/sampan-dev/sampan/controller/ttlafterfinished"
	"github.com/sampan-dev/sampan/controller/volumebinder"
	"github.com/sampan-dev/sampan/controller/volumeexpand"
	"github.com/sampan-dev/sampan/kit/pki"
)

// Secrets are what some loops are entrusted with.
type Secrets struct {
	RootCA []byte    // PEM, published in every namespace; nil publishes nothing
	Signer *pki.Pair // signs certificate requests; nil signs nothing
	// AccountKey signs the tokens that Secrets keep; nil signs none.
	AccountKey crypto.Signer
}

// LoadSecrets reads the files that a configuration names.
func LoadSecrets(cfg controller.Config) (Secrets, error) {
	var s Secrets
	var err error
	if cfg.RootCAFile != "" {
		if s.RootCA, err = os.ReadFile(cfg.RootCAFile); err != nil {
			return s, fmt.Errorf("--root-ca-file: %w", err)
		}
	}
	if cfg.ClusterSigningCert != "" {
		if s.Signer, err = pki.LoadFiles(cfg.ClusterSigningCert, cfg.ClusterSigningKey); err != nil {
			return s, fmt.Errorf("--cluster-signing-cert-file: %w", err)
		}
	}
	if cfg.ServiceAccountKeyFile != "" {
		if s.AccountKey, err = pki.LoadSigner(cfg.ServiceAccountKeyFile); err != nil {
			return s, fmt.Errorf("--service-account-private-key-file: %w", err)
		}
	}
	return s, nil
}

// loop is one control loop: its name as kube-controller-manager's --controllers
// spells it, and how it is made. A nil controller means that the configuration
// leaves it nothing to do.
type loop struct {
	name string
	off  bool // does not run unless named
	make func(d controller.Deps, cfg controller.Config, s Secrets) (controller.Controller, error)
}

// plain is a loop that needs nothing but its dependencies.
func plain(name string, mk func(controller.Deps) controller.Controller) loop {
	return loop{name: name, make: func(d controller.Deps, _ controller.Config, _ Secrets) (controller.Controller, error) {
		return mk(d), nil
	}}
}

// loops are all control loops.
var loops = []loop{
	plain("serviceaccount-controller", serviceaccount.New),
	{name: "serviceaccount-token-controller", make: accountTokens},
	{name: "root-ca-certificate-publisher-controller", make: func(d controller.Deps, _ controller.Config, s Secrets) (controller.Controller, error) {
		if s.RootCA == nil {
			return nil, nil
		}
		return rootca.New(d, s.RootCA), nil
	}},
	{name: "node-ipam-controller", make: func(d controller.Deps, cfg controller.Config, _ Secrets) (controller.Controller, error) {
		if !cfg.AllocateNodeCIDRs {
			return nil, nil
		}
		return nodeipam.New(d, nodeipam.Config{ClusterCIDRs: prefixes(cfg.ClusterCIDR), MaskIPv4: cfg.NodeMaskIPv4, MaskIPv6: cfg.NodeMaskIPv6})
	}},
	{name: "node-lifecycle-controller", make: func(d controller.Deps, cfg controller.Config, _ Secrets) (controller.Controller, error) {
		return nodelifecycle.New(d, nodelifecycle.Config{Period: cfg.NodeMonitorPeriod, Grace: cfg.NodeMonitorGracePeriod})
	}},
	plain("taint-eviction-controller", tainteviction.New),
	{name: "pod-garbage-collector-controller", make: func(d controller.Deps, cfg controller.Config, _ Secrets) (controller.Controller, error) {
		return podgc.New(d, cfg.TerminatedPodThreshold), nil
	}},
	{name: "certificatesigningrequest-approving-controller", make: func(d controller.Deps, _ controller.Config, _ Secrets) (controller.Controller, error) {
		return certificates.NewApprover(d, certificates.ApproverConfig{}), nil
	}},
	{name: "certificatesigningrequest-signing-controller", make: func(d controller.Deps, cfg controller.Config, s Secrets) (controller.Controller, error) {
		if s.Signer == nil {
			return nil, nil
		}
		return certificates.NewSigner(d, s.Signer, cfg.SigningDuration), nil
	}},
	plain("certificatesigningrequest-cleaner-controller", certificates.NewCleaner),
	plain("garbage-collector-controller", garbagecollector.New),
	plain("deployment-controller", deployment.New),
	plain("replicaset-controller", replicaset.New),
	plain("replicationcontroller-controller", replicaset.NewReplication),
	plain("statefulset-controller", statefulset.New),
	plain("daemonset-controller", daemonset.New),
	plain("job-controller", job.New),
	plain("cronjob-controller", cronjob.New),
	plain("horizontal-pod-autoscaler-controller", podautoscaler.New),
	plain("ttl-after-finished-controller", ttlafterfinished.New),
	plain("endpoints-controller", endpoints.New),
	plain("endpointslice-controller", endpointslice.New),
	plain("endpointslice-mirroring-controller", endpointslicemirroring.New),
	plain("namespace-controller", namespace.New),
	plain("disruption-controller", disruption.New),
	plain("resourcequota-controller", resourcequota.New),
	plain("clusterrole-aggregation-controller", clusterrole.New),
	plain("service-cidr-controller", servicecidr.New),
	plain("ttl-controller", nodettl.New),
	plain("ephemeral-volume-controller", ephemeralvolume.New),
	plain("persistentvolumeclaim-protection-controller", protection.NewClaims),
	plain("persistentvolume-protection-controller", protection.NewVolumes),
	plain("persistentvolume-binder-controller", volumebinder.New),
	plain("persistentvolume-attach-detach-controller", attachdetach.New),
	plain("persistentvolume-expander-controller", volumeexpand.New),
	plain("volumeattributesclass-protection-controller", protection.NewAttributes),
	plain("legacy-serviceaccount-token-cleaner-controller", legacytoken.New),
	plain("resourceclaim-controller", resourceclaim.New),
	plain("device-taint-eviction-controller", devicetainteviction.New),
	plain("storage-version-migrator-controller", storagemigration.New),
	plain("podcertificaterequest-cleaner-controller", certificates.NewPodCleaner),
	{name: "kube-apiserver-serving-clustertrustbundle-publisher-controller", make: func(d controller.Deps, _ controller.Config, s Secrets) (controller.Controller, error) {
		if s.RootCA == nil {
			return nil, nil
		}
		return rootca.NewBundle(d, s.RootCA), nil
	}},
	plain("bootstrap-signer-controller", bootstraptoken.NewSigner),
	plain("token-cleaner-controller", bootstraptoken.NewCleaner),
}

// LoopNames are the names that --controllers knows.
func LoopNames() []string {
	names := make([]string, len(loops))
	for i, l := range loops {
		names[i] = l.name
	}
	return names
}

// prefixes reads ranges joined by commas; bad ones are left out, for the flag
// was checked.
func prefixes(s string) []netip.Prefix {
	var out []netip.Prefix
	for p := range strings.SplitSeq(s, ",") {
		if prefix, err := netip.ParsePrefix(strings.TrimSpace(p)); err == nil {
			out = append(out, prefix)
		}
	}
	return out
}
