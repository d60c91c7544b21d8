package client

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net/http"
	"sync"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/runtime/serializer/streaming"
	"k8s.io/apimachinery/pkg/watch"

	"github.com/sampan-dev/sampan/api"
)

// Watch implements Interface. The cursor ends when ctx does.
func (h *HTTP) Watch(ctx context.Context, r schema.GroupVersionResource, namespace string, o *metav1.ListOptions) (api.Events, error) {
	q := params(o)
	q.Set("watch", "true")
	ctx, cancel := context.WithCancel(ctx)
	req := &request{verb: "watch", method: http.MethodGet, path: target(r, namespace, "", ""), query: q, resource: r, accept: h.accept(r, false), unlimited: true}
	resp, _, err := h.open(ctx, req)
	if err != nil {
		cancel()
		return nil, err
	}
	mt := mediaType(resp)
	info, ok := runtime.SerializerInfoForMediaType(api.Codecs().SupportedMediaTypes(), mt)
	if !ok || info.StreamSerializer == nil {
		cancel()
		resp.Body.Close()
		return nil, fmt.Errorf("watch %s: unexpected content type %q", r.Resource, mt)
	}
	frames := info.StreamSerializer.NewFrameReader(struct {
		io.Reader
		io.Closer
	}{bufio.NewReaderSize(resp.Body, 16<<10), resp.Body})
	return &stream{mediaType: mt, decoder: streaming.NewDecoder(frames, info.StreamSerializer.Serializer), cancel: cancel}, nil
}

// stream is a watch's answer, read frame by frame.
type stream struct {
	mediaType string
	decoder   streaming.Decoder
	cancel    context.CancelFunc
	stop      sync.Once
}

// Next implements api.Events.
func (s *stream) Next(ctx context.Context) (watch.Event, error) {
	// A blocked read ends when its request's context does.
	release := context.AfterFunc(ctx, s.cancel)
	defer release()
	var we metav1.WatchEvent
	if _, _, err := s.decoder.Decode(nil, &we); err != nil {
		switch {
		case ctx.Err() != nil:
			return watch.Event{}, ctx.Err()
		case err == io.EOF || err == io.ErrUnexpectedEOF:
			return watch.Event{}, io.EOF
		}
		return watch.Event{}, fmt.Errorf("watch: %w", err)
	}
	obj, err := decode(s.mediaType, we.Object.Raw)
	if err != nil {
		return watch.Event{}, fmt.Errorf("watch: decode: %w", err)
	}
	if we.Type == string(watch.Error) {
		if st, ok := obj.(*metav1.Status); ok {
			return watch.Event{}, &apierrors.StatusError{ErrStatus: *st}
		}
		return watch.Event{}, fmt.Errorf("watch: error event of %T", obj)
	}
	return watch.Event{Type: watch.EventType(we.Type), Object: obj}, nil
}

// Stop implements api.Events.
func (s *stream) Stop() {
	s.stop.Do(func() {
		s.cancel()
		s.decoder.Close()
	})
}
