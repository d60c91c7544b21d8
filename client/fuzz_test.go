package client

import (
	"bytes"
	"testing"

	"github.com/sampan-dev/sampan/kit/monster"
)

// FuzzKubeconfig: a file names a cluster or is refused.
func FuzzKubeconfig(f *testing.F) {
	whole, err := Kubeconfig{Cluster: "c", User: "u", Server: "https://127.0.0.1:6443", CA: []byte("x"), Token: "t"}.Encode()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(whole)
	f.Add([]byte("apiVersion: v1\nkind: Config\nclusters: [{name: a}]\ncontexts: [{name: x, context: {cluster: b}}]\ncurrent-context: x"))
	f.Add([]byte("apiVersion: v1\nkind: Config\nclusters: [{name: a, cluster: null}, null]\nusers: [null]\ncontexts: [null]\n"))
	for _, text := range monster.YAML() {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		if bytes.Contains(text, []byte("certificate-authority")) && !bytes.Contains(text, []byte("certificate-authority-data")) {
			return // a file of any name, which is to be read
		}
		monster.Bounded(t, len(text), func() {
			server, _, err := ClusterOf(text)
			if err != nil && server != "" {
				t.Errorf("%q and %v", server, err)
			}
		})
	})
}
