package api

import (
	"errors"
	"fmt"
	"io"
	"sync"

	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/apimachinery/pkg/runtime/serializer/json"
	"k8s.io/apimachinery/pkg/runtime/serializer/protobuf"
)

// Media types that requests and responses may carry.
const (
	JSON     = "application/json"
	YAML     = "application/yaml"
	Protobuf = "application/vnd.kubernetes.protobuf"
)

// Format names one wire format.
type Format uint8

// The wire formats, in the order of their form slots.
const (
	FormatJSON Format = iota
	FormatProtobuf
	FormatYAML
	Formats // how many there are
)

// MediaType returns the format's content type.
func (f Format) MediaType() string { return [...]string{JSON, Protobuf, YAML}[f] }

// FormatOf returns the format of a media type without parameters.
func FormatOf(mediaType string) (Format, bool) {
	switch mediaType {
	case JSON:
		return FormatJSON, true
	case Protobuf:
		return FormatProtobuf, true
	case YAML, "application/x-yaml", "text/yaml":
		return FormatYAML, true
	}
	return 0, false
}

type codecs struct {
	lenient, strict [Formats]runtime.Serializer
	factory         serializer.CodecFactory
}

// serializers are made once, when first needed, from the one scheme.
var serializers = sync.OnceValue(func() *codecs {
	s := Scheme()
	c := &codecs{factory: serializer.NewCodecFactory(s)}
	for _, strict := range []bool{false, true} {
		row := &c.lenient
		if strict {
			row = &c.strict
		}
		row[FormatJSON] = json.NewSerializerWithOptions(json.DefaultMetaFactory, s, s, json.SerializerOptions{Strict: strict})
		row[FormatYAML] = json.NewSerializerWithOptions(json.DefaultMetaFactory, s, s, json.SerializerOptions{Yaml: true, Strict: strict})
		row[FormatProtobuf] = protobuf.NewSerializer(s, s)
	}
	return c
})

// Decode reads one object of format f that somebody sent. The object's own apiVersion and kind
// say its type; missing ones are taken from fallback. The type must be known
// to the scheme.
//
// With strict, unknown and duplicate fields are an error that
// runtime.IsStrictDecodingError recognises; the decoded object comes with it.
func Decode(f Format, data []byte, fallback *schema.GroupVersionKind, strict bool) (runtime.Object, *schema.GroupVersionKind, error) {
	row := &serializers().lenient
	if strict {
		row = &serializers().strict
	}
	if without := spoilt(f, data); without != nil {
		if _, gvk, err := row[f].Decode(without, fallback, nil); err != nil && !runtime.IsStrictDecodingError(err) {
			return nil, gvk, err
		}
	}
	return row[f].Decode(data, fallback, nil)
}

// DecodeOwn reads what a server of this API wrote: a stored value, an answer. It
// was judged when it came in, so only what certainly is a quantity no one can
// read is refused: whatever else Decode suspects of others' bytes, an object that
// is there can be read.
func DecodeOwn(f Format, data []byte, fallback *schema.GroupVersionKind) (runtime.Object, *schema.GroupVersionKind, error) {
	lenient := serializers().lenient[f]
	if without := spoilt(f, data); without != nil {
		if _, gvk, err := lenient.Decode(without, fallback, nil); err != nil && (f != FormatProtobuf || errors.Is(err, resource.ErrFormatWrong)) {
			return nil, gvk, err
		}
	}
	return lenient.Decode(data, fallback, nil)
}

// DecodeInto reads one object of format f that a server of this API wrote into
// obj, whose type it must have.
func DecodeInto(f Format, data []byte, obj runtime.Object) error {
	gvk, err := KindOf(obj)
	if err != nil {
		return err
	}
	got, actual, err := serializers().lenient[f].Decode(data, &gvk, obj)
	if err != nil {
		return err
	}
	if got != obj {
		return fmt.Errorf("decode %s: unexpected kind %s", gvk, actual)
	}
	return nil
}

// Encode writes obj in format f. The object must carry its apiVersion and kind.
func Encode(f Format, obj runtime.Object, w io.Writer) error {
	return serializers().lenient[f].Encode(obj, w)
}

// Serializer returns the lenient serializer of a format, for libraries that want one.
func Serializer(f Format) runtime.Serializer { return serializers().lenient[f] }

// Codecs returns apimachinery's codec factory over the scheme, for libraries that want one.
func Codecs() serializer.CodecFactory { return serializers().factory }

// KindOf returns the group, version and kind of a typed object: its own if set,
// else its type's.
func KindOf(obj runtime.Object) (schema.GroupVersionKind, error) {
	if gvk := obj.GetObjectKind().GroupVersionKind(); !gvk.Empty() && gvk.Version != "" {
		return gvk, nil
	}
	kinds, _, err := Scheme().ObjectKinds(obj)
	if err != nil {
		return schema.GroupVersionKind{}, err
	}
	return kinds[0], nil
}

// KindFor returns the group, version and kind of T, an API struct type.
func KindFor[T any]() schema.GroupVersionKind {
	obj, ok := any(new(T)).(runtime.Object)
	if !ok {
		panic(fmt.Sprintf("api: %T is no API object", new(T)))
	}
	gvk, err := KindOf(obj)
	if err != nil {
		panic(fmt.Sprintf("api: %T: %v", obj, err))
	}
	return gvk
}

// SetKind writes obj's apiVersion and kind.
func SetKind(obj runtime.Object, gvk schema.GroupVersionKind) {
	obj.GetObjectKind().SetGroupVersionKind(gvk)
}

// Meta returns obj's metadata accessor, or nil if it has none.
func Meta(obj runtime.Object) metav1.Object {
	m, _ := obj.(metav1.Object)
	return m
}
