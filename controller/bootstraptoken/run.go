package bootstraptoken

import (
	"context"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sampan-dev/sampan/client"
	"github.com/sampan-dev/sampan/controller"
	"github.com/sampan-dev/sampan/kit/clock"
)

func tokens(d controller.Deps) *client.Mirror[corev1.Secret] {
	return client.MirrorOf[corev1.Secret](d.Mirrors, client.MirrorOptions{Namespace: metav1.NamespaceSystem, Fields: "type=" + tokenType})
}

// info is the one object that the signer works on.
var info = controller.Key{Namespace: metav1.NamespacePublic, Name: configMapName}

type signer struct {
	*controller.Loop
	maps   *client.Mirror[corev1.ConfigMap]
	tokens *client.Mirror[corev1.Secret]
}

// NewSigner returns the loop that signs cluster-info.
func NewSigner(d controller.Deps) controller.Controller {
	l := &signer{}
	l.Loop = controller.NewLoop(d, "bootstrap-signer", 1, l.reconcile).As(d, "bootstrap-signer")
	l.maps = client.MirrorOf[corev1.ConfigMap](d.Mirrors, client.MirrorOptions{Namespace: info.Namespace, Fields: "metadata.name=" + info.Name})
	l.tokens = tokens(d)
	controller.Watch(l.Loop, l.maps, controller.Self[corev1.ConfigMap])
	controller.Watch(l.Loop, l.tokens, func(_, _ *corev1.Secret) []controller.Key { return []controller.Key{info} })
	return l
}

func (l *signer) reconcile(ctx context.Context, k controller.Key) error {
	now, ok := l.maps.Get(k.Namespace, k.Name)
	if !ok {
		return nil
	}
	list := l.tokens.List(metav1.NamespaceSystem)
	for _, s := range list {
		if at, known := expiry(s); known && clock.Until(at) > 0 {
			l.After(k, clock.Until(at)) // its signature goes then
		}
	}
	want, err := signed(now, list, clock.Now())
	if err != nil || want == nil {
		return err
	}
	wrote, err := client.Of[corev1.ConfigMap](l.Client, k.Namespace).Update(ctx, want)
	if err == nil {
		controller.Wrote(&l.Unseen, k, l.maps, wrote)
	}
	return controller.Ignore(err, apierrors.IsNotFound)
}

type cleaner struct {
	*controller.Loop
	tokens *client.Mirror[corev1.Secret]
}

// NewCleaner returns the loop that deletes expired tokens.
func NewCleaner(d controller.Deps) controller.Controller {
	l := &cleaner{tokens: tokens(d)}
	l.Loop = controller.NewLoop(d, "token-cleaner", 1, l.reconcile).As(d, "token-cleaner")
	controller.Watch(l.Loop, l.tokens, controller.Self[corev1.Secret])
	return l
}

func (l *cleaner) reconcile(ctx context.Context, k controller.Key) error {
	s, ok := l.tokens.Get(k.Namespace, k.Name)
	if !ok || s.DeletionTimestamp != nil {
		return nil
	}
	if !expired(s, clock.Now()) {
		if at, known := expiry(s); known {
			l.After(k, clock.Until(at))
		}
		return nil
	}
	err := client.Of[corev1.Secret](l.Client, k.Namespace).Delete(ctx, k.Name, &metav1.DeleteOptions{Preconditions: metav1.NewUIDPreconditions(string(s.UID))})
	return controller.Ignore(err, apierrors.IsNotFound)
}
