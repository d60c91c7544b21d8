package controlplane

import (
	"testing"

	"github.com/sampan-dev/sampan/apiserver/rest"
	"github.com/sampan-dev/sampan/resource/all"
)

// Keys are known by their resource, wherever upstream stores it.
func TestStored(t *testing.T) {
	of := stored(rest.NewRegistry(all.Kinds()))
	for key, want := range map[string][2]string{
		"/registry/secrets/default/s":               {"", "secrets"},
		"/registry/services/specs/default/s":        {"", "services"},
		"/registry/services/endpoints/default/s":    {"", "endpoints"},
		"/registry/minions/n":                       {"", "nodes"},
		"/registry/deployments/default/d":           {"apps", "deployments"},
		"/registry/ingress/default/i":               {"networking.k8s.io", "ingresses"},
		"/registry/stable.example.com/crontabs/a/b": {"stable.example.com", "crontabs"},
	} {
		if group, resource := of(key); [2]string{group, resource} != want {
			t.Errorf("%s: %q %q, want %q", key, group, resource, want)
		}
	}
}
