package nodeipam

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"sync"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"

	"github.com/sampan-dev/sampan/client"
	"github.com/sampan-dev/sampan/controller"
)

// Config says which addresses nodes share.
type Config struct {
	// ClusterCIDRs are one range, or one of each family.
	ClusterCIDRs []netip.Prefix
	// MaskIPv4 and MaskIPv6 are the lengths of a node's masks; 0 is 24 and 64.
	MaskIPv4, MaskIPv6 int
	// ServiceCIDRs are never handed out, should they lie within the cluster's.
	ServiceCIDRs []netip.Prefix
}

// Check fills in defaults and tells what is wrong.
func (c *Config) Check() error {
	if c.MaskIPv4 == 0 {
		c.MaskIPv4 = 24
	}
	if c.MaskIPv6 == 0 {
		c.MaskIPv6 = 64
	}
	switch n := len(c.ClusterCIDRs); {
	case n == 0:
		return errors.New("nodeipam: a cluster CIDR is required")
	case n > 2:
		return fmt.Errorf("nodeipam: len of ClusterCIDRs is:%v > more than max allowed of 2", n)
	case n == 2 && c.ClusterCIDRs[0].Addr().Is4() == c.ClusterCIDRs[1].Addr().Is4():
		return errors.New("nodeipam: two cluster CIDRs must be of two families")
	}
	for _, r := range c.ClusterCIDRs {
		if _, err := newPool(r, c.mask(r)); err != nil {
			return fmt.Errorf("nodeipam: %w", err)
		}
	}
	return nil
}

func (c *Config) mask(r netip.Prefix) int {
	if r.Addr().Is4() {
		return c.MaskIPv4
	}
	return c.MaskIPv6
}

type loop struct {
	*controller.Loop
	nodes *client.Mirror[corev1.Node]

	mu       sync.Mutex
	pools    []*pool
	starving map[string]bool // nodes that found the ranges used up
}

// New returns the nodeipam loop.
func New(d controller.Deps, cfg Config) (controller.Controller, error) {
	if err := cfg.Check(); err != nil {
		return nil, err
	}
	l := &loop{starving: map[string]bool{}}
	for _, r := range cfg.ClusterCIDRs {
		p, err := newPool(r, cfg.mask(r))
		if err != nil {
			return nil, err
		}
		for _, s := range cfg.ServiceCIDRs {
			p.occupy(s, "") // no node is named so: nobody gives it back
		}
		l.pools = append(l.pools, p)
	}
	l.Loop = controller.NewLoop(d, "node-ipam", 5, l.reconcile).As(d, "node-controller")
	l.Events = client.Recorder(l.Client, "cidrAllocator", "")
	l.nodes = controller.Input(l.Loop, l.ofNode)
	return l, nil
}

// ofNode keeps the pools' books. All nodes that are there at start pass here
// before any is worked on, so what they hold is not handed out.
func (l *loop) ofNode(old, new *corev1.Node) []controller.Key {
	l.mu.Lock()
	defer l.mu.Unlock()
	var keys []controller.Key
	if old != nil && (new == nil || !slices.Equal(old.Spec.PodCIDRs, new.Spec.PodCIDRs)) {
		if l.release(old.Name, ranges(old)) {
			for name := range l.starving {
				keys = append(keys, controller.Key{Name: name})
			}
			clear(l.starving)
		}
	}
	if new == nil {
		delete(l.starving, old.Name)
		return keys
	}
	if held := ranges(new); len(held) > 0 {
		for _, r := range held {
			for _, p := range l.pools {
				p.occupy(r, new.Name)
			}
		}
		return keys
	}
	if old == nil || old.UID != new.UID || len(old.Spec.PodCIDRs) > 0 {
		keys = append(keys, client.KeyOf(new))
	}
	return keys
}

// release gives ranges of a node back; l.mu is held.
func (l *loop) release(node string, rs []netip.Prefix) bool {
	freed := false
	for _, r := range rs {
		for _, p := range l.pools {
			freed = p.release(r, node) || freed
		}
	}
	return freed
}

// ranges returns the ranges a node has.
func ranges(n *corev1.Node) []netip.Prefix {
	texts := n.Spec.PodCIDRs
	if len(texts) == 0 && n.Spec.PodCIDR != "" {
		texts = []string{n.Spec.PodCIDR}
	}
	var out []netip.Prefix
	for _, t := range texts {
		if r, err := netip.ParsePrefix(t); err == nil {
			out = append(out, r)
		}
	}
	return out
}

// take gets one range of each pool for a node, or none.
func (l *loop) take(node string) ([]netip.Prefix, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	var out []netip.Prefix
	for i, p := range l.pools {
		r, err := p.take(node)
		if err != nil {
			l.release(node, out)
			l.starving[node] = true
			return nil, fmt.Errorf("failed to allocate cidr from cluster cidr at idx:%v: %w", i, err)
		}
		out = append(out, r)
	}
	return out, nil
}

func (l *loop) reconcile(ctx context.Context, k controller.Key) error {
	n, ok := l.nodes.Get("", k.Name)
	if !ok || len(ranges(n)) > 0 {
		return nil
	}
	got, err := l.take(n.Name)
	if err != nil {
		l.report(n, "CIDRNotAvailable")
		return err
	}
	texts := make([]string, len(got))
	for i, r := range got {
		texts[i] = r.String()
	}
	patch, err := json.Marshal(map[string]any{
		"metadata": map[string]any{"uid": n.UID},
		"spec":     map[string]any{"podCIDR": texts[0], "podCIDRs": texts},
	})
	if err != nil {
		return err
	}
	wrote, err := client.Of[corev1.Node](l.Client, "").Patch(ctx, n.Name, "", types.StrategicMergePatchType, patch)
	if err == nil {
		controller.Wrote(&l.Unseen, k, l.nodes, wrote)
		return nil
	}
	// A write that timed out may have been done: its range comes back with the node.
	if !apierrors.IsServerTimeout(err) && !apierrors.IsTimeout(err) && apierrors.ReasonForError(err) != "" {
		l.mu.Lock()
		l.release(n.Name, got)
		l.mu.Unlock()
	}
	if apierrors.IsNotFound(err) {
		return nil
	}
	l.report(n, "CIDRAssignmentFailed")
	return err
}

func (l *loop) report(n *corev1.Node, status string) {
	ref := &corev1.ObjectReference{APIVersion: "v1", Kind: "Node", Name: n.Name, UID: n.UID}
	l.Events.EventRef(ref, corev1.EventTypeNormal, status, "Node %s status is now: %s", n.Name, status)
}
