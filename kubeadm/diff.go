package kubeadm

import (
	"fmt"
	"strings"
)

// unified is a diff of two texts as diff -u prints it, empty if they are equal.
// They are manifests: a hundred lines, so that the longest common sequence is
// found the plain way.
func unified(fromName, toName, from, to string, context int) string {
	if from == to {
		return ""
	}
	ops := script(strings.Split(strings.TrimSuffix(from, "\n"), "\n"), strings.Split(strings.TrimSuffix(to, "\n"), "\n"))
	var b strings.Builder
	fmt.Fprintf(&b, "--- %s\n+++ %s\n", fromName, toName)
	a, z := 1, 1 // the next line of each text
	for i := 0; i < len(ops); {
		if ops[i][0] == ' ' {
			i, a, z = i+1, a+1, z+1
			continue
		}
		start := max(0, i-context)
		for k := start; k < i; k++ {
			a, z = a-1, z-1
		}
		end := hunkEnd(ops, i, context)
		var na, nz int
		for _, o := range ops[start:end] {
			if o[0] != '+' {
				na++
			}
			if o[0] != '-' {
				nz++
			}
		}
		fmt.Fprintf(&b, "@@ -%d,%d +%d,%d @@\n%s\n", a, na, z, nz, strings.Join(ops[start:end], "\n"))
		a, z, i = a+na, z+nz, end
	}
	return b.String()
}

// hunkEnd is where the changes that begin at i, and those near them, end.
func hunkEnd(ops []string, i, context int) int {
	last := i
	for k := i; k < len(ops) && k-last <= 2*context+1; k++ {
		if ops[k][0] != ' ' {
			last = k
		}
	}
	return min(len(ops), last+1+context)
}

// script turns a into b: lines that begin with a space stay, with "-" go, with
// "+" come.
func script(a, b []string) []string {
	// common[i][j] is the length of the longest common sequence of a[i:] and b[j:].
	common := make([][]int, len(a)+1)
	for i := range common {
		common[i] = make([]int, len(b)+1)
	}
	for i := len(a) - 1; i >= 0; i-- {
		for j := len(b) - 1; j >= 0; j-- {
			if a[i] == b[j] {
				common[i][j] = common[i+1][j+1] + 1
			} else {
				common[i][j] = max(common[i+1][j], common[i][j+1])
			}
		}
	}
	var out []string
	i, j := 0, 0
	for i < len(a) || j < len(b) {
		switch {
		case i < len(a) && j < len(b) && a[i] == b[j]:
			out = append(out, " "+a[i])
			i, j = i+1, j+1
		case j == len(b) || (i < len(a) && common[i+1][j] >= common[i][j+1]):
			out = append(out, "-"+a[i])
			i++
		default:
			out = append(out, "+"+b[j])
			j++
		}
	}
	return out
}
