// Package local is the client in process: the API server as function calls.
//
// Job: give a call an identity, have it authorized as any other, and hand it to
// the engine; hand out the shared decoded objects.
//
// Not its job: the verbs themselves (rest). It has the methods of
// client.Interface without knowing that package.
//
// Invariants: nothing is done that the identity may not do; what is returned is
// shared and must not be modified; what is passed in stays the caller's.
package local

import (
	"bytes"
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"

	"github.com/sampan-dev/sampan/api"
	"github.com/sampan-dev/sampan/apiserver/request"
)

// Engine does what was authorized.
type Engine interface {
	Get(ctx context.Context, i *request.Info, agent string, o *metav1.GetOptions) (api.Object, error)
	List(ctx context.Context, i *request.Info, agent string, o *metav1.ListOptions) (*api.Listed, error)
	Watch(ctx context.Context, i *request.Info, agent string, o *metav1.ListOptions) (api.Events, error)
	Create(ctx context.Context, i *request.Info, agent string, obj api.Object, o *metav1.CreateOptions) (api.Object, error)
	Update(ctx context.Context, i *request.Info, agent string, obj api.Object, o *metav1.UpdateOptions) (api.Object, error)
	Patch(ctx context.Context, i *request.Info, agent string, t types.PatchType, data []byte, o *metav1.PatchOptions) (api.Object, error)
	Delete(ctx context.Context, i *request.Info, agent string, o *metav1.DeleteOptions) error
}

// Recorder puts calls on record. What it returns is told a call's outcome.
type Recorder interface {
	Call(ctx context.Context, i *request.Info, agent string, obj api.Object) (context.Context, func(api.Object, error), error)
}

// Client acts as one user.
type Client struct {
	engine     Engine
	authorizer request.Authorizer
	handler    http.Handler // serves a request whose context has the user
	user       *request.User
	agent      string
	recorder   Recorder // nil records nothing
}

// Record puts the client's calls on record from now on.
func (c *Client) Record(r Recorder) { c.recorder = r }

// New returns a client that acts as user. authorizer may be nil: all is allowed.
func New(e Engine, authorizer request.Authorizer, handler http.Handler, user *request.User, agent string) *Client {
	if agent == "" {
		agent = user.Name
	}
	return &Client{engine: e, authorizer: authorizer, handler: handler, user: user, agent: agent}
}

// As returns the same client under another user agent, the default field manager.
func (c *Client) As(agent string) *Client {
	d := *c
	d.agent = agent
	return &d
}

func info(verb string, r schema.GroupVersionResource, namespace, name, sub string) *request.Info {
	i := &request.Info{
		IsResource: true, Verb: verb, Prefix: "apis", Group: r.Group, Version: r.Version,
		Resource: r.Resource, Subresource: sub, Namespace: namespace, Name: name,
	}
	if r.Group == "" {
		i.Prefix = "api"
	}
	if r.Resource == "namespaces" && r.Group == "" {
		i.Namespace = name // a namespace is inside itself, as its path says
	}
	return i
}

// enter authorizes a call and puts who and what into its context. done is to be
// told how the call went.
func (c *Client) enter(ctx context.Context, i *request.Info, obj api.Object) (_ context.Context, done func(api.Object, error), err error) {
	ctx = request.WithInfo(request.WithUser(ctx, c.user), i)
	done = unrecorded
	if c.recorder != nil {
		if ctx, done, err = c.recorder.Call(ctx, i, c.agent, obj); err != nil {
			return nil, nil, err
		}
	}
	if err := c.authorize(ctx, i); err != nil {
		done(nil, err)
		return nil, nil, err
	}
	return ctx, done, nil
}

func unrecorded(api.Object, error) {}

func (c *Client) authorize(ctx context.Context, i *request.Info) error {
	if c.authorizer == nil {
		return nil
	}
	d, reason, err := c.authorizer.Authorize(ctx, c.user, i)
	decision := "allow"
	if d != request.Allow {
		decision = "forbid"
	}
	request.Annotate(ctx, "authorization.k8s.io/decision", decision)
	request.Annotate(ctx, "authorization.k8s.io/reason", reason)
	if d == request.Allow {
		return nil
	}
	if err != nil {
		reason = err.Error()
	}
	return request.Forbidden(c.user, i, reason)
}

func or[T any](o *T) *T {
	if o == nil {
		return new(T)
	}
	return o
}

// Get reads an object or a subresource of it.
func (c *Client) Get(ctx context.Context, r schema.GroupVersionResource, namespace, name, sub string, o *metav1.GetOptions) (api.Object, error) {
	i := info("get", r, namespace, name, sub)
	ctx, done, err := c.enter(ctx, i, nil)
	if err != nil {
		return nil, err
	}
	out, err := c.engine.Get(ctx, i, c.agent, or(o))
	done(out, err)
	return out, err
}

// selectors copies the selectors of a list to where authorization sees them.
func selectors(i *request.Info, o *metav1.ListOptions) *metav1.ListOptions {
	c := *or(o)
	i.FieldSelector, i.LabelSelector = c.FieldSelector, c.LabelSelector
	if name, ok := only(c.FieldSelector); ok {
		i.Name = name
	}
	return &c
}

// only returns the name when a selector asks for one name alone.
func only(sel string) (string, bool) {
	const key = "metadata.name="
	if len(sel) <= len(key) || sel[:len(key)] != key || bytes.ContainsAny([]byte(sel[len(key):]), `,=!\`) {
		return "", false
	}
	return sel[len(key):], true
}

// List reads a collection.
func (c *Client) List(ctx context.Context, r schema.GroupVersionResource, namespace string, o *metav1.ListOptions) (*api.Listed, error) {
	i := info("list", r, namespace, "", "")
	o = selectors(i, o)
	ctx, done, err := c.enter(ctx, i, nil)
	if err != nil {
		return nil, err
	}
	out, err := c.engine.List(ctx, i, c.agent, o)
	done(nil, err)
	return out, err
}

// Watch follows a collection.
func (c *Client) Watch(ctx context.Context, r schema.GroupVersionResource, namespace string, o *metav1.ListOptions) (api.Events, error) {
	i := info("watch", r, namespace, "", "")
	o = selectors(i, o)
	ctx, done, err := c.enter(ctx, i, nil)
	if err != nil {
		return nil, err
	}
	out, err := c.engine.Watch(ctx, i, c.agent, o)
	done(nil, err)
	return out, err
}

// Create makes obj, or with sub posts it to the subresource of name.
func (c *Client) Create(ctx context.Context, r schema.GroupVersionResource, namespace, name, sub string, obj api.Object, o *metav1.CreateOptions) (api.Object, error) {
	if sub == "" {
		name = "" // a create has no name in its path
	}
	i := info("create", r, namespace, name, sub)
	ctx, done, err := c.enter(ctx, i, obj)
	if err != nil {
		return nil, err
	}
	out, err := c.engine.Create(ctx, i, c.agent, obj, or(o))
	done(out, err)
	return out, err
}

// Update replaces an object or the part of it that sub is.
func (c *Client) Update(ctx context.Context, r schema.GroupVersionResource, namespace, sub string, obj api.Object, o *metav1.UpdateOptions) (api.Object, error) {
	i := info("update", r, namespace, obj.GetName(), sub)
	ctx, done, err := c.enter(ctx, i, obj)
	if err != nil {
		return nil, err
	}
	out, err := c.engine.Update(ctx, i, c.agent, obj, or(o))
	done(out, err)
	return out, err
}

// Patch changes an object or the part of it that sub is.
func (c *Client) Patch(ctx context.Context, r schema.GroupVersionResource, namespace, name, sub string, t types.PatchType, data []byte, o *metav1.PatchOptions) (api.Object, error) {
	i := info("patch", r, namespace, name, sub)
	ctx, done, err := c.enter(ctx, i, nil)
	if err != nil {
		return nil, err
	}
	out, err := c.engine.Patch(ctx, i, c.agent, t, data, or(o))
	done(out, err)
	return out, err
}

// Delete deletes an object, or without a name all of the namespace.
func (c *Client) Delete(ctx context.Context, r schema.GroupVersionResource, namespace, name string, o *metav1.DeleteOptions) error {
	verb := "delete"
	if name == "" {
		verb = "deletecollection"
	}
	i := info(verb, r, namespace, name, "")
	ctx, done, err := c.enter(ctx, i, nil)
	if err != nil {
		return err
	}
	err = c.engine.Delete(ctx, i, c.agent, or(o))
	done(nil, err)
	return err
}

// Raw sends a request to any path and returns the body.
func (c *Client) Raw(ctx context.Context, method, path string, body []byte) ([]byte, error) {
	r, err := http.NewRequestWithContext(request.WithUser(ctx, c.user), method, path, bytes.NewReader(body))
	if err != nil {
		return nil, fmt.Errorf("request: %s %s: %w", method, path, err)
	}
	r.Header.Set("User-Agent", c.agent)
	r.RequestURI = path
	w := httptest.NewRecorder()
	c.handler.ServeHTTP(w, r)
	if w.Code >= http.StatusBadRequest {
		st := &metav1.Status{}
		if api.DecodeInto(api.FormatJSON, w.Body.Bytes(), st) == nil && st.Code != 0 {
			return nil, &apierrors.StatusError{ErrStatus: *st}
		}
		return nil, apierrors.NewGenericServerResponse(w.Code, method, schema.GroupResource{}, path, w.Body.String(), 0, true)
	}
	return w.Body.Bytes(), nil
}
