// Package nodestatus tells the API server that and how this node lives.
//
// Job: the Node object, its status and its lease.
//
// Not its job: what runs on the node.
//
// Invariants: labels and taints that others set are left alone; the status is
// written only when it changed or its report is due; a failing API stops nothing.
package nodestatus

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"maps"
	"runtime"
	"slices"
	"strings"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/strategicpatch"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/sampan-dev/sampan/client"
	"github.com/sampan-dev/sampan/kit/clock"
	"github.com/sampan-dev/sampan/kit/run"
	"github.com/sampan-dev/sampan/kubelet/cri"
)

// Config is what the Node says.
type Config struct {
	Name               string
	Register           bool
	IPs                []string
	Labels             map[string]string
	Taints             []corev1.Taint
	ProviderID         string
	Capacity, Reserved corev1.ResourceList
	MaxPods, Port      int
	Version            string
	Every, Report      time.Duration
	Lease              time.Duration
	Root               string // whose filesystem is the node's ephemeral storage
}

// Deps is what the manager works with.
type Deps struct {
	Client  client.Interface
	Runtime cri.Runtime
	Images  cri.Images
	Events  *client.EventRecorder
	Log     *slog.Logger
	// InUse lists the attachable volumes that the node uses; it may be nil.
	InUse func() []corev1.UniqueVolumeName
}

// Manager keeps the Node object. Make one with New.
type Manager struct {
	cfg      Config
	d        Deps
	capacity corev1.ResourceList

	mu       sync.Mutex
	pressure map[corev1.NodeConditionType]string // conditions that are true, and why
	last     corev1.NodeStatus
	reported time.Time
	node     *corev1.Node
	wake     chan struct{}
}

// New returns a manager that has not started.
func New(cfg Config, d Deps) *Manager {
	m := &Manager{cfg: cfg, d: d, pressure: map[corev1.NodeConditionType]string{}, wake: make(chan struct{}, 1)}
	m.capacity = readCapacity(cfg)
	return m
}

// Capacity is all the node has.
func (m *Manager) Capacity() corev1.ResourceList { return m.capacity }

// Allocatable is what pods may ask for.
func (m *Manager) Allocatable() corev1.ResourceList {
	out := m.capacity.DeepCopy()
	for name, r := range m.cfg.Reserved {
		if q, ok := out[name]; ok {
			q.Sub(r)
			if q.Sign() < 0 {
				q = resource.Quantity{}
			}
			out[name] = q
		}
	}
	return out
}

// SetPressure says what the node is short of. News is written at once.
func (m *Manager) SetPressure(now []corev1.NodeConditionType) {
	m.mu.Lock()
	news := len(now) != len(m.pressure)
	next := map[corev1.NodeConditionType]string{}
	for _, t := range now {
		news = news || m.pressure[t] == ""
		next[t] = "below the threshold"
	}
	m.pressure = next
	m.mu.Unlock()
	if news {
		m.Wake()
	}
}

// Pressure returns what the node is short of.
func (m *Manager) Pressure() []corev1.NodeConditionType {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Collect(maps.Keys(m.pressure))
}

// Wake makes the status be looked at, and written if it changed, at once.
func (m *Manager) Wake() {
	select {
	case m.wake <- struct{}{}:
	default:
	}
}

// Node returns the Node as the API last had it; nil before it was read.
func (m *Manager) Node() *corev1.Node {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.node
}

// Fetch reads the Node again; nil when the API cannot be asked.
func (m *Manager) Fetch() *corev1.Node {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	n, err := client.Of[corev1.Node](m.d.Client, "").Get(ctx, m.cfg.Name)
	if err != nil {
		return nil
	}
	m.mu.Lock()
	m.node = n
	m.mu.Unlock()
	return n
}

// StrictGroups says whether the runtime can keep an image's own groups out. It
// may be asked before the first status: then the runtime is.
func (m *Manager) StrictGroups() bool {
	m.mu.Lock()
	f := m.last.Features
	m.mu.Unlock()
	return f == nil || f.SupplementalGroupsPolicy != nil && *f.SupplementalGroupsPolicy
}

// RecursiveReadOnly says whether a handler of the runtime can mount recursively
// read only.
func (m *Manager) RecursiveReadOnly(handler string) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, h := range m.last.RuntimeHandlers {
		if h.Name == handler {
			return h.Features != nil && h.Features.RecursiveReadOnlyMounts != nil && *h.Features.RecursiveReadOnlyMounts
		}
	}
	return false
}

// Run keeps node, status and lease until ctx ends.
func (m *Manager) Run(ctx context.Context) error {
	g := run.New(ctx)
	g.Go("lease", m.lease)
	g.Go("status", func(ctx context.Context) error {
		for {
			wait := m.cfg.Every
			if err := m.Sync(ctx); err != nil && ctx.Err() == nil {
				m.d.Log.Warn("node status failed", "err", err)
				wait = min(wait, time.Second)
			} else if !m.ready() {
				wait = min(wait, 500*time.Millisecond) // a starting node is looked at often
			}
			t := clock.NewTimer(clock.Jitter(wait, 0.04))
			select {
			case <-m.wake:
			case <-t.C:
			case <-ctx.Done():
			}
			t.Stop()
			if ctx.Err() != nil {
				return nil
			}
		}
	})
	return g.Wait()
}

func (m *Manager) ready() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, c := range m.last.Conditions {
		if c.Type == corev1.NodeReady {
			return c.Status == corev1.ConditionTrue
		}
	}
	return false
}

// Sync registers the node if needed and writes its status if it changed.
func (m *Manager) Sync(ctx context.Context) error {
	nodes := client.Of[corev1.Node](m.d.Client, "")
	node, err := nodes.Get(ctx, m.cfg.Name)
	if apierrors.IsNotFound(err) && m.cfg.Register {
		fresh := m.object()
		fresh.Status = m.Status(ctx, &corev1.Node{})
		node, err = nodes.Create(ctx, fresh)
		if apierrors.IsAlreadyExists(err) {
			return nil
		}
	}
	if err != nil {
		return fmt.Errorf("node %s: %w", m.cfg.Name, err)
	}
	if node, err = m.relabel(ctx, node); err != nil {
		return err
	}
	next := m.Status(ctx, node)
	m.mu.Lock()
	m.node = node
	due := clock.Since(m.reported) >= m.cfg.Report
	m.last = next
	m.mu.Unlock()
	if !due && same(node.Status, next) {
		return nil
	}
	patch, err := statusPatch(node, next)
	if err != nil || patch == nil {
		return err
	}
	if node, err = nodes.Patch(ctx, m.cfg.Name, "status", types.StrategicMergePatchType, patch); err != nil {
		return fmt.Errorf("node %s: status: %w", m.cfg.Name, err)
	}
	m.mu.Lock()
	m.node = node
	m.reported = clock.Now()
	m.mu.Unlock()
	return nil
}

// same compares statuses without the times of heartbeats.
func same(a, b corev1.NodeStatus) bool {
	plain := func(s corev1.NodeStatus) corev1.NodeStatus {
		s = *s.DeepCopy()
		for i := range s.Conditions {
			s.Conditions[i].LastHeartbeatTime = metav1.Time{}
		}
		return s
	}
	return equality.Semantic.DeepEqual(plain(a), plain(b))
}

func statusPatch(node *corev1.Node, next corev1.NodeStatus) ([]byte, error) {
	before, err := json.Marshal(&corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: node.Name}, Status: node.Status})
	if err != nil {
		return nil, err
	}
	after, err := json.Marshal(&corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: node.Name}, Status: next})
	if err != nil {
		return nil, err
	}
	p, err := strategicpatch.CreateTwoWayMergePatch(before, after, corev1.Node{})
	if err != nil || string(p) == "{}" {
		return nil, err
	}
	return p, nil
}

func (m *Manager) labels() map[string]string {
	out := map[string]string{
		corev1.LabelHostname: m.cfg.Name, corev1.LabelOSStable: runtime.GOOS, corev1.LabelArchStable: runtime.GOARCH,
		"beta.kubernetes.io/os": runtime.GOOS, "beta.kubernetes.io/arch": runtime.GOARCH,
	}
	for k, v := range m.cfg.Labels {
		out[k] = v
	}
	return out
}

// object is the Node as it is first registered.
func (m *Manager) object() *corev1.Node {
	n := &corev1.Node{
		ObjectMeta: metav1.ObjectMeta{Name: m.cfg.Name, Labels: m.labels(), Annotations: map[string]string{
			"volumes.kubernetes.io/controller-managed-attach-detach": "true",
		}},
		Spec: corev1.NodeSpec{ProviderID: m.cfg.ProviderID, Taints: slices.Clone(m.cfg.Taints)},
	}
	n.APIVersion, n.Kind = "v1", "Node"
	return n
}

// relabel puts back the agent's own labels on a node that existed before.
func (m *Manager) relabel(ctx context.Context, node *corev1.Node) (*corev1.Node, error) {
	missing := map[string]string{}
	for k, v := range m.labels() {
		if node.Labels[k] != v {
			missing[k] = v
		}
	}
	if len(missing) == 0 {
		return node, nil
	}
	patch, err := json.Marshal(map[string]any{"metadata": map[string]any{"labels": missing}})
	if err != nil {
		return nil, err
	}
	return client.Of[corev1.Node](m.d.Client, "").Patch(ctx, m.cfg.Name, "", types.StrategicMergePatchType, patch)
}

// Status is how the node is now.
func (m *Manager) Status(ctx context.Context, node *corev1.Node) corev1.NodeStatus {
	out := *node.Status.DeepCopy()
	out.Capacity, out.Allocatable = m.capacity.DeepCopy(), m.Allocatable()
	for name, q := range node.Status.Capacity { // extended resources are others' to tell
		if strings.Contains(string(name), "/") {
			out.Capacity[name] = q
			if a, ok := node.Status.Allocatable[name]; ok {
				out.Allocatable[name] = a
			} else {
				out.Allocatable[name] = q
			}
		}
	}
	out.Addresses = nil
	for _, ip := range m.cfg.IPs {
		out.Addresses = append(out.Addresses, corev1.NodeAddress{Type: corev1.NodeInternalIP, Address: ip})
	}
	out.Addresses = append(out.Addresses, corev1.NodeAddress{Type: corev1.NodeHostName, Address: m.cfg.Name})
	out.DaemonEndpoints.KubeletEndpoint.Port = int32(m.cfg.Port)
	out.NodeInfo = m.info(ctx)
	out.Images = m.images(ctx)
	rt, err := m.d.Runtime.Status(ctx, false)
	m.handlers(&out, rt)
	if m.d.InUse != nil {
		out.VolumesInUse = m.d.InUse()
	}
	now := metav1.Time{Time: clock.Now().Truncate(time.Second)}
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, c := range []struct {
		t                 corev1.NodeConditionType
		bad, good, detail string
	}{
		{corev1.NodeMemoryPressure, "KubeletHasInsufficientMemory", "KubeletHasSufficientMemory", "memory"},
		{corev1.NodeDiskPressure, "KubeletHasDiskPressure", "KubeletHasNoDiskPressure", "disk"},
		{corev1.NodePIDPressure, "KubeletHasInsufficientPID", "KubeletHasSufficientPID", "PID"},
	} {
		texts := map[string][2]string{
			"memory": {"kubelet has insufficient memory available", "kubelet has sufficient memory available"},
			"disk":   {"kubelet has disk pressure", "kubelet has no disk pressure"},
			"PID":    {"kubelet has insufficient PID available", "kubelet has sufficient PID available"},
		}[c.detail]
		cond := corev1.NodeCondition{Type: c.t, Status: corev1.ConditionFalse, Reason: c.good, Message: texts[1]}
		if m.pressure[c.t] != "" {
			cond.Status, cond.Reason, cond.Message = corev1.ConditionTrue, c.bad, texts[0]
		}
		set(&out, cond, now)
	}
	ready := corev1.NodeCondition{Type: corev1.NodeReady, Status: corev1.ConditionTrue, Reason: "KubeletReady", Message: "kubelet is posting ready status"}
	if why := notReady(rt, err); why != "" {
		ready.Status, ready.Reason, ready.Message = corev1.ConditionFalse, "KubeletNotReady", why
	}
	set(&out, ready, now)
	return out
}

// notReady says why the runtime keeps the node from being ready.
func notReady(rt *runtimeapi.StatusResponse, err error) string {
	if err != nil {
		return fmt.Sprintf("container runtime status check may not have completed yet: %v", err)
	}
	var why []string
	find := func(t string) *runtimeapi.RuntimeCondition {
		for _, c := range rt.GetStatus().GetConditions() {
			if c.Type == t {
				return c
			}
		}
		return nil
	}
	say := func(prefix string, c *runtimeapi.RuntimeCondition, name string) {
		if c == nil {
			why = append(why, fmt.Sprintf("%s not ready: %s is not set", prefix, name))
		} else if !c.Status {
			why = append(why, fmt.Sprintf("%s not ready: %s=%v reason:%s message:%s", prefix, c.Type, c.Status, c.Reason, c.Message))
		}
	}
	say("container runtime network", find(runtimeapi.NetworkReady), runtimeapi.NetworkReady)
	say("container runtime", find(runtimeapi.RuntimeReady), runtimeapi.RuntimeReady)
	if len(why) > 1 {
		return "[" + strings.Join(why, ", ") + "]"
	}
	return strings.Join(why, "")
}

func set(s *corev1.NodeStatus, c corev1.NodeCondition, now metav1.Time) {
	c.LastHeartbeatTime, c.LastTransitionTime = now, now
	for i := range s.Conditions {
		if old := &s.Conditions[i]; old.Type == c.Type {
			if old.Status == c.Status {
				c.LastTransitionTime = old.LastTransitionTime
			}
			*old = c
			return
		}
	}
	s.Conditions = append(s.Conditions, c)
}

func (m *Manager) handlers(out *corev1.NodeStatus, rt *runtimeapi.StatusResponse) {
	out.RuntimeHandlers = nil
	for _, h := range rt.GetRuntimeHandlers() {
		f := corev1.NodeRuntimeHandler{Name: h.Name}
		if h.Features != nil {
			rro, userns := h.Features.RecursiveReadOnlyMounts, h.Features.UserNamespaces
			f.Features = &corev1.NodeRuntimeHandlerFeatures{RecursiveReadOnlyMounts: &rro, UserNamespaces: &userns}
		}
		out.RuntimeHandlers = append(out.RuntimeHandlers, f)
	}
	if rt.GetFeatures() != nil {
		sgp := rt.Features.SupplementalGroupsPolicy
		out.Features = &corev1.NodeFeatures{SupplementalGroupsPolicy: &sgp}
	}
}

// maxImages bounds the images told in the status, the largest first.
const maxImages = 50

func (m *Manager) images(ctx context.Context) []corev1.ContainerImage {
	list, err := m.d.Images.ListImages(ctx, nil)
	if err != nil {
		return nil
	}
	slices.SortStableFunc(list, func(a, b *runtimeapi.Image) int {
		if a.Size != b.Size {
			return int(int64(b.Size) - int64(a.Size))
		}
		return strings.Compare(a.Id, b.Id)
	})
	var out []corev1.ContainerImage
	for _, i := range list {
		names := append(slices.Clone(i.RepoDigests), i.RepoTags...)
		if len(names) > 0 && len(out) < maxImages {
			out = append(out, corev1.ContainerImage{Names: names[:min(len(names), 5)], SizeBytes: int64(i.Size)})
		}
	}
	return out
}
