package etcdctl

import (
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/pflag"
)

// form is which version's commands a line is of.
type form int

const (
	thirdForm form = iota
	secondForm
)

// wordsOfSecond are the commands that only the second version had.
var wordsOfSecond = []string{"backup", "cluster-health", "exec-watch", "ls", "mk", "mkdir", "rm", "rmdir", "set", "setdir", "update", "updatedir"}

// flagsOfSecond are the global flags that only the second version had.
var flagsOfSecond = []string{"ca-file", "cert-file", "key-file", "peers", "C", "endpoint", "no-sync", "username", "u", "output", "o", "timeout", "total-timeout", "D"}

// formOf says which version's commands args are, where api is ETCDCTL_API: what
// it says, else the second's if the word or a flag before it is of the second
// alone, else the third's.
func formOf(api string, args []string) (form, error) {
	switch api {
	case "2":
		return secondForm, nil
	case "3":
		return thirdForm, nil
	case "":
	default:
		return thirdForm, fmt.Errorf("ETCDCTL_API %q: want 2 or 3, or none", api)
	}
	word, flags := split(args)
	if slices.Contains(wordsOfSecond, word) || slices.ContainsFunc(flags, func(f string) bool { return slices.Contains(flagsOfSecond, f) }) {
		return secondForm, nil
	}
	return thirdForm, nil
}

// split finds the word of a command line, and the names of the flags before it.
func split(args []string) (word string, before []string) {
	fs := pflag.NewFlagSet("", pflag.ContinueOnError)
	globalFlags(fs)
	of2 := pflag.NewFlagSet("", pflag.ContinueOnError)
	secondFlags(of2, &settings{})
	fs.AddFlagSet(of2)
	takesValue := func(name string) bool {
		f := fs.Lookup(name)
		if f == nil && len(name) == 1 {
			f = of2.ShorthandLookup(name)
			if f == nil {
				f = fs.ShorthandLookup(name)
			}
		}
		return f != nil && f.NoOptDefVal == ""
	}
	for i := 0; i < len(args); i++ {
		name, ok := strings.CutPrefix(args[i], "-")
		if !ok || name == "" {
			return args[i], before
		}
		if name == "-" {
			if i+1 < len(args) {
				word = args[i+1]
			}
			return word, before
		}
		name, _, has := strings.Cut(strings.TrimPrefix(name, "-"), "=")
		before = append(before, name)
		if !has && takesValue(name) {
			i++
		}
	}
	return "", before
}
