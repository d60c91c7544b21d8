package configmap

import (
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"

	"github.com/sampan-dev/sampan/api"
)

func TestRules(t *testing.T) {
	frozen := &corev1.ConfigMap{Immutable: new(true), Data: map[string]string{"a": "1"}}
	for name, c := range map[string]struct {
		next, prev *corev1.ConfigMap
		want       string
	}{
		"good":     {&corev1.ConfigMap{Data: map[string]string{"a.b-c_d": ""}}, nil, ""},
		"key":      {&corev1.ConfigMap{Data: map[string]string{"a/b": ""}}, nil, `data[a/b]: Invalid value: "a/b": a valid config key must consist of alphanumeric characters, '-', '_' or '.'`},
		"both":     {&corev1.ConfigMap{Data: map[string]string{"a": ""}, BinaryData: map[string][]byte{"a": nil}}, nil, `data[a]: Invalid value: "a": duplicate of key present in binaryData`},
		"long":     {&corev1.ConfigMap{Data: map[string]string{"a": strings.Repeat("x", 1<<20+1)}}, nil, "Too long: may not be more than 1048576 bytes"},
		"frozen":   {&corev1.ConfigMap{Immutable: new(true), Data: map[string]string{"a": "2"}}, frozen, "data: Forbidden: field is immutable when `immutable` is set"},
		"thawed":   {&corev1.ConfigMap{Data: frozen.Data}, frozen, "immutable: Forbidden: field is immutable when `immutable` is set"},
		"the same": {frozen, frozen, ""},
	} {
		check(t, name, Kind().Validate(c.next, erase(c.prev)).ToAggregate(), c.want)
	}
}

func erase(c *corev1.ConfigMap) api.Object {
	if c == nil {
		return nil
	}
	return c
}

func check(t *testing.T, name string, err error, want string) {
	t.Helper()
	if want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
		t.Errorf("%s: got %v, want %q", name, err, want)
	}
}
