// Package encrypt keeps what is stored from those who read the disk.
//
// Job: read an EncryptionConfiguration (apiserver.config.k8s.io/v1), encrypt the
// values of the resources it names before they reach the store behind, decrypt
// them on the way back, with upstream's providers in upstream's format, so that
// upstream's API server reads what this one wrote and the other way round; take
// over a changed configuration while running.
//
// Not its job: choosing keys, rewriting what is stored (a write of each object
// does, for Record.Stale says which are outdated).
//
// Invariants: the first provider writes, any reads; a value is bound to its key,
// so that it cannot be read elsewhere; what cannot be decrypted is an error and
// never shown as it is.
package encrypt
