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
	sampan string // the binary under judgement
	home   string // where the cluster, the images and the logs are
	bin    string // where built programs are kept
	report string // the table for people
	facts  string // the same for programs

	cluster     string
	nodes       int
	procs       int
	focus, skip string
	failed      bool // only what did not pass the last time
	keep        bool // leave the cluster up
	limit       time.Duration
}

func (c *config) flags(fs *flag.FlagSet) {
	fs.StringVar(&c.sampan, "sampan", "../bin/sampan", "the binary under judgement")
	fs.StringVar(&c.home, "home", "/var/tmp/sampan-conformance", "where the cluster, the images and the logs are")
	fs.StringVar(&c.bin, "bin", "../bin/conformance", "where built programs are kept")
	fs.StringVar(&c.report, "report", "../docs/conformance.md", "the table for people; empty for none")
	fs.StringVar(&c.facts, "facts", "results.json", "the same for programs; results of specs that are not run now are kept in it")
	fs.StringVar(&c.cluster, "cluster", "conf", "the cluster's name")
	fs.IntVar(&c.nodes, "nodes", 2, "how many nodes")
	fs.IntVar(&c.procs, "procs", 8, "how many specs run at once, but for serial ones")
	fs.StringVar(&c.focus, "focus", "", "run only conformance specs whose names match this expression")
	fs.StringVar(&c.skip, "skip", "", "do not run specs whose names match this expression")
	fs.BoolVar(&c.failed, "failed", false, "run only what did not pass the last time")
	fs.BoolVar(&c.keep, "keep", false, "leave the cluster up; one that is up is used")
	fs.DurationVar(&c.limit, "limit", time.Hour, "bound of the whole run")
}

// check says what is wrong with a configuration, and makes its paths absolute.
func (c *config) check() error {
	var errs []error
	for _, p := range []*string{&c.sampan, &c.home, &c.bin, &c.facts} {
		abs, err := filepath.Abs(*p)
		errs, *p = append(errs, err), abs
	}
	if c.nodes < 2 {
		errs = append(errs, errors.New("-nodes: the suite needs two at least"))
	}
	if c.procs < 1 {
		errs = append(errs, errors.New("-procs: want 1 at least"))
	}
	if os.Getuid() != 0 {
		errs = append(errs, errors.New("nodes are made of namespaces, which needs root"))
	}
	return errors.Join(errs...)
}

const usage = `usage: conformance COMMAND [FLAGS]

  build    the suite, and the programs of its images
  images   build, and make the images
  run      images, a cluster, the suite, the report
  report   write the report again from the results that are kept
`

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := judge(ctx, os.Args[1:])
	stop()
	os.Exit(code)
}

func judge(ctx context.Context, args []string) int {
	var c config
	fs := flag.NewFlagSet("conformance", flag.ContinueOnError)
	fs.Usage = func() { fmt.Fprint(fs.Output(), usage); fs.PrintDefaults() }
	c.flags(fs)
	if len(args) == 0 {
		fs.Usage()
		return 2
	}
	if err := fs.Parse(args[1:]); err != nil {
		return 2
	}
	commands := map[string]func(context.Context) error{"build": c.build, "images": c.images, "run": c.run, "report": c.again}
	do, ok := commands[args[0]]
	if !ok {
		fs.Usage()
		return 2
	}
	err := c.check()
	if err == nil {
		err = do(ctx)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "conformance:", err)
		return 1
	}
	return 0
}
