package node

import (
	"context"
	"sync"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/sampan-dev/sampan/kubelet/cri"
)

// arrivals tells those who wait that images came in, and when no more will.
type arrivals struct {
	mu   sync.Mutex
	next chan struct{} // closed at the next arrival; nil after the last
}

func newArrivals() *arrivals { return &arrivals{next: make(chan struct{})} }

// more wakes everybody who waits for the next arrival.
func (a *arrivals) more() { a.turn(make(chan struct{})) }

// end says that nothing is on its way any longer.
func (a *arrivals) end() { a.turn(nil) }

func (a *arrivals) turn(next chan struct{}) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.next != nil {
		close(a.next)
	}
	a.next = next
}

// coming is closed at the next arrival; nil when there will be none.
func (a *arrivals) coming() <-chan struct{} {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.next
}

// patient is the runtime's images while a node's own are still brought in: an
// image that is not there yet is waited for, rather than pulled from a registry
// that never had it.
type patient struct {
	cri.Images
	arriving *arrivals
}

// ImageStatus answers at once for what is there and otherwise after the last arrival.
func (p patient) ImageStatus(ctx context.Context, spec *runtimeapi.ImageSpec, verbose bool) (*runtimeapi.ImageStatusResponse, error) {
	for {
		coming := p.arriving.coming() // before the question, or an arrival between them were missed
		resp, err := p.Images.ImageStatus(ctx, spec, verbose)
		if err != nil || resp.GetImage() != nil || coming == nil {
			return resp, err
		}
		if err := wait(ctx, coming); err != nil {
			return nil, err
		}
	}
}

// PullImage goes to a registry after the last arrival, since the node's own
// registry, which is asked first, is filled with the archives.
func (p patient) PullImage(ctx context.Context, spec *runtimeapi.ImageSpec, auth *runtimeapi.AuthConfig, sandbox *runtimeapi.PodSandboxConfig) (string, error) {
	for coming := p.arriving.coming(); coming != nil; coming = p.arriving.coming() {
		if err := wait(ctx, coming); err != nil {
			return "", err
		}
	}
	return p.Images.PullImage(ctx, spec, auth, sandbox)
}

func wait(ctx context.Context, coming <-chan struct{}) error {
	select {
	case <-coming:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
