package etcdctl

import (
	"context"
	"fmt"
	"net/http"

	"github.com/spf13/cobra"
)

// dirCommands are those about directories.
func (c *ctl) dirCommands() []*cobra.Command {
	return []*cobra.Command{
		c.ls(),
		c.dir("mkdir", "make a new directory", form2{"prevExist": "false"}),
		c.dir("setdir", "create a new directory or update an existing directory TTL", nil),
		c.dir("updatedir", "update an existing directory", form2{"prevExist": "true"}),
		c.rmdir(),
	}
}

func (c *ctl) dir(word, about string, f form2) *cobra.Command {
	var ttl int
	cmd := &cobra.Command{Use: word + " <key>", Short: about}
	cmd.Flags().IntVar(&ttl, "ttl", 0, "key time-to-live")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if len(args) == 0 {
			return badArgs("key required")
		}
		body := f.values()
		body.Set("dir", "true")
		if ttl != 0 {
			body.Set("ttl", ttlOf(ttl))
		}
		return c.do(cmd, func(ctx context.Context, w *web) error {
			r, err := w.keys(ctx, http.MethodPut, args[0], nil, body)
			if err == nil && c.output != "simple" {
				err = c.print(r)
			}
			return err
		})
	}
	return cmd
}

func (c *ctl) rmdir() *cobra.Command {
	return &cobra.Command{
		Use: "rmdir <key>", Short: "removes the key if it is an empty directory or a key-value pair",
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				return badArgs("key required")
			}
			return c.do(cmd, func(ctx context.Context, w *web) error {
				r, err := w.keys(ctx, http.MethodDelete, args[0], form2{"dir": "true"}.values(), nil)
				if err != nil || r.Node.Dir {
					return err
				}
				return c.print(r)
			})
		},
	}
}

func (c *ctl) ls() *cobra.Command {
	var sorted, recursive, slash, quorum bool
	cmd := &cobra.Command{Use: "ls [key]", Short: "retrieve a directory"}
	cmd.Flags().BoolVar(&sorted, "sort", false, "returns result in sorted order")
	cmd.Flags().BoolVarP(&recursive, "recursive", "r", false, "returns all key names recursively for the given path")
	cmd.Flags().BoolVarP(&slash, "slash", "p", false, "append slash (/) to directories")
	cmd.Flags().BoolVarP(&quorum, "quorum", "q", false, "require quorum for get request")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		key := "/"
		if len(args) > 0 {
			key = args[0]
		}
		q := form2{"sorted": yes(sorted), "recursive": yes(recursive), "quorum": yes(quorum)}
		return c.do(cmd, func(ctx context.Context, w *web) error {
			r, err := w.keys(ctx, http.MethodGet, key, q.values(), nil)
			if err != nil {
				return err
			}
			if !r.Node.Dir {
				fmt.Fprintln(c.out, r.Node.Key)
			}
			c.list(r.Node.Nodes, slash)
			return nil
		})
	}
	return cmd
}

func (c *ctl) list(nodes []*node, slash bool) {
	for _, n := range nodes {
		if n.Dir && slash {
			fmt.Fprintln(c.out, n.Key+"/")
		} else {
			fmt.Fprintln(c.out, n.Key)
		}
		c.list(n.Nodes, slash)
	}
}
