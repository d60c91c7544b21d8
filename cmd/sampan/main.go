// Command sampan is every program of a Kubernetes cluster in one file: the name
// it is called by, or else its first word, says which.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/sampan-dev/sampan/cli"
	"github.com/sampan-dev/sampan/embedded"
	"github.com/sampan-dev/sampan/kubeadm"
	"github.com/sampan-dev/sampan/storage/etcd"
	"github.com/sampan-dev/sampan/storage/etcdctl"
)

// applet is one program: its arguments without its name to its exit code.
type applet struct {
	name string
	main func(ctx context.Context, args []string) int
}

// carried is a program that the binary carries and becomes.
func carried(name string) func(context.Context, []string) int {
	return func(_ context.Context, args []string) int {
		fmt.Fprintln(os.Stderr, embedded.Exec(name, args))
		return 1
	}
}

// applets are all programs but sampan's own words.
var applets = []applet{
	{"containerd", carried(embedded.Containerd)},
	{"coredns", carried(embedded.CoreDNS)},
	{"etcd", etcd.Main},
	{"etcdctl", etcdctl.Main},
	{"etcdutl", etcdctl.UtlMain},
	{"kubectl", carried(embedded.Kubectl)},
	{"kubeadm", kubeadm.Main},
	{"kube-apiserver", cli.APIServer},
	{"kube-controller-manager", cli.ControllerManager},
	{"kube-scheduler", cli.Scheduler},
	{"kubelet", cli.Kubelet},
	{"kube-proxy", cli.Proxy},
	{"flanneld", cli.Flanneld},
}

func main() {
	name, args := filepath.Base(os.Args[0]), os.Args[1:]
	i := find(name)
	if i < 0 && len(args) > 0 {
		if i = find(args[0]); i >= 0 {
			args = args[1:]
		}
	}
	if i < 0 {
		os.Exit(withSignals(cli.Main, args))
	}
	switch applets[i].name {
	case "containerd", "coredns", "etcdctl", "etcdutl", "kubectl": // they look after signals themselves
		os.Exit(applets[i].main(context.Background(), args))
	}
	os.Exit(withSignals(applets[i].main, args))
}

func find(name string) int {
	return slices.IndexFunc(applets, func(a applet) bool { return a.name == name })
}

// withSignals runs main with a context that ends at the first SIGINT or
// SIGTERM; a second one ends the program at once.
func withSignals(main func(context.Context, []string) int, args []string) int {
	ctx, stop := signal.NotifyContext(context.Background(), unix.SIGINT, unix.SIGTERM)
	defer stop()
	told := context.AfterFunc(ctx, func() {
		stop()
		fmt.Fprintln(os.Stderr, "stopping")
	})
	defer told() // first: an end without a signal is nothing to tell
	return main(ctx, args)
}
