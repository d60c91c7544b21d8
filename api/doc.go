// Package api is the language: the types every room speaks, how they become
// bytes and how bytes become them.
//
// Job: the one scheme of all served types, codecs for JSON, YAML and protobuf,
// and the Object interface that all typed objects satisfy.
//
// Not its job: what is valid (resource), what is stored (storage), who may see
// it (apiserver).
//
// Invariants: the scheme never changes after the first call of Scheme; decoding
// bad input returns an error fit for a user and never panics.
package api

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
)

// Object is a typed API object: it has a kind and metadata.
type Object interface {
	runtime.Object
	metav1.Object
}
