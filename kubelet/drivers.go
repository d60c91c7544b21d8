package kubelet

import (
	"context"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/sampan-dev/sampan/kubelet/csi"
	"github.com/sampan-dev/sampan/kubelet/volume"
)

// drivers are the node's storage drivers as volumes see them.
type drivers struct{ k *Kubelet }

func (d drivers) Mount(ctx context.Context, v *volume.DriverVolume) (path string, own bool, err error) {
	q := &csi.Request{
		Pod: v.Pod, Name: v.Name, Source: v.Source, Modes: v.Modes, Options: v.Options,
		Block: v.Block, ReadOnly: v.ReadOnly, Inline: v.Inline, Dir: v.Dir, Root: d.k.cfg.Root,
	}
	own, err = d.k.drivers.Mount(ctx, q)
	return q.Target(), own, err
}

func (d drivers) Unmount(ctx context.Context, uid types.UID, dir string) error {
	return d.k.drivers.Unmount(ctx, d.k.cfg.Root, string(uid), dir)
}

func (d drivers) Release(uid types.UID) {
	if d.k.drivers.Release(string(uid)) {
		d.k.nodes.Wake()
	}
}

// teller is the agent as the drivers' registry sees it.
type teller struct{ k *Kubelet }

func (h teller) Node() *corev1.Node { return h.k.nodes.Fetch() }

func (h teller) Report(ctx context.Context) (*corev1.Node, error) {
	if err := h.k.nodes.Sync(ctx); err != nil {
		return nil, err
	}
	return h.k.nodes.Node(), nil
}

func (d drivers) Inline(pod *corev1.Pod, name string) string {
	return csi.InlineHandle(pod.Namespace, pod.Name, string(pod.UID), name)
}
