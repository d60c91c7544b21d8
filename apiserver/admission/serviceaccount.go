package admission

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/utils/ptr"

	"github.com/sampan-dev/sampan/apiserver/request"
	"github.com/sampan-dev/sampan/kit/clock"
)

const (
	defaultAccount = "default"
	tokenMount     = "/var/run/secrets/kubernetes.io/serviceaccount"
	tokenVolume    = "kube-api-access-"
	// boundTokenLife asks for a little more than an hour, by which the issuer
	// recognises automatically mounted tokens.
	boundTokenLife = 60*60 + 7
	rootCAConfig   = "kube-root-ca.crt"
	// enforceMountable makes an account's secrets the only ones its pods may use.
	enforceMountable = "kubernetes.io/enforce-mountable-secrets"

	// A namespace's default account is made by a controller moments after the
	// namespace: pods created together with it wait that long.
	accountTries = 10
	accountPause = 100 * time.Millisecond
)

// serviceAccount gives every pod an account, and the account's token to its containers.
type serviceAccount struct{ back request.Backend }

func (*serviceAccount) Name() string { return "ServiceAccount" }

func (*serviceAccount) Handles(op request.Operation) bool { return onCreateUpdate{}.Handles(op) }

func (p *serviceAccount) Mutate(ctx context.Context, a *request.Attributes) error {
	pod, ok := of[*corev1.Pod](a)
	if !ok || a.Operation != request.Create {
		return nil
	}
	if _, mirror := pod.Annotations[corev1.MirrorPodAnnotationKey]; mirror {
		return nil
	}
	if pod.Spec.ServiceAccountName == "" {
		pod.Spec.ServiceAccountName = defaultAccount
	}
	pod.Spec.DeprecatedServiceAccount = pod.Spec.ServiceAccountName
	sa, err := p.account(ctx, a.Namespace, pod.Spec.ServiceAccountName)
	if err != nil {
		return forbidf(a, "error looking up service account %s/%s: %w", a.Namespace, pod.Spec.ServiceAccountName, err)
	}
	if wantsToken(sa, pod) {
		mountToken(pod)
	}
	if len(pod.Spec.ImagePullSecrets) == 0 {
		pod.Spec.ImagePullSecrets = slices.Clone(sa.ImagePullSecrets)
	}
	return nil
}

func (p *serviceAccount) Validate(ctx context.Context, a *request.Attributes) error {
	pod, ok := of[*corev1.Pod](a)
	if !ok || a.Operation != request.Create {
		return nil
	}
	if _, mirror := pod.Annotations[corev1.MirrorPodAnnotationKey]; mirror {
		if pod.Spec.ServiceAccountName != "" {
			return forbid(a, errors.New("a mirror pod may not reference service accounts"))
		}
		for _, v := range pod.Spec.Volumes {
			if v.Projected == nil {
				continue
			}
			for _, s := range v.Projected.Sources {
				if s.ServiceAccountToken != nil {
					return forbid(a, errors.New("a mirror pod may not use ServiceAccountToken volume projections"))
				}
			}
		}
		return nil
	}
	sa, err := p.account(ctx, a.Namespace, pod.Spec.ServiceAccountName)
	if err != nil {
		return forbidf(a, "error looking up service account %s/%s: %w", a.Namespace, pod.Spec.ServiceAccountName, err)
	}
	if sa.Annotations[enforceMountable] != "true" {
		return nil
	}
	if err := mountable(sa, pod); err != nil {
		return forbid(a, err)
	}
	return nil
}

func (p *serviceAccount) account(ctx context.Context, namespace, name string) (*corev1.ServiceAccount, error) {
	for try := 1; ; try++ {
		obj, err := p.back.Get(ctx, core("serviceaccounts"), namespace, name)
		if err == nil {
			sa, ok := obj.(*corev1.ServiceAccount)
			if !ok {
				return nil, fmt.Errorf("unexpected type %T", obj)
			}
			return sa, nil
		}
		if !apierrors.IsNotFound(err) {
			return nil, err
		}
		err = apierrors.NewNotFound(core("serviceaccount"), name)
		// Only the default account comes by itself.
		if name != defaultAccount || try == accountTries || clock.Sleep(ctx, accountPause) != nil {
			return nil, err
		}
	}
}

func wantsToken(sa *corev1.ServiceAccount, pod *corev1.Pod) bool {
	if b := pod.Spec.AutomountServiceAccountToken; b != nil {
		return *b
	}
	return sa.AutomountServiceAccountToken == nil || *sa.AutomountServiceAccountToken
}

// mountToken adds the token volume to all containers that have nothing at its place.
func mountToken(pod *corev1.Pod) {
	name, has := "", false
	for _, v := range pod.Spec.Volumes {
		if len(v.Name) > len(tokenVolume) && v.Name[:len(tokenVolume)] == tokenVolume {
			name, has = v.Name, true
			break
		}
	}
	if !has {
		name = freshName(pod)
	}
	used := false
	mount := func(list []corev1.Container) {
		for i := range list {
			if slices.ContainsFunc(list[i].VolumeMounts, func(m corev1.VolumeMount) bool { return m.MountPath == tokenMount }) {
				continue
			}
			list[i].VolumeMounts = append(list[i].VolumeMounts, corev1.VolumeMount{Name: name, ReadOnly: true, MountPath: tokenMount})
			used = true
		}
	}
	mount(pod.Spec.InitContainers)
	mount(pod.Spec.Containers)
	if used && !has {
		pod.Spec.Volumes = append(pod.Spec.Volumes, corev1.Volume{Name: name, VolumeSource: corev1.VolumeSource{Projected: tokenProjection()}})
	}
}

func freshName(pod *corev1.Pod) string {
	const letters = "bcdfghjklmnpqrstvwxz2456789"
	r := clock.Rand(clock.Seed())
	for {
		b := make([]byte, 5)
		for i := range b {
			b[i] = letters[r.IntN(len(letters))]
		}
		name := tokenVolume + string(b)
		if !slices.ContainsFunc(pod.Spec.Volumes, func(v corev1.Volume) bool { return v.Name == name }) {
			return name
		}
	}
}

func tokenProjection() *corev1.ProjectedVolumeSource {
	return &corev1.ProjectedVolumeSource{
		DefaultMode: ptr.To(corev1.ProjectedVolumeSourceDefaultMode),
		Sources: []corev1.VolumeProjection{
			{ServiceAccountToken: &corev1.ServiceAccountTokenProjection{Path: "token", ExpirationSeconds: ptr.To[int64](boundTokenLife)}},
			{ConfigMap: &corev1.ConfigMapProjection{
				LocalObjectReference: corev1.LocalObjectReference{Name: rootCAConfig},
				Items:                []corev1.KeyToPath{{Key: "ca.crt", Path: "ca.crt"}},
			}},
			{DownwardAPI: &corev1.DownwardAPIProjection{Items: []corev1.DownwardAPIVolumeFile{{
				Path: "namespace", FieldRef: &corev1.ObjectFieldSelector{APIVersion: "v1", FieldPath: "metadata.namespace"},
			}}}},
		},
	}
}

// mountable refuses secrets that the account does not list.
func mountable(sa *corev1.ServiceAccount, pod *corev1.Pod) error {
	listed := func(name string) bool {
		return slices.ContainsFunc(sa.Secrets, func(r corev1.ObjectReference) bool { return r.Name == name })
	}
	for _, v := range pod.Spec.Volumes {
		if v.Secret != nil && !listed(v.Secret.SecretName) {
			return fmt.Errorf("volume with secret.secretName=%q is not allowed because service account %s does not reference that secret", v.Secret.SecretName, sa.Name)
		}
	}
	for _, c := range slices.Concat(pod.Spec.InitContainers, pod.Spec.Containers) {
		for _, e := range c.Env {
			if e.ValueFrom != nil && e.ValueFrom.SecretKeyRef != nil && !listed(e.ValueFrom.SecretKeyRef.Name) {
				return fmt.Errorf("container %s with envVar %s referencing secret.secretName=%q is not allowed because service account %s does not reference that secret", c.Name, e.Name, e.ValueFrom.SecretKeyRef.Name, sa.Name)
			}
		}
		for _, e := range c.EnvFrom {
			if e.SecretRef != nil && !listed(e.SecretRef.Name) {
				return fmt.Errorf("container %s with envFrom referencing secret.secretName=%q is not allowed because service account %s does not reference that secret", c.Name, e.SecretRef.Name, sa.Name)
			}
		}
	}
	for _, s := range pod.Spec.ImagePullSecrets {
		if !slices.Contains(sa.ImagePullSecrets, s) {
			return fmt.Errorf("imagePullSecrets[%d].name=%q is not allowed because service account %s does not reference that imagePullSecret", slices.Index(pod.Spec.ImagePullSecrets, s), s.Name, sa.Name)
		}
	}
	return nil
}
