// Package seeds plays the guides that this project is to satisfy, command for
// command: docs/seeds.md lists their commands and what becomes of each.
//
// Job: the scripts in testdata, and the player of scripts. Not its job: machines
// (e2e/lab). Invariant: a script holds what the guide's reader types; only
// addresses differ, and what differs beside them says why.
package seeds
