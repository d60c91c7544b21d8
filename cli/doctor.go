package cli

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/sampan-dev/sampan/doctor"
)

func doctorCommand() *cobra.Command {
	o := doctor.Options{}
	var output string
	cmd := &cobra.Command{
		Use: "doctor [NAME]", Short: "Say what is wrong with a cluster or this machine, and what mends it", Args: cobra.MaximumNArgs(1),
		Long: `Say what is wrong with a cluster or this machine, and the command that mends it.

NAME is a cluster that "sampan up" made here. Without it, and without --kubeconfig,
the cluster of $KUBECONFIG is looked at, else that of this control plane, else the
user's own. Nothing is changed. On a node the machine is looked at as well; for
that, be root.

The exit code is 0 when all is well or nothing worse than warnings was found, 1
when there are errors, and 2 when the cluster cannot be reached.`,
		Example: "  sampan doctor\n  sampan doctor ci -o json\n  sampan doctor --kubeconfig /etc/kubernetes/admin.conf",
		RunE: func(cmd *cobra.Command, args []string) error {
			if output != "text" && output != "json" {
				return fmt.Errorf("--output %q: want text or json", output)
			}
			if len(args) > 0 && o.Kubeconfig != "" {
				return fmt.Errorf("NAME is a cluster of this computer and --kubeconfig another's: give one of them")
			}
			if err := aim(&o, args); err != nil {
				return err
			}
			if o.Name != "" { // nodes are made on this computer, so it must be fit for them
				if lacks := look(stateDir()).missing(); lacks != nil {
					o.Lacks = strings.Split(lacks.Error(), "\n")
				}
			}
			r := doctor.Examine(doctor.Gather(cmd.Context(), o))
			write := r.Text
			if output == "json" {
				write = r.JSON
			}
			if err := write(cmd.OutOrStdout()); err != nil {
				return err
			}
			if code := r.Code(); code != 0 {
				return exitCode(code)
			}
			return nil
		},
	}
	fs := cmd.Flags()
	fs.StringVar(&o.Kubeconfig, "kubeconfig", "", "the kubeconfig of the cluster to look at")
	fs.StringVarP(&output, "output", "o", "text", "text or json")
	fs.StringVar(&o.DataDir, "data-dir", "/var/lib/sampan", "what --data-dir says to sampan server on this machine")
	fs.DurationVar(&o.Timeout, "timeout", 10*time.Second, "how long to wait for each answer")
	return cmd
}

// aim fills in which cluster is meant: one by name, or, where nothing else is
// said, the default one of this computer.
func aim(o *doctor.Options, args []string) error {
	name := nameArg(args)
	if len(args) == 0 && (o.Kubeconfig != "" || os.Getenv(clientcmd.RecommendedConfigPathEnvVar) != "") {
		return nil
	}
	ms, err := clusterMachines(name)
	if err != nil {
		return err
	}
	if len(ms) == 0 {
		if len(args) == 0 {
			return nil
		}
		return noCluster(name)
	}
	o.Name = name
	for _, m := range ms {
		st, err := m.State()
		if err != nil {
			return err
		}
		o.Machines = append(o.Machines, doctor.Running{Name: m.Spec.Name, Running: st.Running})
	}
	if o.Config, err = readKubeconfig(ms[0]); err != nil { // its control plane never wrote one
		o.Config, o.Kubeconfig = nil, filepath.Clean(inside(ms[0], adminConf))
	}
	return nil
}
