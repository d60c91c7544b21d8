// Package dynamic is what webhooks and admission policies have in common: the
// ways in which users say which requests they want to judge, and the shape in
// which they are shown a request.
//
// Job: matching rules, selectors and conditions against a request; showing its
// objects in the version that was asked for, and taking them back.
//
// Not its job: calling anybody (apiserver/webhook), policies (apiserver/policy),
// compiling expressions (semantics/expression).
//
// Invariants: the kinds that configure admission are never judged by what they
// configure, so that a cluster can always be mended; nor are reviews of who may
// do what. An object shown is never modified.
package dynamic

import (
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/sampan-dev/sampan/apiserver/request"
)

// Deps are what judging a request takes.
type Deps struct {
	Back       request.Backend
	Catalog    request.Catalog
	Authorizer request.Authorizer
}

// Exempt says whether requests for a resource are kept from users' judgement.
func Exempt(gr schema.GroupResource) bool {
	switch gr.Group {
	case "admissionregistration.k8s.io", "authorization.k8s.io", "authentication.k8s.io":
		return true
	}
	return false
}
