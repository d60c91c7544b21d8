package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"
)

// config is what a run can be told.
type config struct {
	sampan string // the binary the cluster is made with
	home   string // where the cluster, the images and the programs' own files are
	bin    string // where built programs are kept
	report string // the table for people

	cluster string
	only    string // programs whose names match
	keep    bool   // leave the cluster up
	limit   time.Duration
}

func (c *config) flags(fs *flag.FlagSet) {
	fs.StringVar(&c.sampan, "sampan", "../bin/sampan", "the binary the cluster is made with")
	fs.StringVar(&c.home, "home", "/var/tmp/sampan-interop", "where the cluster, the images and the programs' own files are")
	fs.StringVar(&c.bin, "bin", "../bin/interop", "where built programs are kept")
	fs.StringVar(&c.report, "report", "../docs/interop.md", "the table for people, written by a run of all programs; empty for none")
	fs.StringVar(&c.cluster, "cluster", "interop", "the cluster's name")
	fs.StringVar(&c.only, "only", "", "run only programs whose names match this expression")
	fs.BoolVar(&c.keep, "keep", false, "leave the cluster up, and what a scene that failed has made; a cluster that is up is used")
	fs.DurationVar(&c.limit, "limit", time.Hour, "bound of the whole run")
}

// check says what is wrong with a configuration, and makes its paths absolute.
func (c *config) check() error {
	var errs []error
	for _, p := range []*string{&c.sampan, &c.home, &c.bin} {
		abs, err := filepath.Abs(*p)
		errs, *p = append(errs, err), abs
	}
	if _, err := os.Stat(c.sampan); err != nil {
		errs = append(errs, fmt.Errorf("-sampan: %w", err))
	}
	if os.Getuid() != 0 {
		errs = append(errs, errors.New("nodes are made of namespaces, which needs root"))
	}
	return errors.Join(errs...)
}

const usage = `usage: interop COMMAND [FLAGS]

  build   the programs
  run     the programs, their images, a cluster, the scenes, the report
`

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := command(ctx, os.Args[1:])
	stop()
	os.Exit(code)
}

func command(ctx context.Context, args []string) int {
	var c config
	fs := flag.NewFlagSet("interop", flag.ContinueOnError)
	fs.Usage = func() { fmt.Fprint(fs.Output(), usage); fs.PrintDefaults() }
	c.flags(fs)
	if len(args) == 0 {
		fs.Usage()
		return 2
	}
	if err := fs.Parse(args[1:]); err != nil {
		return 2
	}
	commands := map[string]func(context.Context) error{"build": c.build, "run": c.run}
	do, ok := commands[args[0]]
	if !ok {
		fs.Usage()
		return 2
	}
	ctx, cancel := context.WithTimeout(ctx, c.limit)
	defer cancel()
	err := c.check()
	if err == nil {
		err = do(ctx)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "interop:", err)
		return 1
	}
	return 0
}
