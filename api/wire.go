package api

import (
	"context"

	"k8s.io/apimachinery/pkg/watch"
)

// Listed is the answer to a list.
type Listed struct {
	Items           []Object
	ResourceVersion string
	Continue        string
	Remaining       *int64
}

// Events is a cursor into the changes that a watch delivers. A watch that the
// server ends returns io.EOF; one that fell behind a 410 *apierrors.StatusError.
type Events interface {
	Next(ctx context.Context) (watch.Event, error)
	Stop()
}
