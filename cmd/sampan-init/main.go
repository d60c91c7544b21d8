// Command sampan-init is process 1 of a machine, built small: there is one on
// every node of a local cluster, and it has little to do.
//
// Job: become package machine's init.
//
// Not its job: anything else.
package main

import (
	"os"

	"github.com/sampan-dev/sampan/machine"
)

func main() { os.Exit(machine.Main(os.Args)) }
