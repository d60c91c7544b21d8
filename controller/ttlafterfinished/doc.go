// Package ttlafterfinished deletes finished Jobs after their time to live.
//
// Job: delete a Job ttlSecondsAfterFinished after it completed or failed, its
// pods before it.
//
// Not its job: finishing Jobs.
//
// Invariants: the server's own copy is asked before anything is deleted, for the
// time to live may have been prolonged.
package ttlafterfinished
