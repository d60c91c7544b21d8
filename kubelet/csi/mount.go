package csi

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"

	spec "github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc/status"
	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"github.com/sampan-dev/sampan/client"
	"github.com/sampan-dev/sampan/semantics/volume"
)

// Request is one volume for one pod.
type Request struct {
	Pod      *corev1.Pod
	Name     string // of the volume as the driver's files are called: the PersistentVolume's, or the pod's own
	Source   *corev1.CSIPersistentVolumeSource
	Modes    []corev1.PersistentVolumeAccessMode
	Options  []string // of the mount
	Block    bool
	ReadOnly bool
	Inline   bool
	Dir      string // kubernetes.io~csi/NAME of the pod
	Root     string // of the agent's files
}

// Target is where the volume is found when it is mounted.
func (q *Request) Target() string {
	if q.Block {
		return filepath.Join(q.Root, "plugins/kubernetes.io/csi/volumeDevices/publish", q.Name, string(q.Pod.UID))
	}
	return filepath.Join(q.Dir, "mount")
}

func staging(root, driver, handle string) string {
	return filepath.Join(root, "plugins/kubernetes.io/csi", driver, fmt.Sprintf("%x", sha256.Sum256([]byte(handle))), "globalmount")
}

// Mount stages and publishes a volume. It may be called again for one that is
// mounted already: drivers must bear that. own says that the agent shall give
// the files to the pod's group, which the driver does not.
func (r *Registry) Mount(ctx context.Context, q *Request) (own bool, err error) {
	d, err := r.driver(q.Source.Driver)
	if err != nil {
		return false, err
	}
	policy, err := client.Of[storagev1.CSIDriver](r.c, "").Get(ctx, d.name)
	if err != nil && !apierrors.IsNotFound(err) {
		return false, err
	}
	if err != nil {
		policy = &storagev1.CSIDriver{}
	}
	data := Data{Driver: d.name, Handle: q.Source.VolumeHandle, Volume: q.Name, Lifecycle: "Persistent", Node: r.node}
	published := map[string]string(nil)
	if q.Inline {
		data.Lifecycle = "Ephemeral"
	} else if yes(policy.Spec.AttachRequired, true) {
		data.Attachment = volume.AttachmentName(data.Handle, d.name, r.node)
		if published, err = r.attached(ctx, q, data.Attachment); err != nil {
			return false, err
		}
	}
	defer r.lock(d.name, data.Handle)()
	if err := os.MkdirAll(q.Dir, 0o750); err != nil {
		return false, err
	}
	if err := write(q.Dir, data); err != nil { // first: whoever finds it takes all of it away
		return false, err
	}
	capability := q.capability(d)
	stage := ""
	if d.stages && !q.Inline {
		stage = staging(q.Root, d.name, data.Handle)
		if err := r.stage(ctx, d, q, stage, published, capability); err != nil {
			return false, err
		}
	}
	target := q.Target()
	if err := os.MkdirAll(filepath.Dir(target), 0o750); err != nil {
		return false, err
	}
	secrets, err := r.secrets(ctx, q.Source.NodePublishSecretRef)
	if err != nil {
		return false, err
	}
	_, err = d.node().NodePublishVolume(ctx, &spec.NodePublishVolumeRequest{
		VolumeId: data.Handle, PublishContext: published, StagingTargetPath: stage, TargetPath: target, VolumeCapability: capability,
		Readonly: q.ReadOnly, Secrets: secrets, VolumeContext: q.context(policy),
	})
	if err != nil {
		return false, fmt.Errorf("mounter.SetUpAt failed: %w", plain(err))
	}
	return !d.groups && q.owned(policy), nil
}

// owned says whether the driver wants its volumes given to a pod's group.
func (q *Request) owned(policy *storagev1.CSIDriver) bool {
	how := storagev1.ReadWriteOnceWithFSTypeFSGroupPolicy
	if policy.Spec.FSGroupPolicy != nil {
		how = *policy.Spec.FSGroupPolicy
	}
	switch how {
	case storagev1.FileFSGroupPolicy:
		return !q.ReadOnly && !q.Block
	case storagev1.NoneFSGroupPolicy:
		return false
	}
	once := slices.Contains(q.Modes, corev1.ReadWriteOnce) || slices.Contains(q.Modes, corev1.ReadWriteOncePod)
	return q.Source.FSType != "" && once && !q.ReadOnly && !q.Block
}

func (r *Registry) stage(ctx context.Context, d *driver, q *Request, stage string, published map[string]string, c *spec.VolumeCapability) error {
	if err := os.MkdirAll(stage, 0o750); err != nil {
		return err
	}
	secrets, err := r.secrets(ctx, q.Source.NodeStageSecretRef)
	if err != nil {
		return err
	}
	_, err = d.node().NodeStageVolume(ctx, &spec.NodeStageVolumeRequest{
		VolumeId: q.Source.VolumeHandle, PublishContext: published, StagingTargetPath: stage, VolumeCapability: c,
		Secrets: secrets, VolumeContext: q.Source.VolumeAttributes,
	})
	if err != nil {
		return fmt.Errorf("MountVolume.MountDevice failed: %w", plain(err))
	}
	return nil
}

func plain(err error) error { return errors.New(status.Convert(err).Message()) }

func yes(b *bool, or bool) bool {
	if b == nil {
		return or
	}
	return *b
}

func (r *Registry) secrets(ctx context.Context, ref *corev1.SecretReference) (map[string]string, error) {
	if ref == nil || ref.Name == "" {
		return nil, nil
	}
	s, err := client.Of[corev1.Secret](r.c, ref.Namespace).Get(ctx, ref.Name)
	if err != nil {
		return nil, fmt.Errorf("fetching the driver's secret %s/%s: %w", ref.Namespace, ref.Name, err)
	}
	out := map[string]string{}
	for k, v := range s.Data {
		out[k] = string(v)
	}
	return out, nil
}

// context is what the driver learns of the volume and, if it wants, of the pod.
func (q *Request) context(policy *storagev1.CSIDriver) map[string]string {
	out := maps.Clone(q.Source.VolumeAttributes)
	if out == nil {
		out = map[string]string{}
	}
	if yes(policy.Spec.PodInfoOnMount, false) {
		out["csi.storage.k8s.io/pod.name"], out["csi.storage.k8s.io/pod.namespace"] = q.Pod.Name, q.Pod.Namespace
		out["csi.storage.k8s.io/pod.uid"], out["csi.storage.k8s.io/serviceAccount.name"] = string(q.Pod.UID), q.Pod.Spec.ServiceAccountName
		out["csi.storage.k8s.io/ephemeral"] = strconv.FormatBool(q.Inline)
	}
	return out
}

func (q *Request) capability(d *driver) *spec.VolumeCapability {
	out := &spec.VolumeCapability{AccessMode: &spec.VolumeCapability_AccessMode{Mode: mode(q.Modes)}}
	if q.Block {
		out.AccessType = &spec.VolumeCapability_Block{Block: &spec.VolumeCapability_BlockVolume{}}
		return out
	}
	m := &spec.VolumeCapability_MountVolume{FsType: q.Source.FSType, MountFlags: q.Options}
	if s := q.Pod.Spec.SecurityContext; d.groups && s != nil && s.FSGroup != nil {
		m.VolumeMountGroup = strconv.FormatInt(*s.FSGroup, 10)
	}
	out.AccessType = &spec.VolumeCapability_Mount{Mount: m}
	return out
}

// mode is the widest of the access modes, in the driver's words.
func mode(modes []corev1.PersistentVolumeAccessMode) spec.VolumeCapability_AccessMode_Mode {
	best, rank := spec.VolumeCapability_AccessMode_SINGLE_NODE_WRITER, -1
	for _, m := range modes {
		for i, known := range []struct {
			api corev1.PersistentVolumeAccessMode
			csi spec.VolumeCapability_AccessMode_Mode
		}{
			{corev1.ReadWriteOncePod, spec.VolumeCapability_AccessMode_SINGLE_NODE_WRITER},
			{corev1.ReadWriteOnce, spec.VolumeCapability_AccessMode_SINGLE_NODE_WRITER},
			{corev1.ReadOnlyMany, spec.VolumeCapability_AccessMode_MULTI_NODE_READER_ONLY},
			{corev1.ReadWriteMany, spec.VolumeCapability_AccessMode_MULTI_NODE_MULTI_WRITER},
		} {
			if m == known.api && i > rank {
				best, rank = known.csi, i
			}
		}
	}
	return best
}

// Unmount takes a pod's volume away, and unstages it after its last pod. dir is
// the pod's directory of the volume, uid the pod's.
func (r *Registry) Unmount(ctx context.Context, root, uid, dir string) error {
	data, ok, err := Read(dir)
	if err != nil || !ok {
		return err
	}
	d, err := r.driver(data.Driver)
	if err != nil {
		return err
	}
	defer r.lock(d.name, data.Handle)()
	target := filepath.Join(dir, "mount")
	block := filepath.Join(root, "plugins/kubernetes.io/csi/volumeDevices/publish", data.Volume, uid)
	if _, err := os.Lstat(block); err == nil {
		target = block
	}
	if _, err := d.node().NodeUnpublishVolume(ctx, &spec.NodeUnpublishVolumeRequest{VolumeId: data.Handle, TargetPath: target}); err != nil {
		return fmt.Errorf("Unmounter.TearDownAt failed: %w", plain(err))
	}
	_ = os.Remove(target) // the driver should have
	if err := os.Remove(filepath.Join(dir, dataFile)); err != nil {
		return err
	}
	if !d.stages || data.Lifecycle == "Ephemeral" || r.used(root, data) {
		return nil
	}
	stage := staging(root, data.Driver, data.Handle)
	if _, err := d.node().NodeUnstageVolume(ctx, &spec.NodeUnstageVolumeRequest{VolumeId: data.Handle, StagingTargetPath: stage}); err != nil {
		return fmt.Errorf("UnmountDevice failed: %w", plain(err))
	}
	_ = os.Remove(stage)
	_ = os.Remove(filepath.Dir(stage))
	return nil
}

// used says whether another pod of the node has the volume, too.
func (r *Registry) used(root string, data Data) bool {
	dirs, err := filepath.Glob(filepath.Join(root, "pods/*/volumes/kubernetes.io~csi/*"))
	if err != nil {
		return true
	}
	for _, dir := range dirs {
		if o, ok, err := Read(dir); err != nil || ok && o.Driver == data.Driver && o.Handle == data.Handle {
			return true
		}
	}
	return false
}
