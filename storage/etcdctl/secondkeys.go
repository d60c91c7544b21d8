package etcdctl

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
)

// keyCommands are those that read and change values.
func (c *ctl) keyCommands() []*cobra.Command {
	return []*cobra.Command{c.set(), c.get(), c.mk(), c.update(), c.rm(), c.watch(), c.execWatch()}
}

func (c *ctl) set() *cobra.Command {
	var ttl int
	var value string
	var index uint64
	cmd := &cobra.Command{Use: "set <key> <value>", Short: "set the value of a key"}
	cmd.Flags().IntVar(&ttl, "ttl", 0, "key time-to-live")
	cmd.Flags().StringVar(&value, "swap-with-value", "", "previous value")
	cmd.Flags().Uint64Var(&index, "swap-with-index", 0, "previous index")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		return c.write(cmd, args, form2{"ttl": ttlOf(ttl), "prevValue": value, "prevIndex": indexOf(index)})
	}
	return cmd
}

func (c *ctl) mk() *cobra.Command {
	var ttl int
	var inOrder bool
	cmd := &cobra.Command{Use: "mk <key> <value>", Short: "make a new key with a given value"}
	cmd.Flags().IntVar(&ttl, "ttl", 0, "key time-to-live")
	cmd.Flags().BoolVar(&inOrder, "in-order", false, "create in-order key under directory <key>")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if inOrder {
			return c.writeAs(cmd, http.MethodPost, args, form2{"ttl": ttlOf(ttl)})
		}
		return c.write(cmd, args, form2{"ttl": ttlOf(ttl), "prevExist": "false"})
	}
	return cmd
}

func (c *ctl) update() *cobra.Command {
	var ttl int
	cmd := &cobra.Command{Use: "update <key> <value>", Short: "update an existing key with a given value"}
	cmd.Flags().IntVar(&ttl, "ttl", 0, "key time-to-live")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		return c.write(cmd, args, form2{"ttl": ttlOf(ttl), "prevExist": "true"})
	}
	return cmd
}

// form2 is what a request says, without what is empty.
type form2 map[string]string

func (f form2) values() url.Values {
	v := url.Values{}
	for k, s := range f {
		if s != "" {
			v.Set(k, s)
		}
	}
	return v
}

func ttlOf(seconds int) string {
	if seconds == 0 {
		return ""
	}
	return strconv.Itoa(seconds)
}

func indexOf(i uint64) string {
	if i == 0 {
		return ""
	}
	return strconv.FormatUint(i, 10)
}

func (c *ctl) write(cmd *cobra.Command, args []string, f form2) error {
	return c.writeAs(cmd, http.MethodPut, args, f)
}

func (c *ctl) writeAs(cmd *cobra.Command, method string, args []string, f form2) error {
	if len(args) == 0 {
		return badArgs("key required")
	}
	value, err := c.argOrStdin(args, 1)
	if err != nil {
		return err
	}
	body := f.values()
	body.Set("value", value)
	return c.do(cmd, func(ctx context.Context, w *web) error {
		r, err := w.keys(ctx, method, args[0], nil, body)
		if err != nil {
			return err
		}
		return c.print(r)
	})
}

func (c *ctl) get() *cobra.Command {
	var sorted, quorum bool
	cmd := &cobra.Command{Use: "get <key>", Short: "retrieve the value of a key"}
	cmd.Flags().BoolVar(&sorted, "sort", false, "returns result in sorted order")
	cmd.Flags().BoolVarP(&quorum, "quorum", "q", false, "require quorum for get request")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if len(args) == 0 {
			return badArgs("key required")
		}
		return c.do(cmd, func(ctx context.Context, w *web) error {
			r, err := w.keys(ctx, http.MethodGet, args[0], form2{"sorted": yes(sorted), "quorum": yes(quorum)}.values(), nil)
			if err != nil {
				return err
			}
			if r.Node.Dir {
				fmt.Fprintf(c.err, "%s: is a directory\n", r.Node.Key)
				return failed{exitBadArgs, nil}
			}
			return c.print(r)
		})
	}
	return cmd
}

func yes(b bool) string {
	if b {
		return "true"
	}
	return ""
}

func (c *ctl) rm() *cobra.Command {
	var dir, recursive bool
	var value string
	var index uint64
	cmd := &cobra.Command{Use: "rm <key>", Short: "remove a key or a directory"}
	cmd.Flags().BoolVar(&dir, "dir", false, "removes the key if it is an empty directory or a key-value pair")
	cmd.Flags().BoolVarP(&recursive, "recursive", "r", false, "removes the key and all child keys(if it is a directory)")
	cmd.Flags().StringVar(&value, "with-value", "", "previous value")
	cmd.Flags().Uint64Var(&index, "with-index", 0, "previous index")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if len(args) == 0 {
			return badArgs("key required")
		}
		q := form2{"dir": yes(dir), "recursive": yes(recursive), "prevValue": value, "prevIndex": indexOf(index)}
		return c.do(cmd, func(ctx context.Context, w *web) error {
			r, err := w.keys(ctx, http.MethodDelete, args[0], q.values(), nil)
			if err != nil || r.Node.Dir {
				return err
			}
			return c.print(r)
		})
	}
	return cmd
}

func (c *ctl) watch() *cobra.Command {
	var forever, recursive bool
	var after uint64
	cmd := &cobra.Command{Use: "watch <key>", Short: "watch a key for changes"}
	cmd.Flags().BoolVarP(&forever, "forever", "f", false, "forever watch a key until CTRL+C")
	cmd.Flags().BoolVarP(&recursive, "recursive", "r", false, "returns all values for key and child keys")
	cmd.Flags().Uint64Var(&after, "after-index", 0, "watch after the given index")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if len(args) == 0 {
			return badArgs("key required")
		}
		w, err := c.web()
		if err != nil {
			return failed{exitBadArgs, err}
		}
		return w.watch(cmd.Context(), args[0], after, recursive, func(r *response) (bool, error) {
			if r.Node.Dir {
				return true, nil
			}
			if recursive {
				fmt.Fprintf(c.out, "[%s] %s\n", r.Action, r.Node.Key)
			}
			return forever, c.print(r)
		})
	}
	return cmd
}

func (c *ctl) execWatch() *cobra.Command {
	var recursive bool
	var after uint64
	cmd := &cobra.Command{Use: "exec-watch <key> <command> [args...]", Short: "watch a key for changes and exec an executable"}
	cmd.Flags().BoolVarP(&recursive, "recursive", "r", false, "watch all values for key and child keys")
	cmd.Flags().Uint64Var(&after, "after-index", 0, "watch after the given index")
	cmd.Flags().SetInterspersed(false)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if len(args) < 2 {
			return badArgs("key and command to exec required")
		}
		w, err := c.web()
		if err != nil {
			return failed{exitBadArgs, err}
		}
		return w.watch(cmd.Context(), args[0], after, recursive, func(r *response) (bool, error) {
			if r.Node.Dir {
				return true, nil
			}
			run := exec.CommandContext(cmd.Context(), args[1], args[2:]...)
			run.Stdout, run.Stderr = c.out, c.err
			run.Env = append(os.Environ(), "ETCD_WATCH_ACTION="+r.Action,
				"ETCD_WATCH_MODIFIED_INDEX="+strconv.FormatUint(r.Node.Modified, 10),
				"ETCD_WATCH_KEY="+r.Node.Key, "ETCD_WATCH_VALUE="+r.Node.Value)
			err := run.Run()
			var exit *exec.ExitError
			if errors.As(err, &exit) { // the program's own trouble, which it has told
				fmt.Fprintf(c.err, "%s: %v\n", strings.Join(args[1:], " "), err)
				err = nil
			}
			return true, err
		})
	}
	return cmd
}
