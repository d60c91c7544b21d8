package rest

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/apis/meta/internalversion"
	"k8s.io/apimachinery/pkg/apis/meta/internalversion/validation"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/sampan-dev/sampan/storage"
)

// Listing is what a list found.
type Listing struct {
	Records   []*storage.Record
	Rev       int64
	Continue  string
	Remaining *int64
}

// Version is the listing's resourceVersion.
func (l *Listing) Version() string { return strconv.FormatInt(l.Rev, 10) }

// Upstream's words for histories that are gone.
const (
	expiredContinue = "The provided continue parameter is too old to display a consistent list result. You can start a new list without the continue parameter, or use the continue token in this response to retrieve the remainder of the results. Continuing with the provided token results in an inconsistent list - objects that were created, modified, or deleted between the time the first chunk was returned and now may show up in the list."
	expiredVersion  = "The resourceVersion for the provided list is too old."
)

// Get returns the record of one name.
func (e *Engine) Get(ctx context.Context, o *Op, name string, opts *metav1.GetOptions) (*storage.Record, error) {
	atLeast, err := parseRevision(opts.ResourceVersion)
	if err != nil {
		return nil, err
	}
	if opts.ResourceVersion == "0" {
		atLeast = 1
	}
	rec, err := e.Store.Get(ctx, o.key(name), atLeast)
	if errors.Is(err, storage.ErrFuture) {
		return nil, e.tooFar(ctx, atLeast)
	}
	if err != nil {
		return nil, storeError(err, o.GR(), name)
	}
	return rec, nil
}

// tooFar refuses a revision that does not exist yet.
func (e *Engine) tooFar(ctx context.Context, asked int64) error {
	rev, _ := e.Store.Rev(ctx)
	return tooLargeRevision(asked, rev)
}

func parseRevision(s string) (int64, error) {
	if s == "" {
		return 0, nil
	}
	rev, err := strconv.ParseInt(s, 10, 64)
	if err != nil || rev < 0 {
		return 0, apierrors.NewBadRequest(fmt.Sprintf("resourceVersion: Invalid value: %q: strconv.ParseUint: parsing %q: invalid syntax", s, s))
	}
	return rev, nil
}

// checkList applies upstream's rules of option combinations.
func checkList(opts *metav1.ListOptions) error {
	in := &internalversion.ListOptions{
		Watch: opts.Watch, AllowWatchBookmarks: opts.AllowWatchBookmarks, ResourceVersion: opts.ResourceVersion,
		ResourceVersionMatch: opts.ResourceVersionMatch, Limit: opts.Limit, Continue: opts.Continue,
		SendInitialEvents: opts.SendInitialEvents, TimeoutSeconds: opts.TimeoutSeconds,
	}
	if errs := validation.ValidateListOptions(in, true); len(errs) > 0 {
		return apierrors.NewInvalid(schema.GroupKind{Group: metav1.GroupName, Kind: "ListOptions"}, "", errs)
	}
	return nil
}

// List finds the objects of a scope.
func (e *Engine) List(ctx context.Context, o *Op, opts *metav1.ListOptions) (*Listing, error) {
	if err := checkList(opts); err != nil {
		return nil, err
	}
	sel, err := o.selection(opts.LabelSelector, opts.FieldSelector)
	if err != nil {
		return nil, err
	}
	return e.list(ctx, o, sel, opts)
}

func (e *Engine) list(ctx context.Context, o *Op, sel *selection, opts *metav1.ListOptions) (*Listing, error) {
	q, err := o.listQuery(sel, opts)
	if err != nil {
		return nil, err
	}
	out := &Listing{Records: []*storage.Record{}}
	last := ""
	for {
		p, err := e.page(ctx, o.prefix(), q, opts)
		if err != nil {
			return nil, err
		}
		if out.Rev == 0 {
			out.Rev = p.Rev
		}
		if !sel.all() {
			if err := o.warm(p.Records); err != nil {
				return nil, apierrors.NewInternalError(err)
			}
		}
		for i, rec := range p.Records {
			ok, err := sel.matchRecord(rec)
			if err != nil {
				return nil, apierrors.NewInternalError(err)
			}
			if !ok {
				continue
			}
			out.Records = append(out.Records, rec)
			if opts.Limit > 0 && int64(len(out.Records)) == opts.Limit {
				return o.cut(out, sel, p, i), nil
			}
		}
		if !p.More || len(p.Records) == 0 {
			return out, nil
		}
		last = p.Records[len(p.Records)-1].Key
		q.After, q.Match, q.Rev = last, storage.AtExact, out.Rev
	}
}

// cut ends a limited listing after record i of the page and says how to go on.
func (o *Op) cut(out *Listing, sel *selection, p *storage.Page, i int) *Listing {
	if i == len(p.Records)-1 && !p.More {
		return out
	}
	key := p.Records[i].Key
	out.Continue = encodeContinue(strings.TrimPrefix(key, o.prefix()), out.Rev)
	if sel.all() && p.Remaining >= 0 {
		n := p.Remaining + int64(len(p.Records)-1-i)
		out.Remaining = &n
	}
	return out
}

// listQuery translates the options; names and indexes narrow it.
func (o *Op) listQuery(sel *selection, opts *metav1.ListOptions) (storage.ListOptions, error) {
	q := storage.ListOptions{Limit: int(opts.Limit)}
	if opts.Continue != "" {
		if opts.ResourceVersion != "" && opts.ResourceVersion != "0" {
			return q, apierrors.NewBadRequest("specifying resource version is not allowed when using continue")
		}
		return o.continued(q, opts.Continue)
	}
	rev, err := parseRevision(opts.ResourceVersion)
	if err != nil {
		return q, err
	}
	q.Rev = rev
	switch {
	case opts.ResourceVersion == "":
		q.Match = storage.Latest
	case rev == 0:
		// From memory, where a limit saves nothing: upstream leaves it out as well.
		q.Match, q.Limit, opts.Limit = storage.AtLeast, 0, 0
	case opts.ResourceVersionMatch == metav1.ResourceVersionMatchExact,
		opts.ResourceVersionMatch == "" && opts.Limit > 0:
		q.Match = storage.AtExact
	default:
		q.Match = storage.AtLeast
	}
	if sel.name != "" && (o.Served.Info.ClusterScoped || o.Info.Namespace != "") {
		q.Index, q.Value = storage.KeyIndex, o.key(sel.name)
	} else if sel.index != "" {
		q.Index, q.Value = sel.index, sel.value
	}
	if q.Index != "" {
		q.Limit = 0
	}
	return q, nil
}

type continueToken struct {
	APIVersion string `json:"v"`
	Rev        int64  `json:"rv"`
	Start      string `json:"start"`
}

func encodeContinue(lastKey string, rev int64) string {
	data, _ := json.Marshal(continueToken{"meta.k8s.io/v1", rev, lastKey + "\u0000"})
	return base64.RawURLEncoding.EncodeToString(data)
}

func (o *Op) continued(q storage.ListOptions, token string) (storage.ListOptions, error) {
	bad := func(why string) (storage.ListOptions, error) {
		return q, apierrors.NewBadRequest("invalid continue token: " + why)
	}
	data, err := base64.RawURLEncoding.DecodeString(token)
	if err != nil {
		return bad(err.Error())
	}
	var t continueToken
	if err := json.Unmarshal(data, &t); err != nil {
		return bad(err.Error())
	}
	switch {
	case t.APIVersion != "meta.k8s.io/v1":
		return bad(fmt.Sprintf("server does not recognize this encoded version %q", t.APIVersion))
	case t.Rev == 0:
		return bad("incorrect encoded start resourceVersion (version meta.k8s.io/v1)")
	case t.Start == "" || strings.Contains("/"+t.Start, "/../"):
		return bad("continue key is not valid: " + t.Start)
	}
	q.After = o.prefix() + strings.TrimSuffix(t.Start, "\u0000")
	q.Match, q.Rev = storage.AtExact, t.Rev
	if t.Rev < 0 {
		q.Match, q.Rev = storage.Latest, 0
	}
	return q, nil
}

// page reads from the store, without an index where it has none.
func (e *Engine) page(ctx context.Context, prefix string, q storage.ListOptions, opts *metav1.ListOptions) (*storage.Page, error) {
	p, err := e.Store.List(ctx, prefix, q)
	if errors.Is(err, storage.ErrNoIndex) {
		q.Index, q.Value = "", ""
		p, err = e.Store.List(ctx, prefix, q)
	}
	switch {
	case errors.Is(err, storage.ErrFuture):
		return nil, e.tooFar(ctx, q.Rev)
	case errors.Is(err, storage.ErrCompacted) && opts.Continue != "":
		gone := apierrors.NewResourceExpired(expiredContinue)
		gone.ErrStatus.ListMeta.Continue = encodeContinue(strings.TrimPrefix(q.After, prefix), -1)
		return nil, gone
	case errors.Is(err, storage.ErrCompacted):
		return nil, apierrors.NewResourceExpired(expiredVersion)
	case err != nil:
		return nil, apierrors.NewInternalError(err)
	}
	return p, nil
}
