package encrypt

import (
	"context"
	"net"
)

// dialUnix connects to the service; a path that begins with @ is abstract.
func dialUnix(ctx context.Context, path string) (net.Conn, error) {
	return (&net.Dialer{}).DialContext(ctx, "unix", path)
}
