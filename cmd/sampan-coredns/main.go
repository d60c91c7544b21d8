// Command sampan-coredns is CoreDNS with the plugins of a cluster, built small:
// a pod's memory counts the pages of its program, and the big binary's are not
// CoreDNS's to carry.
//
// Job: become package dns, with signals.
//
// Not its job: anything else.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"

	"github.com/sampan-dev/sampan/dns"
	"github.com/sampan-dev/sampan/kit/trim"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	trim.Keep(ctx)
	code := dns.Main(ctx, os.Args[1:])
	stop()
	os.Exit(code)
}
