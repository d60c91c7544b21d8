// Package config is kubeadm's configuration file, of every version there was.
//
// Job: read v1alpha1 MasterConfiguration through v1beta4 InitConfiguration,
// ClusterConfiguration, JoinConfiguration, ResetConfiguration and
// UpgradeConfiguration, fill in defaults, judge them, and write v1beta4. An old
// file becomes a v1beta4 one by one step per version, on the file's own words,
// before anything is typed.
//
// Not its job: what the configuration makes happen (package kubeadm).
//
// Invariants: one set of types, v1beta4's (https://kubernetes.io/docs/reference/config-api/kubeadm-config.v1beta4/);
// an unknown field is an error that names it; reading what Write wrote gives the
// same configuration.
package config
