package rootca

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"strings"

	certificatesv1 "k8s.io/api/certificates/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sampan-dev/sampan/client"
	"github.com/sampan-dev/sampan/controller"
)

// servingSigner signs what API servers show.
const servingSigner = "kubernetes.io/kube-apiserver-serving"

type bundle = certificatesv1.ClusterTrustBundle

// bundleName names a bundle by what is in it.
func bundleName(signer, ca string) string {
	sum := sha256.Sum256([]byte(ca))
	return fmt.Sprintf("%s:%x", strings.ReplaceAll(signer, "/", ":"), sum[:12])
}

type publisher struct {
	*controller.Loop
	ca      string
	bundles *client.Mirror[bundle]
}

// NewBundle returns the loop that publishes ca as the trust bundle of API
// servers, and removes earlier ones.
func NewBundle(d controller.Deps, ca []byte) controller.Controller {
	const name = "kube-apiserver-serving-clustertrustbundle-publisher"
	l := &publisher{ca: string(ca)}
	l.Loop = controller.NewLoop(d, name, 1, l.reconcile).As(d, name)
	l.bundles = client.MirrorOf[bundle](d.Mirrors, client.MirrorOptions{Fields: "spec.signerName=" + servingSigner})
	one := []controller.Key{{Name: servingSigner}}
	controller.Watch(l.Loop, l.bundles, func(_, _ *bundle) []controller.Key { return one })
	l.Add(one[0])
	return l
}

func (l *publisher) reconcile(ctx context.Context, k controller.Key) error {
	want := &bundle{ObjectMeta: metav1.ObjectMeta{Name: bundleName(servingSigner, l.ca)}, Spec: certificatesv1.ClusterTrustBundleSpec{SignerName: servingSigner, TrustBundle: l.ca}}
	bundles := client.Of[bundle](l.Client, "")
	now, ok := l.bundles.Get("", want.Name)
	var wrote *bundle
	var err error
	switch {
	case !ok:
		wrote, err = bundles.Create(ctx, want)
	case now.Spec.TrustBundle != l.ca:
		next := now.DeepCopy()
		next.Spec.TrustBundle = l.ca
		wrote, err = bundles.Update(ctx, next)
	}
	if err != nil {
		return controller.Ignore(err, apierrors.IsAlreadyExists)
	}
	controller.Wrote(&l.Unseen, k, l.bundles, wrote)
	var errs []error
	for _, b := range l.bundles.List("") {
		if b.Name != want.Name {
			errs = append(errs, controller.Ignore(bundles.Delete(ctx, b.Name, nil), apierrors.IsNotFound))
		}
	}
	return errors.Join(errs...)
}
