// Package ipaddress defines the IPAddress kind.
//
// Job: rules and columns of networking.k8s.io/v1 IPAddress and its v1beta1.
//
// Not its job: handing out addresses (the Ledger's).
//
// Invariants: the name is the address, in canonical form; what it belongs to
// never changes.
package ipaddress

import (
	"net/netip"
	"strings"
	"time"

	networkingv1 "k8s.io/api/networking/v1"
	networkingv1beta1 "k8s.io/api/networking/v1beta1"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	pathvalidation "k8s.io/apimachinery/pkg/api/validation/path"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/sampan-dev/sampan/resource"
)

type addr = networkingv1.IPAddress

// Kind returns the definition.
func Kind() resource.Kind {
	return resource.Erase(&resource.Def[addr]{
		Group: networkingv1.GroupName, Version: "v1", Kind: "IPAddress", Plural: "ipaddresses",
		Short: []string{"ip"}, ClusterScoped: true,
		Generation: func(a *addr) any { return &a.Spec },
		Name:       validateName, Validate: validate,
		Columns: []resource.Column[addr]{
			resource.NameColumn[addr](),
			{Name: "ParentRef", Description: resource.Doc(networkingv1.IPAddressSpec{}, "parentRef"), Cell: func(a *addr, _ time.Time) any { return parent(a.Spec.ParentRef) }},
			resource.AgeColumn[addr](),
		},
		Selectable: map[string]func(*addr) string{
			"spec.parentRef.group":     func(a *addr) string { return ref(a).Group },
			"spec.parentRef.resource":  func(a *addr) string { return ref(a).Resource },
			"spec.parentRef.namespace": func(a *addr) string { return ref(a).Namespace },
			"spec.parentRef.name":      func(a *addr) string { return ref(a).Name },
		},
		Unconditional: true,
		Also: []resource.Version{resource.SameShape[networkingv1beta1.IPAddress, addr](
			networkingv1beta1.SchemeGroupVersion.WithKind("IPAddress"), networkingv1.SchemeGroupVersion.WithKind("IPAddress"))},
	})
}

func ref(a *addr) networkingv1.ParentReference {
	if a.Spec.ParentRef == nil {
		return networkingv1.ParentReference{}
	}
	return *a.Spec.ParentRef
}

// parent words the object an address belongs to.
func parent(r *networkingv1.ParentReference) string {
	if r == nil {
		return "<none>"
	}
	var parts []string
	resource := r.Resource
	if r.Group != "" {
		resource += "." + r.Group
	}
	for _, p := range []string{resource, r.Namespace, r.Name} {
		if p != "" {
			parts = append(parts, p)
		}
	}
	return strings.Join(parts, "/")
}

func validateName(name string, _ bool) []string {
	ip, err := netip.ParseAddr(name)
	if err != nil {
		return []string{err.Error()}
	}
	if ip.String() != name {
		return []string{"must be a canonical format IP address"}
	}
	return nil
}

func validate(next, prev *addr) (errs field.ErrorList) {
	path := field.NewPath("spec", "parentRef")
	if prev != nil {
		return apivalidation.ValidateImmutableField(next.Spec.ParentRef, prev.Spec.ParentRef, path)
	}
	r := next.Spec.ParentRef
	if r == nil {
		return field.ErrorList{field.Required(path, "")}
	}
	if r.Group != "" {
		for _, msg := range validation.IsDNS1123Subdomain(r.Group) {
			errs = append(errs, field.Invalid(path.Child("group"), r.Group, msg))
		}
	}
	for _, f := range []struct {
		name, value string
		needed      bool
	}{{"resource", r.Resource, true}, {"name", r.Name, true}, {"namespace", r.Namespace, false}} {
		if f.value == "" {
			if f.needed {
				errs = append(errs, field.Required(path.Child(f.name), ""))
			}
			continue
		}
		for _, msg := range pathvalidation.IsValidPathSegmentName(f.value) {
			errs = append(errs, field.Invalid(path.Child(f.name), f.value, msg))
		}
	}
	return errs
}
