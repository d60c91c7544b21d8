package serviceaccounttoken

import (
	"bytes"
	"slices"

	corev1 "k8s.io/api/core/v1"
)

// want is what a Secret lacks.
type want struct{ token, ca, namespace bool }

func (w want) nothing() bool { return !w.token && !w.ca && !w.namespace }

func lacks(s *corev1.Secret, ca []byte) want {
	return want{
		token:     len(s.Data[corev1.ServiceAccountTokenKey]) == 0,
		ca:        len(ca) > 0 && !bytes.Equal(s.Data[corev1.ServiceAccountRootCAKey], ca),
		namespace: len(s.Data[corev1.ServiceAccountNamespaceKey]) == 0,
	}
}

// orphaned says whether a Secret's account is gone, or is another of its name.
func orphaned(s *corev1.Secret, account *corev1.ServiceAccount) bool {
	if account == nil {
		return true
	}
	uid := s.Annotations[corev1.ServiceAccountUIDKey]
	return uid != "" && uid != string(account.UID)
}

// fill returns the Secret with what it lacked.
func fill(s *corev1.Secret, account *corev1.ServiceAccount, w want, token string, ca []byte) *corev1.Secret {
	next := s.DeepCopy()
	if next.Annotations == nil {
		next.Annotations = map[string]string{}
	}
	if next.Data == nil {
		next.Data = map[string][]byte{}
	}
	if w.token {
		next.Data[corev1.ServiceAccountTokenKey] = []byte(token)
	}
	if w.ca {
		next.Data[corev1.ServiceAccountRootCAKey] = ca
	}
	if w.namespace {
		next.Data[corev1.ServiceAccountNamespaceKey] = []byte(s.Namespace)
	}
	next.Annotations[corev1.ServiceAccountNameKey] = account.Name
	next.Annotations[corev1.ServiceAccountUIDKey] = string(account.UID)
	return next
}

// without is the account without a reference to a Secret, or nil when it has none.
func without(a *corev1.ServiceAccount, secret string) *corev1.ServiceAccount {
	is := func(r corev1.ObjectReference) bool { return r.Name == secret }
	if !slices.ContainsFunc(a.Secrets, is) {
		return nil
	}
	next := a.DeepCopy()
	next.Secrets = slices.DeleteFunc(next.Secrets, is)
	return next
}
