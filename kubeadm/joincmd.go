package kubeadm

import (
	"io"

	"github.com/spf13/cobra"

	"github.com/sampan-dev/sampan/kubeadm/config"
)

// joinOptions are join's flags.
type joinOptions struct {
	common
	discovery    config.Discovery
	token        string
	controlPlane bool
}

func joinFlags(c *cobra.Command) *joinOptions {
	o := &joinOptions{discovery: config.Discovery{BootstrapToken: &config.BootstrapTokenDiscovery{}, File: &config.FileDiscovery{}}}
	o.flags(c)
	f, d := c.Flags(), &o.discovery
	f.StringVar(&o.token, "token", "", "Use this token for both discovery-token and tls-bootstrap-token when those values are not provided.")
	f.StringVar(&d.BootstrapToken.Token, "discovery-token", "", "For token-based discovery, the token used to validate cluster information fetched from the API server.")
	f.StringSliceVar(&d.BootstrapToken.CACertHashes, "discovery-token-ca-cert-hash", nil, "For token-based discovery, validate that the root CA public key matches this hash (format: \"<type>:<value>\").")
	f.BoolVar(&d.BootstrapToken.UnsafeSkipCAVerification, "discovery-token-unsafe-skip-ca-verification", false, "For token-based discovery, allow joining without --discovery-token-ca-cert-hash pinning.")
	f.StringVar(&d.File.KubeConfigPath, "discovery-file", "", "For file-based discovery, a file from which to load cluster information.")
	f.StringVar(&d.TLSBootstrapToken, "tls-bootstrap-token", "", "Specify the token used to temporarily authenticate with the Kubernetes Control Plane while joining the node.")
	f.BoolVar(&o.controlPlane, "control-plane", false, "Create a new control plane instance on this node")
	f.BoolVar(&o.controlPlane, "experimental-control-plane", false, "")
	_ = f.MarkHidden("experimental-control-plane")
	return o
}

// build is the join of a file with the flags laid over it, at the endpoint that
// args name.
func (o *joinOptions) build(args []string, out io.Writer) (*joinRun, error) {
	file, err := o.read()
	if err != nil {
		return nil, err
	}
	cfg := file.Join
	if cfg == nil {
		cfg = &config.Join{Discovery: o.discovered(args)}
	}
	if o.controlPlane && cfg.ControlPlane == nil {
		cfg.ControlPlane = &config.JoinControlPlane{}
	}
	if cfg.ControlPlane != nil {
		lay(&cfg.ControlPlane.CertificateKey, o.certsKey)
		o.overEndpoint(&cfg.ControlPlane.LocalAPIEndpoint)
	}
	o.overNode(&cfg.NodeRegistration)
	o.overPatches(&cfg.Patches)
	cfg.DryRun = cfg.DryRun || o.dryRun
	r, err := prepareJoin(cfg, thisHost(), out)
	if err != nil {
		return nil, err
	}
	for _, w := range file.Warnings {
		r.say("W: %s", w)
	}
	r.ignore = o.ignore
	return r, nil
}

// discovered is the discovery that the flags alone name.
func (o *joinOptions) discovered(args []string) config.Discovery {
	d := o.discovery
	lay(&d.TLSBootstrapToken, orElse(d.TLSBootstrapToken, o.token))
	if d.File.KubeConfigPath != "" {
		d.BootstrapToken = nil
		return d
	}
	d.File = nil
	lay(&d.BootstrapToken.Token, orElse(d.BootstrapToken.Token, o.token))
	if len(args) == 1 {
		d.BootstrapToken.APIServerEndpoint = args[0]
	}
	return d
}

func joinCommandOf() *cobra.Command {
	c := &cobra.Command{Use: "join [api-server-endpoint]", Short: "Run this on any machine you wish to join an existing cluster", Args: cobra.MaximumNArgs(1),
		Long: "Run this on any machine you wish to join an existing cluster\n\n" + describe(joinPhases())}
	o := joinFlags(c)
	c.RunE = func(c *cobra.Command, args []string) error {
		r, err := o.build(args, c.OutOrStdout())
		if err != nil {
			return err
		}
		skip := append(o.skip, r.cfg.SkipPhases...)
		if err := checkSkips(joinPhases(), skip); err != nil {
			return err
		}
		if r.dry() {
			would(r, joinPhases(), "", skip)
			return nil
		}
		r.patches.tell(r.say)
		if err := runPhases(c.Context(), joinPhases(), r, skip, ""); err != nil {
			return err
		}
		if err := r.finish(); err != nil {
			return err
		}
		r.done()
		return nil
	}
	c.AddCommand(phaseCommand(joinPhases(), cobra.MaximumNArgs(1), func(c *cobra.Command) func([]string) (*joinRun, error) {
		o := joinFlags(c)
		return func(args []string) (*joinRun, error) { return o.build(args, c.OutOrStdout()) }
	}))
	return c
}
