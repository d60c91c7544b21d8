package rest

import (
	"context"
	"net/http"
	"net/url"
	"slices"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	metavalidation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/sampan-dev/sampan/apiserver/request"
	"github.com/sampan-dev/sampan/resource"
)

// exchange is one HTTP request to a resource, on its way to an answer.
type exchange struct {
	e   *Engine
	w   http.ResponseWriter
	r   *http.Request
	ctx context.Context
	op  *Op
	ans answer
	q   url.Values
}

// ServeHTTP answers a resource request whose Info is in the context.
func (e *Engine) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	i := request.InfoFrom(r.Context())
	s, ok := e.Registry.Find(i.GroupVersion().WithResource(i.Resource))
	if !ok || !scoped(s, i) {
		http.NotFound(w, r)
		return
	}
	warning := s.Info.Warning
	if s.Version != nil {
		warning = s.Version.Warning
	}
	if warning != "" {
		request.Warn(r.Context(), warning)
	}
	x := &exchange{e: e, w: w, r: r, ctx: r.Context(), op: &Op{Served: s, Info: i, Agent: r.UserAgent()}}
	if ans, ok := negotiate(r, s.transforms(), s.isDynamic()); ok {
		x.ans = ans
	} else if !x.isConnect() {
		if s.isDynamic() {
			WriteError(w, r, notAcceptableBut(supportedPlain))
			return
		}
		WriteError(w, r, notAcceptable())
		return
	}
	if r.URL.RawQuery != "" {
		x.q = r.URL.Query()
	}
	if err := x.checkTable(); err != nil {
		WriteError(w, r, err)
		return
	}
	if err := x.serve(); err != nil {
		WriteError(w, r, err)
	}
}

// transforms says whether objects can be had as tables or as metadata alone:
// not those that are only ever an answer, such as access reviews.
func (s *Served) transforms() bool { return !s.Info.Virtual || s.Has("get") || s.Has("list") }

// scoped says whether the path fits the kind's scope.
func scoped(s *Served, i *request.Info) bool {
	if s.Info.ClusterScoped {
		return i.Namespace == "" || i.Resource == "namespaces"
	}
	return i.Namespace != "" || i.Name == "" || i.Subresource == "" && i.FieldSelector != ""
}

func (x *exchange) isConnect() bool {
	if x.op.Info.Subresource == "" {
		return false
	}
	return x.connect() != nil
}

// connect returns the subresource's definition if it is served by other means.
func (x *exchange) connect() *resource.Connect {
	list := x.op.Served.Info.Connects
	i := slices.IndexFunc(list, func(c resource.Connect) bool { return c.Name == x.op.Info.Subresource })
	if i < 0 {
		return nil
	}
	return &list[i]
}

func methodNotAllowed() error {
	return apierrors.NewGenericServerResponse(http.StatusMethodNotAllowed, "", schema.GroupResource{}, "", "405: Method Not Allowed", 0, false)
}

func (x *exchange) serve() error {
	i := x.op.Info
	switch {
	case x.op.Served.Info.Virtual:
		return x.virtual()
	case i.Subresource == "":
		return x.main()
	case i.Subresource == "scale" && x.op.Served.Info.HasScale && (x.op.Version == nil || !x.op.Version.NoScale):
		return x.scale()
	}
	if sub, ok := x.op.Kind.Sub(i.Subresource); ok {
		return x.sub(sub.Info())
	}
	if c := x.connect(); c != nil {
		return x.connected(c)
	}
	if x.op.custom != nil {
		return apierrors.NewNotFound(x.op.GR(), i.Name)
	}
	http.NotFound(x.w, x.r)
	return nil
}

func (x *exchange) main() error {
	i := x.op.Info
	if !x.op.Has(i.Verb) {
		return methodNotAllowed()
	}
	switch i.Verb {
	case "get":
		return x.get()
	case "list":
		return x.list()
	case "watch":
		return x.watch()
	case "create":
		if !x.op.Served.Info.ClusterScoped && i.Namespace == "" || i.Name != "" {
			return methodNotAllowed()
		}
		return x.create()
	case "update":
		return x.update()
	case "patch":
		return x.patch()
	case "delete":
		return x.delete()
	case "deletecollection":
		if !x.op.Served.Info.ClusterScoped && i.Namespace == "" {
			return methodNotAllowed()
		}
		return x.deleteCollection()
	}
	return methodNotAllowed()
}

func (x *exchange) sub(s resource.SubInfo) error {
	switch x.op.Info.Verb {
	case "get":
		if !s.WriteOnly {
			return x.get()
		}
	case "update":
		if !s.ReadOnly {
			return x.update()
		}
	case "patch":
		if !s.ReadOnly && !s.NoPatch {
			return x.patch()
		}
	}
	return methodNotAllowed()
}

func (x *exchange) get() error {
	opts := &metav1.GetOptions{}
	if x.q != nil {
		opts.ResourceVersion = x.q.Get("resourceVersion")
	}
	rec, err := x.e.Get(x.ctx, x.op, x.op.Info.Name, opts)
	if err != nil {
		return err
	}
	return x.sendRecord(http.StatusOK, rec)
}

func (x *exchange) listOptions() (*metav1.ListOptions, error) {
	opts := &metav1.ListOptions{}
	if x.q != nil {
		if err := metav1.Convert_url_Values_To_v1_ListOptions(&x.q, opts, nil); err != nil {
			return nil, apierrors.NewBadRequest(err.Error())
		}
	}
	if name := x.op.Info.Name; name != "" && opts.FieldSelector == "" {
		opts.FieldSelector = "metadata.name=" + name
	}
	return opts, nil
}

func (x *exchange) list() error {
	opts, err := x.listOptions()
	if err != nil {
		return err
	}
	l, err := x.e.List(x.ctx, x.op, opts)
	if err != nil {
		return err
	}
	return x.sendList(l)
}

func (x *exchange) create() error {
	opts := &metav1.CreateOptions{}
	if x.q != nil {
		if err := metav1.Convert_url_Values_To_v1_CreateOptions(&x.q, opts, nil); err != nil {
			return apierrors.NewBadRequest(err.Error())
		}
	}
	if err := invalidOptions("CreateOptions", metavalidation.ValidateCreateOptions(opts)); err != nil {
		return err
	}
	obj, err := x.readObject(opts.FieldValidation)
	if err != nil {
		return err
	}
	res, err := x.e.Create(x.ctx, x.op, obj, opts)
	if err != nil {
		return err
	}
	return x.sendResult(http.StatusCreated, res)
}

func (x *exchange) update() error {
	opts := &metav1.UpdateOptions{}
	if x.q != nil {
		if err := metav1.Convert_url_Values_To_v1_UpdateOptions(&x.q, opts, nil); err != nil {
			return apierrors.NewBadRequest(err.Error())
		}
	}
	if err := invalidOptions("UpdateOptions", metavalidation.ValidateUpdateOptions(opts)); err != nil {
		return err
	}
	obj, err := x.readObject(opts.FieldValidation)
	if err != nil {
		return err
	}
	res, err := x.e.Update(x.ctx, x.op, obj, opts)
	if err != nil {
		return err
	}
	return x.sendWritten(res)
}

func (x *exchange) sendWritten(res *Result) error {
	if res.Created {
		return x.sendResult(http.StatusCreated, res)
	}
	return x.sendResult(http.StatusOK, res)
}

func (x *exchange) delete() error {
	opts, err := x.deleteOptions()
	if err != nil {
		return err
	}
	res, err := x.e.Delete(x.ctx, x.op, opts)
	if err != nil {
		return err
	}
	code := http.StatusOK
	if !res.Gone && opts.OrphanDependents != nil && !*opts.OrphanDependents {
		code = http.StatusAccepted
	}
	if res.Gone && !returnsDeleted(x.op.Served.Info.Plural) {
		return x.sendObject(code, deletedStatus(x.op, res.Obj))
	}
	return x.sendResult(code, res)
}

// returnsDeleted are the kinds whose deletion is answered with the object.
func returnsDeleted(plural string) bool {
	return slices.Contains([]string{
		"pods", "services", "serviceaccounts", "persistentvolumes", "persistentvolumeclaims", "podtemplates",
		"resourcequotas", "storageclasses", "volumeattachments", "csinodes", "csidrivers",
	}, plural)
}

func deletedStatus(o *Op, obj metav1.Object) *metav1.Status {
	return &metav1.Status{
		TypeMeta: metav1.TypeMeta{Kind: "Status", APIVersion: "v1"},
		Status:   metav1.StatusSuccess,
		Details:  &metav1.StatusDetails{Name: obj.GetName(), Group: o.GVK.Group, Kind: o.Plural, UID: obj.GetUID()},
	}
}

func (x *exchange) deleteCollection() error {
	opts, err := x.deleteOptions()
	if err != nil {
		return err
	}
	sel, err := x.listOptions()
	if err != nil {
		return err
	}
	done, rv, err := x.e.DeleteCollection(x.ctx, x.op, opts, sel)
	if err != nil {
		return err
	}
	return x.sendResults(done, rv)
}

// invalidOptions is the 422 for options that contradict each other.
func invalidOptions(kind string, errs field.ErrorList) error {
	if len(errs) == 0 {
		return nil
	}
	return apierrors.NewInvalid(schema.GroupKind{Group: metav1.GroupName, Kind: kind}, "", errs)
}
