// Command sampan-containerd is containerd with the plugins a node needs, built
// small: it runs on every node for good, and would pay for the whole cluster's
// packages inside the big binary.
//
// Job: become package runtime/daemon.
//
// Not its job: anything else.
package main

import (
	"context"
	"os"

	"github.com/sampan-dev/sampan/kit/trim"
	"github.com/sampan-dev/sampan/runtime/daemon"
)

func main() {
	trim.Keep(context.Background())
	os.Exit(daemon.Main(append([]string{"containerd"}, os.Args[1:]...)))
}
