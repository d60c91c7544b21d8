// Package legacytoken removes service account tokens of old that nobody uses.
//
// Job: once a day, mark tokens in Secrets that the system made and nothing has
// used for a year, and remove those marked a year ago.
//
// Not its job: making tokens, recording their use (apiserver/authn).
//
// Invariants: a token that a pod mounts, or a user made, stays.
package legacytoken

import (
	"context"
	"encoding/json"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/sampan-dev/sampan/client"
	"github.com/sampan-dev/sampan/controller"
	"github.com/sampan-dev/sampan/kit/clock"
)

const (
	period = 24 * time.Hour
	unused = 365 * 24 * time.Hour
)

type loop struct {
	*controller.Loop
	accounts *client.Mirror[corev1.ServiceAccount]
	secrets  *client.Mirror[corev1.Secret]
	pods     *client.Mirror[corev1.Pod]
}

// New returns the legacytoken loop.
func New(d controller.Deps) controller.Controller {
	l := &loop{}
	l.Loop = controller.NewLoop(d, "legacy-service-account-token-cleaner", 1, nil).As(d, "legacy-service-account-token-cleaner")
	l.accounts = controller.Input[corev1.ServiceAccount](l.Loop, nil)
	l.secrets = client.MirrorOf[corev1.Secret](d.Mirrors, client.MirrorOptions{Fields: "type=" + string(corev1.SecretTypeServiceAccountToken)})
	controller.Watch(l.Loop, l.secrets, nil)
	l.pods = controller.Input[corev1.Pod](l.Loop, nil)
	l.Every(period, l.look)
	return l
}

func (l *loop) look(ctx context.Context) {
	m, err := client.Of[corev1.ConfigMap](l.Client, metav1.NamespaceSystem).Get(ctx, trackingName)
	if err != nil {
		l.Log.Debug("use of tokens is not recorded", "err", err)
		return
	}
	now := clock.Now().UTC()
	since, err := trackedSince(m)
	if err != nil || now.Before(since.Add(unused)) {
		return
	}
	for _, s := range l.secrets.List("") {
		account, _ := l.accounts.Get(s.Namespace, s.Annotations[corev1.ServiceAccountNameKey])
		mounted := slices.ContainsFunc(l.pods.List(s.Namespace), func(p *corev1.Pod) bool { return mounts(p, s.Name) })
		if err := l.one(ctx, s, judge(s, account, mounted, unused, now), now); err != nil {
			l.Log.Warn("could not clean up a token", "secret", client.KeyOf(s).String(), "err", err)
		}
	}
}

func (l *loop) one(ctx context.Context, s *corev1.Secret, v verdict, now time.Time) error {
	secrets := client.Of[corev1.Secret](l.Client, s.Namespace)
	switch v {
	case mark:
		patch, err := json.Marshal(map[string]any{"metadata": map[string]any{"uid": s.UID, "labels": map[string]string{invalidSince: now.Format(date)}}})
		if err != nil {
			return err
		}
		_, err = secrets.Patch(ctx, s.Name, "", types.MergePatchType, patch)
		return controller.Ignore(err, apierrors.IsNotFound, apierrors.IsConflict)
	case remove:
		err := secrets.Delete(ctx, s.Name, &metav1.DeleteOptions{Preconditions: &metav1.Preconditions{ResourceVersion: &s.ResourceVersion}})
		return controller.Ignore(err, apierrors.IsNotFound, apierrors.IsConflict)
	}
	return nil
}
