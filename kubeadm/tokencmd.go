package kubeadm

import (
	"fmt"
	"net/url"
	"strings"
	"text/tabwriter"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/duration"

	"github.com/spf13/cobra"

	"github.com/sampan-dev/sampan/client"
	"github.com/sampan-dev/sampan/kit/clock"
	"github.com/sampan-dev/sampan/kubeadm/config"
)

func tokenCommand() *cobra.Command {
	var kubeconfig string
	var dry bool
	root := &cobra.Command{Use: "token", Short: "Manage bootstrap tokens"}
	root.PersistentFlags().StringVar(&kubeconfig, "kubeconfig", "/etc/kubernetes/admin.conf", "The kubeconfig file to use when talking to the cluster.")
	root.PersistentFlags().BoolVar(&dry, "dry-run", false, "Whether to enable dry-run mode or not")
	connect := func() (client.Interface, error) { return client.FromKubeconfig(kubeconfig, "") }
	root.AddCommand(tokenCreate(connect, &dry), tokenList(connect), tokenDelete(connect, &dry),
		&cobra.Command{Use: "generate", Short: "Generate and print a bootstrap token, but do not create it on the server", Args: cobra.NoArgs, RunE: func(c *cobra.Command, _ []string) error {
			t, err := newToken()
			if err == nil {
				fmt.Fprintln(c.OutOrStdout(), t)
			}
			return err
		}})
	return root
}

func tokenCreate(connect func() (client.Interface, error), dry *bool) *cobra.Command {
	t := config.BootstrapToken{}
	var file string
	var ttl durationFlag
	var printJoin bool
	var key string
	c := &cobra.Command{Use: "create [token]", Short: "Create bootstrap tokens on the server", Args: cobra.MaximumNArgs(1)}
	f := c.Flags()
	f.Var(&ttl, "ttl", "The duration before the token is automatically deleted (e.g. 1s, 2m, 3h). If set to '0', the token will never expire (default 24h0m0s)")
	f.StringSliceVar(&t.Usages, "usages", nil, "Describes the ways in which this token can be used. Valid options: [signing,authentication]")
	f.StringSliceVar(&t.Groups, "groups", nil, "Extra groups that this token will authenticate as when used for authentication. (default [system:bootstrappers:kubeadm:default-node-token])")
	f.StringVar(&t.Description, "description", "", "A human friendly description of how this token is used.")
	f.BoolVar(&printJoin, "print-join-command", false, "Instead of printing only the token, print the full 'kubeadm join' flag needed to join the cluster using the token.")
	f.StringVar(&key, "certificate-key", "", "When used together with '--print-join-command', print the full 'kubeadm join' flag needed to join the cluster as a control-plane.")
	f.StringVar(&file, "config", "", "Path to a kubeadm configuration file, whose first token's settings are used where no flag says otherwise.")
	c.RunE = func(c *cobra.Command, args []string) error {
		err := overToken(&t, file)
		if err != nil {
			return err
		}
		if len(args) == 1 {
			t.Token = args[0]
		} else if t.Token == "" {
			if t.Token, err = newToken(); err != nil {
				return err
			}
		}
		if ttl.set {
			t.TTL = ttl.value()
		}
		probe := config.Init{BootstrapTokens: []config.BootstrapToken{t}}
		probe.Default(config.Host{})
		t = probe.BootstrapTokens[0]
		if !config.TokenForm.MatchString(t.Token) {
			return fmt.Errorf("the bootstrap token %q was not of the form %q", t.Token, config.TokenForm)
		}
		conn, err := connect()
		if err != nil {
			return err
		}
		if *dry {
			fmt.Fprintf(c.ErrOrStderr(), "[dryrun] Would create the token's Secret %s\n", tokenSecret(t).Name)
		} else if err := createTokens(c.Context(), conn, []config.BootstrapToken{t}, false); err != nil {
			return err
		}
		if !printJoin {
			fmt.Fprintln(c.OutOrStdout(), t.Token)
			return nil
		}
		info, err := client.Of[corev1.ConfigMap](conn, metav1.NamespacePublic).Get(c.Context(), clusterInfoName)
		if err != nil {
			return err
		}
		line, err := joinLine(info, t.Token, key)
		if err == nil {
			fmt.Fprintln(c.OutOrStdout(), line)
		}
		return err
	}
	return c
}

// overToken lays t over the first token of a file.
func overToken(t *config.BootstrapToken, path string) error {
	if path == "" {
		return nil
	}
	f, err := config.Load(path)
	if err != nil {
		return err
	}
	if f.Init == nil || len(f.Init.BootstrapTokens) == 0 {
		return nil
	}
	base := f.Init.BootstrapTokens[0]
	lay(&base.Description, t.Description)
	if len(t.Usages) > 0 {
		base.Usages = t.Usages
	}
	if len(t.Groups) > 0 {
		base.Groups = t.Groups
	}
	*t = base
	return nil
}

// joinLine is the join command of a cluster as cluster-info describes it.
func joinLine(info *corev1.ConfigMap, token, key string) (string, error) {
	server, ca, err := client.ClusterOf([]byte(info.Data["kubeconfig"]))
	if err != nil {
		return "", fmt.Errorf("cluster-info: %w", err)
	}
	u, err := url.Parse(server)
	if err != nil {
		return "", fmt.Errorf("cluster-info: %w", err)
	}
	hash, err := hashOf(ca)
	if err != nil {
		return "", err
	}
	line := fmt.Sprintf("kubeadm join %s --token %s --discovery-token-ca-cert-hash %s ", u.Host, token, hash)
	if key != "" {
		line += "--control-plane --certificate-key " + key
	}
	return line, nil
}

func tokenList(connect func() (client.Interface, error)) *cobra.Command {
	var o output
	list := &cobra.Command{Use: "list", Short: "List bootstrap tokens on the server", Args: cobra.NoArgs, RunE: func(c *cobra.Command, _ []string) error {
		conn, err := connect()
		if err != nil {
			return err
		}
		tokens, bad := listTokens(c.Context(), conn)
		if tokens == nil && bad != nil {
			return bad
		}
		if o.format != "" {
			for _, t := range tokens {
				if err := o.write(c.OutOrStdout(), struct {
					metav1.TypeMeta       `json:",inline"`
					config.BootstrapToken `json:",inline"`
				}{metav1.TypeMeta{APIVersion: outputVersion, Kind: "BootstrapToken"}, t}); err != nil {
					return err
				}
			}
			return nil
		}
		w := tabwriter.NewWriter(c.OutOrStdout(), 10, 4, 3, ' ', 0)
		fmt.Fprintln(w, "TOKEN\tTTL\tEXPIRES\tUSAGES\tDESCRIPTION\tEXTRA GROUPS")
		for _, t := range tokens {
			ttl, expires := "<forever>", "<never>"
			if t.Expires != nil {
				expires = t.Expires.UTC().Format(time.RFC3339)
				if left := clock.Until(t.Expires.Time); left > 0 {
					ttl = duration.ShortHumanDuration(left)
				} else {
					ttl = "<invalid>"
				}
			}
			text := func(s string) string { return orElse(s, "<none>") }
			fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\n", t.Token, ttl, expires, text(strings.Join(t.Usages, ",")), text(t.Description), text(strings.Join(t.Groups, ",")))
		}
		if err := w.Flush(); err != nil {
			return err
		}
		if bad != nil {
			fmt.Fprintln(c.ErrOrStderr(), "W:", bad)
		}
		return nil
	}}
	o.templates(list)
	return list
}

func tokenDelete(connect func() (client.Interface, error), dry *bool) *cobra.Command {
	return &cobra.Command{Use: "delete [token-value] ...", Short: "Delete bootstrap tokens on the server", Args: cobra.MinimumNArgs(1), RunE: func(c *cobra.Command, args []string) error {
		conn, err := connect()
		if err != nil {
			return err
		}
		for _, a := range args {
			id, _, _ := strings.Cut(a, ".")
			if len(id) != 6 {
				return fmt.Errorf("given token %q didn't match pattern %q or %q", a, `\A([a-z0-9]{6})\z`, config.TokenForm)
			}
			if *dry {
				fmt.Fprintf(c.OutOrStdout(), "[dryrun] Would delete the token's Secret bootstrap-token-%s\n", id)
				continue
			}
			if err := client.Of[corev1.Secret](conn, metav1.NamespaceSystem).Delete(c.Context(), "bootstrap-token-"+id, nil); err != nil {
				return fmt.Errorf("failed to delete bootstrap token %q: %w", id, err)
			}
			fmt.Fprintf(c.OutOrStdout(), "bootstrap token %q deleted\n", id)
		}
		return nil
	}}
}
