// Package words finds the name that somebody meant who typed another.
//
// Job: one judgement of what a typing error is, for every program's flags and
// words. Not its job: saying it. Invariant: a pure function.
package words

import "strings"

// Nearest returns the name that a typing error turns into word, or "".
func Nearest(word string, names []string) string {
	best, distance := "", max(2, len(word)/4)+1
	for _, n := range names {
		if d := editDistance(word, n); d < distance {
			best, distance = n, d
		}
	}
	if best != "" {
		return best
	}
	for _, n := range names {
		if len(word) > 4 && (strings.HasPrefix(n, word) || strings.HasSuffix(n, word)) {
			return n
		}
	}
	return ""
}

// editDistance counts the letters to insert, remove or replace between a and b.
func editDistance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		before := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := before
			if a[i] != b[j] {
				cost++
			}
			before = row[j+1]
			row[j+1] = min(cost, row[j]+1, before+1)
		}
	}
	return row[len(b)]
}
