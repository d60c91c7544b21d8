package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"time"
)

// scene is one program and what its user does with it, in order: an act needs
// the ones before it.
type scene struct {
	name             string // of programs, or what its programs' names begin with
	program, version string
	acts             []act
	clean            func(context.Context) error // what an act that failed has left
}

// act is one thing done and seen to have worked.
type act struct {
	what string
	do   func(context.Context) error
}

// outcome is an act that was played, or was not since one before it failed.
type outcome struct {
	scene *scene
	what  string
	err   error
	ran   bool
	took  time.Duration
}

// run plays all scenes. One that fails does not keep the next from being played.
func (c *config) run(ctx context.Context) (err error) {
	only, err := regexp.Compile(c.only)
	if err != nil {
		return fmt.Errorf("-only: %w", err)
	}
	if err := os.MkdirAll(c.home, 0o755); err != nil {
		return err
	}
	if err := errors.Join(c.build(ctx), c.images(ctx)); err != nil {
		return err
	}
	if !c.keep {
		defer func() { err = errors.Join(err, c.down(ctx)) }()
	}
	if err := c.up(ctx); err != nil {
		return err
	}
	dir, err := os.MkdirTemp(c.home, "files-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	var all []outcome
	for _, sc := range c.scenes(&stage{config: c, dir: dir}) {
		if only.MatchString(sc.name) {
			all = append(all, sc.play(ctx, c.keep)...)
		}
	}
	failed := 0
	for _, o := range all {
		if !o.ran || o.err != nil {
			failed++
		}
	}
	fmt.Printf("%d acts, %d failed\n", len(all), failed)
	if c.report != "" && c.only == "" {
		if err := os.WriteFile(c.report, []byte(page(all, c.version(ctx))), 0o644); err != nil {
			return err
		}
	}
	if failed > 0 {
		return fmt.Errorf("%d of %d acts failed", failed, len(all))
	}
	return nil
}

// scenes are in the order in which they build on each other's programs.
func (c *config) scenes(s *stage) []*scene {
	return []*scene{
		helm(s, "helm4"),
		helm(s, "helm3"),
		metricsServer(s),
		certManager(s),
		prometheusOperator(s),
	}
}

// play plays a scene's acts until one fails, and then takes away what is left
// unless it is to be looked at.
func (sc *scene) play(ctx context.Context, keep bool) []outcome {
	var all []outcome
	broken := false
	for _, a := range sc.acts {
		o := outcome{scene: sc, what: a.what}
		if !broken && ctx.Err() == nil {
			start := time.Now()
			o.ran, o.err = true, a.do(ctx)
			o.took = time.Since(start)
			broken = o.err != nil
		}
		fmt.Println(o.line())
		all = append(all, o)
	}
	if broken && !keep {
		if err := sc.clean(ctx); err != nil {
			fmt.Fprintf(os.Stderr, "interop: %s: clean up: %v\n", sc.program, err)
		}
	}
	return all
}

func (o outcome) line() string {
	l := fmt.Sprintf("%-20s %-9s %-78s %6.1f s  %s", o.scene.program, o.scene.version, o.what, o.took.Seconds(), o.result())
	if o.err != nil {
		l += "\n    " + strings.ReplaceAll(strings.TrimSpace(o.err.Error()), "\n", "\n    ")
	}
	return l
}

func (o outcome) result() string {
	switch {
	case !o.ran:
		return "not reached"
	case o.err != nil:
		return "FAILED"
	}
	return "ok"
}

// charts is where one of the charts of this directory is.
func (s *stage) charts(name string) string {
	abs, err := filepath.Abs(filepath.Join("charts", name))
	if err != nil {
		return name
	}
	return abs
}
