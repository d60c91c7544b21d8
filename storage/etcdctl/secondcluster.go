package etcdctl

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"go.etcd.io/etcd/api/v3/version"

	"github.com/sampan-dev/sampan/kit/clock"
)

// clusterCommands are those about members, and words with a reason.
func (c *ctl) clusterCommands() []*cobra.Command {
	cmds := []*cobra.Command{c.clusterHealth(), c.members(), {
		Use: "version", Short: "prints the version of etcdctl",
		Run: func(*cobra.Command, []string) {
			fmt.Fprintf(c.out, "etcdctl version: %s\nAPI version: 2\n", version.Version)
		},
	}}
	for word, why := range map[string]string{
		"backup": "a backup of the second version's files is not made any more; `etcdctl snapshot save FILE` keeps the keys of both versions",
		"user":   "the second version has no users here; ETCDCTL_API=3 etcdctl user manages those of the third",
		"role":   "the second version has no roles here; ETCDCTL_API=3 etcdctl role manages those of the third",
		"auth":   "the second version has no authentication here; ETCDCTL_API=3 etcdctl auth manages that of the third",
	} {
		cmds = append(cmds, &cobra.Command{
			Use: word, Hidden: true, DisableFlagParsing: true,
			RunE: func(*cobra.Command, []string) error { return badArgs("%s", why) },
		})
	}
	return cmds
}

// memberInfo is how the second version's API shows a member.
type memberInfo struct {
	ID         string   `json:"id"`
	Name       string   `json:"name"`
	PeerURLs   []string `json:"peerURLs"`
	ClientURLs []string `json:"clientURLs"`
}

func (w *web) members(ctx context.Context) ([]memberInfo, error) {
	var r struct {
		Members []memberInfo `json:"members"`
	}
	return r.Members, w.json(ctx, http.MethodGet, "/v2/members", nil, &r)
}

func (c *ctl) clusterHealth() *cobra.Command {
	var forever bool
	cmd := &cobra.Command{Use: "cluster-health", Short: "check the health of the etcd cluster"}
	cmd.Flags().BoolVarP(&forever, "forever", "f", false, "forever check the health every 10 second until CTRL+C")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		w, err := c.web()
		if err != nil {
			return failed{exitBadArgs, err}
		}
		for {
			healthy, err := c.health(cmd.Context(), w)
			if !forever {
				if err == nil && !healthy {
					err = failed{exitNotHealthy, nil}
				}
				return err
			}
			fmt.Fprint(c.out, "\nnext check after 10 second...\n\n")
			if clock.Sleep(cmd.Context(), 10*time.Second) != nil {
				return nil
			}
		}
	}
	return cmd
}

// health asks every member whether it is well; one that is makes the cluster well.
func (c *ctl) health(ctx context.Context, w *web) (bool, error) {
	ctx, cancel := context.WithTimeout(ctx, c.total)
	defer cancel()
	ms, err := w.members(ctx)
	if err != nil {
		fmt.Fprintln(c.out, "cluster may be unhealthy: failed to list members")
		return false, err
	}
	healthy := false
	for _, m := range ms {
		if len(m.ClientURLs) == 0 {
			fmt.Fprintf(c.out, "member %s is unreachable: no available published client urls\n", m.ID)
			continue
		}
		checked := false
		for _, u := range m.ClientURLs {
			ok, err := w.healthy(ctx, u)
			if err != nil {
				fmt.Fprintf(c.out, "failed to check the health of member %s on %s: %v\n", m.ID, u, err)
				continue
			}
			checked = true
			if healthy = healthy || ok; ok {
				fmt.Fprintf(c.out, "member %s is healthy: got healthy result from %s\n", m.ID, u)
			} else {
				fmt.Fprintf(c.out, "member %s is unhealthy: got unhealthy result from %s\n", m.ID, u)
			}
			break
		}
		if !checked {
			fmt.Fprintf(c.out, "member %s is unreachable: %v are all unreachable\n", m.ID, m.ClientURLs)
		}
	}
	if healthy {
		fmt.Fprintln(c.out, "cluster is healthy")
	} else {
		fmt.Fprintln(c.out, "cluster is unhealthy")
	}
	return healthy, nil
}

func (w *web) healthy(ctx context.Context, base string) (bool, error) {
	ctx, cancel := context.WithTimeout(ctx, w.timeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, base+"/health", nil)
	if err != nil {
		return false, err
	}
	resp, err := w.client.Do(req)
	if err != nil {
		return false, err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(io.LimitReader(resp.Body, 1<<16))
	if err != nil {
		return false, err
	}
	var r struct{ Health string }
	return json.Unmarshal(text, &r) == nil && r.Health == "true", nil
}

func (c *ctl) members() *cobra.Command {
	cmd := &cobra.Command{Use: "member", Short: "member add, remove and list subcommands"}
	cmd.AddCommand(
		&cobra.Command{Use: "list", Short: "enumerate existing cluster members", Args: cobra.NoArgs,
			RunE: func(cmd *cobra.Command, _ []string) error { return c.do(cmd, c.memberList) }},
		&cobra.Command{Use: "add <name> <peerURL>", Short: "add a new member to the etcd cluster",
			RunE: func(cmd *cobra.Command, args []string) error {
				if len(args) != 2 {
					return badArgs("Provide a name and a single member peerURL")
				}
				return c.do(cmd, func(ctx context.Context, w *web) error { return c.memberAdd(ctx, w, args[0], args[1]) })
			}},
		&cobra.Command{Use: "remove <memberID>", Short: "remove an existing member from the etcd cluster",
			RunE: func(cmd *cobra.Command, args []string) error {
				if len(args) != 1 {
					return badArgs("Provide a single member ID")
				}
				return c.do(cmd, func(ctx context.Context, w *web) error { return c.memberRemove(ctx, w, args[0]) })
			}},
		&cobra.Command{Use: "update <memberID> <peerURLs>", Short: "update an existing member in the etcd cluster",
			RunE: func(cmd *cobra.Command, args []string) error {
				if len(args) != 2 {
					return badArgs("Provide an ID and a list of comma separated peerURL (0xabcd http://example.com,http://example1.com)")
				}
				return c.do(cmd, func(ctx context.Context, w *web) error {
					id := strings.TrimPrefix(args[0], "0x")
					body := map[string]any{"peerURLs": strings.Split(args[1], ",")}
					if err := w.json(ctx, http.MethodPut, "/v2/members/"+id, body, nil); err != nil {
						return err
					}
					fmt.Fprintf(c.out, "Updated member with ID %s in cluster\n", args[0])
					return nil
				})
			}},
	)
	return cmd
}

func (c *ctl) memberList(ctx context.Context, w *web) error {
	ms, err := w.members(ctx)
	if err != nil {
		return err
	}
	var leader memberInfo
	if err := w.json(ctx, http.MethodGet, "/v2/members/leader", nil, &leader); err != nil {
		return failed{exitBadArgs, fmt.Errorf("Failed to get leader: %w", err)}
	}
	for _, m := range ms {
		if m.Name == "" {
			fmt.Fprintf(c.out, "%s[unstarted]: peerURLs=%s\n", m.ID, strings.Join(m.PeerURLs, ","))
			continue
		}
		fmt.Fprintf(c.out, "%s: name=%s peerURLs=%s clientURLs=%s isLeader=%v\n",
			m.ID, m.Name, strings.Join(m.PeerURLs, ","), strings.Join(m.ClientURLs, ","), m.ID == leader.ID)
	}
	return nil
}

func (c *ctl) memberAdd(ctx context.Context, w *web, name, peer string) error {
	var added memberInfo
	if err := w.json(ctx, http.MethodPost, "/v2/members", map[string]any{"peerURLs": []string{peer}}, &added); err != nil {
		return err
	}
	fmt.Fprintf(c.out, "Added member named %s with ID %s to cluster\n", name, added.ID)
	ms, err := w.members(ctx)
	if err != nil {
		return err
	}
	var initial []string
	for _, m := range ms {
		if m.ID == added.ID {
			m.Name = name
		}
		for _, u := range m.PeerURLs {
			initial = append(initial, m.Name+"="+u)
		}
	}
	fmt.Fprintf(c.out, "\nETCD_NAME=%q\nETCD_INITIAL_CLUSTER=%q\nETCD_INITIAL_CLUSTER_STATE=\"existing\"\n", name, strings.Join(initial, ","))
	return nil
}

func (c *ctl) memberRemove(ctx context.Context, w *web, id string) error {
	ms, err := w.members(ctx)
	if err != nil {
		return err
	}
	found := false
	for _, m := range ms {
		found = found || m.ID == id
		if m.Name == id {
			fmt.Fprintf(c.err, "Found a member named %s; if this is correct, please use its ID, eg:\n\tetcdctl member remove %s\n", m.Name, m.ID)
		}
	}
	if !found {
		fmt.Fprintf(c.err, "Couldn't find a member in the cluster with an ID of %s.\n", id)
		return failed{exitBadArgs, nil}
	}
	if err := w.json(ctx, http.MethodDelete, "/v2/members/"+id, nil, nil); err != nil {
		var f failed
		if errors.As(err, &f) {
			f.err = fmt.Errorf("Received an error trying to remove member %s: %w", id, f.err)
			return f
		}
		return err
	}
	fmt.Fprintf(c.out, "Removed member %s from cluster\n", id)
	return nil
}
