// Package masters tests clusters with several control planes that kubeadm made:
// joining, leaving, and what is lost when one or two of three are (nothing, and
// no more than is said).
package masters
