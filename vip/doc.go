// Package vip holds a virtual address: several machines agree by VRRP on which
// of them has it, as keepalived does, and with keepalived.
//
// Job: the adverts of VRRP versions 2 (RFC 3768, with authentication by password)
// and 3 (RFC 5798), the decision who holds the address, putting it on an
// interface and telling the network by gratuitous ARP.
//
// Not its job: what is served at the address; whether that is well, which it asks.
//
// Invariants: Decide is pure. Machines that hear each other agree on one holder.
// Who is not ready stands back for who is, and still holds the address where
// nobody is. The address goes by itself, by the kernel's clock, when the process
// that put it there no longer lives or runs.
package vip
