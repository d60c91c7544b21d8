// Package daemon is containerd itself, as one applet of the binary.
//
// Job: run containerd with CRI and the plugins a node needs, with containerd's
// own flags.
//
// Not its job: its configuration and its life as a child process (package
// runtime). It is a package of its own so that only the program that can
// become containerd links its plugins.
package daemon

import (
	"context"
	"fmt"
	"os"

	"github.com/containerd/containerd/v2/cmd/containerd/command"
)

// Main runs containerd with args, of which the first is the program's name,
// and returns its exit code.
func Main(args []string) int {
	if err := command.App().Run(context.Background(), args); err != nil {
		fmt.Fprintln(os.Stderr, "containerd:", err)
		return 1
	}
	return 0
}
