// Package volumebinder brings claims and volumes together.
//
// Job: bind claims to volumes that serve them, keep the phases of both, ask
// external provisioners for volumes, and reclaim released ones.
//
// Not its job: where pods with claims run (scheduler); attaching and mounting;
// provisioning.
//
// Invariants: the volume is written before the claim, so a crash between leaves
// a volume that names its claim; what a user pre-bound is never unmade; a
// volume that was bound once is free again only after it was reclaimed.
package volumebinder
