package etcdctl

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"go.etcd.io/etcd/etcdctl/v3/ctlv3/command"
	"go.etcd.io/etcd/etcdutl/v3/etcdutl"

	"github.com/sampan-dev/sampan/kit/words"
)

// Main is the etcdctl program. It returns the exit code, or ends the process.
func Main(ctx context.Context, args []string) int {
	api := os.Getenv("ETCDCTL_API")
	// Upstream's commands warn of variables that are no flag of theirs.
	os.Unsetenv("ETCDCTL_API")
	form, err := formOf(api, args)
	if err != nil {
		fmt.Fprintln(os.Stderr, "Error:", err)
		return 1
	}
	if form == secondForm {
		return secondMain(ctx, args, os.Stdout, os.Stderr)
	}
	root := third()
	root.SetArgs(args)
	if api == "" {
		fallBack(ctx, root)
	}
	return execute(root)
}

// UtlMain is the etcdutl program: it works on files, not on servers.
func UtlMain(_ context.Context, args []string) int {
	root := &cobra.Command{Use: "etcdutl", Short: "An administrative command line tool for etcd3."}
	root.PersistentFlags().DurationVar(&etcdutl.FlockTimeout, "timeout", 10*time.Second, "time to wait to obtain a file lock on db file, 0 to block indefinitely")
	root.PersistentFlags().StringVarP(&etcdutl.OutputFormat, "write-out", "w", "simple", "set the output format (fields, json, protobuf, simple, table)")
	root.AddCommand(etcdutl.NewDefragCommand(), etcdutl.NewSnapshotCommand(), etcdutl.NewHashKVCommand(), etcdutl.NewVersionCommand(),
		etcdutl.NewCompletionCommand(), etcdutl.NewMigrateCommand())
	root.SetHelpTemplate(`{{.UsageString}}`)
	root.SetArgs(args)
	return execute(root)
}

func execute(root *cobra.Command) int {
	cobra.EnablePrefixMatching = true // as upstream: `etcdctl mem l` is member list
	root.SetFlagErrorFunc(flagError)
	if root.Execute() != nil { // which has said why
		return 1
	}
	return 0
}

// flagError adds to an unknown flag the one that was perhaps meant.
func flagError(cmd *cobra.Command, err error) error {
	var unknown *pflag.NotExistError
	if errors.As(err, &unknown) && len(unknown.GetSpecifiedName()) > 1 {
		var names []string
		cmd.Flags().VisitAll(func(f *pflag.Flag) { names = append(names, f.Name) })
		names = append(names, flagsOfSecond...)
		if near := words.Nearest(unknown.GetSpecifiedName(), names); len(near) > 1 {
			return fmt.Errorf("%w; did you mean --%s?", err, near)
		}
	}
	return err
}

// third puts together the commands of the third version.
func third() *cobra.Command {
	root := &cobra.Command{
		Use: "etcdctl", Short: "A simple command line client for etcd3.",
		Long: `A simple command line client for etcd3.

The words and flags of the second version (set, ls, mkdir, rm, cluster-health,
--ca-file, …) speak to the keys API of an etcd that serves it; ETCDCTL_API=2 or
=3 says which version get, watch and member are of. Without it they are of the
third, and "get KEY" looks among the second version's keys for what the third
does not have.`,
	}
	globalFlags(root.PersistentFlags())
	root.AddGroup(command.NewKVGroup(), command.NewClusterMaintenanceGroup(), command.NewConcurrencyGroup(),
		command.NewAuthenticationGroup(), command.NewUtilityGroup())
	root.AddCommand(
		command.NewGetCommand(), command.NewPutCommand(), command.NewDelCommand(), command.NewTxnCommand(),
		command.NewCompactionCommand(), command.NewAlarmCommand(), command.NewDefragCommand(), command.NewEndpointCommand(),
		command.NewMoveLeaderCommand(), command.NewWatchCommand(), command.NewVersionCommand(), command.NewLeaseCommand(),
		command.NewMemberCommand(), snapshots(), command.NewMakeMirrorCommand(), command.NewLockCommand(),
		command.NewElectCommand(), command.NewAuthCommand(), command.NewUserCommand(), command.NewRoleCommand(),
		command.NewCheckCommand(), command.NewCompletionCommand(), command.NewDowngradeCommand(), command.NewOptionsCommand(root),
	)
	command.SetHelpCmdGroup(root)
	root.PersistentFlags().VisitAll(func(f *pflag.Flag) { f.Hidden = true })
	help := root.HelpFunc()
	root.SetHelpFunc(func(cmd *cobra.Command, args []string) {
		help(cmd, args)
		fmt.Fprintln(cmd.OutOrStdout(), `Use "etcdctl options" for a list of global command-line options (applies to all commands).`)
	})
	return root
}

// snapshots is save with restore and status, which were etcdctl's own until
// 3.5 and are etcdutl's since.
func snapshots() *cobra.Command {
	save := command.NewSnapshotCommand()
	for _, c := range etcdutl.NewSnapshotCommand().Commands() {
		c.PreRun = func(cmd *cobra.Command, _ []string) {
			etcdutl.OutputFormat, _ = cmd.Flags().GetString("write-out")
			if v, ok := os.LookupEnv("ETCDCTL_WRITE_OUT"); ok && !cmd.Flags().Changed("write-out") {
				etcdutl.OutputFormat = v
			}
		}
		save.AddCommand(c)
	}
	return save
}

// globalFlags are the flags of every command. The commands read them by name.
func globalFlags(fs *pflag.FlagSet) {
	fs.StringSlice("endpoints", []string{"127.0.0.1:2379"}, "gRPC endpoints")
	fs.Bool("debug", false, "enable client-side debug logging")
	fs.StringP("write-out", "w", "simple", "set the output format (fields, json, protobuf, simple, table)")
	fs.Bool("hex", false, "print byte strings as hex encoded strings")
	fs.Duration("dial-timeout", 2*time.Second, "dial timeout for client connections")
	fs.Duration("command-timeout", 5*time.Second, "timeout for short running command (excluding dial timeout)")
	fs.Duration("keepalive-time", 2*time.Second, "keepalive time for client connections")
	fs.Duration("keepalive-timeout", 6*time.Second, "keepalive timeout for client connections")
	fs.Int("max-request-bytes", 0, "client-side request send limit in bytes (if 0, it defaults to 2.0 MiB (2 * 1024 * 1024).)")
	fs.Int("max-recv-bytes", 0, "client-side response receive limit in bytes (if 0, it defaults to \"math.MaxInt32\")")
	fs.Bool("insecure-transport", true, "disable transport security for client connections")
	fs.Bool("insecure-discovery", true, "accept insecure SRV records describing cluster endpoints")
	fs.Bool("insecure-skip-tls-verify", false, "skip server certificate verification (CAUTION: this option should be enabled only for testing purposes)")
	fs.String("cert", "", "identify secure client using this TLS certificate file")
	fs.String("key", "", "identify secure client using this TLS key file")
	fs.String("cacert", "", "verify certificates of TLS-enabled secure servers using this CA bundle")
	fs.String("auth-jwt-token", "", "JWT token used for authentication (if this option is used, --user and --password should not be set)")
	fs.String("user", "", "username[:password] for authentication (prompt if password is not supplied)")
	fs.String("password", "", "password for authentication (if this option is used, --user option shouldn't include password)")
	fs.StringP("discovery-srv", "d", "", "domain name to query for SRV records describing cluster endpoints")
	fs.String("discovery-srv-name", "", "service name to query when using DNS discovery")
}
