package image

import (
	"encoding/base64"
	"encoding/json"
	"path"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

type dockerAuth struct {
	Username      string `json:"username"`
	Password      string `json:"password"`
	Auth          string `json:"auth"`
	IdentityToken string `json:"identitytoken"`
}

// credentials returns what pull secrets hold for image, the most specific first.
func credentials(secrets []*corev1.Secret, image string) []*runtimeapi.AuthConfig {
	type match struct {
		key  string
		auth *runtimeapi.AuthConfig
	}
	var found []match
	for _, s := range secrets {
		entries := map[string]dockerAuth{}
		switch {
		case len(s.Data[corev1.DockerConfigJsonKey]) > 0:
			var f struct {
				Auths map[string]dockerAuth `json:"auths"`
			}
			if json.Unmarshal(s.Data[corev1.DockerConfigJsonKey], &f) == nil {
				entries = f.Auths
			}
		case len(s.Data[corev1.DockerConfigKey]) > 0:
			if json.Unmarshal(s.Data[corev1.DockerConfigKey], &entries) != nil {
				continue
			}
		}
		for k, a := range entries {
			if !covers(k, image) {
				continue
			}
			if raw, err := base64.StdEncoding.DecodeString(a.Auth); err == nil && a.Username == "" {
				a.Username, a.Password, _ = strings.Cut(strings.TrimSpace(string(raw)), ":")
			}
			found = append(found, match{k, &runtimeapi.AuthConfig{
				Username: a.Username, Password: a.Password, IdentityToken: a.IdentityToken, ServerAddress: k,
			}})
		}
	}
	slices.SortStableFunc(found, func(a, b match) int { return len(b.key) - len(a.key) })
	var out []*runtimeapi.AuthConfig
	for _, m := range found {
		out = append(out, m.auth)
	}
	return out
}

// covers says whether a registry key such as *.example.com/team speaks of image.
func covers(key, image string) bool {
	key = strings.TrimPrefix(strings.TrimPrefix(key, "https://"), "http://")
	key = strings.TrimSuffix(strings.TrimSuffix(strings.TrimSuffix(key, "/"), "/v1"), "/v2")
	host, rest, _ := strings.Cut(key, "/")
	first, tail, ok := strings.Cut(image, "/")
	if !ok || !strings.ContainsAny(first, ".:") && first != "localhost" {
		first, tail = "docker.io", image
	}
	if host == "index.docker.io" || host == "registry-1.docker.io" {
		host = "docker.io"
	}
	hp, ip := strings.Split(host, "."), strings.Split(first, ".")
	if len(hp) != len(ip) {
		return false
	}
	for i := range hp {
		if ok, err := path.Match(hp[i], ip[i]); err != nil || !ok {
			return false
		}
	}
	return rest == "" || strings.HasPrefix(tail, rest)
}
