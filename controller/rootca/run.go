package rootca

import (
	"context"
	"maps"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sampan-dev/sampan/client"
	"github.com/sampan-dev/sampan/controller"
)

const (
	name           = "kube-root-ca.crt"
	descriptionKey = "kubernetes.io/description"
	description    = "Contains a CA bundle that can be used to verify the kube-apiserver when using internal endpoints such as the internal service IP or kubernetes.default.svc. " +
		"No other usage is guaranteed across distributions of Kubernetes clusters."
)

type loop struct {
	*controller.Loop
	ca         string
	namespaces *client.Mirror[corev1.Namespace]
	maps       *client.Mirror[corev1.ConfigMap]
}

// New returns the loop that publishes ca, PEM certificates.
func New(d controller.Deps, ca []byte) controller.Controller {
	l := &loop{ca: string(ca)}
	l.Loop = controller.NewLoop(d, "root-ca-certificate-publisher", 1, l.reconcile).As(d, "root-ca-cert-publisher")
	l.namespaces = controller.Input(l.Loop, controller.Self[corev1.Namespace])
	l.maps = client.MirrorOf[corev1.ConfigMap](d.Mirrors, client.MirrorOptions{Fields: "metadata.name=" + name})
	controller.Watch(l.Loop, l.maps, ofMap)
	return l
}

func ofMap(old, new *corev1.ConfigMap) []controller.Key {
	if old == nil {
		return nil
	}
	return []controller.Key{{Name: old.Namespace}}
}

// wanted returns what the namespace's map should be, nil if it is so already;
// now is nil when there is none.
func wanted(now *corev1.ConfigMap, namespace, ca string) *corev1.ConfigMap {
	data := map[string]string{"ca.crt": ca}
	if now == nil {
		return &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: namespace, Annotations: map[string]string{descriptionKey: description}}, Data: data}
	}
	if maps.Equal(now.Data, data) && now.Annotations[descriptionKey] != "" {
		return nil
	}
	c := now.DeepCopy()
	c.Data = data
	if c.Annotations == nil {
		c.Annotations = map[string]string{}
	}
	c.Annotations[descriptionKey] = description
	return c
}

func (l *loop) reconcile(ctx context.Context, k controller.Key) error {
	ns, ok := l.namespaces.Get("", k.Name)
	if !ok || ns.Status.Phase != corev1.NamespaceActive {
		return nil
	}
	now, has := l.maps.Get(ns.Name, name)
	want := wanted(now, ns.Name, l.ca)
	if want == nil {
		return nil
	}
	objects := client.Of[corev1.ConfigMap](l.Client, ns.Name)
	write := objects.Create
	if has {
		write = objects.Update
	}
	wrote, err := write(ctx, want)
	if err == nil {
		controller.Wrote(&l.Unseen, k, l.maps, wrote)
	}
	if apierrors.HasStatusCause(err, corev1.NamespaceTerminatingCause) {
		return nil
	}
	return controller.Ignore(err, apierrors.IsAlreadyExists)
}
