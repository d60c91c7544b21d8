// Package all lists every kind the API server has.
//
// Job: the one list, in order.
//
// Not its job: what a kind is: see its room.
//
// Invariants: a kind is listed once.
package all

import (
	"slices"

	"github.com/sampan-dev/sampan/resource"
	"github.com/sampan-dev/sampan/resource/deployment"
	"github.com/sampan-dev/sampan/resource/pod"
	"github.com/sampan-dev/sampan/resource/replicaset"
)

// Kinds is every kind, group by group.
func Kinds() []resource.Kind {
	return slices.Concat(core(), apps())
}

func core() []resource.Kind {
	return []resource.Kind{
		pod.Kind(),
	}
}

func apps() []resource.Kind {
	return []resource.Kind{
		deployment.Kind(),
		replicaset.Kind(),
	}
}
