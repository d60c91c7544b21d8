package legacytoken

import (
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

func token(name string, edit func(*corev1.Secret)) *corev1.Secret {
	s := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: "a", Labels: map[string]string{}, CreationTimestamp: metav1.NewTime(time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC)),
		Annotations: map[string]string{corev1.ServiceAccountNameKey: "sa", corev1.ServiceAccountUIDKey: "u"}}, Type: corev1.SecretTypeServiceAccountToken}
	if edit != nil {
		edit(s)
	}
	return s
}

func TestYears(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		account := &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: "sa", Namespace: "a", UID: "u"}}
		for _, n := range []string{"unused", "mounted", "other"} {
			account.Secrets = append(account.Secrets, corev1.ObjectReference{Name: n})
		}
		srv := fake.New(account, token("unused", nil), token("mounted", nil), token("by-hand", nil),
			token("other", func(s *corev1.Secret) { s.Annotations[corev1.ServiceAccountUIDKey] = "older" }),
			&corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: trackingName, Namespace: "kube-system"}, Data: map[string]string{trackingKey: "2000-01-01"}},
			&corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "p", Namespace: "a"}, Spec: corev1.PodSpec{Volumes: []corev1.Volume{{VolumeSource: corev1.VolumeSource{Secret: &corev1.SecretVolumeSource{SecretName: "mounted"}}}}}})
		d := controller.WithClient(srv)
		g := run.New(t.Context())
		g.Go("mirrors", d.Mirrors.Run)
		g.Go("loop", New(d).Run)
		defer func() { g.Stop(); g.Wait() }()
		for _, c := range []struct {
			days   int
			marked bool
			left   int
		}{{300, false, 4}, {70, true, 4}, {360, true, 4}, {10, true, 3}} {
			time.Sleep(time.Duration(c.days) * 24 * time.Hour)
			synctest.Wait()
			list, _ := client.Of[corev1.Secret](srv, "a").List(t.Context(), nil)
			if len(list) != c.left {
				t.Errorf("%v: %d tokens, want %d", time.Now(), len(list), c.left)
			}
			for _, s := range list {
				if _, marked := s.Labels[invalidSince]; marked != (c.marked && s.Name == "unused") {
					t.Errorf("%v: %s marked: %v", time.Now(), s.Name, marked)
				}
			}
		}
	})
}
