// Package tainteviction evicts pods that do not tolerate a NoExecute taint.
//
// Job: delete pods from tainted nodes at once or when their tolerations run out.
//
// Not its job: tainting nodes (nodelifecycle).
//
// Invariants: a pod that tolerates all NoExecute taints of its node without a
// limit is never deleted; a limit counts from when this process first saw the
// pod under taints, and starts anew only when no taint is left.
package tainteviction
