// Package secret defines the Secret kind.
//
// Job: defaults, rules and columns of core/v1 Secret, and what each well-known
// type of secret must hold.
//
// Not its job: encryption at rest, issuing tokens.
//
// Invariants: the type never changes; stringData is folded into data before an
// object is stored and is never shown.
package secret

import (
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/sampan-dev/sampan/resource"
)

// Kind returns the definition.
func Kind() resource.Kind {
	return resource.Erase(&resource.Def[corev1.Secret]{
		Version: "v1", Kind: "Secret", Plural: "secrets",
		Default: setDefaults, Prepare: prepare, Validate: validate, Warnings: warnings,
		Columns: []resource.Column[corev1.Secret]{
			resource.NameColumn[corev1.Secret](),
			{
				Name: "Type", Description: resource.Doc(corev1.Secret{}, "type"),
				Cell: func(s *corev1.Secret, _ time.Time) any { return string(s.Type) },
			},
			{
				Name: "Data", Description: resource.Doc(corev1.Secret{}, "data"),
				Cell: func(s *corev1.Secret, _ time.Time) any { return int64(len(s.Data)) },
			},
			resource.AgeColumn[corev1.Secret](),
		},
		Selectable: map[string]func(*corev1.Secret) string{
			"type": func(s *corev1.Secret) string { return string(s.Type) },
		},
		Unconditional: true,
	})
}

// setDefaults names the type and folds stringData, which wins over data.
func setDefaults(s *corev1.Secret) {
	if s.Type == "" {
		s.Type = corev1.SecretTypeOpaque
	}
	if len(s.StringData) == 0 {
		s.StringData = nil
		return
	}
	if s.Data == nil {
		s.Data = map[string][]byte{}
	}
	for k, v := range s.StringData {
		s.Data[k] = []byte(v)
	}
	s.StringData = nil
}

// prepare keeps the old type when an update leaves it out; the default made it
// Opaque, so only that is forgiven.
func prepare(_ *resource.Request, next, prev *corev1.Secret) {
	if prev != nil && next.Type == "" {
		next.Type = prev.Type
	}
}
