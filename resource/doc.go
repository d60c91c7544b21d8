// Package resource says what the API server knows of a kind.
//
// Job: Def, the one definition per kind, and Kind, the same with its type
// erased, which is what generic handlers hold. Every kind has a room below
// this one; resource/all lists them.
//
// Not its job: storing, serving, authorizing. Definitions are pure: no storage,
// no network, no clock; what a rule needs of the world comes in a Request or is
// asked of a Ledger.
//
// Invariants: functions of a Def may modify only next; prev is shared and
// immutable. Zero fields of a Def mean the ordinary way.
package resource
