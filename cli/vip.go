package cli

import (
	"crypto/x509"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"strings"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/sampan-dev/sampan/bootstrap"
	"github.com/sampan-dev/sampan/kit/logx"
	"github.com/sampan-dev/sampan/kubeadm"
	"github.com/sampan-dev/sampan/vip"
)

// vipOptions are the flags of sampan vip.
type vipOptions struct {
	cfg       vip.Config
	ca        string
	server    string
	manifest  bool
	verbosity int
}

func vipCommand() *cobra.Command {
	o := vipOptions{cfg: vip.Defaults()}
	cmd := &cobra.Command{
		Use: "vip --vip ADDR[/LEN][@INTERFACE]", Short: "Hold a virtual address together with other machines, by VRRP", Args: cobra.NoArgs,
		Long: `Hold a virtual address on whichever machine's API server is ready, by VRRP, as
keepalived does and together with it. "sampan server --vip" does so in its own
process; this command is for masters that kubeadm made: --manifest prints a
static pod for /etc/kubernetes/manifests.`,
		Example: "  sampan vip --vip 192.0.2.10 --manifest > /etc/kubernetes/manifests/sampan-vip.yaml",
		RunE: func(cmd *cobra.Command, _ []string) error {
			if o.manifest {
				program, err := os.Executable()
				if err == nil {
					_, err = fmt.Fprint(cmd.OutOrStdout(), o.podManifest(cmd.Flags(), program))
				}
				return err
			}
			return o.run(cmd)
		},
	}
	o.cfg.Flags(cmd.Flags())
	cmd.Flags().TextVar(&o.cfg.Self, "node-ip", netip.Addr{}, "this machine's own address; the first that is not loopback's if not set")
	cmd.Flags().StringVar(&o.ca, "certificate-authority", "/etc/kubernetes/pki/ca.crt", "the cluster's authority, by which the API server is known")
	cmd.Flags().StringVar(&o.server, "server", "127.0.0.1:6443", "the API server of this machine")
	cmd.Flags().BoolVar(&o.manifest, "manifest", false, "print a static pod that does it, and do nothing")
	cmd.Flags().IntVarP(&o.verbosity, "v", "v", 0, "how much to log")
	return cmd
}

func (o *vipOptions) run(cmd *cobra.Command) error {
	if err := needRoot("sampan vip"); err != nil {
		return err
	}
	log := logx.Setup(os.Stderr, logx.Options{Level: logx.ForVerbosity(o.verbosity)})
	if !o.cfg.Self.IsValid() {
		if o.cfg.Self = outboundIP(log); !o.cfg.Self.IsValid() {
			return errors.New("--node-ip: Required value")
		}
	}
	text, err := os.ReadFile(o.ca)
	if err != nil {
		return fmt.Errorf("--certificate-authority: %w", err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(text) {
		return fmt.Errorf("--certificate-authority: %s holds no certificate", o.ca)
	}
	v, err := vip.New(o.cfg, vip.Deps{Ready: bootstrap.ServerReady(pool, o.server), Metrics: prometheus.NewRegistry(), Log: log})
	if err != nil {
		return err
	}
	return v.Run(cmd.Context())
}

// podManifest is a static pod that runs the command with the flags given.
func (o *vipOptions) podManifest(fs *pflag.FlagSet, program string) string {
	var args strings.Builder
	arg := func(name string, value any) { fmt.Fprintf(&args, "    - --%s=%v\n", name, value) }
	fs.Visit(func(f *pflag.Flag) {
		switch f.Name {
		case "manifest":
		case "vip":
			at := o.cfg.Address.String()
			if o.cfg.Interface != "" {
				at += "@" + o.cfg.Interface
			}
			arg(f.Name, at)
		case "vip-peers":
			for _, p := range o.cfg.Peers {
				arg(f.Name, p)
			}
		default:
			arg(f.Name, f.Value)
		}
	})
	return `apiVersion: v1
kind: Pod
metadata:
  name: sampan-vip
  namespace: kube-system
  labels: {component: sampan-vip, tier: control-plane}
spec:
  hostNetwork: true
  priorityClassName: system-node-critical
  containers:
  - name: sampan-vip
    image: registry.k8s.io/kube-apiserver:` + kubeadm.Version() + `
    imagePullPolicy: IfNotPresent
    command:
    - /usr/local/bin/sampan
    - vip
` + args.String() + `    securityContext:
      capabilities: {add: [NET_ADMIN, NET_RAW]}
    volumeMounts:
    - {name: pki, mountPath: /etc/kubernetes/pki, readOnly: true}
    - {name: program, mountPath: /usr/local/bin/sampan, readOnly: true}
  volumes:
  - name: pki
    hostPath: {path: /etc/kubernetes/pki, type: Directory}
  - name: program
    hostPath: {path: ` + program + `, type: File}
`
}
