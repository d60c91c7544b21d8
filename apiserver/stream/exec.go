package stream

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/streaming/pkg/httpstream"
	"k8s.io/streaming/pkg/httpstream/spdy"
	"k8s.io/streaming/pkg/httpstream/wsstream"

	"github.com/sampan-dev/sampan/api"
	"github.com/sampan-dev/sampan/apiserver/request"
	"github.com/sampan-dev/sampan/kit/run"
)

// Remote command protocols and channels.
const (
	protocolV4 = "v4.channel.k8s.io"
	protocolV5 = "v5.channel.k8s.io"

	stdinChannel  = 0
	stdoutChannel = 1
	stderrChannel = 2
	errorChannel  = 3
	resizeChannel = 4

	pingPeriod = 5 * time.Second
	idleStream = 4 * time.Hour // upstream's
)

func (s *Streams) exec(w http.ResponseWriter, r *http.Request, _ *request.Info, obj api.Object) error {
	if len(r.URL.Query()["command"]) == 0 {
		return apierrors.NewBadRequest("you must specify at least one command for the container")
	}
	return s.command(w, r, obj, "exec")
}

func (s *Streams) attach(w http.ResponseWriter, r *http.Request, _ *request.Info, obj api.Object) error {
	return s.command(w, r, obj, "attach")
}

// command connects a client to a container's process. SPDY goes through as it
// is; WebSockets are translated, so that kubelets need not know them.
func (s *Streams) command(w http.ResponseWriter, r *http.Request, obj api.Object, verb string) error {
	p, err := pod(obj)
	if err != nil {
		return err
	}
	q := r.URL.Query()
	container, err := choose(p, q.Get("container"))
	if err != nil {
		return err
	}
	at, err := s.kubeletPath(r.Context(), p, verb, container)
	if err != nil {
		return err
	}
	wants := wanted(q, verb)
	if !wants.stdin && !wants.stdout && !wants.stderr {
		return apierrors.NewBadRequest("you must specify at least 1 of stdin, stdout, stderr")
	}
	at.RawQuery = wants.query(q["command"]).Encode()
	if wsstream.IsWebSocketRequest(r) {
		return s.translate(w, r, at, wants)
	}
	s.forward(w, r, at, s.kubelet, false, true)
	return nil
}

// kubeletPath returns where the kubelet serves verb for a pod.
func (s *Streams) kubeletPath(ctx context.Context, p *corev1.Pod, verb, container string) (*url.URL, error) {
	if p.Spec.NodeName == "" {
		return nil, apierrors.NewBadRequest(fmt.Sprintf("pod %s does not have a host assigned", p.Name))
	}
	host, err := s.place(ctx, p.Spec.NodeName)
	if err != nil {
		return nil, err
	}
	path := "/" + verb + "/" + p.Namespace + "/" + p.Name
	if container != "" {
		path += "/" + container
	}
	return &url.URL{Scheme: "https", Host: host, Path: path}, nil
}

// streams are those a command is connected to.
type streams struct{ stdin, stdout, stderr, tty bool }

// wanted reads the options; exec without any has output, as upstream defaults it.
func wanted(q url.Values, verb string) streams {
	s := streams{stdin: truth(q.Get("stdin")), stdout: truth(q.Get("stdout")), stderr: truth(q.Get("stderr")), tty: truth(q.Get("tty"))}
	if _, said := q["stdout"]; !said && verb != "" {
		s.stdout = true
	}
	if _, said := q["stderr"]; !said && !s.tty {
		s.stderr = true
	}
	if s.tty {
		s.stderr = false // a terminal has one output
	}
	return s
}

// query writes the options as kubelets read them.
func (s streams) query(command []string) url.Values {
	out := url.Values{}
	for k, on := range map[string]bool{"input": s.stdin, "output": s.stdout, "error": s.stderr, "tty": s.tty} {
		if on {
			out.Set(k, "1")
		}
	}
	for _, c := range command {
		out.Add("command", c)
	}
	return out
}

// translate joins a client's WebSocket to a SPDY connection with the kubelet.
func (s *Streams) translate(w http.ResponseWriter, r *http.Request, at *url.URL, want streams) error {
	kinds := []wsstream.ChannelType{wsstream.IgnoreChannel, wsstream.IgnoreChannel, wsstream.IgnoreChannel, wsstream.WriteChannel, wsstream.IgnoreChannel}
	for i, on := range []bool{want.stdin, want.stdout, want.stderr} {
		if on {
			kinds[i] = wsstream.WriteChannel
		}
	}
	if want.stdin {
		kinds[stdinChannel] = wsstream.ReadChannel
	}
	if want.tty {
		kinds[resizeChannel] = wsstream.ReadChannel
	}
	config := wsstream.ChannelProtocolConfig{Binary: true, Channels: kinds}
	text := wsstream.ChannelProtocolConfig{Binary: false, Channels: kinds}
	conn := wsstream.NewConn(map[string]wsstream.ChannelProtocolConfig{
		"": config, "channel.k8s.io": config, protocolV4: config, protocolV5: config,
		"base64.channel.k8s.io": text, "v4.base64.channel.k8s.io": text,
	})
	conn.SetIdleTimeout(idleStream)
	protocol, ws, err := conn.Open(w, r)
	if err != nil {
		return nil //nolint:nilerr // the WebSocket library has answered
	}
	defer conn.Close()
	var last io.Writer = ws[errorChannel]
	if !strings.HasPrefix(protocol, "v") {
		last = textStatus{last}
	}
	if err := s.join(r.Context(), at, want, ws, last); err != nil {
		_ = writeStatus(last, err) // the last word, if anyone listens
	}
	return nil
}

// textStatus is the error channel of the first protocols, which say nothing of
// success and of failure only its words.
type textStatus struct{ to io.Writer }

func (t textStatus) Write(b []byte) (int, error) {
	var s metav1.Status
	if json.Unmarshal(b, &s) != nil || s.Status == metav1.StatusSuccess {
		return len(b), nil
	}
	if _, err := io.WriteString(t.to, s.Message); err != nil {
		return 0, err
	}
	return len(b), nil
}

// join carries bytes between the channels and a kubelet until the command ends.
// The kubelet's last word goes to last.
func (s *Streams) join(ctx context.Context, at *url.URL, want streams, ws []io.ReadWriteCloser, last io.Writer) error {
	k, err := s.dialKubelet(ctx, at)
	if err != nil {
		return err
	}
	defer k.Close()
	stop := context.AfterFunc(s.c.Streams, func() { _ = k.Close() })
	defer stop()
	open := func(kind string) (httpstream.Stream, error) {
		return k.CreateStream(http.Header{corev1.StreamType: {kind}})
	}
	verdict, err := open(corev1.StreamTypeError)
	if err != nil {
		return err
	}
	outputs := make(chan struct{}, 2)
	pending := 0
	for _, st := range []struct {
		on      bool
		kind    string
		channel int
	}{{want.stdin, corev1.StreamTypeStdin, stdinChannel}, {want.stdout, corev1.StreamTypeStdout, stdoutChannel}, {want.stderr, corev1.StreamTypeStderr, stderrChannel}, {want.tty, corev1.StreamTypeResize, resizeChannel}} {
		if !st.on {
			continue
		}
		remote, err := open(st.kind)
		if err != nil {
			return err
		}
		if st.channel == stdinChannel || st.channel == resizeChannel {
			run.Detach(ctx, "exec "+st.kind, func(context.Context) {
				_, _ = io.Copy(remote, ws[st.channel]) // ends with either side
				_ = remote.Close()                     // tells the process its input ended
			})
			continue
		}
		pending++
		run.Detach(ctx, "exec "+st.kind, func(context.Context) {
			_, _ = io.Copy(ws[st.channel], remote)
			outputs <- struct{}{}
		})
	}
	// The kubelet's last word is a Status; it is passed on once the output is out.
	raw, err := io.ReadAll(verdict)
	for range pending {
		select {
		case <-outputs:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	if err != nil {
		return fmt.Errorf("error reading from error stream: %w", err)
	}
	if len(raw) == 0 {
		return writeStatusBody(last, map[string]any{"metadata": map[string]any{}, "status": "Success"})
	}
	_, err = last.Write(raw)
	return err
}

// dialKubelet opens a SPDY connection that speaks the remote command protocol.
func (s *Streams) dialKubelet(ctx context.Context, at *url.URL) (httpstream.Connection, error) {
	rt, err := spdy.NewRoundTripperWithConfig(spdy.RoundTripperConfig{UpgradeTransport: s.kubelet, PingPeriod: pingPeriod})
	if err != nil {
		return nil, err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, at.String(), nil)
	if err != nil {
		return nil, err
	}
	req.Header.Add(httpstream.HeaderProtocolVersion, protocolV4)
	resp, err := rt.RoundTrip(req)
	if err != nil {
		return nil, fmt.Errorf("error dialing backend: %w", err)
	}
	defer resp.Body.Close()
	c, err := rt.NewConnection(resp)
	if err != nil {
		return nil, err
	}
	return c, nil
}

// writeStatus sends err as the Status that ends a command.
func writeStatus(w io.Writer, err error) error {
	status := apierrors.NewInternalError(err)
	if s := (*apierrors.StatusError)(nil); errors.As(err, &s) {
		status = s
	}
	return writeStatusBody(w, status.ErrStatus)
}

func writeStatusBody(w io.Writer, body any) error {
	raw, err := json.Marshal(body)
	if err != nil {
		return err
	}
	_, err = w.Write(raw)
	return err
}
