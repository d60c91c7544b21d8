package fake

import (
	"context"
	"time"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/sampan-dev/sampan/kit/clock"
)

// RunPodSandbox makes a ready sandbox.
func (r *Runtime) RunPodSandbox(_ context.Context, config *runtimeapi.PodSandboxConfig, handler string) (string, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if err := r.enter("RunPodSandbox", config.Metadata.Name); err != nil {
		return "", err
	}
	id := r.id("sb")
	st := &runtimeapi.PodSandboxStatus{
		Id: id, Metadata: config.Metadata, State: runtimeapi.PodSandboxState_SANDBOX_READY,
		CreatedAt: clock.Now().UnixNano(), Labels: clone(config.Labels), Annotations: clone(config.Annotations), RuntimeHandler: handler,
		Network: &runtimeapi.PodSandboxNetworkStatus{},
	}
	if config.GetLinux().GetSecurityContext().GetNamespaceOptions().GetNetwork() != runtimeapi.NamespaceMode_NODE {
		st.Network.Ip = r.address()
	}
	r.sandboxes[id] = st
	r.tell(id, runtimeapi.ContainerEventType_CONTAINER_STARTED_EVENT, config.Labels)
	return id, nil
}

func (r *Runtime) stopSandbox(id string) {
	s := r.sandboxes[id]
	if s == nil || s.State == runtimeapi.PodSandboxState_SANDBOX_NOTREADY {
		return
	}
	for _, c := range r.containers {
		if c.Sandbox == id {
			r.exited(c, 137, "Error")
		}
	}
	s.State = runtimeapi.PodSandboxState_SANDBOX_NOTREADY
	r.tell(id, runtimeapi.ContainerEventType_CONTAINER_STOPPED_EVENT, s.Labels)
}

// StopPodSandbox stops a sandbox and what runs in it.
func (r *Runtime) StopPodSandbox(_ context.Context, id string) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if err := r.enter("StopPodSandbox", id); err != nil {
		return err
	}
	r.stopSandbox(id)
	return nil
}

// RemovePodSandbox forgets a sandbox and its containers.
func (r *Runtime) RemovePodSandbox(_ context.Context, id string) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if err := r.enter("RemovePodSandbox", id); err != nil {
		return err
	}
	r.stopSandbox(id)
	for cid, c := range r.containers {
		if c.Sandbox == id {
			delete(r.containers, cid)
		}
	}
	if s := r.sandboxes[id]; s != nil {
		delete(r.sandboxes, id)
		r.tell(id, runtimeapi.ContainerEventType_CONTAINER_DELETED_EVENT, s.Labels)
	}
	return nil
}

// PodSandboxStatus reports on one sandbox.
func (r *Runtime) PodSandboxStatus(_ context.Context, id string, _ bool) (*runtimeapi.PodSandboxStatusResponse, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	s := r.sandboxes[id]
	if s == nil {
		return nil, notFound("sandbox", id)
	}
	return &runtimeapi.PodSandboxStatusResponse{Status: copySandbox(s)}, nil
}

// ListPodSandbox lists the sandboxes that filter selects.
func (r *Runtime) ListPodSandbox(_ context.Context, f *runtimeapi.PodSandboxFilter) ([]*runtimeapi.PodSandbox, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if err := r.fail["ListPodSandbox"]; err != nil {
		return nil, err
	}
	var out []*runtimeapi.PodSandbox
	for _, s := range r.sandboxes {
		if f.GetId() != "" && f.Id != s.Id || f.GetState() != nil && f.State.State != s.State || !matches(s.Labels, f.GetLabelSelector()) {
			continue
		}
		out = append(out, &runtimeapi.PodSandbox{
			Id: s.Id, Metadata: s.Metadata, State: s.State, CreatedAt: s.CreatedAt,
			Labels: clone(s.Labels), Annotations: clone(s.Annotations), RuntimeHandler: s.RuntimeHandler,
		})
	}
	return out, nil
}

// CreateContainer makes a container that does not run yet.
func (r *Runtime) CreateContainer(_ context.Context, sandbox string, config *runtimeapi.ContainerConfig, _ *runtimeapi.PodSandboxConfig) (string, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if err := r.enter("CreateContainer", config.Metadata.Name); err != nil {
		return "", err
	}
	if r.sandboxes[sandbox] == nil {
		return "", notFound("sandbox", sandbox)
	}
	id := r.id("ct")
	r.containers[id] = &Container{Sandbox: sandbox, Config: config, Status: &runtimeapi.ContainerStatus{
		Id: id, Metadata: config.Metadata, State: runtimeapi.ContainerState_CONTAINER_CREATED, CreatedAt: clock.Now().UnixNano(),
		Image: config.Image, ImageRef: config.GetImage().GetImage(), ImageId: config.GetImage().GetImage(),
		Labels: clone(config.Labels), Annotations: clone(config.Annotations), Mounts: config.Mounts, LogPath: config.LogPath,
		Resources: &runtimeapi.ContainerResources{Linux: config.GetLinux().GetResources()},
	}}
	r.tell(id, runtimeapi.ContainerEventType_CONTAINER_CREATED_EVENT, config.Labels)
	return id, nil
}

// StartContainer makes a created container run.
func (r *Runtime) StartContainer(_ context.Context, id string) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	c := r.containers[id]
	if c == nil {
		return notFound("container", id)
	}
	if err := r.enter("StartContainer", c.Config.Metadata.Name); err != nil {
		return err
	}
	c.Status.State, c.Status.StartedAt = runtimeapi.ContainerState_CONTAINER_RUNNING, clock.Now().UnixNano()
	r.tell(id, runtimeapi.ContainerEventType_CONTAINER_STARTED_EVENT, c.Config.Labels)
	return nil
}

// StopContainer ends a container, after its grace period if it ignores signals.
func (r *Runtime) StopContainer(ctx context.Context, id string, grace int64) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	c := r.containers[id]
	if c == nil {
		return nil
	}
	if err := r.enter("StopContainer", c.Config.Metadata.Name); err != nil {
		return err
	}
	code := int32(143)
	if r.ignoreTerm && grace > 0 {
		if err := r.wait(ctx, time.Duration(grace)*time.Second); err != nil {
			return err
		}
		code = 137
	}
	r.exited(c, code, "Error")
	return nil
}

// RemoveContainer forgets a container.
func (r *Runtime) RemoveContainer(_ context.Context, id string) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	c := r.containers[id]
	if c == nil {
		return nil
	}
	if err := r.enter("RemoveContainer", c.Config.Metadata.Name); err != nil {
		return err
	}
	delete(r.containers, id)
	r.tell(id, runtimeapi.ContainerEventType_CONTAINER_DELETED_EVENT, c.Config.Labels)
	return nil
}

// ListContainers lists the containers that filter selects.
func (r *Runtime) ListContainers(_ context.Context, f *runtimeapi.ContainerFilter) ([]*runtimeapi.Container, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if err := r.fail["ListContainers"]; err != nil {
		return nil, err
	}
	var out []*runtimeapi.Container
	for _, c := range r.containers {
		s := c.Status
		if f.GetId() != "" && f.Id != s.Id || f.GetState() != nil && f.State.State != s.State ||
			f.GetPodSandboxId() != "" && f.PodSandboxId != c.Sandbox || !matches(s.Labels, f.GetLabelSelector()) {
			continue
		}
		out = append(out, &runtimeapi.Container{
			Id: s.Id, PodSandboxId: c.Sandbox, Metadata: s.Metadata, Image: s.Image, ImageRef: s.ImageRef, ImageId: s.ImageId,
			State: s.State, CreatedAt: s.CreatedAt, Labels: clone(s.Labels), Annotations: clone(s.Annotations),
		})
	}
	return out, nil
}

// ContainerStatus reports on one container.
func (r *Runtime) ContainerStatus(_ context.Context, id string, _ bool) (*runtimeapi.ContainerStatusResponse, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	c := r.containers[id]
	if c == nil {
		return nil, notFound("container", id)
	}
	return &runtimeapi.ContainerStatusResponse{Status: copyContainer(c.Status)}, nil
}

// UpdateContainerResources remembers the new resources.
func (r *Runtime) UpdateContainerResources(_ context.Context, id string, res *runtimeapi.ContainerResources) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	c := r.containers[id]
	if c == nil {
		return notFound("container", id)
	}
	if err := r.enter("UpdateContainerResources", c.Config.Metadata.Name); err != nil {
		return err
	}
	c.Status.Resources = res
	return nil
}

// UpdatePodSandboxResources has nothing to do.
func (r *Runtime) UpdatePodSandboxResources(context.Context, *runtimeapi.UpdatePodSandboxResourcesRequest) (*runtimeapi.UpdatePodSandboxResourcesResponse, error) {
	return &runtimeapi.UpdatePodSandboxResourcesResponse{}, nil
}

// ReopenContainerLog has nothing to do.
func (r *Runtime) ReopenContainerLog(context.Context, string) error { return nil }

// ExecSync answers with what OnExec gave, else success and no output.
func (r *Runtime) ExecSync(_ context.Context, id string, cmd []string, _ time.Duration) ([]byte, []byte, error) {
	r.mu.Lock()
	fn := r.exec
	r.mu.Unlock()
	if fn == nil {
		return nil, nil, nil
	}
	return fn(id, cmd)
}

// copySandbox and copyContainer keep callers from seeing later changes.
func copySandbox(s *runtimeapi.PodSandboxStatus) *runtimeapi.PodSandboxStatus {
	return &runtimeapi.PodSandboxStatus{
		Id: s.Id, Metadata: s.Metadata, State: s.State, CreatedAt: s.CreatedAt, Network: s.Network, Linux: s.Linux,
		Labels: clone(s.Labels), Annotations: clone(s.Annotations), RuntimeHandler: s.RuntimeHandler,
	}
}

func copyContainer(s *runtimeapi.ContainerStatus) *runtimeapi.ContainerStatus {
	return &runtimeapi.ContainerStatus{
		Id: s.Id, Metadata: s.Metadata, State: s.State, CreatedAt: s.CreatedAt, StartedAt: s.StartedAt, FinishedAt: s.FinishedAt,
		ExitCode: s.ExitCode, Image: s.Image, ImageRef: s.ImageRef, ImageId: s.ImageId, Reason: s.Reason, Message: s.Message,
		Labels: clone(s.Labels), Annotations: clone(s.Annotations), Mounts: s.Mounts, LogPath: s.LogPath,
		Resources: s.Resources, User: s.User, StopSignal: s.StopSignal,
	}
}
