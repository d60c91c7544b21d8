package serviceaccount

import (
	"context"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sampan-dev/sampan/client"
	"github.com/sampan-dev/sampan/controller"
)

// name of the account that pods get when they name none.
const name = "default"

type loop struct {
	*controller.Loop
	namespaces *client.Mirror[corev1.Namespace]
	accounts   *client.Mirror[corev1.ServiceAccount]
}

// New returns the serviceaccount loop.
func New(d controller.Deps) controller.Controller {
	l := &loop{}
	l.Loop = controller.NewLoop(d, "serviceaccount", 1, l.reconcile).As(d, "service-account-controller")
	l.namespaces = controller.Input(l.Loop, controller.Self[corev1.Namespace])
	l.accounts = controller.Input(l.Loop, ofAccount)
	return l
}

// ofAccount wakes the namespace whose default account went away.
func ofAccount(old, new *corev1.ServiceAccount) []controller.Key {
	if new != nil || old.Name != name {
		return nil
	}
	return []controller.Key{{Name: old.Namespace}}
}

// missing says whether the namespace lacks an account it should have.
func missing(ns *corev1.Namespace, has bool) bool {
	return ns.Status.Phase == corev1.NamespaceActive && !has
}

func (l *loop) reconcile(ctx context.Context, k controller.Key) error {
	ns, ok := l.namespaces.Get("", k.Name)
	if !ok {
		return nil
	}
	if _, has := l.accounts.Get(ns.Name, name); !missing(ns, has) {
		return nil
	}
	made, err := client.Of[corev1.ServiceAccount](l.Client, ns.Name).Create(ctx,
		&corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: ns.Name}})
	if apierrors.HasStatusCause(err, corev1.NamespaceTerminatingCause) {
		return nil
	}
	if err == nil {
		controller.Wrote(&l.Unseen, k, l.accounts, made)
	}
	return controller.Ignore(err, apierrors.IsAlreadyExists)
}
