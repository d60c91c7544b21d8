// Package admission holds the built-in admission plugins.
//
// Job: the plugins, each in its own file, and the one list that says in which
// order they are asked and which are on.
//
// Not its job: running the row (apiserver/rest), webhooks and policies written
// by users (their own room), what is a valid object (resource).
//
// Invariants: mutators change only what upstream's plugin of the same name
// changes; refusals carry upstream's words.
package admission

import (
	"fmt"
	"slices"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/sampan-dev/sampan/api"
	"github.com/sampan-dev/sampan/apiserver/request"
)

// Deps are what plugins may ask.
type Deps struct {
	Back       request.Backend
	Authorizer request.Authorizer
	// More are plugins of other rooms, by name; they are on unless disabled.
	More map[string]request.Plugin
}

// from is a plugin of another room.
func from(name string) entry {
	return entry{name, true, func(d Deps) request.Plugin { return d.More[name] }}
}

// entry is one plugin of the row.
type entry struct {
	name string
	on   bool // unless disabled by name
	make func(Deps) request.Plugin
}

// row is every plugin in the order it is asked.
func row() []entry {
	return []entry{
		{"NamespaceLifecycle", true, func(d Deps) request.Plugin { return &namespaceLifecycle{d.Back} }},
		{"LimitRanger", true, func(d Deps) request.Plugin { return &limitRanger{d.Back} }},
		{"ServiceAccount", true, func(d Deps) request.Plugin { return &serviceAccount{d.Back} }},
		{"NodeRestriction", false, func(d Deps) request.Plugin { return &nodeRestriction{d.Back} }},
		{"TaintNodesByCondition", true, func(Deps) request.Plugin { return taintNodes{} }},
		{"AlwaysPullImages", false, func(Deps) request.Plugin { return alwaysPull{} }},
		{"PodSecurity", true, newPodSecurity},
		{"Priority", true, func(d Deps) request.Plugin { return &priority{d.Back} }},
		{"DefaultTolerationSeconds", true, func(Deps) request.Plugin { return tolerationSeconds{} }},
		{"ExtendedResourceToleration", false, func(Deps) request.Plugin { return extendedToleration{} }},
		{"DefaultStorageClass", true, func(d Deps) request.Plugin { return &defaultStorageClass{d.Back} }},
		{"StorageObjectInUseProtection", true, func(Deps) request.Plugin { return inUseProtection{} }},
		{"PersistentVolumeClaimResize", true, func(d Deps) request.Plugin { return &claimResize{d.Back} }},
		{"RuntimeClass", true, func(d Deps) request.Plugin { return &runtimeClass{d.Back} }},
		{"CertificateApproval", true, func(d Deps) request.Plugin { return &certApproval{d.Authorizer} }},
		{"CertificateSigning", true, func(d Deps) request.Plugin { return &certSigning{d.Authorizer} }},
		{"CertificateSubjectRestriction", true, func(Deps) request.Plugin { return certSubject{} }},
		{"DefaultIngressClass", true, func(d Deps) request.Plugin { return &defaultIngressClass{d.Back} }},
		{"DenyServiceExternalIPs", false, func(Deps) request.Plugin { return denyExternalIPs{} }},
		from("MutatingAdmissionPolicy"),
		from("MutatingAdmissionWebhook"),
		from("ValidatingAdmissionPolicy"),
		from("ValidatingAdmissionWebhook"),
		{"ResourceQuota", true, func(d Deps) request.Plugin { return &resourceQuota{back: d.Back} }},
		{"AlwaysAdmit", false, func(Deps) request.Plugin { return nil }},
	}
}

// elsewhere are names that upstream knows and that other rooms provide, or that
// were retired: configurations may name them.
func elsewhere(name string) (known bool, warning string) {
	switch name {
	case "SecurityContextDeny", "PodSecurityPolicy", "Initializers", "PersistentVolumeLabel", "DenyEscalatingExec", "DenyExecOnPrivileged":
		return true, fmt.Sprintf("admission plugin %q was retired and does nothing", name)
	case "NamespaceAutoProvision", "NamespaceExists", "LimitPodHardAntiAffinityTopology", "ImagePolicyWebhook", "PodNodeSelector",
		"PodTolerationRestriction", "EventRateLimit", "OwnerReferencesPermissionEnforcement", "ClusterTrustBundleAttest",
		"PodTopologyLabels", "NodeDeclaredFeatureValidator", "AlwaysDeny":
		return true, fmt.Sprintf("admission plugin %q is not provided and does nothing", name)
	}
	return false, ""
}

// Default returns the plugins that are on when nothing is said, in order.
func Default(d Deps) []request.Plugin {
	out, _, _ := Choose(d, nil, nil)
	return out
}

// Choose returns the plugins with some more enabled and some disabled, by name,
// and warnings about names that have no effect.
func Choose(d Deps, enable, disable []string) (plugins []request.Plugin, warnings []string, err error) {
	all := row()
	for _, n := range slices.Concat(enable, disable) {
		if slices.ContainsFunc(all, func(e entry) bool { return e.name == n }) {
			continue
		}
		known, warning := elsewhere(n)
		if !known {
			return nil, nil, fmt.Errorf("enable-admission-plugins plugin %q is unknown", n)
		}
		if warning != "" && slices.Contains(enable, n) {
			warnings = append(warnings, warning)
		}
	}
	for _, n := range enable {
		if slices.Contains(disable, n) {
			return nil, nil, fmt.Errorf("[%s] in enable-admission-plugins and disable-admission-plugins overlapped", n)
		}
	}
	for _, e := range all {
		if (e.on || slices.Contains(enable, e.name)) && !slices.Contains(disable, e.name) {
			if p := e.make(d); p != nil {
				plugins = append(plugins, p)
			}
		}
	}
	return plugins, warnings, nil
}

// Operations a plugin handles.
type (
	onCreate       struct{}
	onCreateUpdate struct{}
)

func (onCreate) Handles(op request.Operation) bool { return op == request.Create }

func (onCreateUpdate) Handles(op request.Operation) bool {
	return op == request.Create || op == request.Update
}

// forbid refuses the request because of err.
func forbid(a *request.Attributes, err error) error {
	return apierrors.NewForbidden(a.Resource.GroupResource(), nameOf(a), err)
}

func forbidf(a *request.Attributes, format string, args ...any) error {
	return forbid(a, fmt.Errorf(format, args...))
}

// nameOf is the object's name as refusals show it.
func nameOf(a *request.Attributes) string {
	if a.Name != "" {
		return a.Name
	}
	if a.Object == nil {
		return "Unknown"
	}
	if g := a.Object.GetGenerateName(); g != "" {
		return g
	}
	return a.Object.GetName()
}

// of returns the request's object when it is a T of the resource itself.
func of[T api.Object](a *request.Attributes, subs ...string) (obj T, ok bool) {
	if a.Subresource != "" && !slices.Contains(subs, a.Subresource) {
		return obj, false
	}
	obj, ok = a.Object.(T)
	return obj, ok
}

// old returns the previous object as a T.
func old[T api.Object](a *request.Attributes) (obj T, ok bool) {
	obj, ok = a.Old.(T)
	return obj, ok
}

func core(resource string) schema.GroupResource { return schema.GroupResource{Resource: resource} }
