package controlplane

import (
	"context"
	"net"
	"net/http"
	"strconv"

	"github.com/sampan-dev/sampan/apiserver/request"
	"github.com/sampan-dev/sampan/kit/httpx"
)

// insecure serves the API over plain HTTP, where whoever asks is upstream's
// system:unsecured and may do everything: kube-apiserver's --insecure-port of
// old. It runs only when asked for.
func (c *ControlPlane) insecure(ctx context.Context) error {
	user := &request.User{Name: "system:unsecured", Groups: []string{request.Masters, request.Authenticated}}
	h := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c.server.ServeHTTP(w, r.WithContext(request.WithUser(r.Context(), user)))
	})
	return httpx.ListenAndStream(ctx, net.JoinHostPort(c.cfg.InsecureAddress, strconv.Itoa(c.cfg.InsecurePort)), h)
}
