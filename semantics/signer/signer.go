// Package signer judges the names of those who sign certificates.
//
// Job: what a signer's name looks like, and which are Kubernetes' own.
//
// Not its job: signing.
//
// Invariants: pure.
package signer

import (
	"fmt"
	"strings"

	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// Kubernetes says whether a name belongs to Kubernetes itself.
func Kubernetes(name string) bool {
	domain, _, _ := strings.Cut(name, "/")
	return domain == "kubernetes.io" || strings.HasSuffix(domain, ".kubernetes.io")
}

// Validate wants a domain and a path: example.com/signer-name.
func Validate(name string, at *field.Path) (errs field.ErrorList) {
	if name == "" {
		return field.ErrorList{field.Required(at, "")}
	}
	domain, rest, ok := strings.Cut(name, "/")
	if !ok || strings.Contains(rest, "/") {
		return field.ErrorList{field.Invalid(at, name, `must be a fully qualified domain and path of the form "example.com/signer-name"`)}
	}
	if len(domain) > validation.DNS1123SubdomainMaxLength {
		errs = append(errs, field.TooLong(at, "", validation.DNS1123SubdomainMaxLength))
	}
	labels := strings.Split(domain, ".")
	for _, l := range labels {
		for _, msg := range validation.IsDNS1123Label(l) {
			errs = append(errs, field.Invalid(at, domain, fmt.Sprintf("validating label %q: %s", l, msg)))
		}
	}
	if len(labels) < 2 {
		errs = append(errs, field.Invalid(at, domain, "should be a domain with at least two segments separated by dots"))
	}
	for l := range strings.SplitSeq(rest, ".") {
		for _, msg := range validation.IsDNS1123Subdomain(l) {
			errs = append(errs, field.Invalid(at, rest, fmt.Sprintf("validating label %q: %s", l, msg)))
		}
	}
	return errs
}
