package httpx

import (
	"context"
	"io"
	"net/http"
	"sync"

	"github.com/sampan-dev/sampan/kit/run"
)

// InProcess carries requests to a handler of this process. The answer's body is
// read while the handler writes it, so that it may be endless.
type InProcess struct {
	Handler http.Handler
	// Context, when set, gives requests what the handler looks for in theirs.
	Context func(context.Context) context.Context
}

// RoundTrip implements http.RoundTripper.
func (t InProcess) RoundTrip(r *http.Request) (*http.Response, error) {
	ctx, cancel := context.WithCancel(r.Context())
	if t.Context != nil {
		ctx = t.Context(ctx)
	}
	q := r.Clone(ctx)
	q.RequestURI = r.URL.RequestURI()
	if q.Body == nil {
		q.Body = http.NoBody
	}
	out, in := io.Pipe()
	w := &pipeWriter{header: http.Header{}, to: in, begun: make(chan struct{})}
	run.Detach(ctx, "request in process", func(context.Context) {
		defer in.Close()
		defer w.WriteHeader(http.StatusOK)
		t.Handler.ServeHTTP(w, q)
	})
	select {
	case <-w.begun:
	case <-ctx.Done():
		cancel()
		in.CloseWithError(ctx.Err())
		return nil, r.Context().Err()
	}
	stop := context.AfterFunc(ctx, func() { in.CloseWithError(context.Canceled) })
	return &http.Response{
		Status: http.StatusText(w.code), StatusCode: w.code, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
		Header: w.sent, ContentLength: -1, Request: r, Body: &pipeBody{out, func() { stop(); cancel() }},
	}, nil
}

type pipeWriter struct {
	header http.Header
	to     *io.PipeWriter
	once   sync.Once
	begun  chan struct{} // closed when code and sent are there
	code   int
	sent   http.Header
}

func (w *pipeWriter) Header() http.Header { return w.header }

func (w *pipeWriter) WriteHeader(code int) {
	w.once.Do(func() {
		w.code, w.sent = code, w.header.Clone()
		close(w.begun)
	})
}

func (w *pipeWriter) Write(b []byte) (int, error) {
	w.WriteHeader(http.StatusOK)
	return w.to.Write(b)
}

// Flush implements http.Flusher: what is written is there at once.
func (w *pipeWriter) Flush() { w.WriteHeader(http.StatusOK) }

// pipeBody ends the handler when its reader has had enough.
type pipeBody struct {
	*io.PipeReader
	end func()
}

// Close implements io.Closer.
func (b *pipeBody) Close() error {
	b.end()
	return b.PipeReader.Close()
}
