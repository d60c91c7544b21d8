package resource

import "k8s.io/apimachinery/pkg/util/validation/field"

// StatusSub is the ordinary status subresource: keep puts back all that is not
// status, and appliers of it own neither spec nor what resets adds.
func StatusSub[T any](keep func(next, prev *T), validate func(next, prev *T) field.ErrorList, resets ...string) Sub[T] {
	return Sub[T]{
		Name:        "status",
		Prepare:     func(_ *Request, next, prev *T) { keep(next, prev) },
		Validate:    validate,
		ResetFields: append([]string{"spec"}, resets...),
	}
}
