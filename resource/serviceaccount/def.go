// Package serviceaccount defines the ServiceAccount kind.
//
// Job: rules and columns of core/v1 ServiceAccount, and the existence of its
// token subresource.
//
// Not its job: signing tokens (the API server's authentication).
//
// Invariants: secrets and imagePullSecrets are kept as the user wrote them.
package serviceaccount

import (
	"time"

	corev1 "k8s.io/api/core/v1"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/sampan-dev/sampan/resource"
)

// mountableSecrets is the annotation of a retired protection.
const mountableSecrets = "kubernetes.io/enforce-mountable-secrets"

// Kind returns the definition.
func Kind() resource.Kind {
	return resource.Erase(&resource.Def[corev1.ServiceAccount]{
		Version: "v1", Kind: "ServiceAccount", Plural: "serviceaccounts",
		Short: []string{"sa"}, Name: apivalidation.NameIsDNSSubdomain,
		Prepare:  prepare,
		Warnings: warnings,
		Connects: []resource.Connect{{
			Name:  "token",
			Kind:  schema.GroupVersionKind{Group: "authentication.k8s.io", Version: "v1", Kind: "TokenRequest"},
			Verbs: []string{"create"},
		}},
		Columns: []resource.Column[corev1.ServiceAccount]{
			resource.NameColumn[corev1.ServiceAccount](),
			{
				Name: "Secrets", Description: resource.Doc(corev1.ServiceAccount{}, "secrets"),
				Cell: func(a *corev1.ServiceAccount, _ time.Time) any { return int64(len(a.Secrets)) },
			},
			resource.AgeColumn[corev1.ServiceAccount](),
		},
		Unconditional: true,
	})
}

// prepare keeps of each secret its name alone.
func prepare(_ *resource.Request, next, _ *corev1.ServiceAccount) {
	if len(next.Secrets) == 0 {
		return
	}
	secrets := make([]corev1.ObjectReference, len(next.Secrets))
	for i, s := range next.Secrets {
		secrets[i] = corev1.ObjectReference{Name: s.Name}
	}
	next.Secrets = secrets
}

func warnings(next, prev *corev1.ServiceAccount) []string {
	if _, has := next.Annotations[mountableSecrets]; !has {
		return nil
	}
	if prev != nil {
		if _, had := prev.Annotations[mountableSecrets]; had {
			return nil
		}
	}
	return []string{"metadata.annotations[" + mountableSecrets + "]: deprecated in v1.32+; prefer separate namespaces to isolate access to mounted secrets"}
}
