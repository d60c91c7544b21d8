package resource

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	autoscalingv1 "k8s.io/api/autoscaling/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/sampan-dev/sampan/api"
)

// Kind is a definition with its type erased. Objects passed in are of the
// stored version's type unless said otherwise.
type Kind interface {
	Info() *Info
	New() api.Object
	Default(obj api.Object)
	Prepare(r *Request, next, prev api.Object)
	Validate(next, prev api.Object) field.ErrorList
	ValidateAs(r *Request, next, prev api.Object) field.ErrorList
	ValidateName(name string, prefix bool) []string
	Warnings(next, prev api.Object) []string
	// SpecChanged says whether the parts that generation counts differ; known is
	// false for kinds that keep no generation.
	SpecChanged(next, prev api.Object) (changed, known bool)

	Sub(name string) (SubKind, bool)
	Scale(obj api.Object) (*autoscalingv1.ScaleSpec, *autoscalingv1.ScaleStatus)
	SetScale(next api.Object, replicas int32)

	Cells(obj api.Object, now time.Time) []any
	Field(obj api.Object, name string) (value string, ok bool)

	Grace(obj api.Object, asked *int64) (seconds int64, graceful bool)
	BeginDelete(next api.Object)
	Held(obj api.Object) bool
	TTL(obj api.Object) int64
	Ledger(ctx context.Context, l Ledger, next, prev api.Object) error
}

// SubKind is an erased Sub.
type SubKind interface {
	Info() SubInfo
	Prepare(r *Request, next, prev api.Object)
	Validate(next, prev api.Object) field.ErrorList
	Warnings(next, prev api.Object) []string
}

// SubInfo is the data of a Sub.
type SubInfo struct {
	Name                         string
	ResetFields                  []string
	ReadOnly, WriteOnly, NoPatch bool
}

// Info is the data of a Def, as generic handlers need it.
type Info struct {
	schema.GroupVersionKind // stored
	Plural, Singular        string
	Short, Categories       []string
	ClusterScoped, Virtual  bool
	Prefix                  string
	Verbs                   []string
	Subs                    []SubInfo
	HasScale                bool
	ScalePath               string
	Connects                []Connect
	Columns                 []ColumnInfo
	Fields                  []string // selectable, sorted, with the two of every kind
	Indexes                 []string
	Unconditional           bool
	CreateOnUpdate          bool
	Orphans                 bool
	KeepsLedger             bool
	ResetFields             []string
	Warning                 string
	Also                    []Version
	DeleteFinalizers        []string

	// Of custom resources only.
	ListKind       string   // "" is Kind + "List"
	StorageVersion string   // the version objects are stored in; "" is Version
	Hidden         bool     // stored, but not served
	Listed         []string // the verbs that discovery shows; nil is Verbs
}

// ListName is the kind of a list of objects.
func (i *Info) ListName() string { return cmp.Or(i.ListKind, i.Kind+"List") }

// Stored says whether objects are stored in the Kind's own version.
func (i *Info) Stored() bool { return i.StorageVersion == "" || i.StorageVersion == i.Version }

// GroupResource names the kind as URLs and messages do.
func (i *Info) GroupResource() schema.GroupResource {
	return schema.GroupResource{Group: i.Group, Resource: i.Plural}
}

// ColumnInfo is the data of a Column.
type ColumnInfo struct {
	Name, Type, Format, Description string
	Wide                            bool
	Priority                        int32 // of custom resources; Wide is 1
}

var allVerbs = []string{"create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"}

// Erase turns a definition into a Kind.
func Erase[T any](d *Def[T]) Kind {
	if _, ok := any(new(T)).(api.Object); !ok {
		panic(fmt.Sprintf("resource: %T is no API object", new(T)))
	}
	k := &kind[T]{Def: d}
	i := &k.info
	i.GroupVersionKind = schema.GroupVersionKind{Group: d.Group, Version: d.Version, Kind: d.Kind}
	i.Plural, i.Singular, i.Prefix, i.Verbs = d.Plural, d.Singular, d.Prefix, d.Verbs
	if i.Singular == "" {
		i.Singular = strings.ToLower(d.Kind)
	}
	if i.Prefix == "" {
		i.Prefix = d.Plural
	}
	if i.Verbs == nil {
		i.Verbs = allVerbs
	}
	i.Short, i.Categories, i.ClusterScoped, i.Virtual = d.Short, d.Categories, d.ClusterScoped, d.Virtual
	for _, s := range d.Subs {
		i.Subs = append(i.Subs, SubInfo{s.Name, s.ResetFields, s.ReadOnly, s.WriteOnly, s.NoPatch})
	}
	if i.HasScale = d.Scale != nil; i.HasScale {
		i.ScalePath = d.Scale.Path
	}
	i.Connects, i.Indexes, i.Unconditional, i.CreateOnUpdate = d.Connects, d.Indexes, d.Unconditional, d.CreateOnUpdate
	i.Orphans, i.KeepsLedger, i.ResetFields, i.Also = d.Orphans, d.Ledger != nil, d.ResetFields, d.Also
	i.Warning, i.DeleteFinalizers = d.Warning, d.DeleteFinalizers
	for _, c := range d.Columns {
		if c.Type == "" {
			c.Type = "string"
		}
		i.Columns = append(i.Columns, ColumnInfo{Name: c.Name, Type: c.Type, Format: c.Format, Description: c.Description, Wide: c.Wide})
	}
	i.Fields = slices.Collect(maps.Keys(d.Selectable))
	i.Fields = append(i.Fields, "metadata.name")
	if !d.ClusterScoped {
		i.Fields = append(i.Fields, "metadata.namespace")
	}
	slices.Sort(i.Fields)
	i.Fields = slices.Compact(i.Fields)
	return k
}

type kind[T any] struct {
	*Def[T]
	info Info
}

// as turns an erased object back; nil stays nil.
func as[T any](obj api.Object) *T {
	if obj == nil {
		return nil
	}
	return any(obj).(*T)
}

func (k *kind[T]) Info() *Info     { return &k.info }
func (k *kind[T]) New() api.Object { return any(new(T)).(api.Object) }

func (k *kind[T]) Default(obj api.Object) {
	if k.Def.Default != nil {
		k.Def.Default(as[T](obj))
	}
}

func (k *kind[T]) Prepare(r *Request, next, prev api.Object) {
	if k.Def.Prepare != nil {
		k.Def.Prepare(r, as[T](next), as[T](prev))
	}
}

func (k *kind[T]) Validate(next, prev api.Object) field.ErrorList {
	if k.Def.Validate == nil {
		return nil
	}
	return k.Def.Validate(as[T](next), as[T](prev))
}

func (k *kind[T]) ValidateAs(r *Request, next, prev api.Object) field.ErrorList {
	if k.Def.ValidateAs == nil {
		return nil
	}
	return k.Def.ValidateAs(r, as[T](next), as[T](prev))
}

func (k *kind[T]) ValidateName(name string, prefix bool) []string {
	if k.Def.Name != nil {
		return k.Def.Name(name, prefix)
	}
	return apivalidation.NameIsDNSSubdomain(name, prefix)
}

func (k *kind[T]) Warnings(next, prev api.Object) []string {
	if k.Def.Warnings == nil {
		return nil
	}
	return k.Def.Warnings(as[T](next), as[T](prev))
}

func (k *kind[T]) SpecChanged(next, prev api.Object) (changed, known bool) {
	if k.Generation == nil {
		return false, false
	}
	// By meaning: "0.5" and "500m" are one quantity, no list and an empty one the same.
	return !equality.Semantic.DeepEqual(k.Generation(as[T](next)), k.Generation(as[T](prev))), true
}

func (k *kind[T]) Sub(name string) (SubKind, bool) {
	for i := range k.Subs {
		if k.Subs[i].Name == name {
			return &sub[T]{&k.Subs[i], k.info.Subs[i]}, true
		}
	}
	return nil, false
}

func (k *kind[T]) Scale(obj api.Object) (*autoscalingv1.ScaleSpec, *autoscalingv1.ScaleStatus) {
	return k.Def.Scale.Get(as[T](obj))
}

func (k *kind[T]) SetScale(next api.Object, replicas int32) { k.Def.Scale.Set(as[T](next), replicas) }

func (k *kind[T]) Cells(obj api.Object, now time.Time) []any {
	cells := make([]any, len(k.Columns))
	for i := range k.Columns {
		cells[i] = k.Columns[i].Cell(as[T](obj), now)
	}
	return cells
}

func (k *kind[T]) Field(obj api.Object, name string) (string, bool) {
	switch name {
	case "metadata.name":
		return obj.GetName(), true
	case "metadata.namespace":
		return obj.GetNamespace(), !k.ClusterScoped
	}
	if f, ok := k.Selectable[name]; ok {
		return f(as[T](obj)), true
	}
	return "", false
}

func (k *kind[T]) Grace(obj api.Object, asked *int64) (int64, bool) {
	if k.Def.Grace == nil {
		return 0, false
	}
	return k.Def.Grace(as[T](obj), asked), true
}

func (k *kind[T]) BeginDelete(next api.Object) {
	if k.Def.BeginDelete != nil {
		k.Def.BeginDelete(as[T](next))
	}
}

func (k *kind[T]) Held(obj api.Object) bool { return k.Def.Held != nil && k.Def.Held(as[T](obj)) }

func (k *kind[T]) TTL(obj api.Object) int64 {
	if k.Def.TTL == nil {
		return 0
	}
	return k.Def.TTL(as[T](obj))
}

func (k *kind[T]) Ledger(ctx context.Context, l Ledger, next, prev api.Object) error {
	if k.Def.Ledger == nil {
		return nil
	}
	return k.Def.Ledger(ctx, l, as[T](next), as[T](prev))
}

type sub[T any] struct {
	*Sub[T]
	info SubInfo
}

func (s *sub[T]) Info() SubInfo { return s.info }

func (s *sub[T]) Prepare(r *Request, next, prev api.Object) {
	if s.Sub.Prepare != nil {
		s.Sub.Prepare(r, as[T](next), as[T](prev))
	}
}

func (s *sub[T]) Validate(next, prev api.Object) field.ErrorList {
	if s.Sub.Validate == nil {
		return nil
	}
	return s.Sub.Validate(as[T](next), as[T](prev))
}

func (s *sub[T]) Warnings(next, prev api.Object) []string {
	if s.Sub.Warnings == nil {
		return nil
	}
	return s.Sub.Warnings(as[T](next), as[T](prev))
}
