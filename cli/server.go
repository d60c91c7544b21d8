package cli

import (
	"os"

	"github.com/spf13/cobra"

	"github.com/sampan-dev/sampan/bootstrap"
	"github.com/sampan-dev/sampan/kit/logx"
)

func serverCommand() *cobra.Command {
	cfg := bootstrap.Defaults()
	api := newServerAPI()
	var verbosity int
	var jsonLogs bool
	cmd := &cobra.Command{
		Use: "server", Short: "Run a control plane and its node in the foreground, on this machine", Args: cobra.NoArgs,
		Long: `Run a control plane and its node in the foreground, in this machine's own
namespaces: for a real machine. With --join it runs only a node of an existing
cluster. The administrator's kubeconfig is DATA-DIR/admin.conf.`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := needRoot("sampan server"); err != nil {
				return err
			}
			log := logx.Setup(os.Stderr, logx.Options{Level: logx.ForVerbosity(verbosity), JSON: jsonLogs})
			if !cfg.NodeIP.IsValid() {
				cfg.NodeIP = outboundIP(log)
			}
			var err error
			if cfg.API, err = api.load(); err != nil {
				return err
			}
			return bootstrap.Serve(cmd.Context(), cfg, log)
		},
	}
	cmd.AddCommand(planesCommands()...)
	cfg.Flags(cmd.Flags())
	api.addTo(cmd.Flags())
	cmd.Flags().IntVarP(&verbosity, "v", "v", 0, "how much to log; 3 and above is for finding faults")
	cmd.Flags().BoolVar(&jsonLogs, "log-json", false, "log JSON lines")
	return cmd
}
