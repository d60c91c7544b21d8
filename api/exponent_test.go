package api

import (
	"bytes"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// What only looks like an immense exponent in protobuf is read: the end of a UID
// and the tag after it, a text of somebody's. One in some thousand objects has it.
func TestWhatIsNoQuantityIsRead(t *testing.T) {
	for _, uid := range []string{"0e6f1b5c-1111-4111-811e-482193028312", "1e-1234", "0e6f1b5c-1111-411e-8111-482193028312", "11111e-00000000000000000"} {
		for _, data := range []string{"", "1e-", "1e-9999999999", "\n11e-999999999"} {
			m := &corev1.ConfigMap{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "ConfigMap"}, ObjectMeta: metav1.ObjectMeta{Name: "n", UID: types.UID(uid)}, Data: map[string]string{"k": data, data: "v"}}
			for _, f := range []Format{FormatProtobuf, FormatJSON} {
				var b bytes.Buffer
				if err := Encode(f, m, &b); err != nil {
					t.Fatal(err)
				}
				if _, _, err := DecodeOwn(f, b.Bytes(), nil); err != nil {
					t.Errorf("%q %q in format %d, our own: %v", uid, data, f, err)
				}
				got, _, err := Decode(f, b.Bytes(), nil, false)
				if err != nil || got.(*corev1.ConfigMap).UID != m.UID || got.(*corev1.ConfigMap).Data["k"] != data {
					t.Errorf("%q %q in format %d: %v", uid, data, f, err)
				}
			}
		}
	}
}

// A quantity of such an exponent is refused in protobuf, too, of whatever length.
func TestAnImmenseQuantityInProtobuf(t *testing.T) {
	for _, immense := range []string{"1e-9999", "1.5E-99999999", "00000000000000000000000000000000000000000000001e-999999999"} {
		text := append([]byte{1<<3 | 2, byte(len(immense))}, immense...)
		if !isText(append([]byte{0x12, byte(len(text))}, text...), 2+2+bytes.IndexByte([]byte(immense), '-')) {
			t.Errorf("%s is no quantity's text", immense)
		}
	}
	p := &corev1.Pod{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Pod"}, ObjectMeta: metav1.ObjectMeta{Name: "n"},
		Spec: corev1.PodSpec{Containers: []corev1.Container{{Resources: corev1.ResourceRequirements{Limits: corev1.ResourceList{"memory": resource.MustParse("123456789012")}}}}}}
	var b bytes.Buffer
	if err := Encode(FormatProtobuf, p, &b); err != nil {
		t.Fatal(err)
	}
	bad := bytes.Replace(b.Bytes(), []byte("123456789012"), []byte("1e-999999999"), 1)
	if bytes.Equal(bad, b.Bytes()) {
		t.Fatal("the quantity is not written as expected")
	}
	if _, _, err := Decode(FormatProtobuf, bad, nil, false); err == nil {
		t.Error("it was read")
	}
	if _, _, err := DecodeOwn(FormatProtobuf, bad, nil); err == nil {
		t.Error("it was read from what is stored")
	}
}
