package all

import (
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/sampan-dev/sampan/resource"
)

// served says in which versions a resource is served, in order.
func served(t *testing.T, pairs map[string]string, plural string) string {
	t.Helper()
	c, err := resource.ReadChoice(pairs)
	if err != nil {
		t.Fatal(err)
	}
	kinds, err := c.Of(Kinds())
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, k := range kinds {
		i := k.Info()
		if i.Plural != plural {
			continue
		}
		if !i.Hidden {
			out = append(out, i.GroupVersionKind.GroupVersion().String())
		}
		for _, v := range i.Also {
			out = append(out, schema.GroupVersion{Group: v.Group, Version: v.Version}.String())
		}
	}
	return strings.Join(out, " ")
}

// What is served is what --runtime-config says, the more exact word winning.
func TestChoiceOfVersions(t *testing.T) {
	const every = "apps/v1 apps/v1beta2 apps/v1beta1 extensions/v1beta1"
	for _, tt := range []struct {
		pairs map[string]string
		want  string
	}{
		{nil, every},
		{map[string]string{"api/all": "true"}, every},
		{map[string]string{"api/retired": "false"}, "apps/v1"},
		{map[string]string{"api/retired": "false", "extensions/v1beta1": ""}, "apps/v1 extensions/v1beta1"},
		{map[string]string{"api/beta": "false"}, "apps/v1"},
		{map[string]string{"api/all": "false", "apps/v1": "true"}, "apps/v1"},
		{map[string]string{"apps/v1": "false"}, "apps/v1beta2 apps/v1beta1 extensions/v1beta1"},
		{map[string]string{"apps/v1beta1/deployments": "false", "extensions/v1beta1": "false"}, "apps/v1 apps/v1beta2"},
		{map[string]string{"apps/v1beta1/statefulsets": "false", "no.such.group/v9": "false"}, every},
	} {
		if got := served(t, tt.pairs, "deployments"); got != tt.want {
			t.Errorf("%v: %q, want %q", tt.pairs, got, tt.want)
		}
	}
	if got := served(t, map[string]string{"api/v1": "false"}, "pods"); got != "" {
		t.Errorf("without the core's v1 pods are served in %s", got)
	}
}

func TestChoiceRefusesWhatNobodyHas(t *testing.T) {
	for pair, want := range map[string]string{
		"api/everything=true": "invalid key", "apps/v1=yes": "must be true or false", "Apps/v1=true": "invalid key", "apps/v7=true": "unknown API version apps/v7",
	} {
		k, v, _ := strings.Cut(pair, "=")
		c, err := resource.ReadChoice(map[string]string{k: v})
		if err == nil {
			_, err = c.Of(Kinds())
		}
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", pair, err, want)
		}
	}
}
