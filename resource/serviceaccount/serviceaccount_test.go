package serviceaccount

import (
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sampan-dev/sampan/resource"
)

func TestSecretsKeepTheirNamesAlone(t *testing.T) {
	a := &corev1.ServiceAccount{Secrets: []corev1.ObjectReference{{Name: "s", Namespace: "elsewhere", Kind: "Secret"}}}
	Kind().Prepare(&resource.Request{}, a, nil)
	if a.Secrets[0] != (corev1.ObjectReference{Name: "s"}) {
		t.Errorf("got %+v", a.Secrets)
	}
}

func TestRetiredAnnotationWarnsOnce(t *testing.T) {
	a := &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Annotations: map[string]string{mountableSecrets: "true"}}}
	want := "metadata.annotations[kubernetes.io/enforce-mountable-secrets]: deprecated in v1.32+; prefer separate namespaces to isolate access to mounted secrets"
	if w := Kind().Warnings(a, nil); len(w) != 1 || w[0] != want {
		t.Errorf("got %q", w)
	}
	if w := Kind().Warnings(a, a); len(w) != 0 {
		t.Errorf("got %q of an old annotation", w)
	}
}
