package api

import (
	goruntime "runtime"

	"k8s.io/apimachinery/pkg/version"
)

// The build stamps these (see the Makefile); a build without it says so.
var (
	gitVersion   = "v1.37.2+sampan.dev"
	gitCommit    = "unknown"
	gitTreeState = "unknown"
	buildDate    = "1970-01-01T00:00:00Z"
)

// Kubernetes is the release whose API is served.
const Kubernetes = "v1.37.2"

// Version is what /version answers and every component reports.
func Version() version.Info {
	return version.Info{
		Major: "1", Minor: "37",
		GitVersion: gitVersion, GitCommit: gitCommit, GitTreeState: gitTreeState, BuildDate: buildDate,
		GoVersion: goruntime.Version(), Compiler: goruntime.Compiler, Platform: goruntime.GOOS + "/" + goruntime.GOARCH,
	}
}
