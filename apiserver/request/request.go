// Package request is what the API server's parts tell each other about one
// request: who asks, for what, and what was noticed on the way.
//
// Job: User, Info, the context that carries them, and the small interfaces by
// which the filters (authentication, authorization, admission) are plugged in.
//
// Not its job: any decision.
package request

import (
	"context"
	"net/http"
	"sync"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/sampan-dev/sampan/api"
)

// User is an authenticated identity.
type User struct {
	Name   string
	UID    string
	Groups []string
	Extra  map[string][]string
}

// Names and groups with a meaning of their own.
const (
	Anonymous       = "system:anonymous"
	Unauthenticated = "system:unauthenticated"
	Authenticated   = "system:authenticated"
	Masters         = "system:masters"
	ServiceAccounts = "system:serviceaccounts"
	Nodes           = "system:nodes"
	// LoopbackUser is who the server is when it asks itself.
	LoopbackUser = "system:apiserver"
)

// Info is what a request asks for, read from its method and path.
type Info struct {
	IsResource  bool
	Path        string
	Verb        string // get list watch create update patch delete deletecollection; lower-case method for non-resources
	Prefix      string // "api" or "apis"
	Group       string
	Version     string
	Resource    string
	Subresource string
	Namespace   string
	Name        string
	Parts       []string // the path's parts from the resource on: pods/p/proxy/a/b
	// Selectors of lists, for authorization.
	FieldSelector, LabelSelector string
}

// GroupVersion returns the requested group and version.
func (i *Info) GroupVersion() schema.GroupVersion {
	return schema.GroupVersion{Group: i.Group, Version: i.Version}
}

type contextKey int

const (
	userKey contextKey = iota
	infoKey
	warningsKey
	auditKey
)

// WithUser returns ctx on behalf of u.
func WithUser(ctx context.Context, u *User) context.Context {
	return context.WithValue(ctx, userKey, u)
}

// UserFrom returns who asks; never nil.
func UserFrom(ctx context.Context) *User {
	if u, ok := ctx.Value(userKey).(*User); ok {
		return u
	}
	return &User{Name: Anonymous, Groups: []string{Unauthenticated}}
}

// HasUser says whether ctx is on somebody's behalf at all.
func HasUser(ctx context.Context) bool { return ctx.Value(userKey) != nil }

// WithInfo returns ctx asking for i.
func WithInfo(ctx context.Context, i *Info) context.Context {
	return context.WithValue(ctx, infoKey, i)
}

// InfoFrom returns what is asked for; never nil.
func InfoFrom(ctx context.Context) *Info {
	if i, ok := ctx.Value(infoKey).(*Info); ok {
		return i
	}
	return &Info{}
}

// Warnings collects messages for the user, each once.
type Warnings struct {
	mu   sync.Mutex
	list []string
}

// WithWarnings returns ctx with a fresh collection.
func WithWarnings(ctx context.Context) (context.Context, *Warnings) {
	w := &Warnings{}
	return context.WithValue(ctx, warningsKey, w), w
}

// Warn tells the user of the request in ctx something; it is sent as a Warning header.
func Warn(ctx context.Context, text string) {
	w, ok := ctx.Value(warningsKey).(*Warnings)
	if !ok || text == "" {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, t := range w.list {
		if t == text {
			return
		}
	}
	w.list = append(w.list, text)
}

// List returns what was collected so far.
func (w *Warnings) List() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return append([]string(nil), w.list...)
}

// Authenticator says who sent a request. ok is false when it does not know the
// kind of credential shown; an error means that the credential is bad.
type Authenticator interface {
	Authenticate(r *http.Request) (u *User, ok bool, err error)
}

// Decision is an authorizer's answer.
type Decision uint8

// The answers; NoOpinion asks the next authorizer.
const (
	NoOpinion Decision = iota
	Allow
	Deny
)

// Authorizer decides whether u may do what i says.
type Authorizer interface {
	Authorize(ctx context.Context, u *User, i *Info) (d Decision, reason string, err error)
}

// RuleLister is an Authorizer that can list a user's rights in a namespace, for
// SelfSubjectRulesReview. incomplete is set when it cannot list all.
type RuleLister interface {
	Rules(ctx context.Context, u *User, namespace string) (resource []ResourceRule, other []NonResourceRule, incomplete bool, err error)
}

// ResourceRule and NonResourceRule are rights, as the access reviews show them.
type (
	ResourceRule    struct{ Verbs, APIGroups, Resources, ResourceNames []string }
	NonResourceRule struct{ Verbs, NonResourceURLs []string }
)

// Operation is what an admission plugin judges.
type Operation string

// The operations.
const (
	Create  Operation = "CREATE"
	Update  Operation = "UPDATE"
	Delete  Operation = "DELETE"
	Connect Operation = "CONNECT"
)

// Attributes are what admission knows of a request. Object is what will be
// stored, of the stored version's type; mutating plugins change it in place.
type Attributes struct {
	Operation   Operation
	Kind        schema.GroupVersionKind     // as stored
	Resource    schema.GroupVersionResource // as stored
	Subresource string
	Namespace   string
	Name        string // may be empty on create with generateName
	Object      api.Object
	Old         api.Object     // immutable; nil on create
	Options     runtime.Object // metav1.CreateOptions …; for Connect the options object
	DryRun      bool
	User        *User

	// RequestKind and RequestResource are in what version the user spoke, and for
	// a subresource with an object of its own, that object's kind.
	RequestKind     schema.GroupVersionKind
	RequestResource schema.GroupVersionResource

	// Round is how often the mutators were run before. A mutator that sets Again
	// has changed what those before it have seen: all are asked once more.
	Round int
	Again bool
	// Memo keeps, by plugin, what it must know in the next round.
	Memo map[string]any
}

// Plugin is one admission plugin. A plugin implements Mutator, Validator or both.
type Plugin interface {
	Name() string
	Handles(op Operation) bool
}

// Mutator changes objects before they are validated.
type Mutator interface {
	Mutate(ctx context.Context, a *Attributes) error
}

// Validator refuses requests. Errors are *apierrors.StatusError or become 403s.
type Validator interface {
	Validate(ctx context.Context, a *Attributes) error
}

// Settler is a Validator that holds something (quota) until the request's
// outcome is known.
type Settler interface {
	// Settle is called once after Validate succeeded, with whether the object
	// was stored.
	Settle(ctx context.Context, a *Attributes, stored bool)
}

// Backend is the API server's own store of objects, after defaulting and
// validation, without authorization: for the parts of the server that read or
// write other kinds (authorizers, admission, allocators) and for the client in
// process. Objects returned are shared and must not be modified.
type Backend interface {
	Get(ctx context.Context, gr schema.GroupResource, namespace, name string) (api.Object, error)
	// List reads from memory, possibly some milliseconds old.
	List(ctx context.Context, gr schema.GroupResource, namespace string) ([]api.Object, error)
	// Create, Update and Delete run the whole pipeline, admission included, as
	// the user in ctx.
	Create(ctx context.Context, gr schema.GroupResource, obj api.Object, o *metav1.CreateOptions) (api.Object, error)
	// Modify applies change to the current object until there is no conflict;
	// sub "" or a subresource such as "status". A sub that is one of the kind's
	// Connects ("binding") stores what change made of the object as it is: no
	// Prepare, no Validate, no admission, which its Poster has done.
	Modify(ctx context.Context, gr schema.GroupResource, namespace, name, sub string, change func(api.Object) error) (api.Object, error)
	Delete(ctx context.Context, gr schema.GroupResource, namespace, name string, o *metav1.DeleteOptions) error
	// Changes calls fn, on one goroutine, for every object there is and then for
	// every change of the kind, until ctx ends. fn must be quick.
	Changes(ctx context.Context, gr schema.GroupResource, fn func(old, new api.Object)) error
}
