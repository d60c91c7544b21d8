// Package statefulset keeps ordered pods of StatefulSets.
package statefulset
