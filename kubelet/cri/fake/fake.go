// Package fake is a container runtime in memory: it keeps sandboxes and
// containers, moves them through their states and tells of it, and runs nothing.
//
// Job: be a runtime that hollow nodes and tests can use in place of a real one.
//
// Not its job: processes, networks, files.
//
// Invariants: it is safe for concurrent use; it obeys the order that CRI asks
// for (create, start, stop, remove) and answers NotFound as a runtime does.
package fake

import (
	"context"
	"fmt"
	"maps"
	"sync"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	internalapi "k8s.io/cri-api/pkg/apis"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/sampan-dev/sampan/kit/clock"
)

// Runtime implements both CRI services. Make one with New.
type Runtime struct {
	internalapi.RuntimeService // what is not implemented below is never called

	mu         sync.Mutex
	next       int
	sandboxes  map[string]*runtimeapi.PodSandboxStatus
	containers map[string]*Container
	images     map[string]*runtimeapi.Image
	listeners  map[chan *runtimeapi.ContainerEventResponse]context.Context
	calls      []string
	fail       map[string]error
	exec       func(id string, cmd []string) (stdout, stderr []byte, err error)
	address    func() string
	pull       func(image string) error
	networkErr string
	driver     *runtimeapi.LinuxRuntimeConfiguration
	ignoreTerm bool
}

// Container is one container of the fake.
type Container struct {
	Status  *runtimeapi.ContainerStatus
	Config  *runtimeapi.ContainerConfig
	Sandbox string
}

// New returns a runtime with no pods; every image can be pulled.
func New() *Runtime {
	r := &Runtime{
		sandboxes: map[string]*runtimeapi.PodSandboxStatus{}, containers: map[string]*Container{},
		images: map[string]*runtimeapi.Image{}, fail: map[string]error{},
		listeners: map[chan *runtimeapi.ContainerEventResponse]context.Context{},
	}
	r.CgroupDriver("cgroupfs")
	r.address = func() string { return fmt.Sprintf("10.88.%d.%d", r.next/250%250, r.next%250+1) }
	return r
}

// SetAddresses makes new sandboxes take their IP from fn, which must be quick.
func (r *Runtime) SetAddresses(fn func() string) { r.mu.Lock(); defer r.mu.Unlock(); r.address = fn }

// Fail makes every later call of the named method fail with err; nil ends that.
func (r *Runtime) Fail(method string, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.fail[method] = err; err == nil {
		delete(r.fail, method)
	}
}

// OnExec sets what ExecSync answers.
func (r *Runtime) OnExec(fn func(id string, cmd []string) ([]byte, []byte, error)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.exec = fn
}

// OnPull sets whether an image can be pulled.
func (r *Runtime) OnPull(fn func(image string) error) { r.mu.Lock(); defer r.mu.Unlock(); r.pull = fn }

// IgnoreTerm makes containers live on until their grace period has passed.
func (r *Runtime) IgnoreTerm(on bool) { r.mu.Lock(); defer r.mu.Unlock(); r.ignoreTerm = on }

// NetworkBroken sets the message with which the network is not ready; "" makes it ready.
func (r *Runtime) NetworkBroken(msg string) { r.mu.Lock(); defer r.mu.Unlock(); r.networkErr = msg }

// CgroupDriver sets who writes the containers' control groups: cgroupfs, systemd,
// or "" for a runtime that does not say.
func (r *Runtime) CgroupDriver(name string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.driver = map[string]*runtimeapi.LinuxRuntimeConfiguration{
		"cgroupfs": {CgroupDriver: runtimeapi.CgroupDriver_CGROUPFS}, "systemd": {CgroupDriver: runtimeapi.CgroupDriver_SYSTEMD},
	}[name]
}

// Calls returns the calls that changed something, in order, as "Method name".
func (r *Runtime) Calls() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return append([]string(nil), r.calls...)
}

// Find returns the newest container of that name in any pod.
func (r *Runtime) Find(name string) *Container {
	r.mu.Lock()
	defer r.mu.Unlock()
	var best *Container
	for _, c := range r.containers {
		if c.Config.Metadata.Name == name && (best == nil || c.Status.CreatedAt > best.Status.CreatedAt) {
			best = c
		}
	}
	return best
}

// Exit ends a running container as if its process had.
func (r *Runtime) Exit(id string, code int32, reason string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if c := r.containers[id]; c != nil {
		r.exited(c, code, reason)
	}
}

// KillSandbox makes a sandbox not ready, with all its containers dead.
func (r *Runtime) KillSandbox(id string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.stopSandbox(id)
}

func (r *Runtime) exited(c *Container, code int32, reason string) {
	if c.Status.State != runtimeapi.ContainerState_CONTAINER_RUNNING {
		return
	}
	if reason == "" {
		if reason = "Completed"; code != 0 {
			reason = "Error"
		}
	}
	c.Status.State, c.Status.ExitCode, c.Status.Reason = runtimeapi.ContainerState_CONTAINER_EXITED, code, reason
	c.Status.FinishedAt = clock.Now().UnixNano()
	r.tell(c.Status.Id, runtimeapi.ContainerEventType_CONTAINER_STOPPED_EVENT, c.Config.Labels)
}

// enter counts a call and answers its planned failure; the lock is held.
func (r *Runtime) enter(method, name string) error {
	r.calls = append(r.calls, method+" "+name)
	return r.fail[method]
}

func (r *Runtime) id(kind string) string { r.next++; return fmt.Sprintf("%s%060d", kind, r.next) }

func notFound(what, id string) error {
	return status.Errorf(codes.NotFound, "%s %q: not found", what, id)
}

// tell sends an event to all listeners that have room for it.
func (r *Runtime) tell(id string, t runtimeapi.ContainerEventType, labels map[string]string) {
	e := &runtimeapi.ContainerEventResponse{
		ContainerId: id, ContainerEventType: t, CreatedAt: clock.Now().UnixNano(),
		PodSandboxStatus: &runtimeapi.PodSandboxStatus{Metadata: &runtimeapi.PodSandboxMetadata{
			Name: labels["io.kubernetes.pod.name"], Namespace: labels["io.kubernetes.pod.namespace"], Uid: labels["io.kubernetes.pod.uid"],
		}},
	}
	for ch, ctx := range r.listeners {
		select {
		case ch <- e:
		case <-ctx.Done():
		default:
		}
	}
}

// GetContainerEvents sends every change to ch until ctx ends.
func (r *Runtime) GetContainerEvents(ctx context.Context, ch chan *runtimeapi.ContainerEventResponse, connected func(runtimeapi.RuntimeService_GetContainerEventsClient)) error {
	r.mu.Lock()
	r.listeners[ch] = ctx
	r.mu.Unlock()
	if connected != nil {
		connected(nil)
	}
	<-ctx.Done()
	r.mu.Lock()
	delete(r.listeners, ch)
	r.mu.Unlock()
	return ctx.Err()
}

// Version names the fake.
func (r *Runtime) Version(context.Context, string) (*runtimeapi.VersionResponse, error) {
	return &runtimeapi.VersionResponse{Version: "0.1.0", RuntimeName: "fake", RuntimeVersion: "1.0.0", RuntimeApiVersion: "v1"}, nil
}

// Status reports whether runtime and network are ready.
func (r *Runtime) Status(context.Context, bool) (*runtimeapi.StatusResponse, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if err := r.fail["Status"]; err != nil {
		return nil, err
	}
	network := &runtimeapi.RuntimeCondition{Type: runtimeapi.NetworkReady, Status: r.networkErr == ""}
	if r.networkErr != "" {
		network.Reason, network.Message = "NetworkPluginNotReady", r.networkErr
	}
	return &runtimeapi.StatusResponse{
		Status:          &runtimeapi.RuntimeStatus{Conditions: []*runtimeapi.RuntimeCondition{{Type: runtimeapi.RuntimeReady, Status: true}, network}},
		RuntimeHandlers: []*runtimeapi.RuntimeHandler{{Features: &runtimeapi.RuntimeHandlerFeatures{}}},
	}, nil
}

// UpdateRuntimeConfig has nothing to do.
func (r *Runtime) UpdateRuntimeConfig(context.Context, *runtimeapi.RuntimeConfig) error { return nil }

// RuntimeConfig names the cgroup driver.
func (r *Runtime) RuntimeConfig(context.Context) (*runtimeapi.RuntimeConfigResponse, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if err := r.fail["RuntimeConfig"]; err != nil {
		return nil, err
	}
	return &runtimeapi.RuntimeConfigResponse{Linux: r.driver}, nil
}

// Close has nothing to do.
func (r *Runtime) Close(context.Context) error { return nil }

func matches(labels, selector map[string]string) bool {
	for k, v := range selector {
		if labels[k] != v {
			return false
		}
	}
	return true
}

func clone(m map[string]string) map[string]string { return maps.Clone(m) }

// wait lets d pass with the lock released.
func (r *Runtime) wait(ctx context.Context, d time.Duration) error {
	r.mu.Unlock()
	defer r.mu.Lock()
	return clock.Sleep(ctx, d)
}
