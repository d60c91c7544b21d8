package cli

import (
	"encoding/json"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/sampan-dev/sampan/api"
)

func versionCommand() *cobra.Command {
	var output string
	cmd := &cobra.Command{
		Use: "version", Short: "Say which version this is", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			v := api.Version()
			switch output {
			case "":
				fmt.Fprintf(cmd.OutOrStdout(), "sampan %s\nKubernetes %s\n%s %s\n", v.GitVersion, api.Kubernetes, v.GoVersion, v.Platform)
				return nil
			case "json":
				return json.NewEncoder(cmd.OutOrStdout()).Encode(v)
			}
			return fmt.Errorf("--output %q: want json", output)
		},
	}
	cmd.Flags().StringVarP(&output, "output", "o", "", "json for a program to read")
	return cmd
}
