package main

import (
	"fmt"
	"maps"
	"os"
	"regexp"
	"slices"
	"strings"
)

var sigName = regexp.MustCompile(`^\[(sig-[a-z-]+)\]`)

// tally counts a SIG's specs.
type tally struct {
	passed, failed, notRun int
	seconds                float64
}

// write makes the table for people.
func (c *config) write(r results) error {
	if c.report == "" {
		return nil
	}
	return os.WriteFile(c.report, []byte(r.markdown()), 0o644)
}

func (r results) markdown() string {
	sigs := map[string]*tally{}
	var sum tally
	revisions := map[string]int{}
	for name, s := range r.Specs {
		t := sigs[sig(name)]
		if t == nil {
			t = &tally{}
			sigs[sig(name)] = t
		}
		t.add(s)
		sum.add(s)
		if s.Revision != "" {
			revisions[s.Revision]++
		}
	}
	var b strings.Builder
	b.WriteString(`# The official conformance suite

Written by ` + "`make conformance`" + `, which runs the [Conformance] specs of Kubernetes v1.36.3's end-to-end suite against a
cluster of namespaces on this computer. The suite is compiled as published; its images are made of Go modules and Debian
packages (` + "`conformance/`" + `). A spec that was run alone afterwards has the result of its last run.

`)
	fmt.Fprintf(&b, "**%d of %d specs pass**, on %d nodes, with %d specs at once.\n", sum.passed, sum.passed+sum.failed+sum.notRun, r.Nodes, r.Procs)
	if r.ParallelSeconds > 0 {
		fmt.Fprintf(&b, "The last whole run took %.0f s for those that may run together and %.0f s for the serial ones.\n", r.ParallelSeconds, r.SerialSeconds)
	}
	b.WriteString("\n| SIG | passed | failed | not run | total | seconds |\n|---|---:|---:|---:|---:|---:|\n")
	for _, name := range slices.Sorted(maps.Keys(sigs)) {
		sigs[name].row(&b, name)
	}
	sum.row(&b, "**all**")
	b.WriteString("\nRevisions judged:")
	for _, rev := range slices.Sorted(maps.Keys(revisions)) {
		fmt.Fprintf(&b, " %s (%d specs)", rev, revisions[rev])
	}
	b.WriteString(".\n")
	r.failures(&b)
	return b.String()
}

// failures lists what did not pass, SIG by SIG.
func (r results) failures(b *strings.Builder) {
	last := ""
	names := slices.SortedFunc(maps.Keys(r.Specs), func(x, y string) int {
		return strings.Compare(sig(x)+x, sig(y)+y)
	})
	for _, name := range names {
		s := r.Specs[name]
		if s.State == passed {
			continue
		}
		if last == "" {
			b.WriteString("\n## What does not pass\n")
		}
		if sig(name) != last {
			last = sig(name)
			fmt.Fprintf(b, "\n### %s\n\n", last)
		}
		fmt.Fprintf(b, "- %s (%s", strings.TrimPrefix(name, "["+last+"] "), s.State)
		if s.Revision != "" {
			fmt.Fprintf(b, ", %s", s.Revision)
		}
		b.WriteString(")\n")
		if s.Message != "" {
			fmt.Fprintf(b, "  `%s`\n", strings.ReplaceAll(short(s.Message), "`", "'"))
		}
	}
}

func sig(name string) string {
	if m := sigName.FindStringSubmatch(name); m != nil {
		return m[1]
	}
	return "none"
}

func (t *tally) add(s spec) {
	switch s.State {
	case passed:
		t.passed++
	case notRun:
		t.notRun++
	default:
		t.failed++
	}
	t.seconds += s.Seconds
}

func (t *tally) row(b *strings.Builder, name string) {
	fmt.Fprintf(b, "| %s | %d | %d | %d | %d | %.0f |\n", name, t.passed, t.failed, t.notRun, t.passed+t.failed+t.notRun, t.seconds)
}

// short is a message's beginning.
func short(s string) string {
	if len(s) > 220 {
		s = strings.ToValidUTF8(s[:220], "") + " …"
	}
	return s
}
