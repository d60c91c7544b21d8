package serviceaccounttoken

import (
	"testing"
	"testing/synctest"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sampan-dev/sampan/client"
	"github.com/sampan-dev/sampan/client/fake"
	"github.com/sampan-dev/sampan/controller"
	"github.com/sampan-dev/sampan/kit/run"
)

func account(name string, secrets ...string) *corev1.ServiceAccount {
	a := &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: name}}
	for _, s := range secrets {
		a.Secrets = append(a.Secrets, corev1.ObjectReference{Name: s})
	}
	return a
}

func secret(name, account string, data map[string][]byte) *corev1.Secret {
	return &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: name, Annotations: map[string]string{corev1.ServiceAccountNameKey: account}},
		Type:       corev1.SecretTypeServiceAccountToken, Data: data,
	}
}

// TestLife: a Secret is filled, completed when something is taken from it, and
// goes with its account; a reference to one that is gone goes too.
func TestLife(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		other := secret("other", "", nil)
		other.Type, other.Annotations = corev1.SecretTypeOpaque, nil
		srv := fake.New(account("bot", "gone", "kept"), secret("kept", "bot", nil), secret("orphan", "nobody", nil), other)
		d := controller.WithClient(srv)
		c := New(d, Config{RootCA: []byte("CA"), Issue: func(namespace, account, uid, secret string) (string, error) {
			return "token of " + namespace + "/" + account + " in " + secret, nil
		}})
		g := run.New(t.Context())
		g.Go("mirrors", d.Mirrors.Run)
		g.Go("loop", c.Run)
		defer func() { g.Stop(); g.Wait() }()
		secrets, accounts := client.Of[corev1.Secret](srv, "ns"), client.Of[corev1.ServiceAccount](srv, "ns")
		full := func(when string) *corev1.Secret {
			t.Helper()
			synctest.Wait()
			s, err := secrets.Get(t.Context(), "kept")
			if err != nil {
				t.Fatal(when, err)
			}
			bot, _ := accounts.Get(t.Context(), "bot")
			if string(s.Data["token"]) != "token of ns/bot in kept" || string(s.Data["ca.crt"]) != "CA" || string(s.Data["namespace"]) != "ns" ||
				s.Annotations[corev1.ServiceAccountUIDKey] != string(bot.UID) {
				t.Fatalf("%s: %q %v", when, s.Data, s.Annotations)
			}
			return s
		}
		s := full("at start").DeepCopy()
		if _, err := secrets.Get(t.Context(), "orphan"); !apierrors.IsNotFound(err) {
			t.Errorf("the orphan is still there: %v", err)
		}
		if o, err := secrets.Get(t.Context(), "other"); err != nil || len(o.Data) != 0 {
			t.Errorf("a Secret of another type was touched: %v %v", o, err)
		}
		delete(s.Data, "token")
		s.Data["ca.crt"] = []byte("old")
		if _, err := secrets.Update(t.Context(), s); err != nil {
			t.Fatal(err)
		}
		full("emptied")
		if err := secrets.Delete(t.Context(), "kept", nil); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if bot, _ := accounts.Get(t.Context(), "bot"); len(bot.Secrets) != 1 || bot.Secrets[0].Name != "gone" {
			t.Errorf("references %v", bot.Secrets)
		}
		if _, err := secrets.Create(t.Context(), secret("kept", "bot", nil)); err != nil {
			t.Fatal(err)
		}
		full("made again")
		if err := accounts.Delete(t.Context(), "bot", nil); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if _, err := secrets.Get(t.Context(), "kept"); !apierrors.IsNotFound(err) {
			t.Errorf("the token outlives its account: %v", err)
		}
	})
}

func TestOrphaned(t *testing.T) {
	a := &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{UID: "1"}}
	mine, others, young := secret("s", "a", nil), secret("s", "a", nil), secret("s", "a", nil)
	mine.Annotations[corev1.ServiceAccountUIDKey], others.Annotations[corev1.ServiceAccountUIDKey] = "1", "2"
	if orphaned(mine, a) || !orphaned(others, a) || orphaned(young, a) || !orphaned(young, nil) {
		t.Error("wrong: a Secret belongs to the account of its UID, or of its name while it has none")
	}
}
