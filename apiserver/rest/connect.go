package rest

import (
	"context"
	"encoding/json"
	"net/http"
	"reflect"
	"slices"
	"strconv"
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	metavalidation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/runtime"
	utilnet "k8s.io/apimachinery/pkg/util/net"

	"github.com/sampan-dev/sampan/api"
	"github.com/sampan-dev/sampan/apiserver/request"
	"github.com/sampan-dev/sampan/resource"
)

// plugName is how connectors and posters are registered: "pods/log".
func (o *Op) plugName() string { return o.Served.Info.Plural + "/" + o.Info.Subresource }

// connected serves a subresource by other means than a view of the object.
func (x *exchange) connected(c *resource.Connect) error {
	if p, ok := x.e.Posters[x.op.plugName()]; ok {
		return x.post(c, p)
	}
	plug, ok := x.e.Connectors[x.op.plugName()]
	// A proxy passes every method on; discovery has no verb for OPTIONS.
	if !ok || !slices.Contains(c.Verbs, x.op.Info.Verb) && (c.Name != "proxy" || x.r.Method != http.MethodOptions) {
		return methodNotAllowed()
	}
	parent, err := x.parent()
	if err != nil {
		return err
	}
	if x.op.Info.Subresource != "log" { // a log is a read
		a := x.op.attributes(x.ctx, request.Connect, nil, parent, x.connectOptions(c))
		if err := x.e.admitConnect(x.ctx, a); err != nil {
			return err
		}
	}
	plug.Connect(x.w, x.r, x.op.Info, parent)
	return nil
}

// connectOptions are the query, and the path behind a proxy, as the object that
// admission is shown.
func (x *exchange) connectOptions(c *resource.Connect) runtime.Object {
	obj, err := api.Scheme().New(c.Kind)
	if err != nil {
		return nil
	}
	fields := map[string]any{}
	v := reflect.ValueOf(obj).Elem()
	for i := range v.NumField() {
		name, _, _ := strings.Cut(v.Type().Field(i).Tag.Get("json"), ",")
		values := x.q[name]
		if name == "path" && len(values) == 0 && len(x.op.Info.Parts) > 3 {
			values = []string{strings.Join(x.op.Info.Parts[3:], "/")}
		}
		if name == "" || len(values) == 0 {
			continue
		}
		fields[name] = queryValue(v.Field(i).Type(), values)
	}
	if data, err := json.Marshal(fields); err != nil || json.Unmarshal(data, obj) != nil {
		obj, _ = api.Scheme().New(c.Kind) // values of the wrong shape: the plug will refuse them
	}
	api.SetKind(obj, c.Kind)
	return obj
}

// queryValue reads a query parameter as a field of type t.
func queryValue(t reflect.Type, values []string) any {
	switch t.Kind() {
	case reflect.Pointer:
		return queryValue(t.Elem(), values)
	case reflect.Bool:
		b, _ := strconv.ParseBool(values[0])
		return b || values[0] == ""
	case reflect.Slice:
		if t.Elem().Kind() == reflect.String {
			return values
		}
		list := []any{}
		for _, s := range values {
			list = append(list, queryValue(t.Elem(), []string{s}))
		}
		return list
	case reflect.Int, reflect.Int32, reflect.Int64:
		n, _ := strconv.ParseInt(values[0], 10, 64)
		return n
	}
	return values[0]
}

func (e *Engine) admitConnect(ctx context.Context, a *request.Attributes) error {
	if err := e.mutate(ctx, a); err != nil {
		return err
	}
	settle, err := e.validate(ctx, a)
	settle(err == nil)
	return err
}

// parent reads the object a subresource belongs to; proxies accept names that
// are more than a name ("https:web:443").
func (x *exchange) parent() (api.Object, error) {
	name := x.op.Info.Name
	if x.op.Info.Subresource == "proxy" {
		var ok bool
		if _, name, _, ok = utilnet.SplitSchemeNamePort(name); !ok {
			return nil, apierrors.NewBadRequest("invalid " + strings.ToLower(x.op.Served.Info.Kind) + " request " + strconv.Quote(x.op.Info.Name))
		}
	}
	rec, err := x.e.Get(x.ctx, x.op, name, &metav1.GetOptions{})
	if err != nil {
		return nil, err
	}
	return x.op.object(rec)
}

func (x *exchange) post(c *resource.Connect, p request.Poster) error {
	if x.op.Info.Verb != "create" {
		return methodNotAllowed()
	}
	opts := &metav1.CreateOptions{}
	if x.q != nil {
		if err := metav1.Convert_url_Values_To_v1_CreateOptions(&x.q, opts, nil); err != nil {
			return apierrors.NewBadRequest(err.Error())
		}
	}
	if err := invalidOptions("CreateOptions", metavalidation.ValidateCreateOptions(opts)); err != nil {
		return err
	}
	f, err := x.bodyFormat()
	if err != nil {
		return err
	}
	data, err := x.readBody()
	if err != nil {
		return err
	}
	body, err := x.op.decodePosted(f, data, c, opts.FieldValidation, x.warn)
	if err != nil {
		return err
	}
	out, err := x.e.Post(x.ctx, x.op, p, body, opts)
	if err != nil {
		return err
	}
	return x.sendObject(http.StatusCreated, out)
}

// decodePosted reads the object of a subresource; older spellings of its kind
// (policy/v1beta1 Eviction) are read as the current one.
func (o *Op) decodePosted(f api.Format, data []byte, c *resource.Connect, validation string, warn func(string)) (api.Object, error) {
	got, gvk, err := api.Decode(f, data, &c.Kind, validation == metav1.FieldValidationStrict)
	if err != nil && (!runtime.IsStrictDecodingError(err) || validation == metav1.FieldValidationStrict) {
		return nil, decodeError(err, gvk, c.Kind, data)
	}
	if *gvk != c.Kind && gvk.Group == c.Kind.Group && gvk.Kind == c.Kind.Kind {
		j, err := encode(api.FormatJSON, got)
		if err != nil {
			return nil, err
		}
		want, err := api.Scheme().New(c.Kind)
		if err != nil {
			return nil, err
		}
		if err := reshape(j, want); err != nil {
			return nil, apierrors.NewBadRequest(err.Error())
		}
		api.SetKind(want, c.Kind)
		got, gvk = want, &c.Kind
	}
	obj, ok := got.(api.Object)
	if !ok || *gvk != c.Kind {
		return nil, apierrors.NewBadRequest(gvk.Kind + " in version \"" + gvk.Version + "\" cannot be handled as a " + c.Kind.Kind)
	}
	return obj, nil
}

// Post gives an object to a subresource that takes one.
func (e *Engine) Post(ctx context.Context, o *Op, p request.Poster, body api.Object, opts *metav1.CreateOptions) (runtime.Object, error) {
	rec, err := e.Get(ctx, o, o.Info.Name, &metav1.GetOptions{})
	if err != nil {
		return nil, err
	}
	parent, err := o.object(rec)
	if err != nil {
		return nil, err
	}
	if err := o.matchNamespace(body); err != nil {
		return nil, err
	}
	switch body.GetName() {
	case "":
		body.SetName(o.Info.Name)
	case o.Info.Name:
	default:
		return nil, apierrors.NewBadRequest("the name of the object (" + body.GetName() + ") does not match the name on the URL (" + o.Info.Name + ")")
	}
	a := o.attributes(ctx, request.Create, body, nil, opts)
	a.DryRun = isDryRun(opts.DryRun)
	if err := e.admitConnect(ctx, a); err != nil {
		return nil, err
	}
	out, err := p.Post(ctx, o.Info, parent, body, opts)
	if err != nil {
		return nil, err
	}
	return withKind(out), nil
}

func (e *Engine) postVirtual(ctx context.Context, o *Op, v request.VirtualCreator, obj api.Object, opts *metav1.CreateOptions) (runtime.Object, error) {
	a := o.attributes(ctx, request.Create, obj, nil, opts)
	a.DryRun = isDryRun(opts.DryRun)
	if err := e.admitConnect(ctx, a); err != nil {
		return nil, err
	}
	out, err := v.Create(ctx, o.Info, obj, opts)
	if err != nil {
		return nil, err
	}
	return withKind(out), nil
}

// withKind makes sure that an answer says what it is.
func withKind(obj runtime.Object) runtime.Object {
	if gvk, err := api.KindOf(obj); err == nil {
		if s, ok := obj.(*metav1.Status); ok {
			s.Kind, s.APIVersion = "Status", "v1"
			return obj
		}
		api.SetKind(obj, gvk)
	}
	return obj
}
