// Package csidriver defines the CSIDriver kind.
//
// Job: defaults, rules and columns of storage.k8s.io/v1 CSIDriver and its
// retired v1beta1.
//
// Not its job: talking to drivers.
//
// Invariants: how a driver attaches and which volumes it has never changes.
package csidriver

import (
	"slices"
	"strings"
	"time"

	storagev1 "k8s.io/api/storage/v1"
	storagev1beta1 "k8s.io/api/storage/v1beta1"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/sampan-dev/sampan/resource"
)

type driver = storagev1.CSIDriver

// Kind returns the definition.
func Kind() resource.Kind {
	flag := func(name, doc string, get func(*storagev1.CSIDriverSpec) *bool) resource.Column[driver] {
		return resource.Column[driver]{Name: name, Type: "boolean", Description: resource.Doc(storagev1.CSIDriverSpec{}, doc), Cell: func(d *driver, _ time.Time) any {
			b := get(&d.Spec)
			return b != nil && *b
		}}
	}
	attach := flag("AttachRequired", "attachRequired", nil)
	attach.Cell = func(d *driver, _ time.Time) any { return d.Spec.AttachRequired == nil || *d.Spec.AttachRequired }
	return resource.Erase(&resource.Def[driver]{
		Group: storagev1.GroupName, Version: "v1", Kind: "CSIDriver", Plural: "csidrivers", ClusterScoped: true,
		Default: setDefaults, Validate: validate,
		Generation: func(d *driver) any { return &d.Spec },
		Columns: []resource.Column[driver]{
			resource.NameColumn[driver](),
			attach,
			flag("PodInfoOnMount", "podInfoOnMount", func(s *storagev1.CSIDriverSpec) *bool { return s.PodInfoOnMount }),
			flag("StorageCapacity", "storageCapacity", func(s *storagev1.CSIDriverSpec) *bool { return s.StorageCapacity }),
			{Name: "TokenRequests", Description: resource.Doc(storagev1.CSIDriverSpec{}, "tokenRequests"), Cell: func(d *driver, _ time.Time) any { return tokens(d) }},
			flag("RequiresRepublish", "requiresRepublish", func(s *storagev1.CSIDriverSpec) *bool { return s.RequiresRepublish }),
			{Name: "Modes", Description: resource.Doc(storagev1.CSIDriverSpec{}, "volumeLifecycleModes"), Cell: func(d *driver, _ time.Time) any { return modes(d) }},
			resource.AgeColumn[driver](),
		},
		Also: []resource.Version{resource.SameShape[storagev1beta1.CSIDriver, driver](
			storagev1beta1.SchemeGroupVersion.WithKind("CSIDriver"), storagev1.SchemeGroupVersion.WithKind("CSIDriver"))},
	})
}

func tokens(d *driver) string {
	if d.Spec.TokenRequests == nil {
		return "<unset>"
	}
	names := make([]string, len(d.Spec.TokenRequests))
	for i, t := range d.Spec.TokenRequests {
		names[i] = t.Audience
	}
	return strings.Join(names, ",")
}

func modes(d *driver) string {
	if len(d.Spec.VolumeLifecycleModes) == 0 {
		return "<none>"
	}
	names := make([]string, len(d.Spec.VolumeLifecycleModes))
	for i, m := range d.Spec.VolumeLifecycleModes {
		names[i] = string(m)
	}
	return strings.Join(names, ",")
}

func setDefaults(d *driver) {
	s := &d.Spec
	for p, value := range map[**bool]bool{
		&s.AttachRequired: true, &s.PodInfoOnMount: false, &s.StorageCapacity: false,
		&s.RequiresRepublish: false, &s.SELinuxMount: false,
	} {
		if *p == nil {
			*p = new(value)
		}
	}
	if s.FSGroupPolicy == nil {
		s.FSGroupPolicy = new(storagev1.ReadWriteOnceWithFSTypeFSGroupPolicy)
	}
	if len(s.VolumeLifecycleModes) == 0 {
		s.VolumeLifecycleModes = []storagev1.VolumeLifecycleMode{storagev1.VolumeLifecyclePersistent}
	}
}

func validate(next, prev *driver) (errs field.ErrorList) {
	spec, s := field.NewPath("spec"), &next.Spec
	if prev == nil {
		errs = append(errs, validateName(next.Name)...)
	} else {
		errs = append(errs, apivalidation.ValidateImmutableField(s.AttachRequired, prev.Spec.AttachRequired, spec.Child("attachedRequired"))...)
		errs = append(errs, apivalidation.ValidateImmutableField(s.VolumeLifecycleModes, prev.Spec.VolumeLifecycleModes, spec.Child("volumeLifecycleModes"))...)
	}
	for name, b := range map[string]*bool{"attachRequired": s.AttachRequired, "podInfoOnMount": s.PodInfoOnMount, "storageCapacity": s.StorageCapacity} {
		if b == nil {
			errs = append(errs, field.Required(spec.Child(name), ""))
		}
	}
	policies := []storagev1.FSGroupPolicy{storagev1.FileFSGroupPolicy, storagev1.NoneFSGroupPolicy, storagev1.ReadWriteOnceWithFSTypeFSGroupPolicy}
	if p := s.FSGroupPolicy; p != nil && !slices.Contains(policies, *p) {
		errs = append(errs, field.NotSupported(spec.Child("fsGroupPolicy"), *p, policies))
	}
	known := []storagev1.VolumeLifecycleMode{storagev1.VolumeLifecycleEphemeral, storagev1.VolumeLifecyclePersistent}
	for _, m := range s.VolumeLifecycleModes {
		if !slices.Contains(known, m) {
			errs = append(errs, field.NotSupported(spec.Child("volumeLifecycleModes"), m, known))
		}
	}
	if p := s.NodeAllocatableUpdatePeriodSeconds; p != nil && *p < 10 {
		errs = append(errs, field.Invalid(spec.Child("nodeAllocatableUpdatePeriodSeconds"), *p, "must be greater than or equal to 10 seconds"))
	}
	return append(errs, validateTokens(s.TokenRequests, spec.Child("tokenRequests"))...)
}

func validateName(name string) (errs field.ErrorList) {
	path := field.NewPath("name")
	if len(name) > 63 {
		errs = append(errs, field.TooLong(path, "", 63))
	}
	for _, msg := range validation.IsDNS1123Subdomain(strings.ToLower(name)) {
		errs = append(errs, field.Invalid(path, name, msg))
	}
	return errs
}

func validateTokens(requests []storagev1.TokenRequest, path *field.Path) (errs field.ErrorList) {
	const least, most = 10 * 60, 1 << 32
	seen := map[string]bool{}
	for i, r := range requests {
		at := path.Index(i)
		if seen[r.Audience] {
			errs = append(errs, field.Duplicate(at.Child("audience"), r.Audience))
			continue
		}
		seen[r.Audience] = true
		if r.ExpirationSeconds == nil {
			continue
		}
		if *r.ExpirationSeconds < least {
			errs = append(errs, field.Invalid(at.Child("expirationSeconds"), *r.ExpirationSeconds, "may not specify a duration less than 10 minutes"))
		}
		if *r.ExpirationSeconds > most {
			errs = append(errs, field.Invalid(at.Child("expirationSeconds"), *r.ExpirationSeconds, "may not specify a duration larger than 2^32 seconds"))
		}
	}
	return errs
}
