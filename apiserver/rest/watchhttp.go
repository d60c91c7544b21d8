package rest

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net/http"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/watch"

	"github.com/sampan-dev/sampan/api"
	"github.com/sampan-dev/sampan/apiserver/request"
	"github.com/sampan-dev/sampan/kit/clock"
)

// A watch without a timeout ends after a random time between these, so that
// clients spread over the servers there are.
const (
	minWatch = 30 * time.Minute
	maxWatch = 60 * time.Minute
)

func (x *exchange) watch() error {
	opts, err := x.listOptions()
	if err != nil {
		return err
	}
	if x.ans.format == api.FormatYAML {
		return notAcceptable()
	}
	if opts.TimeoutSeconds == nil {
		n := int64(clock.Jitter(minWatch, float64(maxWatch-minWatch)/float64(minWatch)) / time.Second)
		opts.TimeoutSeconds = &n
	}
	ctx, cancel := context.WithCancel(x.ctx)
	defer cancel()
	w, err := x.e.Watch(ctx, x.op, opts)
	if err != nil {
		return err
	}
	defer w.Stop()
	x.streamEvents(ctx, w)
	return nil
}

// streamEvents writes frames until the watch, the client or the server ends.
func (x *exchange) streamEvents(ctx context.Context, w *Watch) {
	media := x.ans.contentType()
	if x.ans.format == api.FormatProtobuf {
		media += ";stream=watch"
	}
	h := x.w.Header()
	h.Set("Content-Type", media)
	h.Set("Cache-Control", "no-cache, private")
	x.w.WriteHeader(http.StatusOK)
	flush := http.NewResponseController(x.w)
	if flush.Flush() != nil {
		return
	}
	f := &framer{x: x, count: counterOf(x.w)}
	for {
		events, err := w.Next(ctx)
		if err != nil {
			if !errors.Is(err, io.EOF) && ctx.Err() == nil {
				f.buf.Reset()
				f.fail(err)
				x.w.Write(f.buf.Bytes())
				flush.Flush()
			}
			return
		}
		f.buf.Reset()
		for i := range events {
			if err := f.add(&events[i]); err != nil {
				f.fail(err)
			}
			if f.buf.Len() > 1<<20 {
				if _, err := x.w.Write(f.buf.Bytes()); err != nil {
					return
				}
				f.buf.Reset()
			}
		}
		if _, err := x.w.Write(f.buf.Bytes()); err != nil || flush.Flush() != nil {
			return
		}
	}
}

// framer puts events into frames.
type framer struct {
	x    *exchange
	buf  bytes.Buffer
	sent int // table frames so far: only the first has columns

	count func(bytes int)
}

func (f *framer) add(s *Seen) error {
	data, err := f.object(s)
	if err != nil {
		return err
	}
	f.frame(string(s.Type), data)
	f.count(len(data))
	return nil
}

// counterOf finds, below an answer's wrappers, what counts the events sent.
func counterOf(w http.ResponseWriter) func(bytes int) {
	for w != nil {
		if c, ok := w.(interface{ CountEvents() func(int) }); ok {
			return c.CountEvents()
		}
		u, ok := w.(interface{ Unwrap() http.ResponseWriter })
		if !ok {
			break
		}
		w = u.Unwrap()
	}
	return func(int) {}
}

// object returns the bytes of an event's object.
func (f *framer) object(s *Seen) ([]byte, error) {
	op, ans := f.x.op, f.x.ans
	if s.Rec == nil {
		obj := op.bookmark(*s)
		return f.other(obj, obj)
	}
	if ans.table() || ans.partial() {
		obj, err := op.object(s.Rec)
		if err != nil {
			return nil, err
		}
		if ans.partial() && ans.format == api.FormatProtobuf {
			return encode(ans.format, partialOf(obj, ans.as))
		}
		data, err := op.wire(s.Rec, api.FormatJSON)
		if err != nil {
			return nil, err
		}
		return f.transform(obj, data)
	}
	return op.wire(s.Rec, ans.format)
}

// other encodes an object that is no record; stored is the same for the table.
func (f *framer) other(obj, stored api.Object) ([]byte, error) {
	ans := f.x.ans
	if ans.partial() && ans.format == api.FormatProtobuf {
		return encode(ans.format, partialOf(obj, ans.as))
	}
	if !ans.table() && !ans.partial() {
		return encode(ans.format, obj)
	}
	data, err := encode(api.FormatJSON, obj)
	if err != nil {
		return nil, err
	}
	if ans.table() && f.x.op.Version != nil {
		stored = f.x.op.Kind.New()
	}
	return f.transform(stored, data)
}

func (f *framer) transform(obj api.Object, data []byte) ([]byte, error) {
	var b bytes.Buffer
	version := f.x.ans.as.GroupVersion().String()
	if f.x.ans.partial() {
		writePartial(&b, version, data)
		return b.Bytes(), nil
	}
	t := newTable(f.x.op.Served, version, f.x.includeObject())
	t.begin(&b, metav1.ListMeta{ResourceVersion: obj.GetResourceVersion()}, f.sent == 0)
	f.sent++
	if err := t.row(&b, obj, data); err != nil {
		return nil, err
	}
	t.end(&b)
	return b.Bytes(), nil
}

// fail tells the client why the watch ends.
func (f *framer) fail(err error) {
	data, encErr := encode(f.x.ans.format, StatusOf(err))
	if encErr == nil {
		f.frame(string(watch.Error), data)
	}
}

func (f *framer) frame(kind string, data []byte) {
	if f.x.ans.format == api.FormatProtobuf {
		f.protoFrame(kind, data)
		return
	}
	f.buf.WriteString(`{"type":"`)
	f.buf.WriteString(kind)
	f.buf.WriteString(`","object":`)
	f.buf.Write(data)
	f.buf.WriteString("}\n")
}

// protoFrame writes a metav1.WatchEvent with its length before it.
func (f *framer) protoFrame(kind string, data []byte) {
	inner := 1 + uvarintLen(uint64(len(data))) + len(data)
	size := 2 + len(kind) + 1 + uvarintLen(uint64(inner)) + inner
	b := make([]byte, 0, 32+len(kind))
	b = binary.BigEndian.AppendUint32(b, uint32(size))
	b = append(b, 1<<3|2, byte(len(kind)))
	b = append(b, kind...)
	b = append(b, 2<<3|2)
	b = binary.AppendUvarint(b, uint64(inner))
	b = append(b, 1<<3|2)
	b = binary.AppendUvarint(b, uint64(len(data)))
	f.buf.Write(b)
	f.buf.Write(data)
}

// virtual serves a kind that is computed.
func (x *exchange) virtual() error {
	v := x.e.Virtuals[x.op.Served.Info.GroupResource().String()]
	i := x.op.Info
	var out runtime.Object
	var err error
	switch i.Verb {
	case "create":
		c, ok := v.(request.VirtualCreator)
		if !ok {
			return methodNotAllowed()
		}
		obj, derr := x.readObject(x.q.Get("fieldValidation"))
		if derr != nil {
			return derr
		}
		if derr = x.op.matchNamespace(obj); derr != nil {
			return derr
		}
		out, err = x.e.postVirtual(x.ctx, x.op, c, obj, &metav1.CreateOptions{DryRun: x.q["dryRun"]})
	case "get":
		g, ok := v.(request.VirtualGetter)
		if !ok {
			return methodNotAllowed()
		}
		out, err = g.Get(x.ctx, i)
	case "list":
		l, ok := v.(request.VirtualLister)
		if !ok {
			return methodNotAllowed()
		}
		out, err = l.List(x.ctx, i)
	default:
		return methodNotAllowed()
	}
	if err != nil {
		return err
	}
	code := http.StatusOK
	if i.Verb == "create" {
		code = http.StatusCreated
	}
	return x.sendVirtual(code, out)
}
