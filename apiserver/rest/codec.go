package rest

import (
	"bytes"
	"fmt"
	"strconv"
	"sync"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/sampan-dev/sampan/api"
	"github.com/sampan-dev/sampan/storage"
)

// The forms a record can have.
const (
	slotObject = iota // the decoded object, stored version, resourceVersion set
	slotJSON          // its JSON
	slotProto         // its protobuf, envelope included
	slotOther         // *otherForms: other served versions
)

// protoMagic begins every protobuf envelope, on disk and on the wire.
var protoMagic = []byte("k8s\x00")

// object returns the shared decoded object of a record.
func (s *Served) object(rec *storage.Record) (api.Object, error) {
	if s.custom != nil {
		return s.customObject(rec)
	}
	v, err := rec.Form(slotObject, func(r *storage.Record) (any, error) { return s.decodeRecord(r) })
	if err != nil {
		return nil, err
	}
	return v.(api.Object), nil
}

func (s *Served) decodeRecord(r *storage.Record) (api.Object, error) {
	obj, err := s.decodeTyped(r.Value)
	if err != nil {
		return nil, fmt.Errorf("decode: %s: %w", r.Key, err)
	}
	api.SetKind(obj, s.Info.GroupVersionKind)
	obj.SetResourceVersion(strconv.FormatInt(r.Rev, 10))
	return obj, nil
}

// decodeTyped reads a stored value. One written in another served version is
// converted: a cluster handed over may hold such.
func (s *Served) decodeTyped(value []byte) (api.Object, error) {
	f := api.FormatJSON
	if bytes.HasPrefix(value, protoMagic) {
		f = api.FormatProtobuf
	}
	got, gvk, err := api.DecodeOwn(f, value, &s.Info.GroupVersionKind)
	if err != nil {
		return nil, err
	}
	obj, ok := got.(api.Object)
	if !ok {
		return nil, fmt.Errorf("%T is no object", got)
	}
	if *gvk != s.Info.GroupVersionKind {
		for i := range s.Info.Also {
			v := &s.Info.Also[i]
			if v.Group == gvk.Group && v.Version == gvk.Version {
				if obj, err = v.Store(obj); err != nil {
					return nil, err
				}
				s.Kind.Default(obj)
				return obj, nil
			}
		}
		return nil, fmt.Errorf("unexpected kind %s", gvk)
	}
	s.Kind.Default(obj)
	return obj, nil
}

// encodeStored returns the bytes to store for obj, which must have no
// resourceVersion and no selfLink.
func (s *Served) encodeStored(obj api.Object) ([]byte, error) {
	if s.custom != nil {
		return s.custom.Save(obj)
	}
	api.SetKind(obj, s.Info.GroupVersionKind)
	var b bytes.Buffer
	if err := api.Encode(api.FormatProtobuf, obj, &b); err != nil {
		return nil, err
	}
	return bytes.Clone(b.Bytes()), nil
}

// isDynamic says whether the kind's objects are unstructured.
func (s *Served) isDynamic() bool { return s.custom != nil }

// show returns the object of a record in the served version.
func (s *Served) show(rec *storage.Record) (api.Object, error) {
	obj, err := s.object(rec)
	if err != nil {
		return nil, err
	}
	return s.showObject(obj)
}

func (s *Served) showObject(obj api.Object) (api.Object, error) {
	if s.Version == nil {
		return obj, nil
	}
	out, err := s.Version.Show(obj)
	if err != nil {
		return nil, err
	}
	api.SetKind(out, s.GVK)
	return out, nil
}

// otherForms are the wire forms of a record in versions other than the stored.
type otherForms struct {
	mu    sync.Mutex
	bytes map[otherForm][]byte
}

type otherForm struct {
	gv schema.GroupVersion
	f  api.Format
}

// wire returns the shared bytes of a record in the served version: for JSON
// without a newline at the end.
func (s *Served) wire(rec *storage.Record, f api.Format) ([]byte, error) {
	if s.custom != nil {
		return s.customWire(rec)
	}
	if s.Version != nil {
		return s.wireOther(rec, f)
	}
	slot := slotJSON
	if f == api.FormatProtobuf {
		slot = slotProto
	}
	v, err := rec.Form(slot, func(r *storage.Record) (any, error) {
		data, err := s.makeWire(r, f)
		if err == nil {
			s.keep.add(r, slot, len(data))
		}
		return data, err
	})
	if err != nil {
		return nil, err
	}
	return v.([]byte), nil
}

// makeWire encodes a record; protobuf is the stored bytes with the version set.
func (s *Served) makeWire(r *storage.Record, f api.Format) ([]byte, error) {
	if f == api.FormatProtobuf {
		if data, ok := patchRevision(r.Value, r.Rev); ok {
			return data, nil
		}
	}
	obj, err := s.object(r)
	if err != nil {
		return nil, err
	}
	return encode(f, obj)
}

func (s *Served) wireOther(rec *storage.Record, f api.Format) ([]byte, error) {
	v, err := rec.Form(slotOther, func(*storage.Record) (any, error) { return &otherForms{bytes: map[otherForm][]byte{}}, nil })
	if err != nil {
		return nil, err
	}
	o, key := v.(*otherForms), otherForm{s.GVK.GroupVersion(), f}
	o.mu.Lock()
	defer o.mu.Unlock()
	if data, ok := o.bytes[key]; ok {
		return data, nil
	}
	obj, err := s.show(rec)
	if err != nil {
		return nil, err
	}
	data, err := encode(f, obj)
	if err == nil {
		o.bytes[key] = data
		s.keep.add(rec, slotOther, len(data))
	}
	return data, err
}

// encode writes an object that carries its kind; JSON comes without newline.
func encode(f api.Format, obj runtime.Object) ([]byte, error) {
	var b bytes.Buffer
	if u, ok := obj.(*unstructured.Unstructured); ok && f == api.FormatJSON {
		return api.AppendLoose(nil, u.Object)
	}
	if u, ok := obj.(runtime.Unstructured); ok && f == api.FormatJSON {
		if err := unstructured.UnstructuredJSONScheme.Encode(u, &b); err != nil {
			return nil, err
		}
	} else if err := api.Encode(f, obj, &b); err != nil {
		return nil, err
	}
	data := bytes.Clone(b.Bytes())
	if f == api.FormatJSON {
		data = bytes.TrimRight(data, "\n")
	}
	return data, nil
}
