package rest

import (
	"bytes"
	"slices"
	"strconv"
	"sync"

	"github.com/sampan-dev/sampan/api"
	"github.com/sampan-dev/sampan/resource"
	"github.com/sampan-dev/sampan/storage"
)

// customForms are a record's forms for the kinds that read it: one per version
// of a custom resource, and another set each time its definition changes.
type customForms[T any] struct {
	mu    sync.Mutex
	list  []customForm[T]
	fresh resource.Custom // whose writing the record's value is
}

func (c *customForms[T]) setFresh(k resource.Custom) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.fresh = k
}

func (c *customForms[T]) isFresh(k resource.Custom) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.fresh == k
}

type customForm[T any] struct {
	of   resource.Custom
	form T
}

func (c *customForms[T]) get(k resource.Custom) (form T, ok bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for i := range c.list {
		if c.list[i].of == k {
			return c.list[i].form, true
		}
	}
	return form, false
}

// put keeps a form unless there is one, and drops those of kinds that are gone.
// It returns the one that is kept.
func (c *customForms[T]) put(k resource.Custom, form T) T {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.list = slices.DeleteFunc(c.list, func(f customForm[T]) bool { return f.of != k && f.of.Life().Err() != nil })
	for i := range c.list {
		if c.list[i].of == k {
			return c.list[i].form
		}
	}
	c.list = append(c.list, customForm[T]{k, form})
	return form
}

func formsIn[T any](rec *storage.Record, slot int) *customForms[T] {
	v, _ := rec.Form(slot, func(*storage.Record) (any, error) { return &customForms[T]{}, nil })
	return v.(*customForms[T])
}

// customObject returns the shared decoded object of a record, in the kind's version.
func (s *Served) customObject(rec *storage.Record) (api.Object, error) {
	forms := formsIn[api.Object](rec, slotObject)
	if obj, ok := forms.get(s.custom); ok {
		return obj, nil
	}
	if err := s.warm([]*storage.Record{rec}); err != nil {
		return nil, err
	}
	obj, _ := formsIn[api.Object](rec, slotObject).get(s.custom)
	return obj, nil
}

// warm decodes the records that nobody has read yet, all at once: those of
// another version may have to be sent away for conversion.
func (s *Served) warm(recs []*storage.Record) error {
	if s.custom == nil {
		return nil
	}
	var cold []*storage.Record
	var values [][]byte
	for _, rec := range recs {
		if _, ok := formsIn[api.Object](rec, slotObject).get(s.custom); !ok {
			cold, values = append(cold, rec), append(values, rec.Value)
		}
	}
	if len(cold) == 0 {
		return nil
	}
	objs, err := s.custom.Load(values)
	if err != nil {
		return err // a conversion webhook's words are for the user, as they are
	}
	for i, rec := range cold {
		objs[i].SetResourceVersion(strconv.FormatInt(rec.Rev, 10))
		formsIn[api.Object](rec, slotObject).put(s.custom, objs[i])
	}
	return nil
}

// customWire returns the shared JSON of a record, in the kind's version.
func (s *Served) customWire(rec *storage.Record) ([]byte, error) {
	if data, ok := formsIn[[]byte](rec, slotJSON).get(s.custom); ok {
		return data, nil
	}
	data, ok := s.spliced(rec)
	if !ok {
		obj, err := s.object(rec)
		if err != nil {
			return nil, err
		}
		if data, err = encode(api.FormatJSON, obj); err != nil {
			return nil, err
		}
	}
	data = formsIn[[]byte](rec, slotJSON).put(s.custom, data)
	s.keep.add(rec, slotJSON, len(data))
	return data, nil
}

// spliced makes a record's JSON of what was stored, if the kind has just stored
// it that way: nothing but the revision is missing.
func (s *Served) spliced(rec *storage.Record) ([]byte, bool) {
	if !s.Info.Stored() || !formsIn[api.Object](rec, slotObject).isFresh(s.custom) {
		return nil, false
	}
	at := uidAt(rec.Value)
	if at < 0 {
		return nil, false
	}
	data := make([]byte, 0, len(rec.Value)+40)
	data = append(data, rec.Value[:at]...)
	data = append(data, `"resourceVersion":"`...)
	data = strconv.AppendInt(data, rec.Rev, 10)
	data = append(data, `",`...)
	data = append(data, rec.Value[at:]...)
	return bytes.TrimRight(data, "\n"), true
}

// uidAt is where the metadata's uid is written, before which its revision
// belongs; -1 if there is none.
func uidAt(data []byte) int {
	depth, inside := 0, false
	for i := 0; i < len(data); i++ {
		switch data[i] {
		case '{', '[':
			depth++
		case '}', ']':
			if depth--; depth == 1 {
				inside = false
			}
		case '"':
			switch {
			case depth == 1:
				inside = bytes.HasPrefix(data[i:], metadataKey)
			case depth == 2 && inside && bytes.HasPrefix(data[i:], uidKey):
				return i
			}
			i = stringEnd(data, i)
		}
	}
	return -1
}

var uidKey = []byte(`"uid":`)

// settle gives a record the decoded object that it was made of.
func (s *Served) settle(rec *storage.Record, obj api.Object) {
	obj.SetResourceVersion(strconv.FormatInt(rec.Rev, 10))
	if s.custom != nil {
		forms := formsIn[api.Object](rec, slotObject)
		forms.put(s.custom, obj)
		forms.setFresh(s.custom)
		return
	}
	rec.SetForm(slotObject, obj)
}
