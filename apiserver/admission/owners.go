package admission

import (
	"context"

	certificatesv1beta1 "k8s.io/api/certificates/v1beta1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/sampan-dev/sampan/api"
	"github.com/sampan-dev/sampan/apiserver/request"
)

// ownerReferences lets only those name owners who may delete the object, and
// only those block an owner's deletion who may set its finalizers.
type ownerReferences struct {
	onCreateUpdate
	authz   request.Authorizer
	catalog request.Catalog
}

func (*ownerReferences) Name() string { return "OwnerReferencesPermissionEnforcement" }

func (p *ownerReferences) Validate(ctx context.Context, a *request.Attributes) error {
	if a.Object == nil || p.authz == nil || a.Resource.GroupResource() == core("pods") && a.Subresource == "status" || !ownersChange(a.Object, a.Old) {
		return nil
	}
	res := a.RequestResource
	if res.Resource == "" {
		res = a.Resource
	}
	if a.Operation != request.Create {
		d, reason, err := p.authz.Authorize(ctx, a.User, &request.Info{
			IsResource: true, Prefix: "apis", Verb: "delete", Namespace: a.Namespace, Group: res.Group, Version: res.Version,
			Resource: res.Resource, Subresource: a.Subresource, Name: a.Name,
		})
		if d != request.Allow {
			return forbidf(a, "cannot set an ownerRef on a resource you can't delete: %v, %v", reason, err)
		}
	}
	blocking := newlyBlocking(a.Object, a.Old)
	if len(blocking) == 0 {
		return nil
	}
	anything := &request.Info{IsResource: true, Prefix: "apis", Verb: "update", Group: "*", Version: "*", Resource: "*", Subresource: "finalizers", Name: "*"}
	if d, _, _ := p.authz.Authorize(ctx, a.User, anything); d == request.Allow {
		return nil
	}
	for _, ref := range blocking {
		if err := p.mayBlock(ctx, a, &ref); err != nil {
			return err
		}
	}
	return nil
}

func (p *ownerReferences) mayBlock(ctx context.Context, a *request.Attributes, ref *metav1.OwnerReference) error {
	const unknown = "cannot set blockOwnerDeletion in this case because cannot find RESTMapping for APIVersion %s Kind %s: %v"
	gv, err := schema.ParseGroupVersion(ref.APIVersion)
	if err != nil {
		return forbidf(a, unknown, ref.APIVersion, ref.Kind, err)
	}
	way, _, namespaced, ok := p.catalog.Resource(gv.WithKind(ref.Kind))
	if !ok {
		return forbidf(a, unknown, ref.APIVersion, ref.Kind, "no matches for kind \""+ref.Kind+"\" in version \""+ref.APIVersion+"\"")
	}
	i := &request.Info{
		IsResource: true, Prefix: "apis", Verb: "update", Group: way.Resource.Group, Version: way.Resource.Version,
		Resource: way.Resource.Resource, Subresource: "finalizers", Name: ref.Name,
	}
	if namespaced {
		i.Namespace = a.Namespace
	}
	if d, reason, err := p.authz.Authorize(ctx, a.User, i); d != request.Allow {
		return forbidf(a, "cannot set blockOwnerDeletion if an ownerReference refers to a resource you can't set finalizers on: %v, %v", reason, err)
	}
	return nil
}

func ownersChange(next, prev api.Object) bool {
	if prev == nil {
		return len(next.GetOwnerReferences()) > 0
	}
	return !equality.Semantic.DeepEqual(next.GetOwnerReferences(), prev.GetOwnerReferences())
}

// newlyBlocking are the references that did not block their owner's deletion before.
func newlyBlocking(next, prev api.Object) []metav1.OwnerReference {
	before := map[string]bool{}
	blocks := func(r *metav1.OwnerReference) bool { return r.BlockOwnerDeletion != nil && *r.BlockOwnerDeletion }
	if prev != nil {
		for _, r := range prev.GetOwnerReferences() {
			before[string(r.UID)] = blocks(&r)
		}
	}
	var out []metav1.OwnerReference
	for _, r := range next.GetOwnerReferences() {
		if blocks(&r) && !before[string(r.UID)] {
			out = append(out, r)
		}
	}
	return out
}

// bundleAttest lets only those publish trust bundles in a signer's name who may.
type bundleAttest struct {
	onCreateUpdate
	authz request.Authorizer
}

func (*bundleAttest) Name() string { return "ClusterTrustBundleAttest" }

func (p *bundleAttest) Validate(ctx context.Context, a *request.Attributes) error {
	b, ok := of[*certificatesv1beta1.ClusterTrustBundle](a)
	if !ok || b.Spec.SignerName == "" || p.authz == nil {
		return nil
	}
	if was, ok := old[*certificatesv1beta1.ClusterTrustBundle](a); ok && equality.Semantic.DeepEqual(was.Spec, b.Spec) {
		return nil // garbage collection and storage migration go on
	}
	if signerMay(ctx, p.authz, a.User, "attest", b.Spec.SignerName) {
		return nil
	}
	return forbidf(a, "user not permitted to attest for signerName %q", b.Spec.SignerName)
}
