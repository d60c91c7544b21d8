// Package e2e holds tests of the whole: a real cluster on this computer, made by
// bin/sampan, spoken to by kubectl as a user would.
//
// The tests need root, since nodes are made of namespaces, and are skipped
// without it. The cluster's network has no route to anywhere outside.
package e2e
