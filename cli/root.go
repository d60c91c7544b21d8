package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// Main runs sampan's own words and returns the exit code.
func Main(ctx context.Context, args []string) int {
	root := &cobra.Command{
		Use: "sampan", Short: "Kubernetes in one small binary",
		Long: `sampan is Kubernetes in one binary: cluster, control plane, node and kubectl.

  sampan up                  a cluster on this computer, in seconds
  kubectl get pods -A        (or: sampan kubectl …) talk to it
  sampan down --delete       and nothing is left

The components run alone, too, under upstream's names and flags: etcd,
kube-apiserver, kube-scheduler, kube-controller-manager, kubelet, kube-proxy,
coredns, containerd, and etcdctl and etcdutl; call them as sampan's first word or by a link of that name.`,
		SilenceUsage: true, SilenceErrors: true,
	}
	root.AddCommand(upCommand(), downCommand(), lsCommand(), execCommand(), kubeconfigCommand(), imageCommand(),
		versionCommand(), serverCommand(), balancerCommand(), vipCommand(), installCommand(), configCommand(), doctorCommand())
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		var unknown *pflag.NotExistError
		if errors.As(err, &unknown) && len(unknown.GetSpecifiedName()) > 1 {
			var names []string
			cmd.Flags().VisitAll(func(f *pflag.Flag) { names = append(names, f.Name) })
			err = unknownFlag(unknown.GetSpecifiedName(), names)
		}
		return fmt.Errorf("%w\nsee %s --help", err, cmd.CommandPath())
	})
	root.SetArgs(args)
	err := root.ExecuteContext(ctx)
	var code exitCode
	var exit *exec.ExitError
	switch {
	case err == nil:
		return 0
	case errors.As(err, &code):
		return int(code)
	case errors.As(err, &exit):
		return exit.ExitCode()
	}
	fmt.Fprintln(os.Stderr, "error:", err)
	return 1
}

// nameArg is the cluster a command means.
func nameArg(args []string) string {
	if len(args) == 0 {
		return DefaultCluster
	}
	return args[0]
}

func noCluster(name string) error {
	return fmt.Errorf("there is no cluster %q; `sampan ls` lists those there are, `sampan up %s` makes it", name, name)
}

// tail returns the last n lines of a file, indented.
func tail(path string, n int) string {
	f, err := os.Open(path)
	if err != nil {
		return "  (" + err.Error() + ")"
	}
	defer f.Close()
	if st, err := f.Stat(); err == nil && st.Size() > 1<<16 {
		_, _ = f.Seek(-1<<16, io.SeekEnd)
	}
	b, _ := io.ReadAll(f)
	lines := strings.Split(strings.TrimRight(string(b), "\n"), "\n")
	if len(lines) > n {
		lines = lines[len(lines)-n:]
	}
	return "  " + strings.Join(lines, "\n  ")
}
