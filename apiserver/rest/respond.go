package rest

import (
	"bytes"
	"compress/gzip"
	"fmt"
	"io"
	"strconv"
	"strings"
	"sync"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/yaml"

	"github.com/sampan-dev/sampan/api"
	"github.com/sampan-dev/sampan/storage"
)

// gzipFrom is the size from which answers are compressed for those who accept it.
const gzipFrom = 128 << 10

// gzipWriters are reused; level 1, as upstream.
var gzipWriters = sync.Pool{New: func() any {
	w, _ := gzip.NewWriterLevel(nil, 1)
	return w
}}

// head writes the status line and headers and returns where the body goes. size
// may be a guess, which only decides about compression.
func (x *exchange) head(code int, contentType string, size int, exact bool) (io.Writer, func()) {
	h := x.w.Header()
	h.Set("Content-Type", contentType)
	h.Set("Cache-Control", "no-cache, private")
	if size >= gzipFrom && strings.Contains(x.r.Header.Get("Accept-Encoding"), "gzip") {
		h.Set("Content-Encoding", "gzip")
		h.Add("Vary", "Accept-Encoding")
		x.w.WriteHeader(code)
		z := gzipWriters.Get().(*gzip.Writer)
		z.Reset(x.w)
		return z, func() { z.Close(); gzipWriters.Put(z) }
	}
	if exact {
		h.Set("Content-Length", strconv.Itoa(size))
	}
	x.w.WriteHeader(code)
	return x.w, func() {}
}

func (x *exchange) send(code int, data []byte) error {
	out, done := x.head(code, x.ans.contentType(), len(data), true)
	defer done()
	out.Write(data)
	return nil
}

// sendResult answers with the object of a write.
func (x *exchange) sendResult(code int, res *Result) error {
	if res.Rec != nil {
		return x.sendRecord(code, res.Rec)
	}
	obj, err := x.op.showObject(res.Obj)
	if err != nil {
		return err
	}
	api.SetKind(obj, x.op.GVK)
	if !x.ans.table() && !x.ans.partial() {
		return x.sendObject(code, obj)
	}
	data, err := encode(api.FormatJSON, obj)
	if err != nil {
		return err
	}
	return x.sendTransformed(code, res.Obj, data)
}

// sendRecord answers with a record in the form asked for.
func (x *exchange) sendRecord(code int, rec *storage.Record) error {
	if x.ans.table() || x.ans.partial() {
		obj, err := x.op.object(rec)
		if err != nil {
			return err
		}
		data, err := x.op.wire(rec, api.FormatJSON)
		if err != nil {
			return err
		}
		return x.sendTransformed(code, obj, data)
	}
	if x.ans.format == api.FormatYAML {
		obj, err := x.op.show(rec)
		if err != nil {
			return err
		}
		return x.sendObject(code, obj)
	}
	data, err := x.op.wire(rec, x.ans.format)
	if err != nil {
		return err
	}
	return x.send(code, finish(x.ans, data))
}

// sendTransformed answers with a table or the metadata of one object; data is
// its JSON in the served version.
func (x *exchange) sendTransformed(code int, obj api.Object, data []byte) error {
	var b bytes.Buffer
	if x.ans.partial() {
		if x.ans.format == api.FormatProtobuf {
			return x.sendObject(code, partialOf(obj, x.ans.as))
		}
		writePartial(&b, x.ans.as.GroupVersion().String(), data)
	} else {
		t := newTable(x.op.Served, x.ans.as.GroupVersion().String(), x.includeObject())
		t.begin(&b, metav1.ListMeta{ResourceVersion: obj.GetResourceVersion()}, true)
		if err := t.row(&b, obj, data); err != nil {
			return err
		}
		t.end(&b)
	}
	return x.sendJSON(code, b.Bytes())
}

// sendJSON answers with JSON, or the YAML of it.
func (x *exchange) sendJSON(code int, data []byte) error {
	if x.ans.format == api.FormatYAML {
		y, err := yaml.JSONToYAML(data)
		if err != nil {
			return err
		}
		return x.send(code, y)
	}
	return x.send(code, finish(x.ans, data))
}

// sendObject answers with an object that carries its kind.
func (x *exchange) sendObject(code int, obj runtime.Object) error {
	if _, dynamic := obj.(*unstructured.Unstructured); dynamic {
		if x.ans.format == api.FormatProtobuf {
			return notAcceptableBut(supportedPlain)
		}
		data, err := encode(api.FormatJSON, obj)
		if err != nil {
			return err
		}
		return x.sendJSON(code, data)
	}
	data, err := encode(x.ans.format, obj)
	if err != nil {
		return err
	}
	return x.send(code, finish(x.ans, data))
}

// checkTable refuses a table of objects in a form nobody knows.
func (x *exchange) checkTable() error {
	if !x.ans.table() {
		return nil
	}
	switch v := x.includeObject(); v {
	case metav1.IncludeObject, metav1.IncludeMetadata, metav1.IncludeNone:
		return nil
	default:
		return apierrors.NewBadRequest(fmt.Sprintf("unrecognized includeObject value: %q", v))
	}
}

func (x *exchange) includeObject() metav1.IncludeObjectPolicy {
	if x.q != nil {
		if v := x.q.Get("includeObject"); v != "" {
			return metav1.IncludeObjectPolicy(v)
		}
	}
	return metav1.IncludeMetadata
}
