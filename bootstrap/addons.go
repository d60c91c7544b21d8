package bootstrap

import (
	"bytes"
	"context"
	"crypto/sha256"
	_ "embed" // the manifests
	"encoding/hex"
	"fmt"
	"text/template"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sampan-dev/sampan/api"
	"github.com/sampan-dev/sampan/client"
)

//go:embed addons/coredns.yaml
var corednsManifest string

//go:embed addons/kube-proxy.yaml
var proxyManifest string

//go:embed addons/kube-flannel.yaml
var flannelManifest string

// appliedMap is the ConfigMap that remembers which manifests were applied.
const appliedMap = "sampan-addons"

// Addons say how the system's own objects are made.
type Addons struct {
	ClusterDomain string // "cluster.local"
	ClusterDNS    string // the address of kube-dns
	Image         string // of the coredns Deployment
	Replicas      int    // of the coredns Deployment
}

// Apply makes the objects of the add-on whose manifest was not applied yet.
// What a manifest made before and the user changed since stays as it is until
// the manifest itself changes.
func (a Addons) Apply(ctx context.Context, c client.Interface) error {
	return addon(ctx, c, "coredns", corednsManifest, a)
}

// Daemons say how nodes without a network and a proxy of their own get them.
type Daemons struct {
	Endpoint    string // of the API, host:port
	ClusterCIDR string // of pods
	Backend     string // of flannel; empty for a network of the user's
	Version     string // of the kube-proxy image
}

// Apply is as Addons'.
func (d Daemons) Apply(ctx context.Context, c client.Interface) error {
	if err := addon(ctx, c, "kube-proxy", proxyManifest, d); err != nil || d.Backend == "" {
		return err
	}
	return addon(ctx, c, "kube-flannel", flannelManifest, d)
}

// addon makes the objects of one manifest.
func addon(ctx context.Context, c client.Interface, name, manifest string, values any) error {
	text, err := render(manifest, values)
	if err != nil {
		return fmt.Errorf("add-on %s: %w", name, err)
	}
	sum := sha256.Sum256(text)
	version := hex.EncodeToString(sum[:8])
	maps := client.Of[corev1.ConfigMap](c, metav1.NamespaceSystem)
	seen, err := maps.Get(ctx, appliedMap)
	switch {
	case err == nil && seen.Data[name] == version:
		return nil
	case apierrors.IsNotFound(err):
		seen = nil
	case err != nil:
		return fmt.Errorf("add-on %s: %w", name, err)
	}
	for doc := range bytes.SplitSeq(text, []byte("\n---\n")) {
		if err := apply(ctx, c, doc); err != nil {
			return fmt.Errorf("add-on %s: %w", name, err)
		}
	}
	return remember(ctx, maps, seen, name, version)
}

func remember(ctx context.Context, maps client.Typed[corev1.ConfigMap], seen *corev1.ConfigMap, name, version string) error {
	if seen == nil {
		_, err := maps.Create(ctx, &corev1.ConfigMap{
			ObjectMeta: metav1.ObjectMeta{Name: appliedMap, Namespace: metav1.NamespaceSystem},
			Data:       map[string]string{name: version},
		})
		return err
	}
	next := seen.DeepCopy()
	if next.Data == nil {
		next.Data = map[string]string{}
	}
	next.Data[name] = version
	_, err := maps.Update(ctx, next)
	return err
}

func render(manifest string, values any) ([]byte, error) {
	t, err := template.New("").Option("missingkey=error").Parse(manifest)
	if err != nil {
		return nil, err
	}
	var b bytes.Buffer
	err = t.Execute(&b, values)
	return b.Bytes(), err
}

// apply creates the object of one YAML document, or replaces it if it is there.
func apply(ctx context.Context, c client.Interface, doc []byte) error {
	decoded, gvk, err := api.Decode(api.FormatYAML, doc, nil, true)
	if err != nil {
		return err
	}
	obj, ok := decoded.(api.Object)
	if !ok {
		return fmt.Errorf("%s: no object", gvk)
	}
	r, _ := meta.UnsafeGuessKindToResource(*gvk)
	_, err = c.Create(ctx, r, obj.GetNamespace(), obj.GetName(), "", obj, nil)
	if !apierrors.IsAlreadyExists(err) {
		return wrap(gvk.Kind, obj, err)
	}
	old, err := c.Get(ctx, r, obj.GetNamespace(), obj.GetName(), "", nil)
	if err != nil {
		return wrap(gvk.Kind, obj, err)
	}
	obj.SetResourceVersion(old.GetResourceVersion())
	_, err = c.Update(ctx, r, obj.GetNamespace(), "", obj, nil)
	return wrap(gvk.Kind, obj, err)
}

func wrap(kind string, obj api.Object, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%s %s: %w", kind, obj.GetName(), err)
}
