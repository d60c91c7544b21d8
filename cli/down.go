package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/sampan-dev/sampan/machine"
)

func downCommand() *cobra.Command {
	var remove bool
	cmd := &cobra.Command{
		Use: "down [NAME]", Short: "Stop a cluster, or remove it", Args: cobra.MaximumNArgs(1),
		Long: `Stop a cluster. Its data stays, and sampan up starts it again as it was.
With --delete everything of it is removed, its entry in kubectl's configuration
included.`,
		RunE: func(cmd *cobra.Command, args []string) error {
			return down(cmd.Context(), newProgress(cmd.ErrOrStderr()), nameArg(args), remove)
		},
	}
	cmd.Flags().BoolVar(&remove, "delete", false, "remove the cluster and all its data")
	return cmd
}

// stopGrace is how long a node may take to end by itself; its control plane
// needs some of it to flush its store.
const stopGrace = 10 * time.Second

func down(ctx context.Context, p *progress, name string, remove bool) error {
	if err := needRoot("sampan down"); err != nil {
		return err
	}
	ms, err := clusterMachines(name)
	if err != nil {
		return err
	}
	if len(ms) == 0 && !remove {
		return noCluster(name)
	}
	if err := claimedElsewhere(name); err != nil && len(ms) == 0 {
		return err
	}
	door, err := openDoor(name)
	if err != nil {
		return err
	}
	var errs []error
	var planes []*machine.Machine
	for i := len(ms) - 1; i >= 0; i-- { // the control planes last, so that nodes can say goodbye
		m := ms[i]
		if door != nil && isPlane(m) {
			planes = append(planes, m)
			continue
		}
		errs = append(errs, p.step(ctx, "stop node "+m.Spec.Name, func(ctx context.Context) error { return m.Stop(ctx, stopGrace) }))
	}
	if door != nil {
		errs = append(errs, p.step(ctx, fmt.Sprintf("stop %d control planes", len(planes)), func(ctx context.Context) error {
			return errors.Join(stopAll(ctx, planes), door.Stop(ctx, 0))
		}))
		ms = append(ms, door)
	}
	if remove {
		for _, m := range ms {
			errs = append(errs, p.step(ctx, "remove node "+m.Spec.Name, func(ctx context.Context) error { return m.Delete(ctx) }))
		}
		if err := errors.Join(errs...); err != nil {
			return err
		}
		if ownSwitch(name, len(ms) > 0) {
			errs = append(errs, (machine.Switch{Cluster: name, Subnet: machine.DefaultSubnet}).Delete(), unclaim(name))
		}
		errs = append(errs, os.RemoveAll(filepath.Join(machinesDir(), name)), forgetKubeconfig(name))
	}
	return errors.Join(errs...)
}

func lsCommand() *cobra.Command {
	return &cobra.Command{
		Use: "ls", Short: "List the clusters of this computer and their nodes", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			ms, err := clusterMachines("")
			if err != nil {
				return err
			}
			if len(ms) == 0 {
				fmt.Fprintln(cmd.ErrOrStderr(), "no clusters on this computer; `sampan up` makes one")
				return nil
			}
			w := tabwriter.NewWriter(cmd.OutOrStdout(), 0, 8, 3, ' ', 0)
			fmt.Fprintln(w, "CLUSTER\tNODE\tSTATUS\tADDRESS\tAPI SERVER\tPID")
			for _, m := range ms {
				st, err := m.State()
				if err != nil {
					return err
				}
				status, pid, server := "Stopped", "", ""
				listen, err := listenerOf(m)
				if err != nil {
					return err
				}
				if st.Running {
					status, pid = "Running", fmt.Sprint(st.PID)
				}
				if listen != "" && isPlane(m) {
					server = "https://" + listen
				}
				fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\n", m.Spec.Cluster, m.Spec.Name, status, m.Spec.Address.Addr(), server, pid)
			}
			return w.Flush()
		},
	}
}

func execCommand() *cobra.Command {
	var cluster, node string
	cmd := &cobra.Command{
		Use: "exec [--cluster NAME] [--node NODE] -- COMMAND [ARG…]", Short: "Run a command inside a node",
		Example: "  sampan exec -- ip addr\n  sampan exec --node default-2 -- crictl ps", Args: cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := needRoot("sampan exec"); err != nil {
				return err
			}
			m, err := runningMachine(cluster, node)
			if err != nil {
				return err
			}
			return m.Exec(cmd.Context(), args, machine.Stdio{In: os.Stdin, Out: os.Stdout, Err: os.Stderr})
		},
	}
	cmd.Flags().StringVar(&cluster, "cluster", DefaultCluster, "the cluster")
	cmd.Flags().StringVar(&node, "node", "", "the node; empty for the first")
	cmd.Flags().SetInterspersed(false)
	return cmd
}
