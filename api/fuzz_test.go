package api_test

import (
	"bytes"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/sampan-dev/sampan/api"
	"github.com/sampan-dev/sampan/kit/monster"
)

// FuzzDecode: whatever comes in any of the formats is an object that can be
// written again, or an error, and costs no more memory than its size allows.
func FuzzDecode(f *testing.F) {
	for _, doc := range monster.JSON() {
		f.Add(uint8(api.FormatJSON), doc)
	}
	for _, doc := range monster.YAML() {
		f.Add(uint8(api.FormatYAML), doc)
	}
	for _, doc := range monster.Proto() {
		f.Add(uint8(api.FormatProtobuf), doc)
	}
	pod := []byte(`{"kind":"Pod","apiVersion":"v1","metadata":{"name":"n","creationTimestamp":"2001-02-03T04:05:06Z"},"spec":{"containers":[{"name":"c","resources":{"limits":{"cpu":"1e3","memory":"1.5Gi"}},"ports":[{"containerPort":80}],"livenessProbe":{"httpGet":{"port":"x"}}}]}}`)
	obj, _, err := api.Decode(api.FormatJSON, pod, nil, true)
	if err != nil {
		f.Fatal(err)
	}
	for format := range api.Formats {
		var b bytes.Buffer
		if err := api.Encode(format, obj, &b); err != nil {
			f.Fatal(err)
		}
		f.Add(uint8(format), b.Bytes())
	}
	for _, quantity := range []string{"1e9999", "9223372036854775808", "0.0000000000000000000000001", "1Ei1", "-", "1e-2147483648", "1.5E-99999999999", "-.5e-100000", "١"} {
		f.Add(uint8(api.FormatJSON), []byte(`{"kind":"Pod","apiVersion":"v1","spec":{"containers":[{"resources":{"limits":{"cpu":"`+quantity+`"}}}]}}`))
	}
	for _, time := range []string{"9999-12-31T23:59:60Z", "0000-00-00T00:00:00Z", "2001-02-03T04:05:06.0000000000001+99:99", "-1-01-01T00:00:00Z"} {
		f.Add(uint8(api.FormatJSON), []byte(`{"kind":"Event","apiVersion":"v1","firstTimestamp":"`+time+`","eventTime":"`+time+`"}`))
	}
	kinds := []schema.GroupVersionKind{
		{Version: "v1", Kind: "Pod"}, {Version: "v1", Kind: "ConfigMap"}, {Group: "apps", Version: "v1", Kind: "Deployment"}, {Group: "meta.k8s.io", Version: "v1", Kind: "DeleteOptions"},
	}
	f.Fuzz(func(t *testing.T, format uint8, data []byte) {
		if len(data) > 1<<20 {
			return
		}
		from := api.Format(format) % api.Formats
		for _, kind := range kinds {
			for _, strict := range []bool{false, true} {
				var got runtime.Object
				var err error
				monster.Bounded(t, len(data), func() { got, _, err = api.Decode(from, data, &kind, strict) })
				if err != nil && !runtime.IsStrictDecodingError(err) {
					continue
				}
				if got == nil {
					t.Fatal("neither an object nor an error")
				}
				again(t, got)
			}
		}
	})
}

// A quantity of a tenth to the power of two thousand million is refused, at once,
// wherever one may stand; the same text elsewhere is a text.
func TestImmenseExponents(t *testing.T) {
	pod := func(limit, label string) []byte {
		return []byte(`{"kind":"Pod","apiVersion":"v1","metadata":{"name":"n","labels":{"a":` + label + `}},"spec":{"containers":[{"name":"c","resources":{"limits":{"cpu":` + limit + `}}}]}}`)
	}
	plain, strange := `"1e-3"`, `"1e-99999999999"`
	for _, c := range []struct {
		data []byte
		ok   bool
	}{
		{pod(plain, plain), true}, {pod(plain, strange), true}, {pod(strange, plain), false}, {pod(`1e-99999999999`, plain), false}, {pod(`"7.E-2147483648"`, plain), false},
	} {
		for _, f := range []api.Format{api.FormatJSON, api.FormatYAML} {
			obj, _, err := api.Decode(f, c.data, nil, true)
			if c.ok != (err == nil) && (f == api.FormatJSON || err != nil) {
				t.Errorf("%s: %s: %v", f.MediaType(), c.data, err)
			}
			if c.ok && obj.(*corev1.Pod).Labels["a"] == "" {
				t.Errorf("%s: %s: the label is lost", f.MediaType(), c.data)
			}
		}
	}
	var b bytes.Buffer
	if err := api.Encode(api.FormatProtobuf, &corev1.Pod{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Pod"}, ObjectMeta: metav1.ObjectMeta{Name: "9e-999999999999"}}, &b); err != nil {
		t.Fatal(err)
	}
	if _, _, err := api.Decode(api.FormatProtobuf, b.Bytes(), nil, false); err != nil {
		t.Errorf("a name: %v", err)
	}
	b.Reset()
	limits := corev1.ResourceList{"cpu": resource.MustParse("12345678901234")}
	if err := api.Encode(api.FormatProtobuf, &corev1.Pod{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Pod"}, Spec: corev1.PodSpec{Overhead: limits}}, &b); err != nil {
		t.Fatal(err)
	}
	if _, _, err := api.Decode(api.FormatProtobuf, bytes.Replace(b.Bytes(), []byte("12345678901234"), []byte("9e-99999999999"), 1), nil, false); err == nil {
		t.Error("protobuf: taken")
	}
}

// again writes an object in every format and reads it back.
func again(t *testing.T, obj runtime.Object) {
	t.Helper()
	kind, err := api.KindOf(obj)
	if err != nil {
		return // no object that the API has
	}
	api.SetKind(obj, kind)
	for format := range api.Formats {
		var b bytes.Buffer
		if err := api.Encode(format, obj, &b); err != nil {
			continue // what JSON cannot say, such as a time beyond the year 9999
		}
		if _, _, err := api.Decode(format, b.Bytes(), &kind, false); err != nil {
			t.Errorf("what was written as %s cannot be read: %v\n%.500q", format.MediaType(), err, b.Bytes())
		}
	}
}
