package client

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"reflect"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/conversion/queryparams"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"

	"github.com/sampan-dev/sampan/api"
	"github.com/sampan-dev/sampan/kit/clock"
)

// HTTP is an Interface over HTTP or HTTPS. Make one with New.
type HTTP struct {
	http     *http.Client
	servers  *servers
	agent    string
	timeout  time.Duration
	json     bool
	metadata bool
	patience time.Duration
}

// servers is the list of base URLs and which of them answered last.
type servers struct {
	urls    []string
	current atomic.Uint32
}

// maxRetries bounds how often a request is sent again because the server asked to wait.
const maxRetries = 10

// WithUserAgent returns the same client under another name.
func (h *HTTP) WithUserAgent(agent string) *HTTP {
	c := *h
	c.agent = agent
	return &c
}

// Metadata returns the same client reading only objects' metadata: what it
// gets, lists and watches are *metav1.PartialObjectMetadata.
func (h *HTTP) Metadata() Interface {
	c := *h
	c.metadata = true
	return &c
}

// Metadata returns c reading only objects' metadata if c can do so, else c
// itself, whose objects have their metadata anyway.
func Metadata(c Interface) Interface {
	if m, ok := c.(interface{ Metadata() Interface }); ok {
		return m.Metadata()
	}
	return c
}

// request is one exchange before it is sent.
type request struct {
	verb, method string
	path         string
	query        url.Values
	body         []byte
	contentType  string
	accept       string
	resource     schema.GroupVersionResource
	name         string
	unlimited    bool // by the client's timeout: a watch
}

func target(r schema.GroupVersionResource, namespace, name, sub string) string {
	var b strings.Builder
	if r.Group == "" {
		b.WriteString("/api/")
	} else {
		b.WriteString("/apis/" + r.Group + "/")
	}
	b.WriteString(r.Version)
	// A Namespace is its own namespace's object but lives at the top.
	if namespace != "" && !(r.Group == "" && r.Resource == "namespaces") {
		b.WriteString("/namespaces/" + url.PathEscape(namespace))
	}
	b.WriteString("/" + r.Resource)
	if name != "" {
		b.WriteString("/" + url.PathEscape(name))
	}
	if sub != "" {
		b.WriteString("/" + sub)
	}
	return b.String()
}

func params(o any) url.Values {
	if v := reflect.ValueOf(o); !v.IsValid() || v.IsNil() {
		return url.Values{}
	}
	q, err := queryparams.Convert(o)
	if err != nil {
		return url.Values{}
	}
	return q
}

// accept chooses what to ask for: protobuf where the types are compiled in.
func (h *HTTP) accept(r schema.GroupVersionResource, list bool) string {
	proto := !h.json && api.Scheme().IsVersionRegistered(r.GroupVersion())
	if h.metadata {
		as := ";as=PartialObjectMetadata;g=meta.k8s.io;v=v1"
		if list {
			as = ";as=PartialObjectMetadataList;g=meta.k8s.io;v=v1"
		}
		if proto {
			return api.Protobuf + as + "," + api.JSON + as + "," + api.JSON
		}
		return api.JSON + as + "," + api.JSON
	}
	if proto {
		return api.Protobuf + "," + api.JSON
	}
	return api.JSON
}

// Get implements Interface.
func (h *HTTP) Get(ctx context.Context, r schema.GroupVersionResource, namespace, name, sub string, o *metav1.GetOptions) (api.Object, error) {
	return h.object(ctx, &request{verb: "get", method: http.MethodGet, path: target(r, namespace, name, sub), query: params(o), resource: r, name: name, accept: h.accept(r, false)})
}

// List implements Interface.
func (h *HTTP) List(ctx context.Context, r schema.GroupVersionResource, namespace string, o *metav1.ListOptions) (*api.Listed, error) {
	req := &request{verb: "list", method: http.MethodGet, path: target(r, namespace, "", ""), query: params(o), resource: r, accept: h.accept(r, true)}
	data, mediaType, err := h.send(ctx, req)
	if err != nil {
		return nil, err
	}
	obj, err := decode(mediaType, data)
	if err != nil {
		return nil, fmt.Errorf("list %s: decode: %w", r.Resource, err)
	}
	return listed(obj)
}

// listed takes a list object apart. Items are allocated one by one, so that
// keeping one does not keep them all.
func listed(obj runtime.Object) (*api.Listed, error) {
	lm, err := meta.ListAccessor(obj)
	if err != nil {
		return nil, err
	}
	out := &api.Listed{ResourceVersion: lm.GetResourceVersion(), Continue: lm.GetContinue(), Remaining: lm.GetRemainingItemCount()}
	gvk := obj.GetObjectKind().GroupVersionKind()
	gvk.Kind = strings.TrimSuffix(gvk.Kind, "List")
	err = meta.EachListItemWithAlloc(obj, func(item runtime.Object) error {
		o, ok := item.(api.Object)
		if !ok {
			return fmt.Errorf("item %T is no object", item)
		}
		if o.GetObjectKind().GroupVersionKind().Kind == "" {
			api.SetKind(o, gvk)
		}
		out.Items = append(out.Items, o)
		return nil
	})
	return out, err
}

// Create implements Interface.
func (h *HTTP) Create(ctx context.Context, r schema.GroupVersionResource, namespace, name, sub string, obj api.Object, o *metav1.CreateOptions) (api.Object, error) {
	path := target(r, namespace, "", "")
	if sub != "" {
		path = target(r, namespace, name, sub)
	}
	return h.write(ctx, &request{verb: "create", method: http.MethodPost, path: path, query: params(o), resource: r, name: name}, obj)
}

// Update implements Interface.
func (h *HTTP) Update(ctx context.Context, r schema.GroupVersionResource, namespace, sub string, obj api.Object, o *metav1.UpdateOptions) (api.Object, error) {
	name := obj.GetName()
	return h.write(ctx, &request{verb: "update", method: http.MethodPut, path: target(r, namespace, name, sub), query: params(o), resource: r, name: name}, obj)
}

// Patch implements Interface.
func (h *HTTP) Patch(ctx context.Context, r schema.GroupVersionResource, namespace, name, sub string, t types.PatchType, data []byte, o *metav1.PatchOptions) (api.Object, error) {
	return h.object(ctx, &request{verb: "patch", method: http.MethodPatch, path: target(r, namespace, name, sub), query: params(o), resource: r, name: name,
		body: data, contentType: string(t), accept: h.accept(r, false)})
}

// Delete implements Interface.
func (h *HTTP) Delete(ctx context.Context, r schema.GroupVersionResource, namespace, name string, o *metav1.DeleteOptions) error {
	req := &request{verb: "delete", method: http.MethodDelete, path: target(r, namespace, name, ""), resource: r, name: name, accept: api.JSON}
	if o != nil {
		body := *o
		body.TypeMeta = metav1.TypeMeta{Kind: "DeleteOptions", APIVersion: "v1"}
		data, err := json.Marshal(&body)
		if err != nil {
			return err
		}
		req.body, req.contentType = data, api.JSON
	}
	_, _, err := h.send(ctx, req)
	return err
}

// Raw implements Interface. The path may carry a query.
func (h *HTTP) Raw(ctx context.Context, method, path string, body []byte) ([]byte, error) {
	path, rawQuery, _ := strings.Cut(path, "?")
	q, err := url.ParseQuery(rawQuery)
	if err != nil {
		return nil, err
	}
	req := &request{verb: strings.ToLower(method), method: method, path: path, query: q, body: body, accept: "application/json, */*"}
	if body != nil {
		req.contentType = api.JSON
	}
	data, _, err := h.send(ctx, req)
	return data, err
}

func (h *HTTP) write(ctx context.Context, req *request, obj api.Object) (api.Object, error) {
	req.accept = h.accept(req.resource, false)
	f := api.FormatJSON
	if _, generic := obj.(runtime.Unstructured); !generic && !h.json && strings.HasPrefix(req.accept, api.Protobuf) {
		f = api.FormatProtobuf
	}
	named, err := withKind(obj)
	if err != nil {
		return nil, fmt.Errorf("%s %s: %w", req.verb, req.resource.Resource, err)
	}
	var b bytes.Buffer
	if f == api.FormatJSON {
		err = json.NewEncoder(&b).Encode(named)
	} else {
		err = api.Encode(f, named, &b)
	}
	if err != nil {
		return nil, fmt.Errorf("%s %s: encode: %w", req.verb, req.resource.Resource, err)
	}
	req.body, req.contentType = b.Bytes(), f.MediaType()
	return h.object(ctx, req)
}

// withKind returns obj carrying its apiVersion and kind: itself, or a shallow
// copy, because obj may be shared.
func withKind(obj api.Object) (runtime.Object, error) {
	if gvk := obj.GetObjectKind().GroupVersionKind(); gvk.Kind != "" && gvk.Version != "" {
		return obj, nil
	}
	gvk, err := api.KindOf(obj)
	if err != nil {
		return nil, err
	}
	v := reflect.New(reflect.TypeOf(obj).Elem())
	v.Elem().Set(reflect.ValueOf(obj).Elem())
	named := v.Interface().(runtime.Object)
	api.SetKind(named, gvk)
	return named, nil
}

func (h *HTTP) object(ctx context.Context, req *request) (api.Object, error) {
	data, mediaType, err := h.send(ctx, req)
	if err != nil {
		return nil, err
	}
	obj, err := decode(mediaType, data)
	if err != nil {
		return nil, fmt.Errorf("%s %s %q: decode: %w", req.verb, req.resource.Resource, req.name, err)
	}
	if o, ok := obj.(api.Object); ok {
		return o, nil
	}
	if s, ok := obj.(*metav1.Status); ok {
		// Some subresources answer a Status: there is no object to show.
		if s.Status == metav1.StatusFailure {
			return nil, &apierrors.StatusError{ErrStatus: *s}
		}
		return nil, nil
	}
	return nil, fmt.Errorf("%s %s %q: answer %T is no object", req.verb, req.resource.Resource, req.name, obj)
}

// decode reads an answer; kinds that are not compiled in become unstructured.
func decode(mediaType string, data []byte) (runtime.Object, error) {
	f, ok := api.FormatOf(mediaType)
	if !ok {
		return nil, fmt.Errorf("unexpected content type %q", mediaType)
	}
	obj, _, err := api.DecodeOwn(f, data, nil)
	if err != nil && f == api.FormatJSON && runtime.IsNotRegisteredError(err) {
		obj, _, err = unstructured.UnstructuredJSONScheme.Decode(data, nil, nil)
	}
	return obj, err
}

// send performs the exchange and returns the body of a good answer.
func (h *HTTP) send(ctx context.Context, req *request) ([]byte, string, error) {
	resp, cancel, err := h.open(ctx, req)
	if err != nil {
		return nil, "", err
	}
	defer cancel()
	defer resp.Body.Close()
	data, err := readAll(resp)
	if err != nil {
		return nil, "", fmt.Errorf("%s %s: %w", req.verb, req.path, err)
	}
	return data, mediaType(resp), nil
}

func readAll(resp *http.Response) ([]byte, error) {
	if n := resp.ContentLength; n > 0 && n < 1<<30 {
		data := make([]byte, n)
		_, err := io.ReadFull(resp.Body, data)
		return data, err
	}
	return io.ReadAll(resp.Body)
}

func mediaType(resp *http.Response) string {
	mt, _, _ := strings.Cut(resp.Header.Get("Content-Type"), ";")
	return strings.TrimSpace(mt)
}

// open sends the request until a server takes it, and returns a good answer
// whose body is unread. Bad answers become errors.
func (h *HTTP) open(ctx context.Context, req *request) (*http.Response, context.CancelFunc, error) {
	for try := 0; ; try++ {
		resp, cancel, err := h.persist(ctx, req)
		if err != nil {
			return nil, nil, err
		}
		if resp.StatusCode < 400 && resp.StatusCode >= 200 {
			return resp, cancel, nil
		}
		data, _ := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
		resp.Body.Close()
		cancel()
		after, wait := retryAfter(resp)
		if !wait || try >= maxRetries {
			return nil, nil, failure(req, resp, data)
		}
		if err := clock.Sleep(ctx, after); err != nil {
			return nil, nil, failure(req, resp, data)
		}
	}
}

func retryAfter(resp *http.Response) (time.Duration, bool) {
	if resp.StatusCode != http.StatusTooManyRequests && resp.StatusCode < 500 {
		return 0, false
	}
	n, err := strconv.Atoi(resp.Header.Get("Retry-After"))
	return time.Duration(n) * time.Second, err == nil
}

// once sends the request to the current server, or to the next when that one
// cannot be reached.
func (h *HTTP) once(ctx context.Context, req *request) (*http.Response, context.CancelFunc, error) {
	cancel := context.CancelFunc(func() {})
	if h.timeout > 0 && !req.unlimited {
		ctx, cancel = context.WithTimeout(ctx, h.timeout)
	}
	n := uint32(len(h.servers.urls))
	var errs []error
	for range n {
		at := h.servers.current.Load()
		resp, err := h.http.Do(h.build(ctx, req, h.servers.urls[at%n]))
		if err == nil {
			return resp, cancel, nil
		}
		errs = append(errs, err)
		if ctx.Err() != nil {
			break
		}
		h.servers.current.CompareAndSwap(at, (at+1)%n)
	}
	cancel()
	return nil, nil, errors.Join(errs...)
}

func (h *HTTP) build(ctx context.Context, req *request, base string) *http.Request {
	full := base + req.path
	if len(req.query) > 0 {
		full += "?" + req.query.Encode()
	}
	var body io.Reader
	if req.body != nil {
		body = bytes.NewReader(req.body)
	}
	r, err := http.NewRequestWithContext(ctx, req.method, full, body)
	if err != nil {
		// The base was checked and the path escaped: only a bad method is left.
		r, _ = http.NewRequestWithContext(ctx, http.MethodGet, base, nil)
	}
	r.Header.Set("User-Agent", h.agent)
	r.Header.Set("Accept", req.accept)
	if req.contentType != "" {
		r.Header.Set("Content-Type", req.contentType)
	}
	return r
}

// failure turns a bad answer into the error that it tells.
func failure(req *request, resp *http.Response, data []byte) error {
	if obj, err := decode(mediaType(resp), data); err == nil {
		if s, ok := obj.(*metav1.Status); ok && s.Status != metav1.StatusSuccess {
			return &apierrors.StatusError{ErrStatus: *s}
		}
	}
	after, _ := strconv.Atoi(resp.Header.Get("Retry-After"))
	text := strings.TrimSpace(string(data))
	if len(text) > 2048 {
		text = text[:2048]
	}
	return apierrors.NewGenericServerResponse(resp.StatusCode, req.verb, req.resource.GroupResource(), req.name, text, after, true)
}
