package resource

import (
	"context"
	"time"

	autoscalingv1 "k8s.io/api/autoscaling/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/sampan-dev/sampan/api"
)

// Def is all the API server knows of one kind. T is the struct of the version
// that is stored, such as corev1.Pod; *T must be an api.Object.
type Def[T any] struct {
	Group, Version string // of T, which is the stored and preferred version
	Kind, Plural   string
	Singular       string // "" is Kind in lower case
	Short          []string
	Categories     []string
	ClusterScoped  bool

	// Prefix is where objects live below /registry/; "" is Plural.
	// Upstream's layout: "services/specs", "minions", "services/endpoints" …
	Prefix string

	// Virtual kinds are not stored: the server computes the answer. Verbs says
	// which verbs they have.
	Virtual bool
	// Verbs lists the served verbs; nil is all of create delete
	// deletecollection get list patch update watch.
	Verbs []string

	// Default fills in what the user left out. It must be idempotent.
	Default func(*T)
	// Prepare readies an object for storing: it drops what the user may not set
	// and restores what an update may not touch (status above all). prev is nil
	// on create.
	Prepare func(r *Request, next, prev *T)
	// Generation makes metadata.generation count the changes of the returned
	// parts (usually &obj.Spec). nil: generation is not kept.
	Generation func(*T) any
	// Validate judges next; prev is nil on create. Metadata is judged by the
	// server with Name, before.
	Validate func(next, prev *T) field.ErrorList
	// ValidateAs adds rules that depend on who asks, or in which version.
	ValidateAs func(r *Request, next, prev *T) field.ErrorList
	// Name validates metadata.name and generateName; nil is a DNS subdomain.
	// Messages as apimachinery's validation functions give them.
	Name func(name string, prefix bool) []string
	// Warnings are shown to the user who creates or updates; prev may be nil.
	Warnings func(next, prev *T) []string

	// Subs are the object-shaped subresources beyond scale: status, approval,
	// finalize, resize, ephemeralcontainers …
	Subs []Sub[T]
	// Scale makes a scale subresource.
	Scale *Scale[T]
	// Connects are the subresources served by other means: log, exec, proxy,
	// binding, eviction, token … in the order of discovery.
	Connects []Connect

	// Columns are those of kubectl get, after nothing: Name must be listed.
	Columns []Column[T]
	// Selectable are the field selectors beyond metadata.name and metadata.namespace.
	Selectable map[string]func(*T) string
	// Indexes names the Selectables the server keeps an index of.
	Indexes []string

	// Unconditional lets an update come without a resourceVersion.
	Unconditional bool
	// CreateOnUpdate lets a PUT create the object.
	CreateOnUpdate bool
	// Grace returns the seconds an object lives on after its deletion was asked
	// for; asked is the user's wish. nil: deletion is at once.
	Grace func(obj *T, asked *int64) int64
	// BeginDelete marks an object whose deletion waits for finalizers or grace.
	BeginDelete func(next *T)
	// DeleteFinalizers are added to an object when its deletion begins.
	DeleteFinalizers []string
	// Held says that an object, being deleted, waits for more than its metadata's
	// finalizers (a Namespace's spec.finalizers).
	Held func(*T) bool
	// Orphans makes deletion orphan dependents when the user does not say.
	Orphans bool
	// TTL is the lifetime of a stored object in seconds; nil or 0 is for ever.
	TTL func(*T) int64
	// Ledger asks for cluster-wide values and gives them back: node ports,
	// cluster addresses. It runs after Prepare and before Validate; next is nil
	// when the object goes away, prev when it comes.
	Ledger func(ctx context.Context, l Ledger, next, prev *T) error
	// ResetFields are the field paths an applier of the main resource does not
	// own, such as "status".
	ResetFields []string

	// Warning is sent to every user of the stored version, as of a retired one.
	Warning string
	// Also are the other served versions of the kind, preferred first.
	Also []Version
}

// Version is one more way to spell a kind.
type Version struct {
	Group, Version string
	Kind, Plural   string // "" as the Def's
	New            func() api.Object
	// Default fills in what this version's users leave out, before conversion.
	Default func(api.Object)
	// Store converts to the stored version, Show converts back. Both get
	// objects they may keep parts of but not modify.
	Store func(src api.Object) (api.Object, error)
	Show  func(src api.Object) (api.Object, error)
	// Retired versions come last in discovery, are never preferred, and warn.
	Retired bool
	// Warning is sent to users of a retired version, without prefix, as upstream
	// words it: "extensions/v1beta1 Deployment is deprecated in v1.9+, unavailable in v1.16+; use apps/v1 Deployment".
	Warning string
	// NoScale hides the scale subresource of a version that never had it.
	NoScale bool
	// ScaleKind is the kind of this version's scale subresource; zero is autoscaling/v1 Scale.
	ScaleKind schema.GroupVersionKind
	// Orphans as in Def, for this version's users.
	Orphans bool
	// Apart says that the version is a Kind of its own (a custom resource's): it
	// is here to be converted to and from, and is not served for this Kind.
	Apart bool
}

// Sub is a subresource that shows the whole object and writes a part of it.
type Sub[T any] struct {
	Name string
	// Prepare restores in next what this subresource may not change.
	Prepare  func(r *Request, next, prev *T)
	Validate func(next, prev *T) field.ErrorList
	Warnings func(next, prev *T) []string
	// ResetFields as in Def, for appliers of this subresource.
	ResetFields []string
	// ReadOnly hides the write verbs; WriteOnly hides get.
	ReadOnly, WriteOnly bool
	// NoPatch hides patch.
	NoPatch bool
}

// Scale reads and writes the replica count of a kind.
type Scale[T any] struct {
	Get func(*T) (*autoscalingv1.ScaleSpec, *autoscalingv1.ScaleStatus)
	Set func(next *T, replicas int32)
	// Path is the field that scale owns, for server-side apply.
	Path string
}

// Connect is a subresource that is not a view of the object.
type Connect struct {
	Name string
	// Kind is what discovery names: {"policy","v1","Eviction"}, {"","v1","PodExecOptions"} …
	Kind  schema.GroupVersionKind
	Verbs []string
}

// Column is one column of kubectl get.
type Column[T any] struct {
	Name        string
	Type        string // "" is string
	Format      string // "name" for the first
	Description string
	Wide        bool // only with -o wide
	Cell        func(obj *T, now time.Time) any
}

// Request is what a definition may know of who asks.
type Request struct {
	User   string
	UID    string
	Groups []string
	Extra  map[string][]string
	Now    time.Time
	DryRun bool
	// Version is the group and version the user spoke.
	Version schema.GroupVersion
}

// Ledger hands out what must be unique in the cluster. What is taken within a
// request that then fails is given back by the server.
type Ledger interface {
	// Families are the cluster's address families in order: "IPv4", "IPv6".
	Families() []string
	// TakeIP takes a service address of the family; want "" means any. The
	// error is upstream's: "provided IP is already allocated", …
	TakeIP(ctx context.Context, family, want, owner string) (string, error)
	// FreeIP gives an address back once the request succeeds.
	FreeIP(addr string)
	// TakePort takes a node port; want 0 means any. Several services' ports of
	// different protocols may share one number when want says so.
	TakePort(ctx context.Context, protocol string, want int32, owner string) (int32, error)
	// FreePort gives a port back once the request succeeds.
	FreePort(protocol string, port int32)
}
