// Package admissionregistration defines the kinds by which users take part in
// admission: webhook configurations, admission policies and their bindings.
//
// Job: defaults, rules and columns of the six kinds of
// admissionregistration.k8s.io/v1 and their older versions.
//
// Not its job: calling webhooks and evaluating policies (apiserver/webhook,
// apiserver/policy); whether a user may read a policy's parameters.
//
// Invariants: what was valid when it was stored may be stored again, even
// where rules became stricter since.
package admissionregistration

import (
	"fmt"
	"strings"
	"time"

	admissionv1 "k8s.io/api/admissionregistration/v1"
	admissionv1beta1 "k8s.io/api/admissionregistration/v1beta1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sampan-dev/sampan/api"
	"github.com/sampan-dev/sampan/resource"
)

type (
	mutating        = admissionv1.MutatingWebhookConfiguration
	validating      = admissionv1.ValidatingWebhookConfiguration
	policy          = admissionv1.ValidatingAdmissionPolicy
	binding         = admissionv1.ValidatingAdmissionPolicyBinding
	mutatingPolicy  = admissionv1.MutatingAdmissionPolicy
	mutatingBinding = admissionv1.MutatingAdmissionPolicyBinding
)

// Kinds returns the definitions.
func Kinds() []resource.Kind {
	return []resource.Kind{mutatingPolicyKind(), mutatingBindingKind(), mutatingKind(), policyKind(), bindingKind(), validatingKind()}
}

func mutatingKind() resource.Kind {
	beta := older[admissionv1beta1.MutatingWebhookConfiguration, mutating]("MutatingWebhookConfiguration")
	beta.Default = func(obj api.Object) {
		c := obj.(*admissionv1beta1.MutatingWebhookConfiguration)
		for i := range c.Webhooks {
			defaultBetaMutating(&c.Webhooks[i])
		}
	}
	return resource.Erase(&resource.Def[mutating]{
		Group: admissionv1.GroupName, Version: "v1", Kind: "MutatingWebhookConfiguration", Plural: "mutatingwebhookconfigurations",
		ClusterScoped: true, Categories: []string{"api-extensions"},
		Default:    func(c *mutating) { each(c.Webhooks, defaultMutating) },
		Generation: func(c *mutating) any { return &c.Webhooks },
		ValidateAs: validateMutating,
		Warnings:   func(next, _ *mutating) []string { return staticName(next.Name) },
		Columns: []resource.Column[mutating]{
			resource.NameColumn[mutating](), hooks(func(c *mutating) int { return len(c.Webhooks) }), resource.AgeColumn[mutating](),
		},
		Also: []resource.Version{beta},
	})
}

func validatingKind() resource.Kind {
	beta := older[admissionv1beta1.ValidatingWebhookConfiguration, validating]("ValidatingWebhookConfiguration")
	beta.Default = func(obj api.Object) {
		c := obj.(*admissionv1beta1.ValidatingWebhookConfiguration)
		for i := range c.Webhooks {
			defaultBetaValidating(&c.Webhooks[i])
		}
	}
	return resource.Erase(&resource.Def[validating]{
		Group: admissionv1.GroupName, Version: "v1", Kind: "ValidatingWebhookConfiguration", Plural: "validatingwebhookconfigurations",
		ClusterScoped: true, Categories: []string{"api-extensions"},
		Default:    func(c *validating) { each(c.Webhooks, defaultValidating) },
		Generation: func(c *validating) any { return &c.Webhooks },
		ValidateAs: validateValidating,
		Warnings:   func(next, _ *validating) []string { return staticName(next.Name) },
		Columns: []resource.Column[validating]{
			resource.NameColumn[validating](), hooks(func(c *validating) int { return len(c.Webhooks) }), resource.AgeColumn[validating](),
		},
		Also: []resource.Version{beta},
	})
}

func policyKind() resource.Kind {
	return resource.Erase(&resource.Def[policy]{
		Group: admissionv1.GroupName, Version: "v1", Kind: "ValidatingAdmissionPolicy", Plural: "validatingadmissionpolicies",
		ClusterScoped: true, Categories: []string{"api-extensions"},
		Default: func(p *policy) {
			orDefault(&p.Spec.FailurePolicy, admissionv1.Fail)
			defaultMatch(p.Spec.MatchConstraints)
		},
		Prepare: func(_ *resource.Request, next, prev *policy) {
			next.Status = admissionv1.ValidatingAdmissionPolicyStatus{}
			if prev != nil {
				next.Status = prev.Status
			}
		},
		Generation: func(p *policy) any { return &p.Spec },
		Validate:   validatePolicy,
		Warnings:   func(next, _ *policy) []string { return staticName(next.Name) },
		Subs: []resource.Sub[policy]{
			resource.StatusSub(func(next, prev *policy) {
				next.Spec = prev.Spec
				keepMeta(&next.ObjectMeta, &prev.ObjectMeta)
			}, validatePolicyStatus, "metadata"),
		},
		Columns: []resource.Column[policy]{
			resource.NameColumn[policy](),
			{Name: "Validations", Type: "integer", Description: "Validations indicates the number of validation rules defined in this configuration",
				Cell: resource.Cell(func(p *policy) any { return int64(len(p.Spec.Validations)) })},
			paramKind(func(p *policy) *admissionv1.ParamKind { return p.Spec.ParamKind }),
			resource.AgeColumn[policy](),
		},
		ResetFields: []string{"status"},
		Also:        []resource.Version{older[admissionv1beta1.ValidatingAdmissionPolicy, policy]("ValidatingAdmissionPolicy")},
	})
}

func bindingKind() resource.Kind {
	return resource.Erase(&resource.Def[binding]{
		Group: admissionv1.GroupName, Version: "v1", Kind: "ValidatingAdmissionPolicyBinding", Plural: "validatingadmissionpolicybindings",
		ClusterScoped: true, Categories: []string{"api-extensions"},
		Default:    func(b *binding) { defaultMatch(b.Spec.MatchResources) },
		Generation: func(b *binding) any { return &b.Spec },
		Validate:   validateBinding,
		Warnings:   func(next, _ *binding) []string { return staticName(next.Name) },
		Columns: append([]resource.Column[binding]{resource.NameColumn[binding]()}, append(
			bound(func(b *binding) (string, *admissionv1.ParamRef) { return b.Spec.PolicyName, b.Spec.ParamRef }), resource.AgeColumn[binding]())...),
		Also: []resource.Version{older[admissionv1beta1.ValidatingAdmissionPolicyBinding, binding]("ValidatingAdmissionPolicyBinding")},
	})
}

func mutatingPolicyKind() resource.Kind {
	return resource.Erase(&resource.Def[mutatingPolicy]{
		Group: admissionv1.GroupName, Version: "v1", Kind: "MutatingAdmissionPolicy", Plural: "mutatingadmissionpolicies",
		ClusterScoped: true, Categories: []string{"api-extensions"},
		Default: func(p *mutatingPolicy) {
			orDefault(&p.Spec.FailurePolicy, admissionv1.Fail)
			defaultMatch(p.Spec.MatchConstraints)
		},
		Generation: func(p *mutatingPolicy) any { return &p.Spec },
		Validate:   validateMutatingPolicy,
		Warnings:   func(next, _ *mutatingPolicy) []string { return staticName(next.Name) },
		Columns: []resource.Column[mutatingPolicy]{
			resource.NameColumn[mutatingPolicy](),
			{Name: "Mutations", Type: "integer", Description: "Mutation indicates the number of mutations rules defined in this configuration",
				Cell: resource.Cell(func(p *mutatingPolicy) any { return int64(len(p.Spec.Mutations)) })},
			paramKind(func(p *mutatingPolicy) *admissionv1.ParamKind { return p.Spec.ParamKind }),
			resource.AgeColumn[mutatingPolicy](),
		},
		Also: []resource.Version{older[admissionv1beta1.MutatingAdmissionPolicy, mutatingPolicy]("MutatingAdmissionPolicy")},
	})
}

func mutatingBindingKind() resource.Kind {
	return resource.Erase(&resource.Def[mutatingBinding]{
		Group: admissionv1.GroupName, Version: "v1", Kind: "MutatingAdmissionPolicyBinding", Plural: "mutatingadmissionpolicybindings",
		ClusterScoped: true, Categories: []string{"api-extensions"},
		Default:    func(b *mutatingBinding) { defaultMatch(b.Spec.MatchResources) },
		Generation: func(b *mutatingBinding) any { return &b.Spec },
		Validate:   validateMutatingBinding,
		Warnings:   func(next, _ *mutatingBinding) []string { return staticName(next.Name) },
		Columns: append([]resource.Column[mutatingBinding]{resource.NameColumn[mutatingBinding]()}, append(
			bound(func(b *mutatingBinding) (string, *admissionv1.ParamRef) { return b.Spec.PolicyName, b.Spec.ParamRef }), resource.AgeColumn[mutatingBinding]())...),
		Also: []resource.Version{older[admissionv1beta1.MutatingAdmissionPolicyBinding, mutatingBinding]("MutatingAdmissionPolicyBinding")},
	})
}

// older is the v1beta1 of a kind.
func older[V, T any](kind string) resource.Version {
	return resource.SameShape[V, T](admissionv1beta1.SchemeGroupVersion.WithKind(kind), admissionv1.SchemeGroupVersion.WithKind(kind))
}

// keepMeta undoes a status writer's changes of what is not the status's.
func keepMeta(next, prev *metav1.ObjectMeta) {
	managed, version := next.ManagedFields, next.ResourceVersion
	prev.DeepCopyInto(next)
	next.ManagedFields, next.ResourceVersion = managed, version
}

func hooks[T any](count func(*T) int) resource.Column[T] {
	return resource.Column[T]{
		Name: "Webhooks", Type: "integer", Description: "Webhooks indicates the number of webhooks registered in this configuration",
		Cell: func(obj *T, _ time.Time) any { return int64(count(obj)) },
	}
}

func paramKind[T any](of func(*T) *admissionv1.ParamKind) resource.Column[T] {
	return resource.Column[T]{
		Name: "ParamKind", Description: "ParamKind specifies the kind of resources used to parameterize this policy",
		Cell: func(obj *T, _ time.Time) any {
			if k := of(obj); k != nil {
				return k.APIVersion + "/" + k.Kind
			}
			return "<unset>"
		},
	}
}

func bound[T any](of func(*T) (string, *admissionv1.ParamRef)) []resource.Column[T] {
	return []resource.Column[T]{
		{Name: "PolicyName", Description: "PolicyName indicates the policy definition which the policy binding binded to",
			Cell: func(obj *T, _ time.Time) any { name, _ := of(obj); return name }},
		{Name: "ParamRef", Description: "ParamRef indicates the param resource which sets the configuration param",
			Cell: func(obj *T, _ time.Time) any { _, ref := of(obj); return paramName(ref) }},
	}
}

func paramName(ref *admissionv1.ParamRef) string {
	switch {
	case ref == nil:
	case ref.Name != "" && ref.Namespace != "":
		return ref.Namespace + "/" + ref.Name
	case ref.Name != "":
		return "*/" + ref.Name // the parameter may live in any namespace, or in none
	case ref.Selector != nil:
		return ref.Selector.String()
	}
	return "<unset>"
}

// staticSuffix ends the names of configurations that come from files.
const staticSuffix = ".static.k8s.io"

func staticName(name string) []string {
	if !strings.HasSuffix(name, staticSuffix) {
		return nil
	}
	return []string{fmt.Sprintf("metadata.name: names ending with %q are reserved for static manifest-based configurations and cannot be managed via the API", staticSuffix)}
}
