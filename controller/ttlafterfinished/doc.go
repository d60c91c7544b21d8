// Package ttlafterfinished deletes finished jobs after their time to live.
package ttlafterfinished
