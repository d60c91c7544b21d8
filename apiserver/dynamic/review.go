package dynamic

import (
	"context"
	"strings"
	"sync"

	admissionv1 "k8s.io/api/admission/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	plugincel "k8s.io/apiserver/pkg/admission/plugin/cel"
	kauthorizer "k8s.io/apiserver/pkg/authorization/authorizer"

	"github.com/sampan-dev/sampan/apiserver/request"
)

// Review describes the request without its objects.
func (v *View) Review(hit Hit) *admissionv1.AdmissionRequest {
	return plugincel.CreateAdmissionRequest(v.Versioned().Attributes, metav1.GroupVersionResource(hit.Resource), metav1.GroupVersionKind(v.Kind))
}

// authorizer asks the server's authorizer, each question of one request once.
type authorizer struct {
	ask request.Authorizer

	mu      sync.Mutex
	answers map[string]answer
}

type answer struct {
	decision kauthorizer.Decision
	reason   string
	err      error
}

// Authorizer lets expressions ask what users may do; it is never nil.
func (r *Request) Authorizer() kauthorizer.UnconditionalAuthorizer {
	if r.authz == nil {
		r.authz = &authorizer{ask: r.deps.Authorizer, answers: map[string]answer{}}
	}
	return r.authz
}

func (a *authorizer) Authorize(ctx context.Context, q kauthorizer.Attributes) (kauthorizer.Decision, string, error) {
	if a.ask == nil {
		return kauthorizer.DecisionNoOpinion, "", nil
	}
	i := &request.Info{
		IsResource: q.IsResourceRequest(), Path: q.GetPath(), Verb: q.GetVerb(), Group: q.GetAPIGroup(), Version: q.GetAPIVersion(),
		Resource: q.GetResource(), Subresource: q.GetSubresource(), Namespace: q.GetNamespace(), Name: q.GetName(),
	}
	if reqs, err := q.GetFieldSelector(); err == nil && len(reqs) > 0 {
		var parts []string
		for _, r := range reqs {
			parts = append(parts, r.Field+string(r.Operator)+r.Value)
		}
		i.FieldSelector = strings.Join(parts, ",")
	}
	if reqs, err := q.GetLabelSelector(); err == nil && len(reqs) > 0 {
		var parts []string
		for _, r := range reqs {
			parts = append(parts, r.String())
		}
		i.LabelSelector = strings.Join(parts, ",")
	}
	u := &request.User{}
	if info := q.GetUser(); info != nil {
		u = &request.User{Name: info.GetName(), UID: info.GetUID(), Groups: info.GetGroups(), Extra: info.GetExtra()}
	}
	key := strings.Join(append([]string{u.Name, u.UID, i.Path, i.Verb, i.Group, i.Version, i.Resource, i.Subresource, i.Namespace, i.Name, i.FieldSelector, i.LabelSelector}, u.Groups...), "\x00")
	a.mu.Lock()
	known, ok := a.answers[key]
	a.mu.Unlock()
	if ok {
		return known.decision, known.reason, known.err
	}
	d, reason, err := a.ask.Authorize(ctx, u, i)
	out := answer{kauthorizer.DecisionNoOpinion, reason, err}
	switch d {
	case request.Allow:
		out.decision = kauthorizer.DecisionAllow
	case request.Deny:
		out.decision = kauthorizer.DecisionDeny
	}
	a.mu.Lock()
	a.answers[key] = out
	a.mu.Unlock()
	return out.decision, out.reason, out.err
}
