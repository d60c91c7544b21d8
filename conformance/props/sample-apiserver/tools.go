//go:build tools

// Package tools pins the version of the suite's sample API server.
package tools

import _ "k8s.io/sample-apiserver"
