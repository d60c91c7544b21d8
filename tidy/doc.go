// Package tidy holds the house rules as tests: which room may import which
// (file ROOMS at the root), and the habits no ordinary linter checks.
//
// Files are parsed rather than listed by the go command, because what a test
// opens is part of its cache key and what a subprocess opens is not.
package tidy
