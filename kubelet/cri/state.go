package cri

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"hash/fnv"
	"slices"
	"strconv"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// State is one pod as the runtime knows it.
type State struct {
	UID             types.UID
	Name, Namespace string
	Sandboxes       []Sandbox   // newest first
	Containers      []Container // newest first
}

// Sandbox is one network and IPC home of a pod.
type Sandbox struct {
	ID      string
	Attempt uint32
	Ready   bool
	Created time.Time
	IPs     []string // the first one is the primary address
	Handler string   // the runtime's, as the pod's runtime class chose it
}

// Container is one run of a container.
type Container struct {
	ID, SandboxID, Name      string
	Status                   runtimeapi.ContainerState
	Created, Started, Finish time.Time
	ExitCode                 int32
	Reason, Message          string
	Image, ImageID, ImageRef string
	Hash                     uint64
	Restarts                 int
	LogPath                  string
	TerminationPath          string // in the container
	TerminationHostPath      string
	TerminationPolicy        corev1.TerminationMessagePolicy
	GracePeriod              *int64
	PreStop                  *corev1.LifecycleHandler
	User                     *runtimeapi.ContainerUser
	Resources                *runtimeapi.ContainerResources
	Mounts                   []*runtimeapi.Mount
	StopSignal               runtimeapi.Signal
}

// Running says whether the container's process lives.
func (c *Container) Running() bool {
	return c.Status == runtimeapi.ContainerState_CONTAINER_RUNNING
}

// Exited says whether the container's process has ended.
func (c *Container) Exited() bool {
	return c.Status == runtimeapi.ContainerState_CONTAINER_EXITED
}

// Container returns the newest run of the named container, or nil.
func (s *State) Container(name string) *Container {
	for i := range s.Containers {
		if s.Containers[i].Name == name {
			return &s.Containers[i]
		}
	}
	return nil
}

// ByID returns the container of that id, or nil.
func (s *State) ByID(id string) *Container {
	for i := range s.Containers {
		if s.Containers[i].ID == id {
			return &s.Containers[i]
		}
	}
	return nil
}

// Sandbox returns the newest sandbox, or nil.
func (s *State) Sandbox() *Sandbox {
	if len(s.Sandboxes) == 0 {
		return nil
	}
	return &s.Sandboxes[0]
}

// Running returns the containers that live.
func (s *State) Running() []*Container {
	var out []*Container
	for i := range s.Containers {
		if s.Containers[i].Running() {
			out = append(out, &s.Containers[i])
		}
	}
	return out
}

// Alive says whether anything of the pod still runs.
func (s *State) Alive() bool {
	for _, sb := range s.Sandboxes {
		if sb.Ready {
			return true
		}
	}
	return slices.ContainsFunc(s.Containers, func(c Container) bool {
		return c.Running() || c.Status == runtimeapi.ContainerState_CONTAINER_UNKNOWN
	})
}

// Observe asks the runtime for one pod.
func Observe(ctx context.Context, r Runtime, uid types.UID) (*State, error) {
	sel := map[string]string{PodUIDLabel: string(uid)}
	s := &State{UID: uid}
	boxes, err := r.ListPodSandbox(ctx, &runtimeapi.PodSandboxFilter{LabelSelector: sel})
	if err != nil {
		return nil, fmt.Errorf("observe: pod %s: %w", uid, err)
	}
	for _, b := range boxes {
		s.Name, s.Namespace = b.Labels[PodNameLabel], b.Labels[PodNamespaceLabel]
		sb := Sandbox{
			ID: b.Id, Attempt: b.GetMetadata().GetAttempt(), Created: time.Unix(0, b.CreatedAt),
			Ready: b.State == runtimeapi.PodSandboxState_SANDBOX_READY, Handler: b.RuntimeHandler,
		}
		st, err := r.PodSandboxStatus(ctx, b.Id, false)
		switch {
		case NotFound(err):
			continue
		case err != nil:
			return nil, fmt.Errorf("observe: sandbox %s: %w", b.Id, err)
		}
		if n := st.GetStatus().GetNetwork(); n != nil && n.Ip != "" {
			sb.IPs = append(sb.IPs, n.Ip)
			for _, a := range n.AdditionalIps {
				sb.IPs = append(sb.IPs, a.Ip)
			}
		}
		s.Sandboxes = append(s.Sandboxes, sb)
	}
	list, err := r.ListContainers(ctx, &runtimeapi.ContainerFilter{LabelSelector: sel})
	if err != nil {
		return nil, fmt.Errorf("observe: pod %s: %w", uid, err)
	}
	for _, l := range list {
		st, err := r.ContainerStatus(ctx, l.Id, false)
		if NotFound(err) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("observe: container %s: %w", l.Id, err)
		}
		s.Name, s.Namespace = l.Labels[PodNameLabel], l.Labels[PodNamespaceLabel]
		c := container(st.Status)
		c.SandboxID = l.PodSandboxId
		s.Containers = append(s.Containers, c)
	}
	s.sort()
	return s, nil
}

func (s *State) sort() {
	slices.SortStableFunc(s.Sandboxes, func(a, b Sandbox) int { return b.Created.Compare(a.Created) })
	slices.SortStableFunc(s.Containers, func(a, b Container) int { return b.Created.Compare(a.Created) })
}

// container turns the runtime's report into ours.
func container(st *runtimeapi.ContainerStatus) Container {
	c := Container{
		ID: st.Id, Name: st.Labels[ContainerNameLabel], Status: st.State,
		Created: stamp(st.CreatedAt), Started: stamp(st.StartedAt), Finish: stamp(st.FinishedAt),
		ExitCode: st.ExitCode, Reason: st.Reason, Message: st.Message,
		Image: st.GetImage().GetImage(), ImageID: st.ImageId, ImageRef: st.ImageRef, LogPath: st.LogPath,
		User: st.User, Resources: st.Resources, Mounts: st.Mounts, StopSignal: st.StopSignal,
	}
	a := st.Annotations
	c.Hash, _ = strconv.ParseUint(a[hashAnnotation], 16, 64)
	c.Restarts, _ = strconv.Atoi(a[restartCountAnnotation])
	c.TerminationPath = a[terminationPathAnnotation]
	c.TerminationPolicy = corev1.TerminationMessagePolicy(a[terminationPolicyAnnotation])
	for _, m := range st.Mounts {
		if c.TerminationPath != "" && m.ContainerPath == c.TerminationPath {
			c.TerminationHostPath = m.HostPath
		}
	}
	if g, err := strconv.ParseInt(a[podGraceAnnotation], 10, 64); err == nil {
		c.GracePeriod = &g
	}
	if p := a[preStopAnnotation]; p != "" {
		c.PreStop = &corev1.LifecycleHandler{}
		if json.Unmarshal([]byte(p), c.PreStop) != nil {
			c.PreStop = nil
		}
	}
	return c
}

// stamp turns the runtime's nanoseconds into a time; 0 is none.
func stamp(ns int64) time.Time {
	if ns == 0 {
		return time.Time{}
	}
	return time.Unix(0, ns)
}

// Pods returns the UIDs of all pods that the runtime knows.
func Pods(ctx context.Context, r Runtime) (map[types.UID]*runtimeapi.PodSandboxMetadata, error) {
	boxes, err := r.ListPodSandbox(ctx, nil)
	if err != nil {
		return nil, fmt.Errorf("list: sandboxes: %w", err)
	}
	out := map[types.UID]*runtimeapi.PodSandboxMetadata{}
	for _, b := range boxes {
		if uid := b.Labels[PodUIDLabel]; uid != "" {
			out[types.UID(uid)] = b.Metadata
		}
	}
	containers, err := r.ListContainers(ctx, nil)
	if err != nil {
		return nil, fmt.Errorf("list: containers: %w", err)
	}
	for _, c := range containers {
		uid := types.UID(c.Labels[PodUIDLabel])
		if _, ok := out[uid]; !ok && uid != "" {
			out[uid] = &runtimeapi.PodSandboxMetadata{
				Name: c.Labels[PodNameLabel], Namespace: c.Labels[PodNamespaceLabel], Uid: string(uid),
			}
		}
	}
	return out, nil
}

// Prints returns a number for each pod that changes with the states of its
// sandboxes and containers.
func Prints(ctx context.Context, r Runtime) (map[types.UID]uint64, error) {
	boxes, err := r.ListPodSandbox(ctx, nil)
	if err != nil {
		return nil, fmt.Errorf("list: sandboxes: %w", err)
	}
	containers, err := r.ListContainers(ctx, nil)
	if err != nil {
		return nil, fmt.Errorf("list: containers: %w", err)
	}
	out := map[types.UID]uint64{}
	add := func(uid, id string, state int32) {
		h := fnv.New64a()
		fmt.Fprintf(h, "%s=%d", id, state)
		out[types.UID(uid)] ^= h.Sum64() // in whatever order they come
	}
	for _, b := range boxes {
		add(b.Labels[PodUIDLabel], b.Id, int32(b.State))
	}
	for _, c := range containers {
		add(c.Labels[PodUIDLabel], c.Id, int32(c.State))
	}
	return out, nil
}

// Plain returns what the runtime says of an error, without gRPC's words around it.
func Plain(err error) error {
	var s interface{ GRPCStatus() *status.Status }
	if errors.As(err, &s) && s.GRPCStatus().Message() != "" {
		return errors.New(s.GRPCStatus().Message())
	}
	return err
}

// Unknown says whether the runtime answered that it has no such call.
func Unknown(err error) bool {
	var s interface{ GRPCStatus() *status.Status }
	return errors.As(err, &s) && s.GRPCStatus().Code() == codes.Unimplemented
}

// NotFound says whether the runtime answered that it does not know the thing.
func NotFound(err error) bool {
	if err == nil {
		return false
	}
	var s interface{ GRPCStatus() *status.Status }
	return errors.As(err, &s) && s.GRPCStatus().Code() == codes.NotFound
}
