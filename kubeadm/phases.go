package kubeadm

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/spf13/cobra"
)

// phase is one step of a command, or a group of steps. R is what the command's
// steps share.
type phase[R any] struct {
	name, about string
	run         func(ctx context.Context, r R) error
	parts       []phase[R]
}

// names lists the phases as --skip-phases and help name them: "certs",
// "certs/ca" …
func names[R any](list []phase[R], under string) (out []string) {
	for _, p := range list {
		out = append(out, under+p.name)
		out = append(out, names(p.parts, under+p.name+"/")...)
	}
	return out
}

// checkSkips refuses names that are no phase's.
func checkSkips[R any](list []phase[R], skip []string) error {
	known := names(list, "")
	for _, s := range skip {
		if !slices.Contains(known, s) && !slices.ContainsFunc(known, func(k string) bool { return strings.HasSuffix(k, "/"+s) }) {
			return fmt.Errorf("invalid phase name: %s; the phases are %s", s, strings.Join(known, ", "))
		}
	}
	return nil
}

// runPhases does the steps in order, leaving out those skipped.
func runPhases[R any](ctx context.Context, list []phase[R], r R, skip []string, under string) error {
	for _, p := range list {
		if slices.Contains(skip, under+p.name) {
			continue
		}
		if p.run != nil {
			if err := p.run(ctx, r); err != nil {
				return fmt.Errorf("error execution phase %s%s: %w", under, p.name, err)
			}
		}
		if err := runPhases(ctx, p.parts, r, skip, under+p.name+"/"); err != nil {
			return err
		}
	}
	return nil
}

// describe lists the phases in a command's help.
func describe[R any](list []phase[R]) string {
	var b strings.Builder
	b.WriteString("The command executes the following phases:\n")
	var walk func(list []phase[R], indent string)
	walk = func(list []phase[R], indent string) {
		for _, p := range list {
			fmt.Fprintf(&b, "%s%-*s %s\n", indent, 34-len(indent), p.name, p.about)
			walk(p.parts, indent+"  ")
		}
	}
	walk(list, "")
	return b.String()
}

// runner is what the steps of a command share, as far as phaseCommand minds.
type runner interface {
	// dry says that nothing is to be changed.
	dry() bool
	say(format string, args ...any)
}

// phaseCommand is "init phase": every phase as a command of its own. prepare
// adds the flags and returns what makes the shared state when the phase runs.
func phaseCommand[R runner](list []phase[R], takes cobra.PositionalArgs, prepare func(*cobra.Command) func(args []string) (R, error)) *cobra.Command {
	root := &cobra.Command{Use: "phase", Short: "Use this command to invoke a single phase of the workflow"}
	var add func(parent *cobra.Command, list []phase[R], under string)
	add = func(parent *cobra.Command, list []phase[R], under string) {
		for _, p := range list {
			c := &cobra.Command{Use: p.name, Short: p.about, Args: takes}
			shared := prepare(c)
			c.RunE = func(c *cobra.Command, args []string) error {
				r, err := shared(args)
				if err != nil {
					return err
				}
				if r.dry() {
					would(r, []phase[R]{p}, under, nil)
					return nil
				}
				return runPhases(c.Context(), []phase[R]{p}, r, nil, under)
			}
			if len(p.parts) > 0 {
				group := &cobra.Command{Use: p.name, Short: p.about}
				c.Use, c.Short = "all", "all of "+p.name
				group.AddCommand(c)
				add(group, p.parts, under+p.name+"/")
				parent.AddCommand(group)
				continue
			}
			parent.AddCommand(c)
		}
	}
	add(root, list, "")
	return root
}

// would says what a command would do.
func would[R runner](r R, list []phase[R], under string, skip []string) {
	for _, name := range names(list, under) {
		left := ""
		if slices.ContainsFunc(skip, func(s string) bool { return name == s || strings.HasPrefix(name, s+"/") }) {
			left = " (skipped)"
		}
		r.say("[dryrun] Would run phase %s%s", name, left)
	}
}

// printer says things in kubeadm's way, a line each.
type printer struct{ out io.Writer }

func (p printer) say(format string, args ...any) { fmt.Fprintf(p.out, format+"\n", args...) }
