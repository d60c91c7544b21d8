package apply

import (
	"bytes"
	"encoding/json"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sampan-dev/sampan/api"
	"github.com/sampan-dev/sampan/apiserver/openapi"
	"github.com/sampan-dev/sampan/resource/configmap"
	"github.com/sampan-dev/sampan/resource/deployment"
	"github.com/sampan-dev/sampan/resource/pod"
)

func testPod(name string) *corev1.Pod {
	p := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: "n", Labels: map[string]string{"a": "b"}},
		Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "c", Image: "i", Ports: []corev1.ContainerPort{{ContainerPort: 80}},
			Env: []corev1.EnvVar{{Name: "X", Value: name[:1]}}}}},
	}
	pod.Kind().Default(p)
	return p
}

// A remembered shape must say what working it out says.
func TestRememberedShapesSafety(t *testing.T) {
	f, fresh := New(openapi.NewMerger()), func(p *corev1.Pod) string {
		g := New(openapi.NewMerger())
		if err := g.Update(pod.Kind(), nil, "", pod.Kind().New(), p, "m"); err != nil {
			t.Fatal(err)
		}
		return string(p.ManagedFields[0].FieldsV1.Raw)
	}
	for _, name := range []string{"p1", "p2", "q1", "p3"} {
		p := testPod(name)
		if name == "q1" {
			p.Spec.Containers[0].Env[0].Name = "Y"
		}
		want := fresh(p.DeepCopy())
		if err := f.Update(pod.Kind(), nil, "", pod.Kind().New(), p, "m"); err != nil {
			t.Fatal(err)
		}
		got := p.ManagedFields[0]
		if string(got.FieldsV1.Raw) != want || got.Manager != "m" || got.Operation != "Update" || got.APIVersion != "v1" || got.Time == nil || p.Name != name {
			t.Errorf("%s:\n%s\nwant\n%s", name, got.FieldsV1.Raw, want)
		}
	}
}

func TestUpdateMovesOwnership(t *testing.T) {
	f, k := New(openapi.NewMerger()), configmap.Kind()
	a := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "c"}, Data: map[string]string{"x": "1", "y": "1"}}
	if err := f.Update(k, nil, "", k.New(), a, "one"); err != nil {
		t.Fatal(err)
	}
	a.UID = "u"
	b := a.DeepCopy()
	b.Data["y"] = "2"
	if err := f.Update(k, nil, "", a, b, "two"); err != nil {
		t.Fatal(err)
	}
	owners := map[string]string{}
	for _, e := range b.ManagedFields {
		owners[e.Manager] = string(e.FieldsV1.Raw)
	}
	if owners["one"] != `{"f:data":{".":{},"f:x":{}}}` || owners["two"] != `{"f:data":{"f:y":{}}}` {
		t.Errorf("owners %v", owners)
	}
}

func TestApplyToOneVersionIsSeenInAnother(t *testing.T) {
	f, k := New(openapi.NewMerger()), deployment.Kind()
	for n := range k.Info().Also {
		v := &k.Info().Also[n]
		var patch map[string]any
		doc := `{"apiVersion":"` + v.Group + "/" + v.Version + `","kind":"Deployment","metadata":{"name":"d","namespace":"n"},
			"spec":{"replicas":3,"selector":{"matchLabels":{"a":"b"}},"template":{"metadata":{"labels":{"a":"b"}},"spec":{"containers":[{"name":"c","image":"i"}]}}}}`
		if err := json.Unmarshal([]byte(doc), &patch); err != nil {
			t.Fatal(err)
		}
		live := k.New()
		api.SetKind(live, k.Info().GroupVersionKind)
		got, err := f.Apply(k, v, "", live, patch, "m", false)
		if err != nil {
			t.Fatalf("%s/%s: %v", v.Group, v.Version, err)
		}
		e := got.GetManagedFields()
		if len(e) != 1 || e[0].APIVersion != v.Group+"/"+v.Version || !bytes.Contains(e[0].FieldsV1.Raw, []byte(`"f:replicas":{}`)) {
			t.Errorf("%s/%s: %v", v.Group, v.Version, e)
		}
		if got.GetObjectKind().GroupVersionKind() != k.Info().GroupVersionKind {
			t.Errorf("%s/%s: result is %s", v.Group, v.Version, got.GetObjectKind().GroupVersionKind())
		}
	}
}
