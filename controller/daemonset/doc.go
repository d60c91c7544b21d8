// Package daemonset keeps one pod of every DaemonSet on every node that fits it.
package daemonset
