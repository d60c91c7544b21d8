package rest

import (
	"bytes"
	"encoding/json"
	"io"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/sampan-dev/sampan/api"
	"github.com/sampan-dev/sampan/kit/clock"
)

// table writes metav1.Table as JSON, row by row.
type table struct {
	s       *Served
	version string
	include metav1.IncludeObjectPolicy
	now     time.Time
	rows    int
	line    []byte // room for a row's cells
}

func newTable(s *Served, version string, include metav1.IncludeObjectPolicy) *table {
	return &table{s: s, version: version, include: include, now: clock.Now()}
}

func (t *table) begin(w io.Writer, meta metav1.ListMeta, columns bool) {
	io.WriteString(w, `{"kind":"Table","apiVersion":"`+t.version+`","metadata":`)
	data, _ := json.Marshal(meta)
	w.Write(data)
	io.WriteString(w, `,"columnDefinitions":`)
	if columns {
		data, _ = json.Marshal(t.columns())
		w.Write(data)
	} else {
		io.WriteString(w, "null")
	}
	io.WriteString(w, `,"rows":[`)
}

func (t *table) columns() []metav1.TableColumnDefinition {
	out := make([]metav1.TableColumnDefinition, 0, len(t.s.Info.Columns)+2)
	for _, c := range t.s.Info.Columns {
		d := metav1.TableColumnDefinition{Name: c.Name, Type: c.Type, Format: c.Format, Description: c.Description}
		if d.Priority = c.Priority; c.Wide {
			d.Priority = 1
		}
		out = append(out, d)
	}
	if len(out) == 0 {
		return []metav1.TableColumnDefinition{
			{Name: "Name", Type: "string", Format: "name", Description: metav1.ObjectMeta{}.SwaggerDoc()["name"]},
			{Name: "Created At", Type: "date", Description: metav1.ObjectMeta{}.SwaggerDoc()["creationTimestamp"]},
		}
	}
	return out
}

// row writes the row of an object; data is its JSON in the served version.
func (t *table) row(w io.Writer, obj api.Object, data []byte) error {
	if t.rows++; t.rows > 1 {
		io.WriteString(w, ",")
	}
	cells := t.s.Kind.Cells(obj, t.now)
	if len(t.s.Info.Columns) == 0 {
		cells = []any{obj.GetName(), obj.GetCreationTimestamp().UTC().Format(time.RFC3339)}
	}
	line, err := api.AppendLoose(t.line[:0], cells)
	if err != nil {
		return err
	}
	t.line = line
	io.WriteString(w, `{"cells":`)
	w.Write(line)
	switch t.include {
	case metav1.IncludeNone:
	case metav1.IncludeObject:
		io.WriteString(w, `,"object":`)
		w.Write(data)
	default:
		io.WriteString(w, `,"object":`)
		writePartial(w, t.version, data)
	}
	_, err = io.WriteString(w, "}")
	return err
}

func (t *table) end(w io.Writer) { io.WriteString(w, "]}") }

func (x *exchange) sendTable(l *Listing) error {
	t := newTable(x.op.Served, x.ans.as.GroupVersion().String(), x.includeObject())
	return x.stream(roughSize(l), func(w io.Writer) error {
		t.begin(w, l.meta(), true)
		for _, rec := range l.Records {
			obj, err := x.op.object(rec)
			if err != nil {
				return err
			}
			data, err := x.op.wire(rec, api.FormatJSON)
			if err != nil {
				return err
			}
			if err := t.row(w, obj, data); err != nil {
				return err
			}
		}
		t.end(w)
		return nil
	})
}

// writePartial writes the metadata of an encoded object as PartialObjectMetadata.
func writePartial(w io.Writer, version string, data []byte) {
	io.WriteString(w, `{"kind":"PartialObjectMetadata","apiVersion":"`+version+`","metadata":`)
	w.Write(rawMetadata(data))
	io.WriteString(w, "}")
}

var metadataKey = []byte(`"metadata":`)

// rawMetadata cuts the metadata out of an object's JSON without parsing it: the
// first key of that name at the first level.
func rawMetadata(data []byte) []byte {
	depth := 0
	for i := 0; i < len(data); i++ {
		switch data[i] {
		case '{', '[':
			depth++
		case '}', ']':
			depth--
		case '"':
			end := stringEnd(data, i)
			if depth == 1 && bytes.HasPrefix(data[i:], metadataKey) {
				from := i + len(metadataKey)
				return data[from:valueEnd(data, from)]
			}
			i = end
		}
	}
	return []byte("{}")
}

// stringEnd returns the place of the quote that ends the string at i.
func stringEnd(data []byte, i int) int {
	for i++; i < len(data); i++ {
		switch data[i] {
		case '\\':
			i++
		case '"':
			return i
		}
	}
	return len(data)
}

// valueEnd returns where the object or array at i ends.
func valueEnd(data []byte, i int) int {
	depth := 0
	for ; i < len(data); i++ {
		switch data[i] {
		case '{', '[':
			depth++
		case '}', ']':
			if depth--; depth == 0 {
				return i + 1
			}
		case '"':
			i = stringEnd(data, i)
		}
	}
	return len(data)
}

// partialOf is PartialObjectMetadata as an object, for protobuf.
func partialOf(obj api.Object, gvk schema.GroupVersionKind) *metav1.PartialObjectMetadata {
	p := &metav1.PartialObjectMetadata{ObjectMeta: metav1.ObjectMeta{
		Name: obj.GetName(), GenerateName: obj.GetGenerateName(), Namespace: obj.GetNamespace(), UID: obj.GetUID(),
		ResourceVersion: obj.GetResourceVersion(), Generation: obj.GetGeneration(), CreationTimestamp: obj.GetCreationTimestamp(),
		DeletionTimestamp: obj.GetDeletionTimestamp(), DeletionGracePeriodSeconds: obj.GetDeletionGracePeriodSeconds(),
		Labels: obj.GetLabels(), Annotations: obj.GetAnnotations(), OwnerReferences: obj.GetOwnerReferences(),
		Finalizers: obj.GetFinalizers(), ManagedFields: obj.GetManagedFields(),
	}}
	p.SetGroupVersionKind(gvk.GroupVersion().WithKind("PartialObjectMetadata"))
	return p
}

func (x *exchange) partialList(l *Listing) *metav1.PartialObjectMetadataList {
	out := &metav1.PartialObjectMetadataList{ListMeta: l.meta()}
	out.SetGroupVersionKind(x.ans.as.GroupVersion().WithKind("PartialObjectMetadataList"))
	for _, rec := range l.Records {
		if obj, err := x.op.object(rec); err == nil {
			out.Items = append(out.Items, *partialOf(obj, x.ans.as))
		}
	}
	return out
}
