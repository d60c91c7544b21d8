package machine

import (
	"bytes"
	"context"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/sampan-dev/sampan/kit/clock"
	"github.com/sampan-dev/sampan/kit/run"
)

// answering makes m answer at its port 8080 until the test ends.
func answering(t *testing.T, m *Machine, text []byte) {
	t.Helper()
	l, err := m.Listen(t.Context(), m.Spec.Address.Addr().String()+":8080")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	run.Detach(t.Context(), "answer", func(context.Context) {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			_, _ = conn.Write(text)
			conn.Close()
		}
	})
}

// fetch reads what from answers to m; limit bounds the connecting.
func fetch(t *testing.T, m, from *Machine, limit time.Duration) ([]byte, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	conn, err := m.Dial(ctx, net.JoinHostPort(from.Spec.Address.Addr().String(), "8080"))
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	return io.ReadAll(conn)
}

func TestCutOffAndReconnected(t *testing.T) {
	needRoot(t)
	base := t.TempDir()
	a, b := boot(t, base, 10), boot(t, base, 11)
	answering(t, b, []byte("hello"))
	if got, err := fetch(t, a, b, time.Minute); err != nil || string(got) != "hello" {
		t.Fatalf("before: %q, %v", got, err)
	}
	for range 2 { // cutting twice is cutting once
		if err := b.CutOff(); err != nil {
			t.Fatal(err)
		}
	}
	if got, err := fetch(t, a, b, time.Second); err == nil {
		t.Errorf("a machine that is cut off answered %q", got)
	}
	if got := sh(t, b, "echo alive; cat /sys/class/net/eth0/carrier"); got != "alive\n0" {
		t.Errorf("inside of the one cut off: %q", got)
	}
	for range 2 {
		if err := b.Reconnect(); err != nil {
			t.Fatal(err)
		}
	}
	if got, err := fetch(t, a, b, time.Minute); err != nil || string(got) != "hello" {
		t.Errorf("after: %q, %v", got, err)
	}
	// A machine that boots has its cable in.
	if err := b.CutOff(); err != nil {
		t.Fatal(err)
	}
	if err := b.Stop(t.Context(), 0); err != nil {
		t.Fatal(err)
	}
	for what, do := range map[string]func() error{"cut off": b.CutOff, "reconnect": b.Reconnect, "slow down": func() error { return b.Slow(1) }} {
		if err := do(); err == nil || !strings.Contains(err.Error(), what+" machine n11") {
			t.Errorf("%s of a machine that is off: %v", what, err)
		}
	}
	if err := b.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := sh(t, b, "cat /sys/class/net/eth0/carrier"); got != "1" {
		t.Errorf("carrier after a boot: %q", got)
	}
}

func TestSlowedDown(t *testing.T) {
	needRoot(t)
	base := t.TempDir()
	a, b := boot(t, base, 10), boot(t, base, 11)
	text := bytes.Repeat([]byte("0123456789abcdef"), 16<<10) // 256 KiB
	answering(t, b, text)
	const rate = 128 << 10
	if err := b.Slow(rate); err != nil {
		t.Fatal(err)
	}
	began := clock.Now()
	got, err := fetch(t, a, b, time.Minute)
	if err != nil || !bytes.Equal(got, text) {
		t.Fatalf("%d bytes, %v", len(got), err)
	}
	// The bucket is full at first.
	if took, least := clock.Since(began), time.Duration(len(text)-64<<10)*time.Second/rate*8/10; took < least {
		t.Errorf("%d bytes took %v at %d a second, want at least %v", len(text), took, rate, least)
	}
	for range 2 { // as fast as before is no error where it is
		if err := b.Slow(0); err != nil {
			t.Fatal(err)
		}
	}
	if got := sh(t, b, "tc qdisc show dev eth0"); strings.Contains(got, "tbf") {
		t.Errorf("left: %s", got)
	}
}
