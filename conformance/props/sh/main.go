// Command sh is the shell of the busybox image: busybox's own, but for one
// thing. A shell hands its programs only variables with names it could have made
// itself; the published image's env runs inside its shell and so shows all.
// Debian's is built otherwise, so here env alone is run without a shell.
package main

import (
	"fmt"
	"os"
	"strings"
	"syscall"
)

func main() {
	program, argv := "/bin/busybox", os.Args
	if len(argv) == 3 && argv[1] == "-c" && strings.TrimSpace(argv[2]) == "env" {
		argv = []string{"env"}
	}
	err := syscall.Exec(program, argv, os.Environ())
	fmt.Fprintln(os.Stderr, "sh:", err)
	os.Exit(127)
}
