package crd

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"

	"k8s.io/apiextensions-apiserver/pkg/apihelpers"
	"k8s.io/apiextensions-apiserver/pkg/apis/apiextensions"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	structuralschema "k8s.io/apiextensions-apiserver/pkg/apiserver/schema"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema/defaulting"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/version"

	"github.com/sampan-dev/sampan/resource"
)

// family is one definition with all of its versions.
type family struct {
	crd     *apiextensionsv1.CustomResourceDefinition // immutable
	names   apiextensionsv1.CustomResourceDefinitionNames
	storage string // the version stored
	kinds   map[string]*kind
	convert converter
	shared  *shared

	life context.Context
	end  context.CancelFunc
}

// shared is what all families use.
type shared struct {
	dialer Dialer
	met    *metrics
	// definitions finds the schemas of built-in types, by name, with all that
	// they refer to; nil when there are none.
	definitions func(names ...string) (map[string]json.RawMessage, error)
}

// newFamily makes the kinds of a definition whose names were accepted.
func newFamily(ctx context.Context, s *shared, crd *apiextensionsv1.CustomResourceDefinition, names apiextensionsv1.CustomResourceDefinitionNames) (*family, error) {
	f := &family{crd: crd, names: names, kinds: map[string]*kind{}, shared: s}
	var err error
	if f.storage, err = apihelpers.GetCRDStorageVersion(crd); err != nil {
		return nil, fmt.Errorf("custom resource: %s: %w", crd.Name, err)
	}
	if f.convert, err = newConverter(s, crd); err != nil {
		return nil, fmt.Errorf("custom resource: %s: %w", crd.Name, err)
	}
	f.life, f.end = context.WithCancel(ctx)
	for i := range crd.Spec.Versions {
		if v := &crd.Spec.Versions[i]; v.Served || v.Storage {
			f.kinds[v.Name] = newKind(f, v)
		}
	}
	for _, k := range f.kinds {
		k.info.Also = k.others()
	}
	return f, nil
}

// all lists the kinds, the stored version first.
func (f *family) all() []resource.Kind {
	var out []resource.Kind
	for _, v := range f.crd.Spec.Versions {
		k := f.kinds[v.Name]
		switch {
		case k == nil:
		case v.Name == f.storage:
			out = slices.Insert(out, 0, resource.Kind(k))
		default:
			out = append(out, k)
		}
	}
	return out
}

func (f *family) gvk(v string) schema.GroupVersionKind {
	return schema.GroupVersionKind{Group: f.crd.Spec.Group, Version: v, Kind: f.names.Kind}
}

func (f *family) resource() schema.GroupResource {
	return schema.GroupResource{Group: f.crd.Spec.Group, Resource: f.names.Plural}
}

// prefix is where the objects live below /registry/.
func (f *family) prefix() string { return f.crd.Spec.Group + "/" + f.names.Plural }

func (f *family) terminating() bool {
	return f.crd.DeletionTimestamp != nil || apihelpers.IsCRDConditionTrue(f.crd, apiextensionsv1.Terminating)
}

// closed refuses new objects of a kind that is about to go.
func (f *family) closed() error {
	if !f.terminating() {
		return nil
	}
	return apierrors.NewForbidden(f.resource(), "", errors.New("create not allowed while custom resource definition is terminating"))
}

// sameAs says whether a definition makes the same kinds.
func (f *family) sameAs(crd *apiextensionsv1.CustomResourceDefinition, names *apiextensionsv1.CustomResourceDefinitionNames) bool {
	return f.crd.UID == crd.UID && f.crd.Generation == crd.Generation && sameNames(&f.names, names) && f.terminating() == (&family{crd: crd}).terminating()
}

// fingerprint changes with anything that discovery or OpenAPI show of the kinds.
func (f *family) fingerprint() string {
	return fmt.Sprintf("%s/%d/%s/%v", f.crd.UID, f.crd.Generation, strings.Join(append([]string{f.names.Plural, f.names.Kind}, f.names.ShortNames...), ","), f.terminating())
}

// internalSchema is a version's schema as the libraries want it, or nil.
func internalSchema(v *apiextensionsv1.CustomResourceDefinitionVersion) (*apiextensions.JSONSchemaProps, error) {
	if v.Schema == nil || v.Schema.OpenAPIV3Schema == nil {
		return nil, nil
	}
	out := &apiextensions.CustomResourceValidation{}
	if err := apiextensionsv1.Convert_v1_CustomResourceValidation_To_apiextensions_CustomResourceValidation(v.Schema.DeepCopy(), out, nil); err != nil {
		return nil, fmt.Errorf("failed converting CRD validation to internal version: %w", err)
	}
	return out.OpenAPIV3Schema, nil
}

// structural makes a version's structural schema, whose defaults hold nothing
// that pruning would take; nil without a schema.
func structural(v *apiextensionsv1.CustomResourceDefinitionVersion, preserve bool) (*structuralschema.Structural, error) {
	in, err := internalSchema(v)
	if err != nil || in == nil {
		return nil, err
	}
	s, err := structuralschema.NewStructural(in)
	if err != nil {
		if preserve {
			return nil, nil
		}
		return nil, errors.New("the server could not properly serve the CR schema")
	}
	if preserve {
		return s, nil
	}
	s = s.DeepCopy()
	if err := defaulting.PruneDefaults(s); err != nil {
		return nil, errors.New("the server could not properly serve the CR schema")
	}
	return s, nil
}

// deprecation words what users of a deprecated version are told.
func (f *family) deprecation(v *apiextensionsv1.CustomResourceDefinitionVersion) string {
	switch {
	case !v.Deprecated:
		return ""
	case v.DeprecationWarning != nil:
		return *v.DeprecationWarning
	}
	text := fmt.Sprintf("%s/%s %s is deprecated", f.crd.Spec.Group, v.Name, f.names.Kind)
	best := ""
	for _, o := range f.crd.Spec.Versions {
		if o.Served && !o.Deprecated && version.CompareKubeAwareVersionStrings(v.Name, o.Name) < 0 && (best == "" || version.CompareKubeAwareVersionStrings(best, o.Name) < 0) {
			best = o.Name
		}
	}
	if best != "" {
		text += fmt.Sprintf("; use %s/%s %s", f.crd.Spec.Group, best, f.names.Kind)
	}
	return text
}

func sameNames(a, b *apiextensionsv1.CustomResourceDefinitionNames) bool {
	return a.Plural == b.Plural && a.Singular == b.Singular && a.Kind == b.Kind && a.ListKind == b.ListKind &&
		slices.Equal(a.ShortNames, b.ShortNames) && slices.Equal(a.Categories, b.Categories)
}

// once makes something when first asked for, and remembers how that went.
func once[T any](mk func() (T, error)) func() (T, error) { return sync.OnceValues(mk) }

func singular(n *apiextensionsv1.CustomResourceDefinitionNames) string {
	return cmp.Or(n.Singular, strings.ToLower(n.Kind))
}
