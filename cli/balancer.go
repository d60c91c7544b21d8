package cli

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"os"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/spf13/cobra"

	"github.com/sampan-dev/sampan/balance"
	"github.com/sampan-dev/sampan/kit/httpx"
	"github.com/sampan-dev/sampan/kit/logx"
	"github.com/sampan-dev/sampan/kit/run"
)

// balancerOptions are the flags of sampan balancer.
type balancerOptions struct {
	listen, servers []string
	ca, metrics     string
	verbosity       int
}

func balancerCommand() *cobra.Command {
	o := balancerOptions{}
	cmd := &cobra.Command{
		Use: "balancer --servers HOST:PORT,… --certificate-authority FILE", Short: "Spread connections over the API servers of a cluster", Args: cobra.NoArgs,
		Long: `Spread TCP connections over the API servers of a cluster, by their readiness,
which every server is asked for at /readyz. TLS goes through untouched. Where a
server no longer answers its connections are closed, so that clients come again
and reach another.`,
		Example: "  sampan balancer --listen 0.0.0.0:7443 --servers 192.0.2.11:6443,192.0.2.12:6443,192.0.2.13:6443 --certificate-authority /etc/kubernetes/pki/ca.crt",
		RunE:    func(cmd *cobra.Command, _ []string) error { return o.run(cmd.Context()) },
	}
	cmd.Flags().StringSliceVar(&o.listen, "listen", []string{"127.0.0.1:6443"}, "addresses to listen on")
	cmd.Flags().StringSliceVar(&o.servers, "servers", nil, "the API servers, by address and port")
	cmd.Flags().StringVar(&o.ca, "certificate-authority", "", "the cluster's authority, by which the servers are known")
	cmd.Flags().StringVar(&o.metrics, "metrics-bind-address", "", "where to serve /metrics and /healthz over plain HTTP; empty for nowhere")
	cmd.Flags().IntVarP(&o.verbosity, "v", "v", 0, "how much to log")
	return cmd
}

func (o *balancerOptions) run(ctx context.Context) error {
	if len(o.servers) == 0 {
		return fmt.Errorf("--servers: Required value")
	}
	text, err := os.ReadFile(o.ca)
	if err != nil {
		return fmt.Errorf("--certificate-authority: %w", err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(text) {
		return fmt.Errorf("--certificate-authority: %s holds no certificate", o.ca)
	}
	log := logx.Setup(os.Stderr, logx.Options{Level: logx.ForVerbosity(o.verbosity)})
	metrics := prometheus.NewRegistry()
	b, err := balance.New(balance.Config{Listen: o.listen, Servers: o.servers, TLS: &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12}}, metrics, log)
	if err != nil {
		return err
	}
	g := run.New(ctx)
	g.Go("balancer", b.Run)
	if o.metrics != "" {
		if _, _, err := net.SplitHostPort(o.metrics); err != nil {
			return fmt.Errorf("--metrics-bind-address: %w", err)
		}
		g.Go("metrics", func(ctx context.Context) error {
			return httpx.ListenAndServe(ctx, o.metrics, httpx.Pages{Metrics: metrics}.Handler())
		})
	}
	return g.Wait()
}
