// Command sampan-kubectl is kubectl, built in. It is a program of its own
// because its tables of translations and types cost every start of the big
// binary time and memory, and only one command needs them.
//
// Job: kubectl, as it is.
//
// Not its job: anything else.
package main

import (
	"os"

	"k8s.io/component-base/cli"
	"k8s.io/kubectl/pkg/cmd"
	"k8s.io/kubectl/pkg/cmd/util"
)

func main() {
	if err := cli.RunNoErrOutput(cmd.NewDefaultKubectlCommand()); err != nil {
		util.CheckErr(err)
		os.Exit(1)
	}
}
