package cli

import (
	"os"

	"k8s.io/component-base/cli"
	"k8s.io/kubectl/pkg/cmd"
	"k8s.io/kubectl/pkg/cmd/util"
)

// Kubectl is kubectl itself, built in. args are without the program's name.
func Kubectl(args []string) int {
	os.Args = append([]string{"kubectl"}, args...) // kubectl finds plugins by it
	command := cmd.NewDefaultKubectlCommand()
	command.SetArgs(args)
	if err := cli.RunNoErrOutput(command); err != nil {
		util.CheckErr(err)
		return 1
	}
	return 0
}
