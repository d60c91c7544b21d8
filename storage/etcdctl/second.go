package etcdctl

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// Exit codes of the second version.
const (
	exitBadArgs       = 1
	exitBadConnection = 2
	exitServer        = 4
	exitNotHealthy    = 5
)

// failed is an error with its exit code.
type failed struct {
	code int
	err  error
}

func (f failed) Error() string { return f.err.Error() }

// settings are the second version's global flags.
type settings struct {
	endpoints, endpoint, peers string
	ca, cert, key              string
	output, username           string
	noSync, debug, insecure    bool
	srv                        string
	timeout, total             time.Duration
}

func secondFlags(fs *pflag.FlagSet, s *settings) {
	fs.StringVar(&s.endpoints, "endpoints", os.Getenv("ETCDCTL_ENDPOINTS"), `a comma-delimited list of machine addresses in the cluster (default: "http://127.0.0.1:2379,http://127.0.0.1:4001")`)
	fs.StringVar(&s.endpoint, "endpoint", os.Getenv("ETCDCTL_ENDPOINT"), `DEPRECATED - "--endpoints" should be used instead`)
	fs.StringVarP(&s.peers, "peers", "C", os.Getenv("ETCDCTL_PEERS"), `DEPRECATED - "--endpoints" should be used instead`)
	fs.StringVar(&s.ca, "ca-file", os.Getenv("ETCDCTL_CA_FILE"), "verify certificates of HTTPS-enabled servers using this CA bundle")
	fs.StringVar(&s.cert, "cert-file", os.Getenv("ETCDCTL_CERT_FILE"), "identify HTTPS client using this SSL certificate file")
	fs.StringVar(&s.key, "key-file", os.Getenv("ETCDCTL_KEY_FILE"), "identify HTTPS client using this SSL key file")
	fs.StringVarP(&s.output, "output", "o", "simple", "output response in the given format (`simple`, `extended` or `json`)")
	fs.StringVarP(&s.username, "username", "u", os.Getenv("ETCDCTL_USERNAME"), "username[:password] for a proxy before the servers")
	fs.BoolVar(&s.noSync, "no-sync", false, "ask only the endpoints given, not those that the cluster's members advertise (always so)")
	fs.BoolVar(&s.debug, "debug", false, "output cURL commands which can be used to reproduce the request")
	fs.StringVarP(&s.srv, "discovery-srv", "D", os.Getenv("ETCDCTL_DISCOVERY_SRV"), "domain name to query for SRV records describing cluster endpoints")
	fs.BoolVar(&s.insecure, "insecure-discovery", os.Getenv("ETCDCTL_INSECURE_DISCOVERY") != "", "accept insecure SRV records describing cluster endpoints")
	fs.DurationVar(&s.timeout, "timeout", 2*time.Second, "connection timeout per request")
	fs.DurationVar(&s.total, "total-timeout", 5*time.Second, "timeout for the command execution (except watch)")
}

// ctl is one run of the second version's etcdctl.
type ctl struct {
	settings
	stdin    io.Reader
	out, err io.Writer
}

// secondMain runs a command line of the second version.
func secondMain(ctx context.Context, args []string, out, errs io.Writer) int {
	c := &ctl{stdin: os.Stdin, out: out, err: errs}
	root := &cobra.Command{
		Use: "etcdctl", Short: "A simple command line client for etcd.",
		Long: "A simple command line client for etcd, of the second version: it speaks to the keys API (/v2/keys).",
		// Errors are said below, in the second version's form.
		SilenceErrors: true, SilenceUsage: true,
	}
	secondFlags(root.PersistentFlags(), &c.settings)
	root.AddCommand(c.keyCommands()...)
	root.AddCommand(c.dirCommands()...)
	root.AddCommand(c.clusterCommands()...)
	root.SetFlagErrorFunc(flagError)
	root.SetOut(out)
	root.SetErr(errs)
	root.SetArgs(dashes(args))
	err := root.ExecuteContext(ctx)
	var f failed
	var e *apiError
	switch {
	case err == nil:
		return 0
	case !errors.As(err, &f):
		fmt.Fprintln(errs, "Error:", err)
		return exitBadArgs
	case f.err == nil: // all was said
	case errors.As(err, &e) && c.output == "json":
		text, _ := json.Marshal(e)
		fmt.Fprintln(errs, string(text))
	default:
		fmt.Fprintln(errs, "Error: ", f.err)
	}
	return f.code
}

// Unwrap lets errors.As look at the cause.
func (f failed) Unwrap() error { return f.err }

// dashes writes -ca-file as --ca-file: the second version took either.
func dashes(args []string) []string {
	out := make([]string, 0, len(args))
	for i, a := range args {
		if a == "--" {
			return append(out, args[i:]...)
		}
		if len(a) > 2 && a[0] == '-' && a[1] != '-' {
			a = "-" + a
		}
		out = append(out, a)
	}
	return out
}

// do runs fn in the time a command has.
func (c *ctl) do(cmd *cobra.Command, fn func(context.Context, *web) error) error {
	w, err := c.web()
	if err != nil {
		return failed{exitBadArgs, err}
	}
	ctx, cancel := context.WithTimeout(cmd.Context(), c.total)
	defer cancel()
	return fn(ctx, w)
}

// print shows an answer in the form of --output.
func (c *ctl) print(r *response) error {
	switch c.output {
	case "simple":
		if r.Action == "delete" {
			fmt.Fprintln(c.out, "PrevNode.Value:", r.PrevNode.Value)
		} else {
			fmt.Fprintln(c.out, r.Node.Value)
		}
	case "extended":
		fmt.Fprintf(c.out, "Key: %s\nCreated-Index: %d\nModified-Index: %d\n", r.Node.Key, r.Node.Created, r.Node.Modified)
		if r.PrevNode != nil {
			fmt.Fprintln(c.out, "PrevNode.Value:", r.PrevNode.Value)
		}
		fmt.Fprintf(c.out, "TTL: %d\nIndex: %d\n", r.Node.TTL, r.index)
		if r.Action != "delete" {
			fmt.Fprintf(c.out, "\n%s\n", r.Node.Value)
		}
	case "json":
		text, err := json.Marshal(r)
		if err != nil {
			return err
		}
		fmt.Fprintln(c.out, string(text))
	default:
		return failed{exitBadArgs, fmt.Errorf("--output %q: want simple, extended or json", c.output)}
	}
	return nil
}

func badArgs(format string, a ...any) error { return failed{exitBadArgs, fmt.Errorf(format, a...)} }

// argOrStdin is argument i, or else all of the standard input.
func (c *ctl) argOrStdin(args []string, i int) (string, error) {
	if i < len(args) {
		return args[i], nil
	}
	text, err := io.ReadAll(c.stdin)
	if err != nil || len(text) == 0 {
		return "", badArgs("value required")
	}
	return strings.TrimSuffix(string(text), "\n"), nil
}
