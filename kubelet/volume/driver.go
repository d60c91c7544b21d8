package volume

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
)

// inline mounts a volume that the pod itself describes and that lives as long.
func (m *Manager) inline(ctx context.Context, pod *corev1.Pod, v *corev1.Volume) (Volume, error) {
	if m.drivers == nil {
		return Volume{}, errors.New("no volume plugin matched")
	}
	src := &corev1.CSIPersistentVolumeSource{Driver: v.CSI.Driver, VolumeHandle: m.drivers.Inline(pod, v.Name), VolumeAttributes: v.CSI.VolumeAttributes}
	if v.CSI.FSType != nil {
		src.FSType = *v.CSI.FSType
	}
	if r := v.CSI.NodePublishSecretRef; r != nil {
		src.NodePublishSecretRef = &corev1.SecretReference{Name: r.Name, Namespace: pod.Namespace}
	}
	at := Volume{ReadOnly: v.CSI.ReadOnly != nil && *v.CSI.ReadOnly}
	path, err := m.driven(ctx, &DriverVolume{Pod: pod, Name: v.Name, Source: src, ReadOnly: at.ReadOnly, Inline: true})
	at.Path = path
	return at, err
}

// DriverDir is where a pod keeps a driver's volume.
func (m *Manager) DriverDir(uid types.UID, name string) string { return m.dir(uid, "csi", name) }

// driven has a driver mount a volume, once in the agent's life.
func (m *Manager) driven(ctx context.Context, v *DriverVolume) (string, error) {
	if m.drivers == nil {
		return "", errors.New("no volume plugin matched")
	}
	v.Dir = m.DriverDir(v.Pod.UID, v.Name)
	m.mu.Lock()
	path, ok := m.mounted[v.Dir]
	m.mu.Unlock()
	if ok {
		return path, nil
	}
	path, give, err := m.drivers.Mount(ctx, v)
	if err != nil {
		return "", err
	}
	if give {
		if err := own(path, v.Pod, false); err != nil {
			return "", err
		}
	}
	m.mu.Lock()
	m.mounted[v.Dir] = path
	m.mu.Unlock()
	return path, nil
}

// undriveWithin bounds how long drivers may take to let go of a pod's volumes.
const undriveWithin = 2 * time.Minute

// undrive has the drivers take a pod's volumes away.
func (m *Manager) undrive(uid types.UID) error {
	dirs, err := filepath.Glob(m.dir(uid, "csi", "*"))
	if err != nil || m.drivers == nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), undriveWithin)
	defer cancel()
	for _, dir := range dirs {
		if err := m.drivers.Unmount(ctx, uid, dir); err != nil {
			return err
		}
		m.mu.Lock()
		delete(m.mounted, dir)
		m.mu.Unlock()
	}
	m.drivers.Release(uid)
	return nil
}

// Release has the drivers take away the volumes of a pod that is over but still
// there, so that another node can have them.
func (m *Manager) Release(uid types.UID) error {
	if err := m.undrive(uid); err != nil {
		return fmt.Errorf("release: pod %s: %w", uid, err)
	}
	return nil
}
