package rest

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"slices"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/sampan-dev/sampan/api"
	"github.com/sampan-dev/sampan/storage"
)

func (l *Listing) meta() metav1.ListMeta {
	return metav1.ListMeta{ResourceVersion: l.Version(), Continue: l.Continue, RemainingItemCount: l.Remaining}
}

// sendList answers with a listing, item by item.
func (x *exchange) sendList(l *Listing) error {
	if err := x.op.warm(l.Records); err != nil {
		return err
	}
	switch {
	case x.ans.table():
		return x.sendTable(l)
	case x.ans.format == api.FormatProtobuf && x.ans.partial():
		return x.sendObject(http.StatusOK, x.partialList(l))
	case x.ans.format == api.FormatProtobuf:
		if x.op.isDynamic() {
			return notAcceptableBut(supportedPlain)
		}
		return x.sendProtoList(l)
	}
	return x.sendJSONList(l)
}

// listKind is the kind of a list in the served version.
func (s *Served) listKind() string {
	if s.Version != nil {
		return s.GVK.Kind + "List"
	}
	return s.Info.ListName()
}

// kindPrefix is how an object's JSON begins; items of a list go without, as
// upstream's do.
func (o *Op) kindPrefix() []byte {
	return []byte(`{"kind":"` + o.GVK.Kind + `","apiVersion":"` + o.GVK.GroupVersion().String() + `",`)
}

func (x *exchange) sendJSONList(l *Listing) error {
	kind, version := x.op.listKind(), x.op.GVK.GroupVersion().String()
	if x.ans.partial() {
		kind, version = "PartialObjectMetadataList", x.ans.as.GroupVersion().String()
	}
	meta, err := json.Marshal(l.meta())
	if err != nil {
		return err
	}
	return x.stream(roughSize(l), func(w io.Writer) error {
		io.WriteString(w, `{"kind":"`+kind+`","apiVersion":"`+version+`","metadata":`)
		w.Write(meta)
		io.WriteString(w, `,"items":[`)
		prefix := x.op.kindPrefix()
		for i, rec := range l.Records {
			data, err := x.op.wire(rec, api.FormatJSON)
			if err != nil {
				return err
			}
			if i > 0 {
				io.WriteString(w, ",")
			}
			if x.ans.partial() {
				writePartial(w, version, data)
			} else if rest, ok := bytes.CutPrefix(data, prefix); ok {
				io.WriteString(w, "{")
				w.Write(rest)
			} else {
				w.Write(data)
			}
		}
		_, err := io.WriteString(w, "]}")
		return err
	})
}

// roughSize guesses how long a listing will be.
func roughSize(l *Listing) (n int) {
	for _, rec := range l.Records {
		n += len(rec.Value)
	}
	return n
}

// stream sends JSON as it is made, unless its form needs all of it at once.
func (x *exchange) stream(size int, write func(io.Writer) error) error {
	if x.ans.pretty || x.ans.format == api.FormatYAML {
		var b bytes.Buffer
		if err := write(&b); err != nil {
			return err
		}
		return x.sendJSON(http.StatusOK, b.Bytes())
	}
	out, done := x.head(http.StatusOK, x.ans.contentType(), size, false)
	defer done()
	w := bufio.NewWriterSize(out, 32<<10)
	if err := write(w); err != nil {
		x.e.Log.Error("list cut short", "path", x.r.URL.Path, "err", err)
		panic(http.ErrAbortHandler)
	}
	w.WriteByte('\n')
	w.Flush()
	return nil
}

// Field numbers of any list object.
const (
	listMetadata = 1
	listItems    = 2
)

func (x *exchange) sendProtoList(l *Listing) error {
	meta := l.meta()
	head, err := meta.Marshal()
	if err != nil {
		return err
	}
	rawLen := 1 + uvarintLen(uint64(len(head))) + len(head)
	for _, rec := range l.Records {
		raw, err := x.op.rawProto(rec)
		if err != nil {
			return err
		}
		rawLen += 1 + uvarintLen(uint64(len(raw))) + len(raw)
	}
	tm := runtime.TypeMeta{APIVersion: x.op.GVK.GroupVersion().String(), Kind: x.op.listKind()}
	env, err := (&runtime.Unknown{TypeMeta: tm}).Marshal()
	if err != nil {
		return err
	}
	// The empty envelope is TypeMeta followed by empty strings; the list goes between.
	_, at, _ := findField(env, 1)
	front := slices.Concat(protoMagic, env[:at.end], []byte{unknownRaw<<3 | 2}, binary.AppendUvarint(nil, uint64(rawLen)),
		[]byte{listMetadata<<3 | 2}, binary.AppendUvarint(nil, uint64(len(head))), head)
	back := env[at.end:]
	out, done := x.head(http.StatusOK, x.ans.contentType(), len(front)+rawLen+len(back)-(1+uvarintLen(uint64(len(head)))+len(head)), true)
	defer done()
	w := bufio.NewWriterSize(out, 32<<10)
	w.Write(front)
	for _, rec := range l.Records {
		raw, err := x.op.rawProto(rec)
		if err != nil {
			return err
		}
		w.WriteByte(listItems<<3 | 2)
		var n [binary.MaxVarintLen64]byte
		w.Write(n[:binary.PutUvarint(n[:], uint64(len(raw)))])
		w.Write(raw)
	}
	w.Write(back)
	return w.Flush()
}

// rawProto is a record's protobuf without its envelope.
func (o *Op) rawProto(rec *storage.Record) ([]byte, error) {
	data, err := o.wire(rec, api.FormatProtobuf)
	if err != nil {
		return nil, err
	}
	raw, _, ok := findField(bytes.TrimPrefix(data, protoMagic), unknownRaw)
	if !ok {
		return nil, errors.New("encode: " + rec.Key + ": no protobuf")
	}
	return raw, nil
}

// sendResults answers a deletion of many.
func (x *exchange) sendResults(done []*Result, rv string) error {
	l := &Listing{}
	for _, r := range done {
		rec := r.Rec
		if rec == nil {
			rec = &storage.Record{Key: r.Obj.GetName()}
			rec.Rev, _ = parseRevision(r.Obj.GetResourceVersion())
			x.op.settle(rec, r.Obj)
		}
		l.Records = append(l.Records, rec)
	}
	l.Rev, _ = parseRevision(rv)
	if l.Records == nil {
		l.Records = []*storage.Record{}
	}
	return x.sendList(l)
}
