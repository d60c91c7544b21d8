package doctor

import (
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"
)

// Severity says how much a finding matters.
type Severity int

// Notes are worth knowing, warnings will be errors one day, errors hurt now.
const (
	Note Severity = iota
	Warning
	Error
)

func (s Severity) String() string { return [...]string{"note", "warning", "error"}[s] }

// MarshalText implements encoding.TextMarshaler.
func (s Severity) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// Finding is one thing that is wrong.
type Finding struct {
	Severity Severity `json:"severity"`
	Check    string   `json:"check"`   // which check found it
	Subject  string   `json:"subject"` // whom it is about: kind/name
	What     string   `json:"what"`
	Mend     string   `json:"mend"` // a command, or where to run which
}

// pen writes the findings of one check.
type pen struct {
	check string
	to    *[]Finding
}

func (p pen) write(s Severity, subject, mend, what string) {
	line := func(t string) string { return strings.Join(strings.Fields(t), " ") }
	*p.to = append(*p.to, Finding{s, p.check, subject, line(what), strings.TrimSpace(mend)})
}

func (p pen) fail(subject, mend, format string, a ...any) {
	p.write(Error, subject, mend, fmt.Sprintf(format, a...))
}

func (p pen) warn(subject, mend, format string, a ...any) {
	p.write(Warning, subject, mend, fmt.Sprintf(format, a...))
}

func (p pen) note(subject, mend, format string, a ...any) {
	p.write(Note, subject, mend, fmt.Sprintf(format, a...))
}

// check is one thing to look at; it is pure.
type check struct {
	name string
	run  func(f *Facts, p pen)
}

// checks are all of them, what others follow from first. docs/doctor.md lists them.
func checks() []check {
	return []check{
		{"reach", checkReach}, {"served-certificate", checkServed}, {"machines", checkMachines},
		{"readyz", checkReady}, {"etcd", checkEtcd}, {"components", checkComponents}, {"control-planes", checkPlanes}, {"certificates", checkCertificates},
		{"kubelets", checkKubelets}, {"pressure", checkPressure}, {"overlay", checkOverlay}, {"clocks", checkClocks}, {"versions", checkVersions}, {"addresses", checkAddresses}, {"requests", checkRequests},
		{"dns", checkDNS}, {"webhooks", checkWebhooks}, {"apiservices", checkAPIServices}, {"resources", checkDefinitions}, {"namespaces", checkNamespaces},
		{"creation", checkCreation}, {"pods", checkPods}, {"claims", checkClaims}, {"unread", checkUnread},
		{"host", checkHost}, {"limits", checkLimits}, {"disks", checkDisks}, {"services", checkServices}, {"cni", checkCNI}, {"identity", checkIdentity},
	}
}

// Report is what the doctor says.
type Report struct {
	Server   string    `json:"server,omitempty"`
	Version  string    `json:"version,omitempty"`
	Reached  bool      `json:"reached"`
	Nodes    int       `json:"nodes"`
	Pods     int       `json:"pods"`
	Machine  string    `json:"machine,omitempty"`
	Findings []Finding `json:"findings"`
}

// Examine says what the facts mean.
func Examine(f *Facts) *Report {
	r := &Report{Server: f.Target.Server, Reached: f.Cluster != nil, Findings: []Finding{}}
	if f.Cluster != nil {
		r.Version, r.Nodes, r.Pods = f.Cluster.Version, len(f.Cluster.Nodes), len(f.Cluster.Pods)
	}
	if f.Machine != nil {
		r.Machine = f.Machine.Hostname
	}
	for _, c := range checks() {
		c.run(f, pen{c.name, &r.Findings})
	}
	slices.SortStableFunc(r.Findings, func(a, b Finding) int { return cmp.Compare(b.Severity, a.Severity) })
	return r
}

// Count is how many findings are of a severity.
func (r *Report) Count(s Severity) (n int) {
	for _, f := range r.Findings {
		if f.Severity == s {
			n++
		}
	}
	return n
}

// Code is the exit code: 2 when the cluster was not reached, 1 with errors.
func (r *Report) Code() int {
	switch {
	case !r.Reached:
		return 2
	case r.Count(Error) > 0:
		return 1
	}
	return 0
}

// Text writes one line per finding, and a last one that sums up.
func (r *Report) Text(w io.Writer) error {
	var b strings.Builder
	for _, f := range r.Findings {
		fmt.Fprintf(&b, "%-7s  %s: %s", f.Severity, f.Subject, f.What)
		if f.Mend != "" {
			fmt.Fprintf(&b, "  ->  %s", f.Mend)
		}
		b.WriteByte('\n')
	}
	verdict := "all is well"
	if e, wn := r.Count(Error), r.Count(Warning); e+wn > 0 {
		verdict = fmt.Sprintf("%s, %s", plural(e, "error"), plural(wn, "warning"))
	}
	about := "the cluster was not reached"
	if r.Reached {
		about = fmt.Sprintf("%s (%s): %s, %s", r.Server, r.Version, plural(r.Nodes, "node"), plural(r.Pods, "pod"))
	}
	if r.Machine != "" {
		about += "; this machine: " + r.Machine
	}
	fmt.Fprintf(&b, "%s; %s\n", verdict, about)
	_, err := io.WriteString(w, b.String())
	return err
}

// JSON writes the report as one object.
func (r *Report) JSON(w io.Writer) error {
	e := json.NewEncoder(w)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	return e.Encode(r)
}

func plural(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}
