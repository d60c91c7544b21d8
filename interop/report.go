package main

import (
	"fmt"
	"strings"
)

const preface = `# Programs of others

Written by ` + "`make interop`" + `, which builds programs that nobody here wrote from their published Go modules (` + "`interop/`" + `), makes
images of those that run in pods, and does on a fresh cluster of one node what their users do. Charts and manifests are the
programs' own, as their modules publish them.

`

// page is the table for people.
func page(all []outcome, version string) string {
	var b strings.Builder
	b.WriteString(preface)
	ok := 0
	for _, o := range all {
		if o.ran && o.err == nil {
			ok++
		}
	}
	fmt.Fprintf(&b, "**%d of %d acts succeed**, with %s.\n\n", ok, len(all), version)
	b.WriteString("| program | version | what was done | result | seconds |\n|---|---|---|---|---:|\n")
	for _, o := range all {
		fmt.Fprintf(&b, "| %s | %s | %s | %s | %.1f |\n", o.scene.program, o.scene.version, strings.ReplaceAll(o.what, "|", `\|`), o.result(), o.took.Seconds())
	}
	b.WriteString(notes)
	return b.String()
}
