package volume

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"golang.org/x/sys/unix"

	"github.com/sampan-dev/sampan/kit/clock"
)

// File is one projected file.
type File struct {
	Data []byte
	Mode int32
	UID  *int64
}

// project makes the files of a volume that shows API objects.
func (m *Manager) project(ctx context.Context, pod *corev1.Pod, v *corev1.Volume) (string, error) {
	plugin, mode := "projected", int32(0o644)
	var files map[string]File
	var err error
	or := func(p *int32) int32 {
		if p != nil {
			return *p
		}
		return mode
	}
	switch {
	case v.ConfigMap != nil:
		plugin = "configmap"
		files, err = m.configMap(ctx, pod.Namespace, v.ConfigMap.Name, v.ConfigMap.Items, or(v.ConfigMap.DefaultMode), isTrue(v.ConfigMap.Optional))
	case v.Secret != nil:
		plugin = "secret"
		files, err = m.secret(ctx, pod.Namespace, v.Secret.SecretName, v.Secret.Items, or(v.Secret.DefaultMode), isTrue(v.Secret.Optional))
	case v.DownwardAPI != nil:
		plugin = "downward-api"
		files, err = m.downward(pod, v.DownwardAPI.Items, or(v.DownwardAPI.DefaultMode))
	default:
		files, err = m.sources(ctx, pod, v, or(v.Projected.DefaultMode))
	}
	if err != nil {
		return "", err
	}
	path := m.dir(pod.UID, plugin, v.Name)
	if err := os.MkdirAll(path, 0o777); err != nil {
		return "", err
	}
	if v.Secret != nil || v.Projected != nil { // secrets stay in memory where the kernel lets us
		if !mounted(path) {
			if err := unix.Mount("tmpfs", path, "tmpfs", 0, ""); err != nil && !errors.Is(err, unix.EPERM) {
				return "", fmt.Errorf("mount tmpfs: %w", err)
			}
		}
	}
	if err := os.Chmod(path, 0o777); err != nil {
		return "", err
	}
	changed, err := WriteAtomic(path, files)
	if err != nil {
		return "", err
	}
	if changed {
		err = own(path, pod, true)
	}
	return path, err
}

func isTrue(b *bool) bool { return b != nil && *b }

func (m *Manager) sources(ctx context.Context, pod *corev1.Pod, v *corev1.Volume, mode int32) (map[string]File, error) {
	all := map[string]File{}
	for _, s := range v.Projected.Sources {
		var files map[string]File
		var err error
		switch {
		case s.ConfigMap != nil:
			files, err = m.configMap(ctx, pod.Namespace, s.ConfigMap.Name, s.ConfigMap.Items, mode, isTrue(s.ConfigMap.Optional))
		case s.Secret != nil:
			files, err = m.secret(ctx, pod.Namespace, s.Secret.Name, s.Secret.Items, mode, isTrue(s.Secret.Optional))
		case s.DownwardAPI != nil:
			files, err = m.downward(pod, s.DownwardAPI.Items, mode)
		case s.ServiceAccountToken != nil:
			var value string
			value, err = m.token(ctx, pod, s.ServiceAccountToken)
			f := File{Data: []byte(value), Mode: mode}
			// One user alone runs the pod: only it may read the token; a group may if there is one.
			if sc := pod.Spec.SecurityContext; sc != nil && sc.FSGroup != nil {
				f.Mode = 0o600
			} else if uid := onlyUser(pod); uid != nil {
				f.Mode, f.UID = 0o600, uid
			}
			files = map[string]File{s.ServiceAccountToken.Path: f}
		default:
			err = errors.New("unsupported projected source")
		}
		if err != nil {
			return nil, err
		}
		maps.Copy(all, files)
	}
	return all, nil
}

// onlyUser returns the user that all containers run as, if it is one and known.
func onlyUser(pod *corev1.Pod) *int64 {
	var user *int64
	for _, list := range [][]corev1.Container{pod.Spec.InitContainers, pod.Spec.Containers} {
		for i := range list {
			var u *int64
			if s := pod.Spec.SecurityContext; s != nil {
				u = s.RunAsUser
			}
			if s := list[i].SecurityContext; s != nil && s.RunAsUser != nil {
				u = s.RunAsUser
			}
			if u == nil || user != nil && *u != *user {
				return nil
			}
			user = u
		}
	}
	return user
}

// token returns a bound token of the pod's service account, renewed when four
// fifths of its life have passed, or a day.
func (m *Manager) token(ctx context.Context, pod *corev1.Pod, p *corev1.ServiceAccountTokenProjection) (string, error) {
	seconds := int64(3600)
	if p.ExpirationSeconds != nil {
		seconds = *p.ExpirationSeconds
	}
	key := fmt.Sprintf("%s/%s/%s/%d", pod.UID, pod.Spec.ServiceAccountName, p.Audience, seconds)
	now := clock.Now()
	m.mu.Lock()
	t, ok := m.tokens[key]
	m.mu.Unlock()
	if ok && now.Before(t.refresh) {
		return t.value, nil
	}
	req := &authenticationv1.TokenRequest{Spec: authenticationv1.TokenRequestSpec{
		ExpirationSeconds: &seconds,
		BoundObjectRef:    &authenticationv1.BoundObjectReference{APIVersion: "v1", Kind: "Pod", Name: pod.Name, UID: pod.UID},
	}}
	if p.Audience != "" {
		req.Spec.Audiences = []string{p.Audience}
	}
	got, err := m.src.Token(ctx, pod.Namespace, pod.Spec.ServiceAccountName, req)
	if err != nil {
		if ok && now.Before(t.expires) {
			return t.value, nil // an old one is better than none
		}
		return "", fmt.Errorf("failed to fetch token: %w", err)
	}
	expires := got.Status.ExpirationTimestamp.Time
	life := expires.Sub(now)
	if got.Spec.ExpirationSeconds != nil {
		life = time.Duration(*got.Spec.ExpirationSeconds) * time.Second
	}
	t = token{got.Status.Token, expires, now.Add(min(life*8/10, 24*time.Hour))}
	m.mu.Lock()
	m.tokens[key] = t
	m.mu.Unlock()
	return t.value, nil
}

func (m *Manager) configMap(ctx context.Context, ns, name string, items []corev1.KeyToPath, mode int32, optional bool) (map[string]File, error) {
	cm, err := m.src.ConfigMap(ctx, ns, name)
	if err != nil {
		if apierrors.IsNotFound(err) {
			if optional {
				return nil, nil
			}
			return nil, fmt.Errorf("configmap %q not found", name)
		}
		return nil, err
	}
	data := map[string][]byte{}
	for k, v := range cm.Data {
		data[k] = []byte(v)
	}
	maps.Copy(data, cm.BinaryData)
	return pick(data, items, mode, optional, "configmap")
}

func (m *Manager) secret(ctx context.Context, ns, name string, items []corev1.KeyToPath, mode int32, optional bool) (map[string]File, error) {
	s, err := m.src.Secret(ctx, ns, name)
	if err != nil {
		if apierrors.IsNotFound(err) {
			if optional {
				return nil, nil
			}
			return nil, fmt.Errorf("secret %q not found", name)
		}
		return nil, err
	}
	return pick(s.Data, items, mode, optional, "secret")
}

// pick chooses keys and their paths; no items are all keys under their names.
func pick(data map[string][]byte, items []corev1.KeyToPath, mode int32, optional bool, kind string) (map[string]File, error) {
	out := map[string]File{}
	if items == nil {
		for k, v := range data {
			out[k] = File{Data: v, Mode: mode}
		}
		return out, nil
	}
	for _, it := range items {
		v, ok := data[it.Key]
		if !ok {
			if optional {
				continue
			}
			return nil, fmt.Errorf("references non-existent %s key: %s", kind, it.Key)
		}
		f := File{Data: v, Mode: mode}
		if it.Mode != nil {
			f.Mode = *it.Mode
		}
		out[it.Path] = f
	}
	return out, nil
}

func (m *Manager) downward(pod *corev1.Pod, items []corev1.DownwardAPIVolumeFile, mode int32) (map[string]File, error) {
	out := map[string]File{}
	for _, it := range items {
		var v string
		var err error
		if it.FieldRef != nil {
			v, err = m.src.Field(pod, it.FieldRef.FieldPath)
		} else if it.ResourceFieldRef != nil {
			v, err = m.src.Resource(pod, it.ResourceFieldRef)
		}
		if err != nil {
			return nil, err
		}
		f := File{Data: []byte(v), Mode: mode}
		if it.Mode != nil {
			f.Mode = *it.Mode
		}
		out[it.Path] = f
	}
	return out, nil
}

const (
	dataLink = "..data"
	tempLink = "..data_tmp"
)

// WriteAtomic makes dir show exactly files: they are written to a fresh
// directory, which one rename of the ..data link puts in the old one's place.
// It says whether anything changed.
func WriteAtomic(dir string, files map[string]File) (bool, error) {
	for p := range files {
		if err := safePath(p); err != nil {
			return false, err
		}
	}
	old, err := os.Readlink(filepath.Join(dir, dataLink))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return false, err
	}
	if old != "" && same(filepath.Join(dir, old), files) {
		return false, nil
	}
	fresh, err := os.MkdirTemp(dir, clock.Now().UTC().Format("..2006_01_02_15_04_05."))
	if err != nil {
		return false, err
	}
	if err := fill(fresh, files); err != nil {
		return false, errors.Join(err, os.RemoveAll(fresh))
	}
	temp := filepath.Join(dir, tempLink)
	_ = os.Remove(temp) // left by a crash
	if err := os.Symlink(filepath.Base(fresh), temp); err != nil {
		return false, errors.Join(err, os.RemoveAll(fresh))
	}
	if err := os.Rename(temp, filepath.Join(dir, dataLink)); err != nil {
		return false, errors.Join(err, os.Remove(temp), os.RemoveAll(fresh))
	}
	if err := linkTops(dir, files); err != nil {
		return false, err
	}
	if old != "" {
		return true, os.RemoveAll(filepath.Join(dir, old))
	}
	return true, nil
}

func safePath(p string) error {
	if p == "" || filepath.IsAbs(p) || !filepath.IsLocal(p) || strings.HasPrefix(p, "..") {
		return fmt.Errorf("invalid path: %q must be relative and must not contain or start with '..'", p)
	}
	return nil
}

func fill(dir string, files map[string]File) error {
	if err := os.Chmod(dir, 0o755); err != nil {
		return err
	}
	for p, f := range files {
		full := filepath.Join(dir, p)
		if err := os.MkdirAll(filepath.Dir(full), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(full, f.Data, 0o600); err != nil {
			return err
		}
		if err := os.Chmod(full, fs.FileMode(f.Mode)&fs.ModePerm); err != nil {
			return err
		}
		if f.UID != nil {
			if err := os.Chown(full, int(*f.UID), -1); err != nil {
				return err
			}
		}
	}
	return nil
}

// linkTops makes one link into ..data for each first path element and removes
// the links of those that are gone.
func linkTops(dir string, files map[string]File) error {
	tops := map[string]bool{}
	for p := range files {
		first, _, _ := strings.Cut(filepath.ToSlash(p), "/")
		tops[first] = true
	}
	for t := range tops {
		err := os.Symlink(filepath.Join(dataLink, t), filepath.Join(dir, t))
		if err != nil && !errors.Is(err, fs.ErrExist) {
			return err
		}
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if !strings.HasPrefix(e.Name(), "..") && !tops[e.Name()] {
			if err := os.Remove(filepath.Join(dir, e.Name())); err != nil {
				return err
			}
		}
	}
	return nil
}

// same says whether dir holds exactly files.
func same(dir string, files map[string]File) bool {
	var have []string
	err := filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.Type().IsRegular() {
			rel, err := filepath.Rel(dir, p)
			have = append(have, rel)
			return err
		}
		return nil
	})
	if err != nil || len(have) != len(files) {
		return false
	}
	return !slices.ContainsFunc(have, func(p string) bool {
		f, ok := files[p]
		if !ok {
			return true
		}
		data, err := os.ReadFile(filepath.Join(dir, p))
		return err != nil || !bytes.Equal(data, f.Data)
	})
}
