package config

import (
	"testing"

	"github.com/sampan-dev/sampan/kit/monster"
)

// FuzzRead: documents of any version are read or refused.
func FuzzRead(f *testing.F) {
	for _, text := range []string{
		"apiVersion: kubeadm.k8s.io/v1beta4\nkind: ClusterConfiguration\nnetworking: {podSubnet: 10.244.0.0/16}\napiServer: {extraArgs: [{name: a, value: b}]}",
		"apiVersion: kubeadm.k8s.io/v1beta3\nkind: InitConfiguration\nbootstrapTokens: [{token: abcdef.0123456789abcdef, ttl: 24h}]\n---\napiVersion: kubeadm.k8s.io/v1beta3\nkind: ClusterConfiguration\napiServer: {extraArgs: {a: b}}",
		"apiVersion: kubeadm.k8s.io/v1alpha1\nkind: MasterConfiguration\napi: {advertiseAddress: x}", "apiVersion: kubeadm.k8s.io/v1beta4\nkind: JoinConfiguration\ndiscovery: null\ncontrolPlane: {}",
		"apiVersion: kubeadm.k8s.io/v1beta4\nkind: ResetConfiguration\nforce: maybe", "apiVersion: kubelet.config.k8s.io/v1beta1\nkind: KubeletConfiguration", "apiVersion: kubeadm.k8s.io/v9\nkind: ClusterConfiguration", "apiVersion: {}\nkind: []",
	} {
		f.Add([]byte(text))
	}
	for _, text := range monster.YAML() {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		monster.Bounded(t, len(text), func() {
			if file, err := Read(text); err == nil && file == nil {
				t.Error("neither a file nor an error")
			}
		})
	})
}
