// Package certificates answers certificate signing requests.
//
// Job: approve the client certificates that kubelets ask for, as far as they may
// (NewApprover); sign approved requests to the cluster's own signers (NewSigner);
// delete requests that are done with (NewCleaner).
//
// Not its job: keys and authorities (kit/pki), who may approve by hand.
//
// Invariants: nothing is approved but what the authorizer allows its requestor;
// nothing is signed that is not approved, nor for longer than the configuration says.
package certificates
