package cli

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/sampan-dev/sampan/bootstrap"
)

// planesCommands are about the control planes of a cluster, on a machine of one.
func planesCommands() []*cobra.Command {
	dir := bootstrap.Defaults().DataDir
	members := &cobra.Command{
		Use: "members", Short: "List the cluster's control planes, on a machine of one that runs", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			p, err := openPlanes("sampan server members", dir)
			if err != nil {
				return err
			}
			defer p.Close()
			list, err := p.List(cmd.Context())
			if err != nil {
				return err
			}
			w := tabwriter.NewWriter(cmd.OutOrStdout(), 0, 8, 3, ' ', 0)
			fmt.Fprintln(w, "NAME\tADDRESS\tROLE\tSTATE")
			for _, o := range list {
				state := "answers"
				if o.State != nil {
					state = "does not answer: " + strings.ReplaceAll(o.State.Error(), "\n", " ")
				}
				fmt.Fprintf(w, "%s\t%s\t%s\t%s\n", o.Name, o.Address, o.Role, state)
			}
			return w.Flush()
		},
	}
	remove := &cobra.Command{
		Use: "remove NAME|ADDRESS", Short: "Take a control plane out of the cluster, on a machine of one that runs", Args: cobra.ExactArgs(1),
		Long: `Take a control plane out of the cluster: its member of etcd and its Node. Its
machine may be lost. If it runs, its server ends, and does not come back until
DATA-DIR/etcd is removed there and it joins again.`,
		RunE: func(cmd *cobra.Command, args []string) error {
			p, err := openPlanes("sampan server remove", dir)
			if err != nil {
				return err
			}
			defer p.Close()
			if err := p.Remove(cmd.Context(), args[0]); err != nil {
				return withPlanes(cmd.Context(), p, err)
			}
			fmt.Fprintf(cmd.OutOrStdout(), "%s is no control plane any more\n", args[0])
			return nil
		},
	}
	for _, c := range []*cobra.Command{members, remove} {
		c.Flags().StringVar(&dir, "data-dir", dir, "the --data-dir of this machine's server")
	}
	return []*cobra.Command{members, remove}
}

func openPlanes(what, dir string) (*bootstrap.Planes, error) {
	if err := needRoot(what); err != nil {
		return nil, err
	}
	return bootstrap.OpenPlanes(dir)
}

// withPlanes adds to a wrong name those that there are.
func withPlanes(ctx context.Context, p *bootstrap.Planes, err error) error {
	if !errors.Is(err, bootstrap.ErrNoPlane) {
		return err
	}
	list, listErr := p.List(ctx)
	if listErr != nil {
		return err
	}
	var names []string
	for _, o := range list {
		names = append(names, o.Name)
	}
	return fmt.Errorf("%w; there are %s", err, strings.Join(names, ", "))
}
