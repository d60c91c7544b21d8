// Package controller is the engine under every control loop.
//
// Job: Loop, which turns changes of mirrored kinds into keys, works on the keys
// with retries and measures it; and the few things many loops do alike: making
// pods, adopting and releasing dependents, creating in growing batches, and
// remembering own writes until the mirrors show them.
//
// Not its job: what any loop decides (one room per loop below), which loops run
// (the wiring).
//
// Invariants: one key of a loop is never worked on twice at once. A loop that
// asks Unseen before it decides never acts twice on the same view, so it makes
// no duplicates and needs no expectations with timeouts. A Loop runs once: who
// leads again makes new loops over new mirrors.
package controller
