package kubeadm

import (
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/sampan-dev/sampan/kubeadm/config"
)

func resetCommand() *cobra.Command {
	cfg := config.Reset{}
	var skip, ignore []string
	var file, kubeconfig string
	c := &cobra.Command{Use: "reset", Short: "Performs a best effort revert of changes made to this host by 'kubeadm init' or 'kubeadm join'", Args: cobra.NoArgs,
		Long: "Performs a best effort revert of changes made to this host by 'kubeadm init' or 'kubeadm join'\n\n" + describe(resetPhases())}
	f := c.Flags()
	f.BoolVarP(&cfg.Force, "force", "f", false, "Reset the node without prompting for confirmation.")
	f.StringVar(&file, "config", "", "Path to a kubeadm configuration file.")
	f.StringVar(&cfg.CertificatesDir, "cert-dir", "", "The path to the directory where the certificates are stored. (default \"/etc/kubernetes/pki\")")
	f.StringVar(&cfg.CRISocket, "cri-socket", "", "Path to the CRI socket to connect.")
	f.StringVar(&kubeconfig, "kubeconfig", usual.file("admin.conf"), "The kubeconfig file to use when talking to the cluster.")
	f.BoolVar(&cfg.CleanupTmpDir, "cleanup-tmp-dir", false, "Cleanup the \"/etc/kubernetes/tmp\" directory")
	f.BoolVar(&cfg.DryRun, "dry-run", false, "Don't apply any changes; just output what would be done.")
	f.StringSliceVar(&ignore, "ignore-preflight-errors", nil, "A list of checks whose errors will be shown as warnings.")
	f.StringSliceVar(&skip, "skip-phases", nil, "List of phases to be skipped")
	build := func(c *cobra.Command) (*resetRun, error) {
		all := cfg
		p := printer{c.OutOrStdout()}
		if file != "" {
			read, err := config.Load(file)
			if err != nil {
				return nil, err
			}
			if read.Reset == nil {
				return nil, fmt.Errorf("config %s: no ResetConfiguration in it", file)
			}
			for _, w := range read.Warnings {
				p.say("W: %s", w)
			}
			all = *read.Reset
			lay(&all.CertificatesDir, cfg.CertificatesDir)
			lay(&all.CRISocket, cfg.CRISocket)
			all.Force, all.DryRun, all.CleanupTmpDir = all.Force || cfg.Force, all.DryRun || cfg.DryRun, all.CleanupTmpDir || cfg.CleanupTmpDir
		}
		host := thisHost()
		all.Default(host)
		if err := all.Check(); err != nil {
			return nil, err
		}
		return &resetRun{printer: p, paths: usual, cfg: &all, ignore: ignore, node: usual.nodeName(host.Name), kubeconfig: kubeconfig}, nil
	}
	c.RunE = func(c *cobra.Command, _ []string) error {
		r, err := build(c)
		if err != nil {
			return err
		}
		all := append(skip, r.cfg.SkipPhases...)
		if err := checkSkips(resetPhases(), all); err != nil {
			return err
		}
		if r.cfg.DryRun {
			would(r, resetPhases(), "", all)
			return nil
		}
		if !r.cfg.Force {
			fmt.Fprint(r.out, "[reset] WARNING: Changes made to this host by 'kubeadm init' or 'kubeadm join' will be reverted.\n[reset] Are you sure you want to proceed? [y/N]: ")
			if !confirmed(c) {
				return errors.New("aborted reset operation")
			}
		}
		return runPhases(c.Context(), resetPhases(), r, all, "")
	}
	c.AddCommand(phaseCommand(resetPhases(), cobra.NoArgs, func(p *cobra.Command) func([]string) (*resetRun, error) {
		p.Flags().AddFlagSet(c.Flags())
		return func([]string) (*resetRun, error) { return build(p) }
	}))
	return c
}
