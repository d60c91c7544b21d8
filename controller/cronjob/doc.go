// Package cronjob starts Jobs when the clock says so.
//
// Job: create a CronJob's Job at each moment of its schedule, as its
// concurrency policy allows; keep the list of running Jobs and the times of
// the last start and success; delete finished Jobs beyond the history limits.
//
// Not its job: running Jobs, what a schedule means (semantics/cron).
//
// Invariants: a moment starts at most one Job, for the moment makes its name.
// Of several moments missed only the latest is made up for.
package cronjob
