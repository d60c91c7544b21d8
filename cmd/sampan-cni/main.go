// Command sampan-cni is Sampan's CNI plugin, executed once per pod. The sampan
// binary carries it and installs it in the CNI binary directory.
package main

import (
	"os"

	"github.com/sampan-dev/sampan/network/cni"
)

func main() { os.Exit(cni.Main("sampan CNI plugin: a bridge, its addresses and host ports")) }
