package main

import (
	"encoding/json"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"
)

const (
	passed = "passed"
	notRun = "not run"
)

// spec is what became of one spec the last time it was run.
type spec struct {
	State    string    `json:"state"`
	Seconds  float64   `json:"seconds,omitempty"`
	Message  string    `json:"message,omitempty"`
	Revision string    `json:"revision,omitempty"`
	When     time.Time `json:"when,omitzero"`
}

// results are those of all specs, over one or several runs.
type results struct {
	Nodes           int             `json:"nodes"`
	Procs           int             `json:"procs"`
	ParallelSeconds float64         `json:"parallelSeconds"`
	SerialSeconds   float64         `json:"serialSeconds"`
	Specs           map[string]spec `json:"specs"`
}

func readResults(path string) (results, error) {
	r := results{Specs: map[string]spec{}}
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return r, nil
	}
	if err == nil {
		err = json.Unmarshal(data, &r)
	}
	if err != nil {
		return r, fmt.Errorf("earlier results: %w", err)
	}
	return r, nil
}

func (r results) write(path string) error {
	data, err := json.MarshalIndent(r, "", " ")
	if err != nil {
		return err
	}
	return os.WriteFile(path, append(data, '\n'), 0o644)
}

// junit is the part of a JUnit report that matters here.
type junit struct {
	Suites []struct {
		Cases []struct {
			Name    string   `xml:"name,attr"`
			Status  string   `xml:"status,attr"`
			Seconds float64  `xml:"time,attr"`
			Failure *trouble `xml:"failure"`
			Error   *trouble `xml:"error"`
		} `xml:"testcase"`
	} `xml:"testsuite"`
}

type trouble struct {
	Message string `xml:"message,attr"`
	Text    string `xml:",chardata"`
}

// read takes the results of a report; specs that it does not have were not run.
func (r results) read(path string, specs []string) error {
	for _, s := range specs {
		r.Specs[s] = spec{State: notRun}
	}
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		fmt.Fprintf(os.Stderr, "conformance: the suite left no report %s\n", filepath.Base(path))
		return nil
	}
	if err != nil {
		return err
	}
	var j junit
	if err := xml.Unmarshal(data, &j); err != nil {
		return fmt.Errorf("report %s: %w", filepath.Base(path), err)
	}
	for _, s := range j.Suites {
		for _, c := range s.Cases {
			// The report adds a spec's labels, in brackets, to its name.
			name := labels.ReplaceAllString(strings.TrimPrefix(c.Name, "[It] "), "")
			if _, mine := r.Specs[name]; !mine || c.Status == "skipped" || c.Status == "pending" {
				continue
			}
			got := spec{State: c.Status, Seconds: c.Seconds}
			for _, t := range []*trouble{c.Failure, c.Error} {
				if t != nil {
					got.Message = brief(t.Message + "\n" + t.Text)
				}
			}
			r.Specs[name] = got
		}
	}
	return nil
}

var labels = regexp.MustCompile(` \[[^\[\]]*\]$`)

var noise = regexp.MustCompile(`(?m)^\s*(<\*?[\w./]+ \| 0x[0-9a-f]+>:?|\{|\}|occurred|In \[.*)\s*$`)

// brief keeps the part of a failure that says why.
func brief(text string) string {
	text = noise.ReplaceAllString(text, "")
	text = strings.Join(strings.Fields(text), " ")
	if len(text) > 1500 {
		text = text[:1500] + " …"
	}
	return strings.ToValidUTF8(text, "")
}

func (r results) stamp(revision string, when time.Time) {
	for name, s := range r.Specs {
		if s.State != notRun {
			s.Revision, s.When = revision, when.Truncate(time.Second)
			r.Specs[name] = s
		}
	}
}

// merge takes over what a run says; what it did not get to keeps its earlier
// result. Specs that the suite no longer has are forgotten.
func (r *results) merge(now results, all []string) {
	for name, s := range now.Specs {
		if _, have := r.Specs[name]; !have || s.State != notRun {
			r.Specs[name] = s
		}
	}
	for _, name := range all {
		if _, have := r.Specs[name]; !have {
			r.Specs[name] = spec{State: notRun}
		}
	}
	for name := range r.Specs {
		if !slices.Contains(all, name) {
			delete(r.Specs, name)
		}
	}
	r.Nodes, r.Procs = now.Nodes, now.Procs
	if len(now.Specs) == len(all) { // the time of a few specs says nothing
		r.ParallelSeconds, r.SerialSeconds = now.ParallelSeconds, now.SerialSeconds
	}
}

// say prints the outcome of a run.
func (r results) say(w io.Writer, specs []string) {
	good := 0
	for _, s := range specs {
		if r.Specs[s].State == passed {
			good++
			continue
		}
		fmt.Fprintf(w, "%-8s %s\n         %.300s\n", r.Specs[s].State, s, r.Specs[s].Message)
	}
	fmt.Fprintf(w, "%d passed, %d failed\n", good, len(specs)-good)
}
