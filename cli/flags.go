package cli

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/spf13/pflag"

	"github.com/sampan-dev/sampan/kit/words"
)

// section is one heading of a component's help.
type section struct {
	title string
	flags *pflag.FlagSet
}

// flags are a component's flags under upstream's headings, and those that
// earlier releases had. Retired ones are accepted with a warning, so that a
// command line of any age starts; unknown ones are refused, since a typing
// error that is passed over in silence is worse.
type flags struct {
	name     string
	sections []section
	retired  []retired
	aliases  map[string]string // old spelling to new
	warnings []string
}

// retired are flags that have no effect, and why.
type retired struct {
	why   string
	bools []string // take a value only as --name=value
	names []string // take a value
}

func newFlags(name string) *flags { return &flags{name: name, aliases: map[string]string{}} }

// in returns the flag set of a heading.
func (f *flags) in(title string) *pflag.FlagSet {
	for _, s := range f.sections {
		if s.title == title {
			return s.flags
		}
	}
	fs := pflag.NewFlagSet(title, pflag.ContinueOnError)
	f.sections = append(f.sections, section{title, fs})
	return fs
}

// sort puts flags declared elsewhere under the headings that title names.
func (f *flags) sort(declared *pflag.FlagSet, title func(name string) string) {
	declared.VisitAll(func(fl *pflag.Flag) { f.in(title(fl.Name)).AddFlag(fl) })
}

// all returns every flag there is, as one set.
func (f *flags) all() *pflag.FlagSet {
	all := pflag.NewFlagSet(f.name, pflag.ContinueOnError)
	all.SetOutput(io.Discard)
	all.Usage = func() {}
	all.SetNormalizeFunc(func(_ *pflag.FlagSet, name string) pflag.NormalizedName {
		name = strings.ReplaceAll(name, "_", "-")
		if now, ok := f.aliases[name]; ok {
			f.warn("Flag --%s has been deprecated, use --%s", name, now)
			name = now
		}
		return pflag.NormalizedName(name)
	})
	for _, s := range f.sections {
		all.AddFlagSet(s.flags)
	}
	for _, r := range f.retired {
		for _, name := range slices.Concat(r.bools, r.names) {
			if all.Lookup(name) != nil {
				continue
			}
			fl := all.VarPF(gone{func() { f.warn("Flag --%s has been deprecated, %s", name, r.why) }}, name, "", "")
			fl.Hidden = true
			if slices.Contains(r.bools, name) {
				fl.NoOptDefVal = "true"
			}
		}
	}
	return all
}

func (f *flags) warn(format string, args ...any) {
	if w := fmt.Sprintf(format, args...); !slices.Contains(f.warnings, w) {
		f.warnings = append(f.warnings, w)
	}
}

// gone is the value of a retired flag.
type gone struct{ seen func() }

func (g gone) Set(string) error { g.seen(); return nil }
func (g gone) String() string   { return "" }
func (g gone) Type() string     { return "string" }

// parse reads a command line. Its error names the flag that was meant, if one is near.
func (f *flags) parse(args []string) (*pflag.FlagSet, error) {
	all := f.all()
	err := all.Parse(args)
	var unknown *pflag.NotExistError
	switch {
	case errors.As(err, &unknown):
		return all, f.unknown(all, unknown)
	case err != nil:
		return all, err
	case all.NArg() > 0:
		return all, fmt.Errorf("unknown command %q", all.Arg(0))
	}
	return all, nil
}

func (f *flags) unknown(all *pflag.FlagSet, err *pflag.NotExistError) error {
	name := err.GetSpecifiedName()
	if len(name) == 1 {
		return fmt.Errorf("%w", err)
	}
	var names []string
	all.VisitAll(func(fl *pflag.Flag) {
		if !fl.Hidden {
			names = append(names, fl.Name)
		}
	})
	return unknownFlag(name, names)
}

// unknownFlag is the error for a flag that is not among names.
func unknownFlag(name string, names []string) error {
	if near := words.Nearest(name, names); near != "" {
		return fmt.Errorf("unknown flag: --%s; did you mean --%s?", name, near)
	}
	return fmt.Errorf("unknown flag: --%s", name)
}

// help writes the flags under their headings.
func (f *flags) help(w io.Writer, about string, width int) {
	fmt.Fprintf(w, "%s\n\nUsage:\n  %s [flags]\n", about, f.name)
	for _, s := range f.sections {
		if s.flags.HasAvailableFlags() {
			fmt.Fprintf(w, "\n%s flags:\n\n%s", s.title, s.flags.FlagUsagesWrapped(width))
		}
	}
	var old []string
	for _, r := range f.retired {
		old = slices.Concat(old, r.bools, r.names)
	}
	for name := range f.aliases {
		old = append(old, name)
	}
	if len(old) > 0 {
		slices.Sort(old)
		fmt.Fprintf(w, "\nFlags of earlier releases, accepted with a warning:\n\n%s", wrapped("--"+strings.Join(slices.Compact(old), ", --"), width))
	}
}

// wrapped breaks words into indented lines.
func wrapped(text string, width int) string {
	if width <= 0 {
		width = 100
	}
	var out strings.Builder
	line := " "
	for _, word := range strings.Fields(text) {
		if len(line)+1+len(word) > width {
			out.WriteString(line + "\n")
			line = " "
		}
		line += " " + word
	}
	return out.String() + line + "\n"
}
