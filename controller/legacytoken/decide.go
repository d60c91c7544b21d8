package legacytoken

import (
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
)

// Upstream's names.
const (
	lastUsed     = "kubernetes.io/legacy-token-last-used"
	invalidSince = "kubernetes.io/legacy-token-invalid-since"
	date         = time.DateOnly

	trackingName = "kube-apiserver-legacy-service-account-token-tracking"
	trackingKey  = "since"
)

// verdict is what is to happen to a token.
type verdict int

const (
	keep verdict = iota
	mark         // it is no longer accepted
	remove
)

// judge says what happens to an account's token: one made by the system, that
// nothing has used for so long and no pod mounts, is first marked, then removed.
func judge(s *corev1.Secret, account *corev1.ServiceAccount, mounted bool, unused time.Duration, now time.Time) verdict {
	limit := now.Add(-unused)
	if s.Type != corev1.SecretTypeServiceAccountToken || s.DeletionTimestamp != nil || !s.CreationTimestamp.Time.Before(limit) || mounted || !byMachine(s, account) {
		return keep
	}
	if text, ok := s.Labels[lastUsed]; ok {
		if _, err := time.Parse(date, text); err != nil || text >= limit.Format(date) {
			return keep
		}
	}
	switch since := s.Labels[invalidSince]; {
	case !isDate(since):
		return mark
	case since >= limit.Format(date):
		return keep
	}
	return remove
}

func isDate(s string) bool {
	_, err := time.Parse(date, s)
	return err == nil
}

// byMachine says whether a token was made for its account: those are listed there.
func byMachine(s *corev1.Secret, a *corev1.ServiceAccount) bool {
	if a == nil {
		return false
	}
	if uid := s.Annotations[corev1.ServiceAccountUIDKey]; uid != "" && uid != string(a.UID) {
		return false
	}
	return slices.ContainsFunc(a.Secrets, func(r corev1.ObjectReference) bool { return r.Name == s.Name })
}

// trackedSince is when use has surely been recorded: from the day after it began.
func trackedSince(m *corev1.ConfigMap) (time.Time, error) {
	t, err := time.Parse(date, m.Data[trackingKey])
	return t.AddDate(0, 0, 1), err
}

// mounts says whether a pod names a secret.
func mounts(p *corev1.Pod, name string) bool {
	s := &p.Spec
	if slices.ContainsFunc(s.ImagePullSecrets, func(r corev1.LocalObjectReference) bool { return r.Name == name }) {
		return true
	}
	for _, v := range s.Volumes {
		if v.Secret != nil && v.Secret.SecretName == name {
			return true
		}
		if v.Projected == nil {
			continue
		}
		for _, src := range v.Projected.Sources {
			if src.Secret != nil && src.Secret.Name == name {
				return true
			}
		}
	}
	env := func(list []corev1.EnvVar, from []corev1.EnvFromSource) bool {
		return slices.ContainsFunc(list, func(e corev1.EnvVar) bool {
			return e.ValueFrom != nil && e.ValueFrom.SecretKeyRef != nil && e.ValueFrom.SecretKeyRef.Name == name
		}) || slices.ContainsFunc(from, func(e corev1.EnvFromSource) bool { return e.SecretRef != nil && e.SecretRef.Name == name })
	}
	for _, c := range slices.Concat(s.InitContainers, s.Containers) {
		if env(c.Env, c.EnvFrom) {
			return true
		}
	}
	return slices.ContainsFunc(s.EphemeralContainers, func(c corev1.EphemeralContainer) bool { return env(c.Env, c.EnvFrom) })
}
