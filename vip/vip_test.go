package vip

import (
	"bytes"
	"encoding/hex"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/spf13/pflag"
)

var (
	address = netip.MustParsePrefix("192.0.2.10/32")
	self    = netip.MustParseAddr("192.0.2.2")
	other   = netip.MustParseAddr("192.0.2.3")
	lower   = netip.MustParseAddr("192.0.2.1")
)

func config(t testing.TB, change func(*Config)) *Config {
	t.Helper()
	c := Defaults()
	c.Address, c.Self = address, self
	if change != nil {
		change(&c)
	}
	if err := c.Check(); err != nil {
		t.Fatal(err)
	}
	return &c
}

// The bytes are what RFC 3768 and RFC 5798 lay down, checksums included.
func TestPackets(t *testing.T) {
	for _, c := range []struct {
		name, hex string
		Advert
	}{
		{"version 2 with a password", "2133640101017b73c000020a7365637265740000", Advert{2, 51, 100, time.Second, []netip.Addr{address.Addr()}, "secret"}},
		{"version 2 without", "213364010001b8bfc000020a0000000000000000", Advert{2, 51, 100, time.Second, []netip.Addr{address.Addr()}, ""}},
		{"version 3", "31336401003205fdc000020a", Advert{3, 51, 100, 500 * time.Millisecond, []netip.Addr{address.Addr()}, ""}},
	} {
		got := c.Encode(self, group)
		if hex.EncodeToString(got) != c.hex {
			t.Errorf("%s: %x, want %s", c.name, got, c.hex)
		}
		back, err := Decode(got, self, group)
		if err != nil || fmt.Sprint(back) != fmt.Sprint(c.Advert) {
			t.Errorf("%s: read back %v %v, want %v", c.name, back, err, c.Advert)
		}
		for i := range got {
			broken := bytes.Clone(got)
			broken[i] ^= 0x10
			if b, err := Decode(broken, self, group); err == nil && b.Version == c.Version {
				t.Errorf("%s: byte %d may be wrong unnoticed", c.name, i)
			}
			_, _ = Decode(got[:i], self, group)
		}
	}
	// Without the pseudo header, as some speakers of version 3 have it.
	bare := []byte{0x31, 51, 100, 1, 0, 50, 0, 0, 192, 0, 2, 10}
	s := sum(bare)
	bare[6], bare[7] = byte(s>>8), byte(s)
	if _, err := Decode(bare, self, group); err != nil {
		t.Errorf("without pseudo header: %v", err)
	}
}

func TestDecide(t *testing.T) {
	now := time.Unix(1000, 0)
	c := config(t, nil)
	later := now.Add(time.Hour)
	backup := State{Ready: true, Down: later}
	holder := State{Holder: true, Ready: true, Next: later, Greet: later}
	for _, tc := range []struct {
		name  string
		state State
		event Event
		hold  bool
		want  Actions
		down  time.Duration // from now, 0 not looked at
	}{
		{"begins by listening", State{}, Event{Ready: true}, false, Actions{Drop: true}, 1500*time.Millisecond + 500*time.Millisecond*156/256},
		{"nothing happened", backup, Event{Ready: true}, false, Actions{}, 0},
		{"the holder is silent", State{Ready: true, Down: now}, Event{Ready: true}, true, Actions{Take: true, Send: true, Greet: true, Priority: 100}, 0},
		{"one who is not ready waits for those who are, then takes it all the same", State{Down: now}, Event{}, true, Actions{Take: true, Send: true, Greet: true, Priority: 1}, 0},
		{"the holder leaves", backup, Event{Ready: true, Heard: &Heard{0, 0, other}}, false, Actions{}, 500 * time.Millisecond * 156 / 256},
		{"the holder speaks", State{Ready: true, Down: now}, Event{Ready: true, Heard: &Heard{100, 500 * time.Millisecond, lower}}, false, Actions{}, 1500*time.Millisecond + 500*time.Millisecond*156/256},
		{"a slower holder speaks", State{Ready: true, Down: now}, Event{Ready: true, Heard: &Heard{100, 2 * time.Second, lower}}, false, Actions{}, 6*time.Second + 2*time.Second*156/256},
		{"a lesser one does not count", backup, Event{Ready: true, Heard: &Heard{1, 0, other}}, false, Actions{}, time.Hour},
		{"it is time to speak", State{Holder: true, Ready: true, Next: now, Greet: later}, Event{Ready: true}, true, Actions{Send: true, Priority: 100}, 0},
		{"it is time to greet", State{Holder: true, Ready: true, Next: later, Greet: now}, Event{Ready: true}, true, Actions{Greet: true, Priority: 100}, 0},
		{"a higher one speaks", holder, Event{Ready: true, Heard: &Heard{101, 0, lower}}, false, Actions{Drop: true}, 0},
		{"an equal one of higher address", holder, Event{Ready: true, Heard: &Heard{100, 0, other}}, false, Actions{Drop: true}, 0},
		{"an equal one of lower address", holder, Event{Ready: true, Heard: &Heard{100, 0, lower}}, true, Actions{Send: true, Greet: true, Priority: 100}, 0},
		{"a lower one held it, too", holder, Event{Ready: true, Heard: &Heard{50, 0, other}}, true, Actions{Send: true, Greet: true, Priority: 100}, 0},
		{"another leaves", holder, Event{Ready: true, Heard: &Heard{0, 0, other}}, true, Actions{Send: true, Priority: 100}, 0},
		{"no longer ready", holder, Event{}, false, Actions{Drop: true, Send: true}, 1500*time.Millisecond + 500*time.Millisecond*255/256},
		{"was not ready when it took it", State{Holder: true, Next: later, Greet: later}, Event{}, true, Actions{Priority: 1}, 0},
		{"the end", holder, Event{Ready: true, Stop: true}, false, Actions{Drop: true, Send: true}, 0},
		{"the end of another", backup, Event{Ready: true, Stop: true}, false, Actions{}, 0},
	} {
		tc.event.Now = now
		s, a := c.Decide(tc.state, tc.event)
		if s.Holder != tc.hold || a != tc.want {
			t.Errorf("%s: holds %v, %+v; want %v, %+v", tc.name, s.Holder, a, tc.hold, tc.want)
		}
		if tc.down != 0 && s.Down.Sub(now) != tc.down {
			t.Errorf("%s: waits %s, want %s", tc.name, s.Down.Sub(now), tc.down)
		}
	}
	n := config(t, func(c *Config) { c.NoPreempt = true })
	if s, _ := n.Decide(State{Ready: true, Down: now}, Event{Now: now, Ready: true, Heard: &Heard{10, 0, other}}); s.Holder || !s.Down.After(now) {
		t.Error("--vip-no-preempt takes the address from one who is ready")
	}
}

// world is a network of machines in virtual time.
type world struct {
	now      time.Time
	machines []*node
}

type node struct {
	cfg                *Config
	state              State
	ready, dead, apart bool
}

func newWorld(t *testing.T, priorities ...uint8) *world {
	w := &world{now: time.Unix(1000, 0)}
	for i, p := range priorities {
		cfg := config(t, func(c *Config) { c.Priority, c.Self = p, netip.AddrFrom4([4]byte{192, 0, 2, byte(20 + i)}) })
		w.machines = append(w.machines, &node{cfg: cfg, ready: true})
	}
	return w
}

func (w *world) step(m *node, h *Heard) {
	var a Actions
	m.state, a = m.cfg.Decide(m.state, Event{Now: w.now, Ready: m.ready, Heard: h})
	if !a.Send || m.apart {
		return
	}
	for _, o := range w.machines {
		if o != m && !o.dead && !o.apart {
			w.step(o, &Heard{a.Priority, m.cfg.Interval, m.cfg.Self})
		}
	}
}

// run lets time pass, by the tenth of an interval.
func (w *world) run(d time.Duration) {
	for end := w.now.Add(d); w.now.Before(end); w.now = w.now.Add(50 * time.Millisecond) {
		for _, m := range w.machines {
			if !m.dead {
				w.step(m, nil)
			}
		}
	}
}

func (w *world) holders() string {
	var out []string
	for i, m := range w.machines {
		if m.state.Holder && !m.dead {
			out = append(out, fmt.Sprint(i))
		}
	}
	return strings.Join(out, " ")
}

// Whatever happens to the holder, another has the address within 3 s, and there
// is one holder among those who hear each other.
func TestTheAddressMoves(t *testing.T) {
	w := newWorld(t, 100, 100, 100)
	expect := func(what, want string) {
		t.Helper()
		if got := w.holders(); got != want {
			t.Fatalf("%s: held by %q, want %q", what, got, want)
		}
	}
	w.run(5 * time.Second)
	expect("among equals the first", "0")
	w.machines[0].dead = true
	w.run(3 * time.Second)
	expect("the holder died", "1")
	w.machines[0].dead, w.machines[0].state = false, State{}
	w.run(5 * time.Second)
	expect("it came back, and an equal one stays", "1")
	w.machines[1].ready = false
	w.run(time.Second)
	expect("the holder is not ready", "0")
	w.machines[1].ready = true
	w.machines[0].apart, w.machines[0].ready = true, false
	w.run(3 * time.Second)
	expect("the holder is cut off: it knows nobody, and has an address nobody reaches", "0 2")
	w.machines[0].apart = false
	w.run(time.Second)
	expect("it is back and still not ready", "2")
	for _, m := range w.machines {
		m.ready = false
	}
	w.run(5 * time.Second)
	if len(w.holders()) != 1 {
		t.Fatalf("nobody is ready: held by %q, want one all the same", w.holders())
	}
	w.machines[0].ready = true
	w.run(3 * time.Second)
	expect("one is ready again", "0")
}

func TestWhatAnAdvertMustHave(t *testing.T) {
	c2 := config(t, func(c *Config) { c.Version, c.Password = 2, "secret" })
	good := Advert{2, 51, 100, time.Second, []netip.Addr{address.Addr()}, "secret"}
	for want, change := range map[string]func(*Advert){
		"":               func(*Advert) {},
		"another":        func(a *Advert) { a.Router = 52 },
		"version 3":      func(a *Advert) { a.Version = 3 },
		"wrong password": func(a *Advert) { a.Password = "guess" },
		"interval 2s":    func(a *Advert) { a.Interval = 2 * time.Second },
		"router id":      func(a *Advert) { a.Addrs = []netip.Addr{other} },
	} {
		a := good
		change(&a)
		if err := c2.admits(a, other); (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %q", err, want)
		}
	}
	if c2.admits(good, self) == nil {
		t.Error("one's own address speaks")
	}
}

func TestFlags(t *testing.T) {
	for args, want := range map[string]string{
		"--vip=192.0.2.10/24@eth1":                                      "",
		"--vip=192.0.2.10 --vip-vrrp-version=2 --vip-password=12345678": "",
		"--vip=192.0.2.10 --vip-peers=192.0.2.2,192.0.2.3":              "",
		"--vip=192.0.2.2":                                                "own address",
		"--vip=2001:db8::1":                                              "IPv4",
		"--vip=192.0.2.10 --vip-router-id=0":                             "--vip-router-id",
		"--vip=192.0.2.10 --vip-priority=255":                            "--vip-priority",
		"--vip=192.0.2.10 --vip-vrrp-version=1":                          "--vip-vrrp-version",
		"--vip=192.0.2.10 --vip-password=x":                              "--vip-vrrp-version 2",
		"--vip=192.0.2.10 --vip-vrrp-version=2 --vip-password=123456789": "8 characters",
		"--vip=192.0.2.10 --vip-vrrp-version=2 --vip-interval=1500ms":    "whole seconds",
		"--vip=192.0.2.10 --vip-interval=1ms":                            "hundredths",
		"--vip=nonsense":                                                 "nonsense",
		"--vip=192.0.2.10@":                                              "no interface",
	} {
		c := Defaults()
		c.Self = self
		fs := pflag.NewFlagSet("", pflag.ContinueOnError)
		c.Flags(fs)
		err := fs.Parse(strings.Fields(args))
		if err == nil {
			err = c.Check()
		}
		if (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", args, err, want)
		}
	}
}
