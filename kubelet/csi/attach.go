package csi

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"sync"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"github.com/sampan-dev/sampan/client"
	"github.com/sampan-dev/sampan/semantics/volume"
)

// waiting is an error that time mends: others are at work.
type waiting struct{ error }

// Waiting says so.
func (waiting) Waiting() bool { return true }

func (w waiting) Unwrap() error { return w.error }

// Recall takes in what pods of an earlier agent use. It is to be called before
// the Node's status is first written.
func (r *Registry) Recall() {
	dirs, err := filepath.Glob(filepath.Join(r.root, "pods/*/volumes/kubernetes.io~csi/*"))
	if err != nil {
		return
	}
	for _, dir := range dirs {
		if d, ok, err := Read(dir); err == nil && ok && d.Attachment != "" {
			r.use(volume.UniqueName(d.Driver, d.Handle), filepath.Base(filepath.Dir(filepath.Dir(filepath.Dir(dir)))))
		}
	}
}

// InUse lists the attachable volumes that pods of the node use or wait for.
func (r *Registry) InUse() []corev1.UniqueVolumeName {
	r.mu.Lock()
	defer r.mu.Unlock()
	var out []corev1.UniqueVolumeName
	for name := range r.uses {
		out = append(out, name)
	}
	slices.Sort(out)
	return out
}

func (r *Registry) use(name corev1.UniqueVolumeName, uid string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.uses[name] == nil {
		r.uses[name] = map[string]bool{}
	}
	r.uses[name][uid] = true
}

// Release says that a pod uses no volume any more; it says whether the node
// uses fewer now.
func (r *Registry) Release(uid string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	fewer := false
	for name, pods := range r.uses {
		delete(pods, uid)
		if len(pods) == 0 {
			delete(r.uses, name)
			fewer = true
		}
	}
	return fewer
}

// lock keeps others from a volume until the returned function is called: the
// last pod's leaving must not cross the next one's coming.
func (r *Registry) lock(driver, handle string) func() {
	r.mu.Lock()
	l := r.locks[driver+"^"+handle]
	if l == nil {
		l = &sync.Mutex{}
		r.locks[driver+"^"+handle] = l
	}
	r.mu.Unlock()
	l.Lock()
	return l.Unlock
}

// attached sees that a volume may be mounted, and returns what the driver's
// controller said of it. The Node says first that the volume is in use; that it
// is attached is believed only after that, for then nobody detaches it.
func (r *Registry) attached(ctx context.Context, q *Request, name string) (map[string]string, error) {
	unique := volume.UniqueName(q.Source.Driver, q.Source.VolumeHandle)
	r.use(unique, string(q.Pod.UID))
	n := r.host.Node()
	if n == nil || !slices.Contains(n.Status.VolumesInUse, unique) {
		var err error
		if n, err = r.host.Report(ctx); err != nil {
			return nil, fmt.Errorf("volume has not been added to the list of VolumesInUse in the node's volume status: %w", err)
		}
	}
	switch {
	case n == nil || !slices.Contains(n.Status.VolumesInUse, unique):
		return nil, waiting{errors.New("volume has not been added to the list of VolumesInUse in the node's volume status")}
	case !slices.ContainsFunc(n.Status.VolumesAttached, func(v corev1.AttachedVolume) bool { return v.Name == unique }):
		return nil, waiting{fmt.Errorf("volume %s is not yet in node's status", unique)}
	}
	a, err := client.Of[storagev1.VolumeAttachment](r.c, "").Get(ctx, name)
	switch {
	case apierrors.IsNotFound(err):
		return nil, waiting{fmt.Errorf("volume attachment %s: %w", name, err)}
	case err != nil:
		return nil, fmt.Errorf("volume attachment %s: %w", name, err)
	case a.Status.AttachError != nil:
		return nil, errors.New(a.Status.AttachError.Message)
	case !a.Status.Attached || a.DeletionTimestamp != nil:
		return nil, waiting{fmt.Errorf("volume attachment %s: the volume is not attached yet", name)}
	}
	return a.Status.AttachmentMetadata, nil
}
