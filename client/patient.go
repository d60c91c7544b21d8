package client

import (
	"context"
	"crypto/tls"
	"errors"
	"net/http"
	"time"

	"github.com/sampan-dev/sampan/kit/clock"
)

// Patient returns the same client sending a request again, for so long, when
// nobody answers it: a balancer in front of servers that come up closes
// connections, now and then, some seconds longer than they need. What was carried
// out though its answer was lost is so sent twice: a create may say AlreadyExists.
func (h *HTTP) Patient(wait time.Duration) *HTTP {
	c := *h
	c.patience = wait
	return &c
}

// persist is once, as often as the client's patience lasts.
func (h *HTTP) persist(ctx context.Context, req *request) (*http.Response, context.CancelFunc, error) {
	until := clock.Now().Add(h.patience)
	for {
		resp, cancel, err := h.once(ctx, req)
		var stranger *tls.CertificateVerificationError // and will be one
		if err == nil || errors.As(err, &stranger) || !clock.Now().Before(until) || clock.Sleep(ctx, 250*time.Millisecond) != nil {
			return resp, cancel, err
		}
	}
}
