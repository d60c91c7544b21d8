// Package storageversionmigration defines the StorageVersionMigration kind.
//
// Job: rules and columns of storagemigration.k8s.io/v1 StorageVersionMigration
// and its v1beta1.
//
// Not its job: migrating.
//
// Invariants: what is to be migrated never changes; a migration ends once.
package storageversionmigration

import (
	"strings"
	"time"

	migrationv1 "k8s.io/api/storagemigration/v1"
	migrationv1beta1 "k8s.io/api/storagemigration/v1beta1"
	"k8s.io/apimachinery/pkg/api/meta"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	metavalidation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/util/resourceversion"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/sampan-dev/sampan/resource"
)

type migration = migrationv1.StorageVersionMigration

// Kind returns the definition.
func Kind() resource.Kind {
	beta := resource.SameShape[migrationv1beta1.StorageVersionMigration, migration](
		migrationv1beta1.SchemeGroupVersion.WithKind("StorageVersionMigration"), migrationv1.SchemeGroupVersion.WithKind("StorageVersionMigration"))
	beta.Retired = true
	name := resource.NameColumn[migration]()
	name.Format = ""
	return resource.Erase(&resource.Def[migration]{
		Group: migrationv1.GroupName, Version: "v1", Kind: "StorageVersionMigration", Plural: "storageversionmigrations", ClusterScoped: true,
		Generation: func(m *migration) any { return &m.Spec },
		Prepare: func(_ *resource.Request, next, prev *migration) {
			next.Status = migrationv1.StorageVersionMigrationStatus{}
			if prev != nil {
				next.Status = *prev.Status.DeepCopy()
			}
		},
		Validate: validate,
		Subs:     []resource.Sub[migration]{resource.StatusSub(func(next, prev *migration) { next.Spec = prev.Spec }, validateStatus, "metadata", "spec")},
		Columns: []resource.Column[migration]{
			name,
			{Name: "Resource", Description: "GroupResource to migrate", Cell: func(m *migration, _ time.Time) any { return m.Spec.Resource.String() }},
			{Name: "Status", Description: "Status of the migration", Cell: func(m *migration, _ time.Time) any { return state(m) }},
		},
		Unconditional: true, ResetFields: []string{"status"},
		Also: []resource.Version{beta},
	})
}

// state is the last condition that holds.
func state(m *migration) string {
	out := "Unknown"
	for _, c := range m.Status.Conditions {
		if c.Status != metav1.ConditionTrue {
			continue
		}
		switch migrationv1.MigrationConditionType(c.Type) {
		case migrationv1.MigrationRunning, migrationv1.MigrationFailed, migrationv1.MigrationSucceeded:
			out = c.Type
		}
	}
	return out
}

func validate(next, prev *migration) (errs field.ErrorList) {
	path, r := field.NewPath("spec", "resource"), next.Spec.Resource
	if r.Resource == "" {
		errs = append(errs, field.Required(path.Child("resource"), "resource is required to be set"))
	} else if bad := validation.IsDNS1035Label(r.Resource); len(bad) > 0 {
		errs = append(errs, field.Invalid(path.Child("resource"), r.Resource, strings.Join(bad, ",")))
	}
	if r.Group != "" {
		if bad := validation.IsDNS1123Subdomain(r.Group); len(bad) > 0 {
			errs = append(errs, field.Invalid(path.Child("group"), r.Group, strings.Join(bad, ",")))
		}
	}
	if prev != nil {
		errs = append(errs, apivalidation.ValidateImmutableField(next.Spec, prev.Spec, field.NewPath("spec"))...)
	}
	return errs
}

func validateStatus(next, prev *migration) (errs field.ErrorList) {
	path := field.NewPath("status")
	conditions, version := path.Child("conditions"), path.Child("resourceVersion")
	rv := next.Status.ResourceVersion
	if rv != "" {
		if _, err := resourceversion.CompareResourceVersion(rv, rv); err != nil {
			errs = append(errs, field.Invalid(version, rv, err.Error()))
		}
	}
	errs = append(errs, metavalidation.ValidateConditions(next.Status.Conditions, conditions)...)
	if was := prev.Status.ResourceVersion; was != "" && was != rv {
		errs = append(errs, field.Invalid(version, rv, "field is immutable"))
	}
	is := func(m *migration, kind migrationv1.MigrationConditionType) bool {
		return meta.IsStatusConditionTrue(m.Status.Conditions, string(kind))
	}
	if is(next, migrationv1.MigrationSucceeded) && is(next, migrationv1.MigrationFailed) {
		errs = append(errs, field.Invalid(conditions, next.Status.Conditions, "Both success and failed conditions cannot be true at the same time"))
	}
	if is(prev, migrationv1.MigrationSucceeded) && !is(next, migrationv1.MigrationSucceeded) {
		errs = append(errs, field.Invalid(conditions, next.Status.Conditions, "Success condition cannot be set to false once it is true"))
	}
	if is(prev, migrationv1.MigrationFailed) && !is(next, migrationv1.MigrationFailed) {
		errs = append(errs, field.Invalid(conditions, next.Status.Conditions, "Failed condition cannot be set to false once it is true"))
	}
	return errs
}
