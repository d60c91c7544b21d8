// Package authz decides who may do what.
//
// Job: role based access control with the roles every cluster begins with, the
// node authorizer, the chain of authorization modes, and the guard that keeps
// users from granting rights they do not hold.
//
// Not its job: who a user is (authn), the text of refusals
// (request.Forbidden), the SubjectAccessReview endpoints (virtual).
//
// Invariants: a decision reads memory only; a change of a role or binding
// counts as soon as the store's feed delivers it; nothing is allowed before the
// indexes were filled once, but to system:masters.
package authz

import (
	"context"
	"errors"
	"slices"
	"strings"

	"github.com/sampan-dev/sampan/apiserver/request"
)

// Modes, as --authorization-mode spells them.
const (
	ModeNode        = "Node"
	ModeRBAC        = "RBAC"
	ModeAlwaysAllow = "AlwaysAllow"
	ModeAlwaysDeny  = "AlwaysDeny"
	ModeWebhook     = "Webhook"
	ModeABAC        = "ABAC"
)

// Chain asks its members in turn; the first with an opinion decides.
type Chain []request.Authorizer

// Authorize asks the members in turn.
func (c Chain) Authorize(ctx context.Context, u *request.User, i *request.Info) (request.Decision, string, error) {
	var reasons []string
	var errs []error
	for _, a := range c {
		d, reason, err := a.Authorize(ctx, u, i)
		if err != nil {
			errs = append(errs, err)
		}
		if d != request.NoOpinion {
			return d, reason, err
		}
		if reason != "" {
			reasons = append(reasons, reason)
		}
	}
	return request.NoOpinion, strings.Join(reasons, "\n"), errors.Join(errs...)
}

// Rules lists what the members allow; incomplete when one cannot say.
func (c Chain) Rules(ctx context.Context, u *request.User, namespace string) (resource []request.ResourceRule, other []request.NonResourceRule, incomplete bool, err error) {
	var errs []error
	for _, a := range c {
		l, ok := a.(request.RuleLister)
		if !ok {
			continue
		}
		r, o, part, err := l.Rules(ctx, u, namespace)
		resource, other, incomplete = append(resource, r...), append(other, o...), incomplete || part
		if err != nil {
			errs = append(errs, err)
		}
	}
	return resource, other, incomplete, errors.Join(errs...)
}

type privileged struct{}

func (privileged) Authorize(_ context.Context, u *request.User, _ *request.Info) (request.Decision, string, error) {
	if slices.Contains(u.Groups, request.Masters) {
		return request.Allow, "", nil
	}
	return request.NoOpinion, "", nil
}

type always struct{ d request.Decision }

func (a always) Authorize(context.Context, *request.User, *request.Info) (request.Decision, string, error) {
	if a.d == request.Allow {
		return request.Allow, "", nil
	}
	return request.NoOpinion, "Everything is forbidden.", nil
}

func (a always) Rules(context.Context, *request.User, string) ([]request.ResourceRule, []request.NonResourceRule, bool, error) {
	if a.d != request.Allow {
		return nil, nil, false, nil
	}
	all := []string{"*"}
	return []request.ResourceRule{{Verbs: all, APIGroups: all, Resources: all}}, []request.NonResourceRule{{Verbs: all, NonResourceURLs: all}}, false, nil
}

// Rules says that nodes may more than can be listed.
func (n *Node) Rules(_ context.Context, u *request.User, _ string) ([]request.ResourceRule, []request.NonResourceRule, bool, error) {
	if _, ok := NodeName(u); ok {
		return nil, nil, true, errors.New("node authorizer does not support user rule resolution")
	}
	return nil, nil, false, nil
}
