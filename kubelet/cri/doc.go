// Package cri is how the node agent speaks to the container runtime.
//
// Job: the connection over gRPC to a CRI endpoint, the names (labels and
// annotations) under which pods and containers are found again after a restart,
// and State, one pod as the runtime knows it.
//
// Not its job: what should run (kubelet), what a container looks like (kubelet/spec).
//
// Invariants: everything needed to recognise a container is stored with it in
// the runtime, so that a restarted agent adopts all containers and restarts none.
package cri

import (
	"context"
	"fmt"
	"time"

	internalapi "k8s.io/cri-api/pkg/apis"
	criclient "k8s.io/cri-client/pkg"
)

// Runtime runs sandboxes and containers.
type Runtime = internalapi.RuntimeService

// Images pulls, lists and removes images.
type Images = internalapi.ImageManagerService

// requestTimeout bounds one call to the runtime, as upstream's runtimeRequestTimeout does.
const requestTimeout = 2 * time.Minute

// Connect returns both services at endpoint, such as unix:///run/containerd/containerd.sock.
// It does not wait for the runtime to answer.
func Connect(ctx context.Context, endpoint string) (Runtime, Images, error) {
	r, err := criclient.NewRemoteRuntimeService(ctx, endpoint, requestTimeout, nil, false)
	if err != nil {
		return nil, nil, fmt.Errorf("connect: runtime %s: %w", endpoint, err)
	}
	i, err := criclient.NewRemoteImageService(ctx, endpoint, requestTimeout, nil, false)
	if err != nil {
		_ = r.Close(ctx)
		return nil, nil, fmt.Errorf("connect: images %s: %w", endpoint, err)
	}
	return r, i, nil
}
