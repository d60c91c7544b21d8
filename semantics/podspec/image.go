package podspec

import (
	"strings"

	corev1 "k8s.io/api/core/v1"
)

// pullPolicy is Always for images that may change under their name.
func pullPolicy(image string) corev1.PullPolicy {
	if imageTag(image) == "latest" {
		return corev1.PullAlways
	}
	return corev1.PullIfNotPresent
}

// imageTag is the tag of an image reference: "latest" when it has neither tag
// nor digest, "" when it has only a digest or is no reference.
func imageTag(image string) string {
	name, _, digested := strings.Cut(image, "@")
	if name == "" || strings.ContainsAny(name, " \t\n") {
		return ""
	}
	rest := name
	if first, after, ok := strings.Cut(name, "/"); ok && (strings.ContainsAny(first, ".:") || first == "localhost" || first != strings.ToLower(first)) {
		rest = after
	}
	repository, tag, tagged := strings.Cut(rest, ":")
	switch {
	case repository == "" || repository != strings.ToLower(repository):
		return ""
	case tagged:
		return tag
	case digested:
		return ""
	}
	return "latest"
}
