// Package serviceaccounttoken fills the Secrets that keep tokens of service
// accounts.
//
// Job: put a token, the cluster's root certificate and the namespace into each
// Secret of type kubernetes.io/service-account-token that names an account, and
// remove those whose account is gone.
//
// Not its job: making such Secrets (users do), tokens of pods (the kubelet asks
// for them), following the use of tokens (apiserver/authn).
//
// Invariants: a token is never put into a Secret that names another account than
// the one of its UID.
package serviceaccounttoken

import (
	"context"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sampan-dev/sampan/client"
	"github.com/sampan-dev/sampan/controller"
)

// Config is what the loop is entrusted with.
type Config struct {
	// Issue makes a token that lives as long as its Secret.
	Issue func(namespace, account, uid, secret string) (string, error)
	// RootCA is put beside the token; nil is not.
	RootCA []byte
}

type loop struct {
	*controller.Loop
	c        Config
	accounts *client.Mirror[corev1.ServiceAccount]
	secrets  *client.Mirror[corev1.Secret]
}

// New returns the loop. It acts as the controllers' process itself: accounts of
// controllers need it themselves.
func New(d controller.Deps, c Config) controller.Controller {
	l := &loop{c: c}
	l.Loop = controller.NewLoop(d, "serviceaccount-token", 5, l.reconcile)
	if d.Own != nil {
		l.Client = d.Own
	}
	l.accounts = controller.Input(l.Loop, func(old, new *corev1.ServiceAccount) []controller.Key {
		if new != nil && old != nil {
			return nil
		}
		account := new
		if account == nil {
			account = old
		}
		var keys []controller.Key
		for _, s := range l.secrets.List(account.Namespace) {
			if s.Annotations[corev1.ServiceAccountNameKey] == account.Name {
				keys = append(keys, client.KeyOf(s))
			}
		}
		return keys
	})
	l.secrets = client.MirrorOf[corev1.Secret](d.Mirrors, client.MirrorOptions{Fields: "type=" + string(corev1.SecretTypeServiceAccountToken)})
	controller.Watch(l.Loop, l.secrets, controller.Self[corev1.Secret])
	return l
}

func (l *loop) reconcile(ctx context.Context, k controller.Key) error {
	s, ok := l.secrets.Get(k.Namespace, k.Name)
	if !ok {
		return l.unlink(ctx, k)
	}
	if s.DeletionTimestamp != nil {
		return nil
	}
	// From the server: the account may be younger than what the mirror shows.
	account, err := client.Of[corev1.ServiceAccount](l.Client, k.Namespace).Get(ctx, s.Annotations[corev1.ServiceAccountNameKey])
	if err != nil && !apierrors.IsNotFound(err) {
		return err
	}
	if orphaned(s, account) {
		uid := s.UID
		err := client.Of[corev1.Secret](l.Client, k.Namespace).Delete(ctx, k.Name, &metav1.DeleteOptions{Preconditions: &metav1.Preconditions{UID: &uid}})
		return controller.Ignore(err, apierrors.IsNotFound, apierrors.IsConflict)
	}
	if next, err := l.filled(s, account); next == nil || err != nil {
		return err
	} else {
		_, err = client.Of[corev1.Secret](l.Client, k.Namespace).Update(ctx, next)
		return controller.Ignore(err, apierrors.IsNotFound)
	}
}

// filled is the Secret with all that it lacks, or nil when it lacks nothing.
func (l *loop) filled(s *corev1.Secret, account *corev1.ServiceAccount) (*corev1.Secret, error) {
	w := lacks(s, l.c.RootCA)
	if w.nothing() && s.Annotations[corev1.ServiceAccountUIDKey] != "" {
		return nil, nil
	}
	token := ""
	if w.token {
		var err error
		if token, err = l.c.Issue(s.Namespace, account.Name, string(account.UID), s.Name); err != nil {
			return nil, fmt.Errorf("token of %s/%s: %w", s.Namespace, account.Name, err)
		}
	}
	return fill(s, account, w, token, l.c.RootCA), nil
}

// unlink removes a Secret that is gone from the accounts that list it.
func (l *loop) unlink(ctx context.Context, k controller.Key) error {
	for _, a := range l.accounts.List(k.Namespace) {
		next := without(a, k.Name)
		if next == nil {
			continue
		}
		_, err := client.Of[corev1.ServiceAccount](l.Client, k.Namespace).Update(ctx, next)
		if err := controller.Ignore(err, apierrors.IsNotFound); err != nil {
			return err
		}
	}
	return nil
}
