// Package job runs the pods of Jobs to completion.
//
// Job: create pods, indexed or not, until enough have succeeded; count each end
// exactly once; give up by the backoff limit, the deadline or the failure policy.
//
// Not its job: schedules (CronJobs), deleting finished Jobs (ttlafterfinished).
//
// Invariants: a pod keeps its tracking finalizer until its end is written in the
// Job's status, so no end is missed or counted twice, whatever restarts.
package job
