package machine

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"

	"github.com/sampan-dev/sampan/kit/run"
)

// Dial connects to a TCP address as seen from inside the machine's network.
func (m *Machine) Dial(ctx context.Context, target string) (net.Conn, error) {
	// A literal address keeps the dial on this thread: no name is looked up and
	// no second address is raced.
	if _, err := netip.ParseAddrPort(target); err != nil {
		return nil, fmt.Errorf("dial in %s: %w", m.Spec.Name, err)
	}
	var conn net.Conn
	err := inNetNS(m.id(), func() (err error) {
		var d net.Dialer
		conn, err = d.DialContext(ctx, "tcp", target)
		return err
	})
	return conn, err
}

// Listen opens a TCP port inside the machine's network.
func (m *Machine) Listen(ctx context.Context, at string) (net.Listener, error) {
	var l net.Listener
	err := inNetNS(m.id(), func() (err error) {
		var lc net.ListenConfig
		l, err = lc.Listen(ctx, "tcp", at)
		return err
	})
	return l, err
}

// Forward serves l, a listener on 127.0.0.1, until ctx ends: every connection
// goes on to target inside the machine. For forwards that last as long as the
// machine, see Spec.Forwards.
func (m *Machine) Forward(ctx context.Context, l net.Listener, target string) error {
	return relay(ctx, l, func(ctx context.Context) (net.Conn, error) { return m.Dial(ctx, target) })
}

// relay joins every connection accepted by l to one that dial makes.
func relay(ctx context.Context, l net.Listener, dial func(context.Context) (net.Conn, error)) error {
	stop := context.AfterFunc(ctx, func() { l.Close() })
	defer stop()
	for {
		in, err := l.Accept()
		if ctx.Err() != nil || errors.Is(err, net.ErrClosed) {
			return ctx.Err()
		}
		if err != nil {
			return fmt.Errorf("forward from %s: %w", l.Addr(), err)
		}
		run.Detach(ctx, "forwarded connection", func(ctx context.Context) {
			defer in.Close()
			out, err := dial(ctx)
			if err != nil {
				return // the caller sees its connection closed
			}
			defer out.Close()
			splice(ctx, in, out)
		})
	}
}

// splice copies both ways until both are done. The end of one direction is
// passed on as such: the other may still have much to say.
func splice(ctx context.Context, a, b net.Conn) {
	stop := context.AfterFunc(ctx, func() { a.Close(); b.Close() })
	defer stop()
	back := make(chan struct{})
	run.Detach(ctx, "forwarded answer", func(context.Context) {
		defer close(back)
		copyHalf(a, b)
	})
	copyHalf(b, a)
	<-back
}

func copyHalf(to, from net.Conn) {
	_, _ = io.Copy(to, from)
	if c, ok := to.(interface{ CloseWrite() error }); ok {
		_ = c.CloseWrite()
	}
}
