package client_test

import (
	coordinationv1 "k8s.io/api/coordination/v1"

	"github.com/sampan-dev/sampan/client/fake"
)

// holderOf returns who would hold the lease that a call writes.
func holderOf(c fake.Call) string {
	l, ok := c.Object.(*coordinationv1.Lease)
	if !ok || l.Spec.HolderIdentity == nil {
		return ""
	}
	return *l.Spec.HolderIdentity
}
