package csi

import (
	"context"
	"errors"
	"fmt"

	spec "github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"k8s.io/apimachinery/pkg/api/resource"
)

// How a volume fails to grow on the node.
var (
	ErrNoExpansion = errors.New("NodeExpand is not supported by the CSI driver") // its driver does nothing there
	ErrInUse       = errors.New("the volume cannot be expanded while it is in use")
	ErrInfeasible  = errors.New("the volume cannot have this size")
	ErrTransient   = errors.New("the driver may succeed yet")
)

// Expand makes a mounted volume as large as it now can be.
func (r *Registry) Expand(ctx context.Context, q *Request, size resource.Quantity) error {
	d, err := r.driver(q.Source.Driver)
	if err != nil {
		return err
	}
	if !d.expands {
		return fmt.Errorf("%w %s", ErrNoExpansion, d.name)
	}
	defer r.lock(d.name, q.Source.VolumeHandle)()
	secrets, err := r.secrets(ctx, q.Source.NodeExpandSecretRef)
	if err != nil {
		return fmt.Errorf("expander.NodeExpand failed to get NodeExpandSecretRef: %w", err)
	}
	ask := &spec.NodeExpandVolumeRequest{
		VolumeId: q.Source.VolumeHandle, VolumePath: q.Target(), VolumeCapability: q.capability(d), Secrets: secrets,
		CapacityRange: &spec.CapacityRange{RequiredBytes: size.Value()},
	}
	if d.stages {
		ask.StagingTargetPath = staging(q.Root, d.name, q.Source.VolumeHandle)
	}
	if _, err = d.node().NodeExpandVolume(ctx, ask); err == nil {
		return nil
	}
	kind := error(nil)
	switch status.Code(err) {
	case codes.FailedPrecondition:
		kind = ErrInUse
	case codes.InvalidArgument, codes.OutOfRange, codes.NotFound:
		kind = ErrInfeasible
	case codes.Canceled, codes.DeadlineExceeded, codes.Unavailable, codes.ResourceExhausted, codes.Aborted:
		kind = ErrTransient
	}
	return failed{fmt.Errorf("Expander.NodeExpand failed to expand the volume : %w", plain(err)), kind}
}

// failed is what a driver said, and of which kind that is.
type failed struct {
	error
	kind error
}

func (f failed) Unwrap() error { return f.kind }
