package stream

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"

	"github.com/gorilla/websocket"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	utilproxy "k8s.io/apimachinery/pkg/util/proxy"
	"k8s.io/streaming/pkg/httpstream"
	"k8s.io/streaming/pkg/httpstream/spdy"
	"k8s.io/streaming/pkg/httpstream/wsstream"

	"github.com/sampan-dev/sampan/api"
	"github.com/sampan-dev/sampan/apiserver/request"
	"github.com/sampan-dev/sampan/kit/run"
)

// tunnelPrefix marks WebSocket subprotocols that carry a whole SPDY connection.
const tunnelPrefix = "SPDY/3.1+"

// portForward connects a client to ports of a pod.
func (s *Streams) portForward(w http.ResponseWriter, r *http.Request, _ *request.Info, obj api.Object) error {
	p, err := pod(obj)
	if err != nil {
		return err
	}
	at, err := s.kubeletPath(r.Context(), p, "portForward", "")
	if err != nil {
		return err
	}
	if ports := r.URL.Query()["ports"]; len(ports) > 0 {
		at.RawQuery = url.Values{"port": {strings.Join(ports, ",")}}.Encode()
	}
	if wsstream.IsWebSocketRequestWithTunnelingProtocol(r) {
		return s.tunnel(w, r, at)
	}
	s.forward(w, r, at, s.kubelet, false, true)
	return nil
}

// tunnel carries a SPDY connection inside a WebSocket to the kubelet.
func (s *Streams) tunnel(w http.ResponseWriter, r *http.Request, at *url.URL) error {
	chosen := ""
	for _, p := range websocket.Subprotocols(r) {
		if strings.HasPrefix(p, tunnelPrefix) && strings.HasSuffix(p, ".k8s.io") {
			chosen = p
			break
		}
	}
	if chosen == "" {
		return apierrors.NewBadRequest("unable to upgrade: no tunneling spdy protocols provided")
	}
	conn, rest, err := s.dialTunnel(r.Context(), at, strings.TrimPrefix(chosen, tunnelPrefix))
	if err != nil {
		return err
	}
	defer conn.Close()
	up := websocket.Upgrader{Subprotocols: []string{chosen}, ReadBufferSize: 32 << 10, WriteBufferSize: 32 << 10, CheckOrigin: func(*http.Request) bool { return true }}
	ws, err := up.Upgrade(w, r, nil)
	if err != nil {
		return nil //nolint:nilerr // the upgrader has answered
	}
	defer ws.Close()
	ctx, cancel := context.WithCancel(r.Context())
	defer cancel()
	defer context.AfterFunc(s.c.Streams, cancel)()
	run.Detach(ctx, "port forward out", func(context.Context) {
		defer cancel()
		for {
			kind, in, err := ws.NextReader()
			if err != nil || kind != websocket.BinaryMessage {
				return
			}
			if _, err := io.Copy(conn, in); err != nil {
				return
			}
		}
	})
	run.Detach(ctx, "port forward in", func(context.Context) {
		defer cancel()
		buf := make([]byte, 32<<10)
		for {
			n, err := rest.Read(buf)
			if n > 0 && ws.WriteMessage(websocket.BinaryMessage, buf[:n]) != nil {
				return
			}
			if err != nil {
				return
			}
		}
	})
	<-ctx.Done() // either side ended
	return nil
}

// dialTunnel asks the kubelet for a SPDY upgrade and returns the raw connection.
func (s *Streams) dialTunnel(ctx context.Context, at *url.URL, protocol string) (net.Conn, io.Reader, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, at.String(), nil)
	if err != nil {
		return nil, nil, err
	}
	req.Header.Set(httpstream.HeaderConnection, httpstream.HeaderUpgrade)
	req.Header.Set(httpstream.HeaderUpgrade, spdy.HeaderSpdy31)
	req.Header.Set(httpstream.HeaderProtocolVersion, protocol)
	conn, err := utilproxy.DialURL(ctx, at, s.kubelet)
	if err != nil {
		return nil, nil, apierrors.NewInternalError(fmt.Errorf("error dialing backend: %w", err))
	}
	if err := req.Write(conn); err != nil {
		_ = conn.Close()
		return nil, nil, apierrors.NewInternalError(fmt.Errorf("error sending request: %w", err))
	}
	rest := bufio.NewReader(conn)
	resp, err := http.ReadResponse(rest, req)
	if err != nil {
		_ = conn.Close()
		return nil, nil, apierrors.NewInternalError(fmt.Errorf("error dialing backend: %w", err))
	}
	if resp.StatusCode != http.StatusSwitchingProtocols {
		defer conn.Close()
		defer resp.Body.Close()
		if err := kubeletError(resp, at.Path); err != nil {
			return nil, nil, err
		}
		return nil, nil, apierrors.NewInternalError(fmt.Errorf("unable to upgrade connection: kubelet answered %s", resp.Status))
	}
	return conn, rest, nil
}
