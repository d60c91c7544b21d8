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
	"time"

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
	// Catalog knows what is served.
	Catalog request.Catalog
	// NotReady and Unreachable are how long pods that do not say stay on a node
	// that fails; 0 is five minutes.
	NotReady, Unreachable time.Duration
	// Config is what plugins are configured with.
	Config Configuration
	// NoPrivileged refuses privileged containers everywhere.
	NoPrivileged bool

	// baseline holds namespaces without pod-security labels to that level.
	baseline bool
}

// from is a plugin of another room.
func from(name string) entry {
	return entry{name: name, on: true, make: func(d Deps) request.Plugin { return d.More[name] }}
}

// entry is one plugin of the row.
type entry struct {
	name string
	on   bool // unless disabled by name
	make func(Deps) request.Plugin
	// read makes a plugin of its configuration, instead.
	read func(Deps) (request.Plugin, error)
}

// configured is a plugin that can be configured; it is off unless enabled.
func configured(name string, read func(Deps) (request.Plugin, error)) entry {
	return entry{name: name, read: read}
}

// row is every plugin in the order it is asked.
func row() []entry {
	return []entry{
		off("AlwaysAdmit", func(Deps) request.Plugin { return nil }),
		off("NamespaceAutoProvision", func(d Deps) request.Plugin { return &namespaceProvision{back: d.Back} }),
		on("NamespaceLifecycle", func(d Deps) request.Plugin { return &namespaceLifecycle{d.Back} }),
		off("NamespaceExists", func(d Deps) request.Plugin { return &namespaceExists{d.Back} }),
		off("LimitPodHardAntiAffinityTopology", func(Deps) request.Plugin { return antiAffinity{} }),
		on("LimitRanger", func(d Deps) request.Plugin { return &limitRanger{d.Back} }),
		on("ServiceAccount", func(d Deps) request.Plugin { return &serviceAccount{d.Back} }),
		off("NodeRestriction", func(d Deps) request.Plugin { return &nodeRestriction{d.Back} }),
		on("TaintNodesByCondition", func(Deps) request.Plugin { return taintNodes{} }),
		off("AlwaysPullImages", func(Deps) request.Plugin { return alwaysPull{} }),
		configured("ImagePolicyWebhook", newImagePolicy),
		{name: "PodSecurity", on: true, read: newPodSecurity},
		configured("PodNodeSelector", newPodNodeSelector),
		on("Priority", func(d Deps) request.Plugin { return &priority{d.Back} }),
		on("DefaultTolerationSeconds", newTolerationSeconds),
		configured("PodTolerationRestriction", newPodTolerations),
		configured("EventRateLimit", newEventRate),
		off("ExtendedResourceToleration", func(Deps) request.Plugin { return extendedToleration{} }),
		on("DefaultStorageClass", func(d Deps) request.Plugin { return &defaultStorageClass{d.Back} }),
		on("StorageObjectInUseProtection", func(Deps) request.Plugin { return inUseProtection{} }),
		off("OwnerReferencesPermissionEnforcement", func(d Deps) request.Plugin { return &ownerReferences{authz: d.Authorizer, catalog: d.Catalog} }),
		on("PersistentVolumeClaimResize", func(d Deps) request.Plugin { return &claimResize{d.Back} }),
		on("RuntimeClass", func(d Deps) request.Plugin { return &runtimeClass{d.Back} }),
		on("CertificateApproval", func(d Deps) request.Plugin { return &certApproval{d.Authorizer} }),
		on("CertificateSigning", func(d Deps) request.Plugin { return &certSigning{d.Authorizer} }),
		on("ClusterTrustBundleAttest", func(d Deps) request.Plugin { return &bundleAttest{authz: d.Authorizer} }),
		on("CertificateSubjectRestriction", func(Deps) request.Plugin { return certSubject{} }),
		on("DefaultIngressClass", func(d Deps) request.Plugin { return &defaultIngressClass{d.Back} }),
		off("DenyServiceExternalIPs", func(Deps) request.Plugin { return denyExternalIPs{} }),
		on("PodTopologyLabels", func(d Deps) request.Plugin { return &topologyLabels{back: d.Back} }),
		on("NodeDeclaredFeatureValidator", func(d Deps) request.Plugin { return &declaredFeatures{d.Back} }),
		on("PodResizeValidator", func(d Deps) request.Plugin { return &podResize{d.Back} }),
		from("MutatingAdmissionPolicy"),
		from("MutatingAdmissionWebhook"),
		from("ValidatingAdmissionPolicy"),
		from("ValidatingAdmissionWebhook"),
		{name: "ResourceQuota", on: true, read: newResourceQuota},
		off("AlwaysDeny", func(Deps) request.Plugin { return alwaysDeny{} }),
	}
}

func on(name string, mk func(Deps) request.Plugin) entry {
	return entry{name: name, on: true, make: mk}
}

func off(name string, mk func(Deps) request.Plugin) entry { return entry{name: name, make: mk} }

// securityContextDeny was a plugin that refused pods with a will of their own
// about users and SELinux. What it was for, PodSecurity does today.
const securityContextDeny = "SecurityContextDeny"

// elsewhere are names that were retired, or that wait for features nobody has
// on: configurations may name them.
func elsewhere(name string) (known bool, warning string) {
	switch name {
	case securityContextDeny:
		return true, `admission plugin "SecurityContextDeny" was removed in v1.30: in its place, PodSecurity holds namespaces without pod-security labels to the "baseline" level`
	case "PodSecurityPolicy", "Initializers", "PersistentVolumeLabel", "DenyEscalatingExec", "DenyExecOnPrivileged":
		return true, fmt.Sprintf("admission plugin %q was retired and does nothing", name)
	case "PodGroupProtection", "PodGroupWorkloadExists", "JobValidation":
		return true, fmt.Sprintf("admission plugin %q does nothing while the feature GenericWorkload is off", name)
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
	d.baseline = slices.Contains(enable, securityContextDeny)
	for _, e := range all {
		if !e.on && !slices.Contains(enable, e.name) || slices.Contains(disable, e.name) {
			continue
		}
		var p request.Plugin
		if e.read == nil {
			p = e.make(d)
		} else if p, err = e.read(d); err != nil {
			return nil, nil, err
		}
		if p != nil {
			plugins = append(plugins, p)
		}
	}
	if d.NoPrivileged {
		plugins = append(plugins, noPrivileged{})
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
