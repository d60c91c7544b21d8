// Package rootca keeps the ConfigMap kube-root-ca.crt in every active namespace.
package rootca
