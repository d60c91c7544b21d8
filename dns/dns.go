// Package dns is CoreDNS, built in with the plugins that a cluster uses.
//
// Job: run a Corefile, with CoreDNS's own flags, as the container of the coredns
// Deployment does.
//
// Not its job: the Deployment, Service and Corefile of kube-dns (bootstrap).
package dns

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"runtime"

	"github.com/coredns/caddy"
	"github.com/coredns/coredns/core/dnsserver"

	// The plugins of a cluster's Corefile; their order is CoreDNS's own.
	_ "github.com/coredns/coredns/plugin/autopath"
	_ "github.com/coredns/coredns/plugin/bind"
	_ "github.com/coredns/coredns/plugin/bufsize"
	_ "github.com/coredns/coredns/plugin/cache"
	_ "github.com/coredns/coredns/plugin/debug"
	_ "github.com/coredns/coredns/plugin/errors"
	_ "github.com/coredns/coredns/plugin/file"
	_ "github.com/coredns/coredns/plugin/forward"
	_ "github.com/coredns/coredns/plugin/health"
	_ "github.com/coredns/coredns/plugin/hosts"
	_ "github.com/coredns/coredns/plugin/kubernetes"
	_ "github.com/coredns/coredns/plugin/loadbalance"
	_ "github.com/coredns/coredns/plugin/log"
	_ "github.com/coredns/coredns/plugin/loop"
	_ "github.com/coredns/coredns/plugin/metadata"
	_ "github.com/coredns/coredns/plugin/metrics"
	_ "github.com/coredns/coredns/plugin/ready"
	_ "github.com/coredns/coredns/plugin/reload"
	_ "github.com/coredns/coredns/plugin/rewrite"
	_ "github.com/coredns/coredns/plugin/template"
	_ "github.com/coredns/coredns/plugin/transfer"
	_ "github.com/coredns/coredns/plugin/whoami"
)

// Version is the CoreDNS that is built in.
const Version = "1.15.0"

const serverType = "dns"

// Main runs CoreDNS with its own flags until ctx ends, and returns the exit code.
func Main(ctx context.Context, args []string) int {
	fs := flag.NewFlagSet("coredns", flag.ContinueOnError)
	conf := fs.String("conf", "Corefile", "Corefile to load; \"stdin\" reads standard input")
	port := fs.String("dns.port", dnsserver.DefaultPort, "default port of servers")
	fs.StringVar(port, "p", dnsserver.DefaultPort, "default port of servers")
	quiet := fs.Bool("quiet", false, "say nothing at start")
	version := fs.Bool("version", false, "show the version")
	plugins := fs.Bool("plugins", false, "list the plugins built in")
	if err := fs.Parse(args); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			return 0
		}
		return 2
	}
	if fs.NArg() > 0 {
		fmt.Fprintf(os.Stderr, "coredns: extra command line arguments: %v\n", fs.Args())
		return 2
	}
	if *version {
		fmt.Printf("CoreDNS-%s\n%s/%s, %s\n", Version, runtime.GOOS, runtime.GOARCH, runtime.Version())
		return 0
	}
	if err := dnsserver.Register(); err != nil {
		fmt.Fprintln(os.Stderr, "coredns:", err)
		return 1
	}
	if *plugins {
		fmt.Println(caddy.DescribePlugins())
		return 0
	}
	caddy.Quiet, caddy.AppName, caddy.AppVersion = true, "CoreDNS", Version
	dnsserver.Quiet, dnsserver.Port = *quiet, *port
	if err := serve(ctx, *conf); err != nil {
		fmt.Fprintln(os.Stderr, "coredns:", err)
		return 1
	}
	return 0
}

// serve runs the Corefile at path until ctx ends. It is read through a loader,
// which the reload plugin asks again later.
func serve(ctx context.Context, path string) error {
	caddy.RegisterCaddyfileLoader("flag", caddy.LoaderFunc(func(string) (caddy.Input, error) { return load(path) }))
	input, err := caddy.LoadCaddyfile(serverType)
	if err != nil {
		return err
	}
	instance, err := caddy.Start(input)
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	if !dnsserver.Quiet {
		fmt.Printf("CoreDNS-%s\n%s/%s, %s\n", Version, runtime.GOOS, runtime.GOARCH, runtime.Version())
	}
	// The reload plugin replaces the instance while it runs, so the one to stop is
	// not the one started: stop whatever runs then.
	stopped := context.AfterFunc(ctx, func() {
		for _, f := range caddy.Instances() {
			f.ShutdownCallbacks()
		}
		_ = caddy.Stop()
	})
	defer stopped()
	instance.Wait()
	return nil
}

func load(path string) (caddy.Input, error) {
	if path == "stdin" {
		return caddy.CaddyfileFromPipe(os.Stdin, serverType)
	}
	contents, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	return caddy.CaddyfileInput{Contents: contents, Filepath: path, ServerTypeName: serverType}, nil
}
