package apply_test

import (
	"encoding/json"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/yaml"

	"github.com/sampan-dev/sampan/api"
	"github.com/sampan-dev/sampan/apiserver/apply"
	"github.com/sampan-dev/sampan/apiserver/openapi"
	"github.com/sampan-dev/sampan/resource"
	"github.com/sampan-dev/sampan/resource/all"
)

func newFields() *apply.Fields { return apply.New(openapi.NewMerger()) }

func kindOf(t testing.TB, name string) resource.Kind {
	t.Helper()
	for _, k := range all.Kinds() {
		if k.Info().Kind == name {
			return k
		}
	}
	t.Fatalf("no kind %s", name)
	return nil
}

func doc(t testing.TB, text string) map[string]any {
	t.Helper()
	j, err := yaml.YAMLToJSON([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]any{}
	if err := json.Unmarshal(j, &out); err != nil {
		t.Fatal(err)
	}
	return numbers(out).(map[string]any)
}

// numbers makes whole numbers int64, as the server's decoder does.
func numbers(v any) any {
	switch t := v.(type) {
	case map[string]any:
		for k := range t {
			t[k] = numbers(t[k])
		}
	case []any:
		for i := range t {
			t[i] = numbers(t[i])
		}
	case float64:
		return int64(t)
	}
	return v
}

// user applies and updates one object, step by step.
type user struct {
	t    testing.TB
	f    *apply.Fields
	k    resource.Kind
	live api.Object
}

func (u *user) try(manager, sub string, force bool, text string) error {
	u.t.Helper()
	live := u.live
	if live == nil {
		live = u.k.New()
	}
	got, err := u.f.Apply(u.k, nil, sub, live, doc(u.t, text), manager, force)
	if err == nil {
		got.SetUID("uid") // as the server does to what is new
		u.live = got
	}
	return err
}

func (u *user) apply(manager, text string) {
	u.t.Helper()
	if err := u.try(manager, "", false, text); err != nil {
		u.t.Fatal(err)
	}
}

func (u *user) update(manager, sub string, change func(api.Object)) {
	u.t.Helper()
	next := u.live.DeepCopyObject().(api.Object)
	change(next)
	if err := u.f.Update(u.k, nil, sub, u.live, next, manager); err != nil {
		u.t.Fatal(err)
	}
	u.live = next
}

// owned is "manager operation sub: fields" of every entry.
func (u *user) owned() map[string]string {
	out := map[string]string{}
	for _, e := range u.live.GetManagedFields() {
		key := e.Manager + " " + string(e.Operation)
		if e.Subresource != "" {
			key += " " + e.Subresource
		}
		out[key] = string(e.FieldsV1.GetRawBytes())
	}
	return out
}

const configMap = `
apiVersion: v1
kind: ConfigMap
metadata: {name: c, namespace: ns}
data: {%s}
`

func configMapOf(data string) string { return strings.Replace(configMap, "%s", data, 1) }

func TestConflictAndForce(t *testing.T) {
	u := &user{t: t, f: newFields(), k: kindOf(t, "ConfigMap")}
	u.apply("one", configMapOf("a: x, b: w"))
	err := u.try("two", "", false, configMapOf("a: z"))
	if want := `Apply failed with 1 conflict: conflict with "one": .data.a`; err == nil || err.Error() != want || !apierrors.IsConflict(err) {
		t.Fatalf("got %v, want %s", err, want)
	}
	if err := u.try("two", "", true, configMapOf("a: z")); err != nil {
		t.Fatal(err)
	}
	if got := u.live.(*corev1.ConfigMap).Data["a"]; got != "z" {
		t.Errorf("a = %q after force", got)
	}
	want := map[string]string{"one Apply": `{"f:data":{"f:b":{}}}`, "two Apply": `{"f:data":{"f:a":{}}}`}
	if got := u.owned(); !reflect.DeepEqual(got, want) {
		t.Errorf("owned %v, want %v", got, want)
	}
	// What was taken by force is no longer the first one's to remove.
	u.apply("one", configMapOf("b: w"))
	if got := u.live.(*corev1.ConfigMap).Data; !reflect.DeepEqual(got, map[string]string{"a": "z", "b": "w"}) {
		t.Errorf("data %v", got)
	}
}

func TestConflictWithAnUpdater(t *testing.T) {
	u := &user{t: t, f: newFields(), k: kindOf(t, "ConfigMap")}
	created := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "c", Namespace: "ns"}, Data: map[string]string{"a": "x", "b": "w"}}
	if err := u.f.Update(u.k, nil, "", u.k.New(), created, "kubectl-client-side-apply"); err != nil {
		t.Fatal(err)
	}
	created.UID = "uid"
	u.live = created
	err := u.try("kubectl", "", false, configMapOf("a: z, b: z"))
	if !apierrors.IsConflict(err) {
		t.Fatalf("got %v", err)
	}
	want := "Apply failed with 2 conflicts: conflicts with \"kubectl-client-side-apply\" using v1:\n- .data.a\n- .data.b"
	if err.Error() != want {
		t.Errorf("got  %q\nwant %q", err.Error(), want)
	}
}

func TestApplyRemovesWhatItNoLongerSays(t *testing.T) {
	u := &user{t: t, f: newFields(), k: kindOf(t, "ConfigMap")}
	u.apply("one", configMapOf("a: x, b: w"))
	u.apply("two", configMapOf("b: w, c: z"))
	u.apply("one", configMapOf(""))
	if got, want := u.live.(*corev1.ConfigMap).Data, map[string]string{"b": "w", "c": "z"}; !reflect.DeepEqual(got, want) {
		t.Errorf("data %v, want %v: b has another owner, c was never one's", got, want)
	}
}

func TestApplyAgainChangesNothing(t *testing.T) {
	u := &user{t: t, f: newFields(), k: kindOf(t, "Pod")}
	u.apply("one", pod)
	before := u.live.DeepCopyObject()
	u.apply("one", pod)
	if !equality.Semantic.DeepEqual(before, u.live) {
		t.Errorf("second apply changed the object:\n%v\n%v", before, u.live)
	}
}

func TestUnknownFieldIsRefused(t *testing.T) {
	u := &user{t: t, f: newFields(), k: kindOf(t, "ConfigMap")}
	err := u.try("one", "", false, configMapOf("")+"bogus: 1\n")
	if err == nil || !strings.HasSuffix(err.Error(), "(ns/c; /v1, Kind=ConfigMap): .bogus: field not declared in schema") {
		t.Fatalf("got %v", err)
	}
}

const pod = `
apiVersion: v1
kind: Pod
metadata: {name: p, namespace: ns, labels: {app: p}}
spec:
  containers:
  - name: a
    image: one
    args: [x, w]
    ports: [{containerPort: 53, protocol: UDP}, {containerPort: 53}]
    resources: {limits: {cpu: 1, memory: 1Gi}}
    readinessProbe: {httpGet: {port: 80}}
  - {name: b, image: two}
`

func TestListsMergeByKeyOrWhole(t *testing.T) {
	u := &user{t: t, f: newFields(), k: kindOf(t, "Pod")}
	u.apply("one", pod)
	p := u.live.(*corev1.Pod)
	if n := len(p.Spec.Containers[0].Ports); n != 2 {
		t.Fatalf("%d ports: one number of two protocols is two ports", n)
	}
	if got := p.Spec.Containers[0].Ports[1].Protocol; got != corev1.ProtocolTCP {
		t.Errorf("protocol %q is not defaulted", got)
	}
	if got := p.Spec.Containers[0].Resources.Limits.Cpu().String(); got != "1" {
		t.Errorf("cpu %s", got)
	}

	side := `
apiVersion: v1
kind: Pod
metadata: {name: p, namespace: ns}
spec:
  containers:
  - {name: side, image: three}
  - {name: a, env: [{name: E, value: v}], ports: [{containerPort: 80}]}
`
	u.apply("injector", side)
	p = u.live.(*corev1.Pod)
	var names []string
	for _, c := range p.Spec.Containers {
		names = append(names, c.Name)
	}
	slices.Sort(names)
	if !slices.Equal(names, []string{"a", "b", "side"}) {
		t.Fatalf("containers %v", names)
	}
	for _, c := range p.Spec.Containers {
		if c.Name == "a" && (c.Image != "one" || len(c.Ports) != 3 || len(c.Env) != 1 || len(c.Args) != 2) {
			t.Errorf("container a lost or gained something: %+v", c)
		}
	}
	if got := u.owned()["injector Apply"]; !strings.Contains(got, `"k:{\"containerPort\":80,\"protocol\":\"TCP\"}"`) {
		t.Errorf("port not owned by its two keys: %s", got)
	}

	// args is one value: two users cannot each own an element.
	err := u.try("injector", "", false, strings.Replace(side, "env:", "args: [x, z], env:", 1))
	if !apierrors.IsConflict(err) || !strings.HasSuffix(err.Error(), `.spec.containers[name="a"].args`) {
		t.Errorf("got %v", err)
	}
	// A container leaves with the one who brought it; the port 80 as well.
	u.apply("injector", "{apiVersion: v1, kind: Pod, metadata: {name: p, namespace: ns}}")
	p = u.live.(*corev1.Pod)
	if len(p.Spec.Containers) != 2 || len(p.Spec.Containers[0].Ports) != 2 {
		t.Errorf("left behind: %+v", p.Spec.Containers)
	}
}

func TestStatusHasItsOwnOwners(t *testing.T) {
	u := &user{t: t, f: newFields(), k: kindOf(t, "Pod")}
	u.apply("one", pod)
	u.update("kubelet", "status", func(o api.Object) {
		p := o.(*corev1.Pod)
		p.Status.Phase = corev1.PodRunning
		p.Status.Conditions = []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue}}
		p.Spec.NodeName = "ignored" // a status update cannot own the spec
	})
	got := u.owned()
	s := got["kubelet Update status"]
	if !strings.Contains(s, `"f:phase"`) || !strings.Contains(s, `"k:{\"type\":\"Ready\"}"`) || strings.Contains(s, "f:spec") {
		t.Errorf("kubelet owns %s", s)
	}
	err := u.try("other", "status", false, "{apiVersion: v1, kind: Pod, metadata: {name: p, namespace: ns}, status: {phase: Failed}}")
	if !apierrors.IsConflict(err) || !strings.Contains(err.Error(), `conflict with "kubelet" with subresource "status" using v1`) {
		t.Errorf("got %v", err)
	}
	// An applier of the main resource owns no status, whatever it says.
	if err := u.try("two", "", false, "{apiVersion: v1, kind: Pod, metadata: {name: p, namespace: ns}, status: {phase: Failed}}"); err != nil {
		t.Fatal(err)
	}
	if s := u.owned()["two Apply"]; strings.Contains(s, "f:status") {
		t.Errorf("two owns %s", s)
	}
}

func TestUpdateTakesOverFields(t *testing.T) {
	u := &user{t: t, f: newFields(), k: kindOf(t, "ConfigMap")}
	u.apply("one", configMapOf("a: x, b: w"))
	u.update("hand", "", func(o api.Object) { o.(*corev1.ConfigMap).Data["a"] = "z" })
	want := map[string]string{"one Apply": `{"f:data":{"f:b":{}}}`, "hand Update": `{"f:data":{"f:a":{}}}`}
	if got := u.owned(); !reflect.DeepEqual(got, want) {
		t.Errorf("owned %v, want %v", got, want)
	}
	// Without a change nobody's claim changes, nor its time.
	before := u.live.GetManagedFields()
	u.update("third", "", func(o api.Object) { o.SetManagedFields(nil) })
	if got := u.live.GetManagedFields(); !reflect.DeepEqual(got, before) {
		t.Errorf("an update of nothing left %v", got)
	}
	// An empty list asks to forget all claims.
	u.update("third", "", func(o api.Object) { o.SetManagedFields([]metav1.ManagedFieldsEntry{{}}) })
	if got := u.owned(); len(got) != 0 {
		t.Errorf("claims not reset: %v", got)
	}
}

func TestScaleIsOwnedThroughTheKind(t *testing.T) {
	u := &user{t: t, f: newFields(), k: kindOf(t, "Deployment")}
	u.apply("one", `
apiVersion: apps/v1
kind: Deployment
metadata: {name: d, namespace: ns}
spec:
  replicas: 1
  selector: {matchLabels: {a: b}}
  template: {metadata: {labels: {a: b}}, spec: {containers: [{name: c, image: i}]}}
`)
	scale := "{apiVersion: autoscaling/v1, kind: Scale, metadata: {name: d, namespace: ns}, spec: {replicas: 4}}"
	err := u.try("scaler", "scale", false, scale)
	if want := `Apply failed with 1 conflict: conflict with "one": .spec.replicas`; err == nil || err.Error() != want {
		t.Fatalf("got %v, want %s", err, want)
	}
	if err := u.try("scaler", "scale", true, scale); err != nil {
		t.Fatal(err)
	}
	spec, _ := u.k.Scale(u.live)
	if got := u.owned()["scaler Apply scale"]; spec.Replicas != 4 || got != `{"f:spec":{"f:replicas":{}}}` {
		t.Errorf("replicas %d, owned %v", spec.Replicas, u.owned())
	}
	if got := u.owned()["one Apply"]; strings.Contains(got, "f:replicas") {
		t.Errorf("two owners of replicas: %s", got)
	}
}

func TestVersionsShareOneObject(t *testing.T) {
	k := kindOf(t, "Deployment")
	f := newFields()
	text := `
apiVersion: %s
kind: Deployment
metadata: {name: d, namespace: ns}
spec:
  replicas: %d
  selector: {matchLabels: {a: b}}
  template: {metadata: {labels: {a: b}}, spec: {containers: [{name: c, image: i}]}}
`
	for n := range k.Info().Also {
		v := &k.Info().Also[n]
		gv := metav1.GroupVersion{Group: v.Group, Version: v.Version}.String()
		old := doc(t, fmt.Sprintf(text, gv, 1))
		live, err := f.Apply(k, v, "", k.New(), old, "one", false)
		if err != nil {
			t.Fatalf("%s: %v", gv, err)
		}
		if got := live.GetObjectKind().GroupVersionKind(); got != k.Info().GroupVersionKind {
			t.Errorf("%s: got a %s, not the stored version", gv, got)
		}
		_, err = f.Apply(k, nil, "", live, doc(t, fmt.Sprintf(text, "apps/v1", 2)), "two", false)
		if want := `conflict with "one": .spec.replicas`; err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v, want %s", gv, err, want)
		}
	}
}

// TestEveryKind: whatever is served can be created, updated and applied, in
// every version, empty or filled.
func TestEveryKind(t *testing.T) {
	f := newFields()
	for _, k := range all.Kinds() {
		i := k.Info()
		if !slices.Contains(i.Verbs, "patch") {
			continue
		}
		versions := []*resource.Version{nil}
		for n := range i.Also {
			versions = append(versions, &i.Also[n])
		}
		for _, v := range versions {
			gvk, empty := i.GroupVersionKind, k.New()
			if v != nil {
				gvk.Group, gvk.Version, empty = v.Group, v.Version, v.New()
				if v.Kind != "" {
					gvk.Kind = v.Kind
				}
			}
			t.Run(gvk.String(), func(t *testing.T) {
				u := &user{t: t, f: f, k: k}
				config := map[string]any{"apiVersion": gvk.GroupVersion().String(), "kind": gvk.Kind,
					"metadata": map[string]any{"name": "x", "labels": map[string]any{"a": "b"}}}
				live, err := f.Apply(k, v, "", nil, config, "one", false)
				if err != nil {
					t.Fatalf("apply: %v", err)
				}
				live.SetUID("uid")
				u.live = live
				api.SetKind(empty, gvk)
				fill(reflect.ValueOf(empty).Elem(), 0)
				full := empty
				if v != nil {
					if full, err = v.Store(empty); err != nil {
						t.Fatalf("store: %v", err)
					}
				}
				api.SetKind(full, i.GroupVersionKind)
				full.SetManagedFields(nil)
				full.SetUID("uid")
				full.SetLabels(map[string]string{"a": "b", "c": "d"})
				if err := f.Update(k, v, "", u.live, full, "two"); err != nil {
					t.Fatalf("update: %v", err)
				}
				if len(full.GetManagedFields()) < 2 {
					t.Errorf("two owners expected, got %v", full.GetManagedFields())
				}
				if _, err := f.Apply(k, v, "", full, config, "one", true); err != nil {
					t.Fatalf("apply to a filled object: %v", err)
				}
				shown, err := runtime.DefaultUnstructuredConverter.ToUnstructured(empty)
				if err != nil {
					t.Fatal(err)
				}
				shown["metadata"] = config["metadata"]
				if _, err := f.Apply(k, v, "", nil, shown, "three", false); err != nil {
					t.Fatalf("apply of everything: %v", err)
				}
			})
		}
	}
}

// fill sets every field that a plain value can be put into.
func fill(v reflect.Value, depth int) {
	if depth > 9 {
		return
	}
	switch v.Interface().(type) {
	case metav1.Time, metav1.MicroTime, metav1.TypeMeta, metav1.FieldsV1, runtime.RawExtension:
		return
	}
	if v.CanAddr() {
		if q, ok := v.Addr().Interface().(json.Unmarshaler); ok {
			for _, text := range []string{`"1"`, `1`} {
				if json.Unmarshal([]byte(text), q) == nil {
					return
				}
			}
			return
		}
	}
	switch v.Kind() {
	case reflect.Struct:
		for i := range v.NumField() {
			if v.Type().Field(i).IsExported() {
				fill(v.Field(i), depth+1)
			}
		}
	case reflect.Pointer:
		p := reflect.New(v.Type().Elem())
		fill(p.Elem(), depth+1)
		v.Set(p)
	case reflect.Slice:
		if v.Type().Elem().Kind() == reflect.Uint8 {
			v.SetBytes([]byte("x"))
			return
		}
		s := reflect.MakeSlice(v.Type(), 1, 1)
		fill(s.Index(0), depth+1)
		v.Set(s)
	case reflect.Map:
		key, val := reflect.New(v.Type().Key()).Elem(), reflect.New(v.Type().Elem()).Elem()
		fill(key, depth+1)
		fill(val, depth+1)
		m := reflect.MakeMap(v.Type())
		m.SetMapIndex(key, val)
		v.Set(m)
	case reflect.String:
		v.SetString("x")
	case reflect.Int, reflect.Int32, reflect.Int64:
		v.SetInt(1)
	case reflect.Bool:
		v.SetBool(true)
	}
}

func BenchmarkApplyPodCold(b *testing.B) {
	k, patch := kindOf(b, "Pod"), doc(b, pod)
	api.Scheme()
	for b.Loop() {
		if _, err := newFields().Apply(k, nil, "", k.New(), patch, "one", false); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkApplyPodWarm(b *testing.B) {
	k, patch, f := kindOf(b, "Pod"), doc(b, pod), newFields()
	live, err := f.Apply(k, nil, "", k.New(), patch, "one", false)
	if err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		if _, err := f.Apply(k, nil, "", live, patch, "one", false); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkUpdatePodStatus(b *testing.B) {
	for _, changed := range []bool{true, false} {
		b.Run(fmt.Sprintf("changed=%t", changed), func(b *testing.B) {
			k, f := kindOf(b, "Pod"), newFields()
			live, err := f.Apply(k, nil, "", k.New(), doc(b, pod), "one", false)
			if err != nil {
				b.Fatal(err)
			}
			live.SetUID("uid")
			next := live.DeepCopyObject().(*corev1.Pod)
			if changed {
				next.Status.Phase = corev1.PodRunning
			}
			for b.Loop() {
				next.ManagedFields = nil
				if err := f.Update(k, nil, "status", live, next, "kubelet"); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
