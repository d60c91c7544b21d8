package bootstraptoken

import (
	"context"
	"maps"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sampan-dev/sampan/client"
	"github.com/sampan-dev/sampan/client/fake"
	"github.com/sampan-dev/sampan/controller"
	"github.com/sampan-dev/sampan/kit/run"
)

func token(id string, edit func(*corev1.Secret)) *corev1.Secret {
	s := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: "kube-system", Name: "bootstrap-token-" + id}, Type: tokenType,
		Data: map[string][]byte{idKey: []byte(id), secretKey: []byte("0123456789abcdef"), signingKey: []byte("true")}}
	if edit != nil {
		edit(s)
	}
	return s
}

// The value was computed with openssl: HMAC-SHA256 over header and content.
func TestSignature(t *testing.T) {
	got, err := signature("payload", "abcdef", "0123456789abcdef")
	if err != nil {
		t.Fatal(err)
	}
	if want := "eyJhbGciOiJIUzI1NiIsImtpZCI6ImFiY2RlZiJ9..pQpAf41KnbpDpf53Otu_ufAeAbWD9CSytTS_WpoG4Mc"; got != want {
		t.Errorf("got %s", got)
	}
}

func TestSigns(t *testing.T) {
	now := time.Now()
	for name, c := range map[string]struct {
		edit func(*corev1.Secret)
		want bool
	}{
		"good":         {nil, true},
		"other type":   {func(s *corev1.Secret) { s.Type = "Opaque" }, false},
		"not for it":   {func(s *corev1.Secret) { s.Data[signingKey] = []byte("no") }, false},
		"wrong name":   {func(s *corev1.Secret) { s.Name = "bootstrap-token-zzzzzz" }, false},
		"short secret": {func(s *corev1.Secret) { s.Data[secretKey] = []byte("x") }, false},
		"expired":      {func(s *corev1.Secret) { s.Data[expirationKey] = []byte(now.Add(-time.Second).Format(time.RFC3339)) }, false},
		"expires":      {func(s *corev1.Secret) { s.Data[expirationKey] = []byte(now.Add(time.Hour).Format(time.RFC3339)) }, true},
		"no date":      {func(s *corev1.Secret) { s.Data[expirationKey] = []byte("soon") }, false},
	} {
		if _, _, got := signs(token("abcdef", c.edit), now); got != c.want {
			t.Errorf("%s: %v", name, got)
		}
	}
}

func TestSignedWhileTokensLast(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		short := token("aaaaaa", func(s *corev1.Secret) {
			s.Data[expirationKey] = []byte(time.Now().Add(time.Hour).Format(time.RFC3339))
		})
		cm := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: "kube-public", Name: "cluster-info"}, Data: map[string]string{"kubeconfig": "x", "jws-kubeconfig-gone00": "old"}}
		s := fake.New(short, token("bbbbbb", nil), cm)
		d := controller.WithClient(s)
		ctx, stop := context.WithCancel(t.Context())
		g := run.New(ctx)
		g.Go("mirrors", d.Mirrors.Run)
		for _, c := range []controller.Controller{NewSigner(d), NewCleaner(d)} {
			g.Go(c.Name(), c.Run)
		}
		has := func(when, want string) {
			t.Helper()
			synctest.Wait()
			m, err := client.Of[corev1.ConfigMap](s, "kube-public").Get(ctx, "cluster-info")
			if err != nil {
				t.Fatal(err)
			}
			if got := strings.Join(slices.Sorted(maps.Keys(m.Data)), " "); got != want {
				t.Errorf("%s: %s", when, got)
			}
		}
		has("at start", "jws-kubeconfig-aaaaaa jws-kubeconfig-bbbbbb kubeconfig")
		time.Sleep(61 * time.Minute)
		has("after an hour", "jws-kubeconfig-bbbbbb kubeconfig")
		if l, _ := client.Of[corev1.Secret](s, "kube-system").List(ctx, nil); len(l) != 1 {
			t.Errorf("%d tokens are left", len(l))
		}
		stop()
		_ = g.Wait()
	})
}
