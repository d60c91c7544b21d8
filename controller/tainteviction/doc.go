// Package tainteviction evicts pods that do not tolerate a NoExecute taint.
package tainteviction
