package garbagecollector

import (
	"slices"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// standing sorts an object's owners by how they are.
type standing struct {
	solid    []types.UID // there, and not waiting for this object to go
	dangling []types.UID // gone
	waiting  []types.UID // being deleted, their dependents first
}

// plan is what to do with an object that has owners.
type plan struct {
	unlink  []types.UID // references to drop
	unblock bool        // let owners go before this object: it would wait for itself
	remove  metav1.DeletionPropagation
}

// decide judges an object by its owners and what depends on it.
func decide(s standing, finalizers []string, dependents []*node) plan {
	switch {
	case len(s.solid) > 0:
		return plan{unlink: slices.Concat(s.dangling, s.waiting)}
	case len(s.waiting) > 0 && len(dependents) > 0:
		// An owner waits for this object, which therefore goes in the
		// foreground as well. A dependent that does so already may be the
		// owner of that owner: then each would wait for the other.
		circle := slices.ContainsFunc(dependents, func(d *node) bool { return d.foreground })
		return plan{unblock: circle, remove: metav1.DeletePropagationForeground}
	case len(s.waiting) == 0 && len(s.dangling) == 0:
		return plan{}
	case slices.Contains(finalizers, metav1.FinalizerOrphanDependents):
		return plan{remove: metav1.DeletePropagationOrphan}
	case slices.Contains(finalizers, metav1.FinalizerDeleteDependents):
		return plan{remove: metav1.DeletePropagationForeground}
	}
	return plan{remove: metav1.DeletePropagationBackground}
}

// blocking returns the dependents that owner must outlive.
func blocking(owner types.UID, dependents []*node) []*node {
	return slices.DeleteFunc(dependents, func(d *node) bool { return !d.blocks(owner) })
}

// without returns references save those to some owners.
func without(refs []metav1.OwnerReference, owners ...types.UID) []metav1.OwnerReference {
	return slices.DeleteFunc(slices.Clone(refs), func(r metav1.OwnerReference) bool { return slices.Contains(owners, r.UID) })
}

// unblocked returns references none of which holds up its owner.
func unblocked(refs []metav1.OwnerReference) []metav1.OwnerReference {
	refs = slices.Clone(refs)
	for i := range refs {
		no := false
		refs[i].BlockOwnerDeletion = &no
	}
	return refs
}
