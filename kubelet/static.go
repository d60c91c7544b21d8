package kubelet

import (
	"context"
	"crypto/md5"
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/sampan-dev/sampan/api"
	"github.com/sampan-dev/sampan/client"
	"github.com/sampan-dev/sampan/kit/clock"
	"github.com/sampan-dev/sampan/kit/run"
	"github.com/sampan-dev/sampan/semantics/podspec"
)

// Annotations of static pods and of the mirror pods that show them.
const (
	sourceAnnotation = "kubernetes.io/config.source"
	seenAnnotation   = "kubernetes.io/config.seen"
	hashAnnotation   = "kubernetes.io/config.hash"
)

// rescan is how often the manifests are read again without a sign of change.
const rescan = 20 * time.Second

// static keeps the pods of the manifests directory.
func (k *Kubelet) static(ctx context.Context) error {
	wake := make(chan struct{}, 1)
	run.Detach(ctx, "manifest watch", func(ctx context.Context) { k.watchDir(ctx, wake) })
	known := map[types.UID]bool{}
	for {
		now, err := k.readManifests()
		if err != nil {
			k.log.Warn("reading manifests failed", "dir", k.cfg.StaticPods, "err", err)
		} else {
			k.heed(now, known)
			if !k.staticRead.Swap(true) {
				if err := k.relist(ctx); err != nil {
					return err
				}
			}
		}
		t := clock.NewTimer(rescan)
		select {
		case <-wake:
		case <-k.reread:
		case <-t.C:
		case <-ctx.Done():
			return nil
		}
		t.Stop()
	}
}

// heed makes the static pods those of the manifests. One whose manifest went
// and came back as it was is begun anew when what it was has ended.
func (k *Kubelet) heed(now map[types.UID]*corev1.Pod, known map[types.UID]bool) {
	for uid, pod := range now {
		if !known[uid] || k.worker(uid) == nil {
			k.update(pod, true)
		}
		known[uid] = true
	}
	for uid := range known {
		if now[uid] == nil {
			delete(known, uid)
			if w := k.worker(uid); w != nil {
				w.remove()
				k.work.Add(uid)
			}
		}
	}
}

// watchDir wakes the reader when the directory changes.
func (k *Kubelet) watchDir(ctx context.Context, wake chan<- struct{}) {
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		k.log.Warn("watching manifests failed", "err", err)
		return
	}
	f := os.NewFile(uintptr(fd), "inotify")
	defer context.AfterFunc(ctx, func() { _ = f.Close() })()
	if _, err := unix.InotifyAddWatch(fd, k.cfg.StaticPods, unix.IN_CLOSE_WRITE|unix.IN_DELETE|unix.IN_MOVED_FROM|unix.IN_MOVED_TO); err != nil {
		k.log.Warn("watching manifests failed", "dir", k.cfg.StaticPods, "err", err)
		_ = f.Close()
		return
	}
	buf := make([]byte, 4096)
	for {
		if _, err := f.Read(buf); err != nil {
			return
		}
		select {
		case wake <- struct{}{}:
		default:
		}
	}
}

// readManifests reads all static pods, by uid.
func (k *Kubelet) readManifests() (map[types.UID]*corev1.Pod, error) {
	entries, err := os.ReadDir(k.cfg.StaticPods)
	if err != nil {
		return nil, err
	}
	out := map[types.UID]*corev1.Pod{}
	for _, e := range entries {
		if e.IsDir() || strings.HasPrefix(e.Name(), ".") {
			continue
		}
		path := filepath.Join(k.cfg.StaticPods, e.Name())
		pod, err := k.readManifest(path)
		if err != nil {
			k.log.Warn("a manifest is not understood", "file", path, "err", err)
			continue
		}
		out[pod.UID] = pod
	}
	return out, nil
}

func (k *Kubelet) readManifest(path string) (*corev1.Pod, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	obj, _, err := api.Decode(api.FormatYAML, data, nil, false)
	if err != nil {
		return nil, err
	}
	pod, ok := obj.(*corev1.Pod)
	if !ok {
		return nil, fmt.Errorf("%s: not a Pod", path)
	}
	if pod.UID == "" {
		sum := md5.New()
		fmt.Fprintf(sum, "host:%s", k.cfg.NodeName)
		fmt.Fprintf(sum, "file:%s", path)
		sum.Write(data)
		pod.UID = types.UID(hex.EncodeToString(sum.Sum(nil)))
	}
	pod.Name = strings.ToLower(pod.Name + "-" + k.cfg.NodeName)
	if pod.Namespace == "" {
		pod.Namespace = metav1.NamespaceDefault
	}
	if pod.Annotations == nil {
		pod.Annotations = map[string]string{}
	}
	pod.Annotations[hashAnnotation] = string(pod.UID)
	pod.Annotations[sourceAnnotation] = "file"
	if info, err := os.Stat(path); err == nil {
		pod.Annotations[seenAnnotation] = info.ModTime().Format(time.RFC3339Nano)
	}
	pod.Spec.NodeName = k.cfg.NodeName
	pod.Spec.Tolerations = append(pod.Spec.Tolerations, corev1.Toleration{Operator: corev1.TolerationOpExists, Effect: corev1.TaintEffectNoExecute})
	pod.Status = corev1.PodStatus{Phase: corev1.PodPending}
	podspec.DefaultPod(pod)
	return pod, nil
}

// mirrorOf returns the mirror pod of a static pod, made if it is missing.
func (k *Kubelet) mirrorOf(ctx context.Context, w *worker, pod *corev1.Pod) *corev1.Pod {
	w.mu.Lock()
	gone := w.gone
	w.mu.Unlock()
	pods := client.Of[corev1.Pod](k.deps.Client, pod.Namespace)
	have, ok := k.mirror.Get(pod.Namespace, pod.Name)
	if ok && have.Annotations[corev1.MirrorPodAnnotationKey] == string(pod.UID) && have.DeletionTimestamp == nil {
		return have
	}
	if gone {
		return nil
	}
	if ok {
		k.deleteMirror(ctx, have)
	}
	m := pod.DeepCopy()
	m.UID, m.ResourceVersion = "", ""
	m.Annotations[corev1.MirrorPodAnnotationKey] = string(pod.UID)
	m.APIVersion, m.Kind = "v1", "Pod"
	if n, err := client.Of[corev1.Node](k.deps.Client, "").Get(ctx, k.cfg.NodeName); err == nil {
		yes := true
		m.OwnerReferences = []metav1.OwnerReference{{APIVersion: "v1", Kind: "Node", Name: n.Name, UID: n.UID, Controller: &yes}}
	}
	made, err := pods.Create(ctx, m)
	if apierrors.IsAlreadyExists(err) {
		made, err = pods.Get(ctx, pod.Name)
	}
	if err != nil {
		k.log.Debug("no mirror pod yet", "pod", pod.Name, "err", err)
		k.reports.AddAfter(pod.UID, 5*time.Second)
		return nil
	}
	return made
}

// mirrorChanged drops mirror pods that show no static pod of ours any more.
func (k *Kubelet) mirrorChanged(pod *corev1.Pod) {
	uid := types.UID(pod.Annotations[corev1.MirrorPodAnnotationKey])
	if k.worker(uid) != nil {
		k.reports.Add(uid)
		return
	}
	// Its manifest went while the agent was away: nobody else will delete it.
	if k.staticRead.Load() {
		run.Detach(context.Background(), "mirror", func(ctx context.Context) {
			ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
			defer cancel()
			k.deleteMirror(ctx, pod)
		})
	}
}

// mirrorGone lets a static pod be shown anew when somebody deleted its mirror.
func (k *Kubelet) mirrorGone(pod *corev1.Pod) {
	if uid := types.UID(pod.Annotations[corev1.MirrorPodAnnotationKey]); k.worker(uid) != nil {
		k.reports.Add(uid)
	}
}

func (k *Kubelet) deleteMirror(ctx context.Context, pod *corev1.Pod) {
	none, uid := int64(0), pod.UID
	err := client.Of[corev1.Pod](k.deps.Client, pod.Namespace).Delete(ctx, pod.Name, &metav1.DeleteOptions{
		GracePeriodSeconds: &none, Preconditions: &metav1.Preconditions{UID: &uid},
	})
	if err != nil && !apierrors.IsNotFound(err) {
		k.log.Warn("deleting a mirror pod failed", "pod", pod.Name, "err", err)
	}
}

// staticGone removes the mirror of a static pod that has ended.
func (k *Kubelet) staticGone(ctx context.Context, w *worker) {
	pod, _ := w.view()
	if have, ok := k.mirror.Get(pod.Namespace, pod.Name); ok && have.Annotations[corev1.MirrorPodAnnotationKey] == string(w.uid) {
		k.deleteMirror(ctx, have)
	}
	select {
	case k.reread <- struct{}{}: // its manifest may be back
	default:
	}
}
