// Command sampan-cni is Sampan's CNI plugins, executed once per pod: its own,
// and under their names bridge, host-local, portmap, loopback and flannel. The
// sampan binary carries it and installs it in the CNI binary directory.
package main

import (
	"os"
	"path/filepath"

	"github.com/sampan-dev/sampan/network/cni"
)

func main() { os.Exit(cni.Main(filepath.Base(os.Args[0]), os.Args[1:])) }
