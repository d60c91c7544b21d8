// Package ingressclass defines the IngressClass kind.
//
// Job: defaults, rules and columns of networking.k8s.io/v1 IngressClass and its
// retired v1beta1.
//
// Not its job: choosing the default class (admission's).
//
// Invariants: the controller of a class never changes.
package ingressclass

import (
	"time"

	networkingv1 "k8s.io/api/networking/v1"
	networkingv1beta1 "k8s.io/api/networking/v1beta1"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	pathvalidation "k8s.io/apimachinery/pkg/api/validation/path"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/sampan-dev/sampan/api"
	"github.com/sampan-dev/sampan/resource"
)

const maxController = 250

type class = networkingv1.IngressClass

// Kind returns the definition.
func Kind() resource.Kind {
	beta := resource.SameShape[networkingv1beta1.IngressClass, class](
		networkingv1beta1.SchemeGroupVersion.WithKind("IngressClass"), networkingv1.SchemeGroupVersion.WithKind("IngressClass"))
	beta.Default = func(obj api.Object) {
		if p := obj.(*networkingv1beta1.IngressClass).Spec.Parameters; p != nil && p.Scope == nil {
			p.Scope = new(networkingv1beta1.IngressClassParametersReferenceScopeCluster)
		}
	}
	return resource.Erase(&resource.Def[class]{
		Group: networkingv1.GroupName, Version: "v1", Kind: "IngressClass", Plural: "ingressclasses", ClusterScoped: true,
		Generation: func(c *class) any { return &c.Spec },
		Default: func(c *class) {
			if p := c.Spec.Parameters; p != nil && p.Scope == nil {
				p.Scope = new(networkingv1.IngressClassParametersReferenceScopeCluster)
			}
		},
		Validate: validate,
		Columns: []resource.Column[class]{
			resource.NameColumn[class](),
			{Name: "Controller", Description: "Controller that is responsible for handling this class", Cell: func(c *class, _ time.Time) any { return c.Spec.Controller }},
			{Name: "Parameters", Description: "A reference to a resource with additional parameters", Cell: func(c *class, _ time.Time) any { return parameters(c.Spec.Parameters) }},
			resource.AgeColumn[class](),
		},
		Unconditional: true,
		Also:          []resource.Version{beta},
	})
}

func parameters(p *networkingv1.IngressClassParametersReference) string {
	if p == nil {
		return "<none>"
	}
	text := p.Kind
	if p.APIGroup != nil {
		text += "." + *p.APIGroup
	}
	return text + "/" + p.Name
}

func validate(next, prev *class) (errs field.ErrorList) {
	spec := field.NewPath("spec")
	controller := spec.Child("controller")
	if len(next.Spec.Controller) > maxController {
		errs = append(errs, field.TooLong(controller, "", maxController))
	}
	errs = append(errs, validation.IsDomainPrefixedPath(controller, next.Spec.Controller)...)
	if p := next.Spec.Parameters; p != nil {
		errs = append(errs, validateParameters(p, spec.Child("parameters"))...)
	}
	if prev != nil {
		errs = append(errs, apivalidation.ValidateImmutableField(next.Spec.Controller, prev.Spec.Controller, controller)...)
	}
	return errs
}

func validateParameters(p *networkingv1.IngressClassParametersReference, path *field.Path) (errs field.ErrorList) {
	if p.APIGroup != nil {
		for _, msg := range validation.IsDNS1123Subdomain(*p.APIGroup) {
			errs = append(errs, field.Invalid(path.Child("apiGroup"), *p.APIGroup, msg))
		}
	}
	for _, f := range []struct{ name, value string }{{"kind", p.Kind}, {"name", p.Name}} {
		if f.value == "" {
			errs = append(errs, field.Required(path.Child(f.name), f.name+" is required"))
			continue
		}
		for _, msg := range pathvalidation.IsValidPathSegmentName(f.value) {
			errs = append(errs, field.Invalid(path.Child(f.name), f.value, msg))
		}
	}
	return append(errs, validateScope(p, path)...)
}

func validateScope(p *networkingv1.IngressClassParametersReference, path *field.Path) (errs field.ErrorList) {
	cluster, namespace := networkingv1.IngressClassParametersReferenceScopeCluster, networkingv1.IngressClassParametersReferenceScopeNamespace
	if p.Scope == nil {
		return field.ErrorList{field.Required(path.Child("scope"), "")}
	}
	if *p.Scope != cluster && *p.Scope != namespace {
		errs = append(errs, field.NotSupported(path.Child("scope"), *p.Scope, []string{cluster, namespace}))
	}
	if *p.Scope == namespace {
		if p.Namespace == nil {
			return append(errs, field.Required(path.Child("namespace"), "`parameters.scope` is set to 'Namespace'"))
		}
		for _, msg := range apivalidation.ValidateNamespaceName(*p.Namespace, false) {
			errs = append(errs, field.Invalid(path.Child("namespace"), *p.Namespace, msg))
		}
	}
	if *p.Scope == cluster && p.Namespace != nil {
		errs = append(errs, field.Forbidden(path.Child("namespace"), "`parameters.scope` is set to 'Cluster'"))
	}
	return errs
}
