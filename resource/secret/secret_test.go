package secret

import (
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func TestStringDataIsFolded(t *testing.T) {
	s := &corev1.Secret{Data: map[string][]byte{"a": []byte("old")}, StringData: map[string]string{"a": "new", "b": "2"}}
	Kind().Default(s)
	if s.Type != "Opaque" || string(s.Data["a"]) != "new" || string(s.Data["b"]) != "2" || s.StringData != nil {
		t.Errorf("got %+v", s)
	}
}

func TestCreateRules(t *testing.T) {
	data := func(keys ...string) map[string][]byte {
		out := map[string][]byte{}
		for _, k := range keys {
			name, value, _ := strings.Cut(k, "=")
			out[name] = []byte(value)
		}
		return out
	}
	for name, c := range map[string]struct {
		s    corev1.Secret
		want string
	}{
		"good":       {corev1.Secret{Data: data("a=1")}, ""},
		"key":        {corev1.Secret{Data: data("a b=1")}, `data[a b]: Invalid value: "a b": a valid config key must consist of`},
		"tls":        {corev1.Secret{Type: corev1.SecretTypeTLS, Data: data("tls.crt=1")}, "data[tls.key]: Required value"},
		"docker":     {corev1.Secret{Type: corev1.SecretTypeDockerConfigJson}, "data[.dockerconfigjson]: Required value"},
		"docker bad": {corev1.Secret{Type: corev1.SecretTypeDockerConfigJson, Data: data(".dockerconfigjson=x")}, `data[.dockerconfigjson]: Invalid value: "<secret contents redacted>": invalid character 'x' looking for beginning of value`},
		"docker ok":  {corev1.Secret{Type: corev1.SecretTypeDockerConfigJson, Data: data(".dockerconfigjson={}")}, ""},
		"basic":      {corev1.Secret{Type: corev1.SecretTypeBasicAuth}, "[data[username]: Required value, data[password]: Required value]"},
		"ssh":        {corev1.Secret{Type: corev1.SecretTypeSSHAuth}, "data[ssh-privatekey]: Required value"},
		"account":    {corev1.Secret{Type: corev1.SecretTypeServiceAccountToken}, "metadata.annotations[kubernetes.io/service-account.name]: Required value"},
		"account ok": {corev1.Secret{Type: corev1.SecretTypeServiceAccountToken, ObjectMeta: metav1.ObjectMeta{Annotations: map[string]string{"kubernetes.io/service-account.name": "default"}}}, ""},
	} {
		Kind().Default(&c.s)
		err := Kind().Validate(&c.s, nil).ToAggregate()
		if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("%s: got %v, want %q", name, err, c.want)
		}
	}
}

func TestUpdateRules(t *testing.T) {
	prev := &corev1.Secret{Type: "Opaque", Immutable: new(true), Data: map[string][]byte{"a": nil}}
	next := &corev1.Secret{Type: "mine"}
	want := "[type: Invalid value: \"mine\": field is immutable, immutable: Forbidden: field is immutable when `immutable` is set, data: Forbidden: field is immutable when `immutable` is set]"
	if got := Kind().Validate(next, prev).ToAggregate().Error(); got != want {
		t.Errorf("got %s", got)
	}
}

func TestUnusableKeyPairWarns(t *testing.T) {
	s := &corev1.Secret{Type: corev1.SecretTypeTLS, Data: map[string][]byte{"tls.crt": []byte("x"), "tls.key": []byte("y")}}
	if w := Kind().Warnings(s, nil); len(w) != 1 || !strings.Contains(w[0], "failed to find any PEM data in certificate input") {
		t.Errorf("got %q", w)
	}
}
