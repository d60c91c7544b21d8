package rest

import (
	"fmt"
	"slices"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/labels"

	"github.com/sampan-dev/sampan/api"
	"github.com/sampan-dev/sampan/storage"
)

// selection is what a list or watch asks for within its scope.
type selection struct {
	s      *Served
	labels labels.Selector // nil for all
	fields []fields.Requirement
	name   string // the only name wanted, or ""
	index  string // an index that finds most of it, or ""
	value  string
}

func (s *Served) selection(label, field string) (*selection, error) {
	sel := &selection{s: s}
	if label != "" {
		l, err := labels.Parse(label)
		if err != nil {
			return nil, apierrors.NewBadRequest(fmt.Sprintf("unable to parse requirement: %v", err))
		}
		if !l.Empty() {
			sel.labels = l
		}
	}
	if field == "" {
		return sel, nil
	}
	f, err := fields.ParseSelector(field)
	if err != nil {
		return nil, apierrors.NewBadRequest(err.Error())
	}
	for _, r := range f.Requirements() {
		if !slices.Contains(s.Info.Fields, r.Field) {
			return nil, apierrors.NewBadRequest(s.unsupportedField(r.Field))
		}
		exact := r.Operator == "=" || r.Operator == "=="
		switch {
		case exact && r.Field == "metadata.name" && sel.name == "":
			sel.name = r.Value
		case exact && sel.index == "" && slices.Contains(s.Info.Indexes, r.Field):
			sel.index, sel.value = r.Field, r.Value
		}
		sel.fields = append(sel.fields, r)
	}
	return sel, nil
}

// unsupportedField words the refusal as upstream does for kinds with, and for
// kinds without selectable fields of their own.
func (s *Served) unsupportedField(name string) string {
	own := 2
	if s.custom != nil {
		own = 0
	}
	if s.Info.ClusterScoped {
		own = 1
	}
	if len(s.Info.Fields) > own {
		return "field label not supported: " + name
	}
	return fmt.Sprintf("%q is not a known field selector: only %q, %q", name, "metadata.name", "metadata.namespace")
}

// all says that nothing is left out.
func (sel *selection) all() bool { return sel.labels == nil && len(sel.fields) == 0 }

// match judges an object of the stored version.
func (sel *selection) match(obj api.Object) bool {
	for _, r := range sel.fields {
		v, _ := sel.s.Kind.Field(obj, r.Field)
		if (v == r.Value) == (r.Operator == "!=") {
			return false
		}
	}
	return sel.labels == nil || sel.labels.Matches(labels.Set(obj.GetLabels()))
}

// matchRecord judges a record, decoding it only when it must.
func (sel *selection) matchRecord(rec *storage.Record) (bool, error) {
	if sel.all() {
		return true, nil
	}
	obj, err := sel.s.object(rec)
	if err != nil {
		return false, err
	}
	return sel.match(obj), nil
}
