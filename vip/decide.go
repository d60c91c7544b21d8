package vip

import (
	"fmt"
	"net/netip"
	"time"
)

// State is what a machine knows between two events.
type State struct {
	Holder bool
	Ready  bool // as last known
	// Next is when a holder advertises again. Greet is when it tells its
	// neighbours by ARP again.
	Next, Greet time.Time
	// Down is when one who does not hold the address takes it, unless a holder is heard.
	Down time.Time
}

// Heard is an advert and who sent it.
type Heard struct {
	Priority uint8
	Interval time.Duration
	From     netip.Addr
}

// Event is what happened: time passed, and perhaps more.
type Event struct {
	Now   time.Time
	Ready bool
	Heard *Heard
	Stop  bool
}

// Actions are what is to be done, in this order.
type Actions struct {
	Drop  bool // take the address off
	Take  bool // put it on
	Send  bool // an advert of Priority
	Greet bool // gratuitous ARP

	Priority uint8
}

// standBack is the priority of who is not ready: the lowest there is, so that
// any other comes first, and above 0, which says farewell.
const standBack = 1

// greetings are repeated, for neighbours that missed the first.
const greetEvery = 5 * time.Second

// priority is what the machine brings to an election.
func (c *Config) priority(ready bool) uint8 {
	if ready {
		return c.Priority
	}
	return standBack
}

// skew makes those of higher priority act first.
func (c *Config) skew(priority uint8, interval time.Duration) time.Duration {
	if c.Version == 2 {
		interval = time.Second
	}
	return interval * time.Duration(256-int(priority)) / 256
}

// patience is how long a holder may be silent.
func (c *Config) patience(priority uint8, interval time.Duration) time.Duration {
	if c.Version == 2 || interval <= 0 {
		interval = c.Interval
	}
	return 3*interval + c.skew(priority, interval)
}

// Decide is VRRP's: what to do about an event, and what is known after it.
func (c *Config) Decide(s State, e Event) (State, Actions) {
	resigns := s.Holder && (e.Stop || s.Ready && !e.Ready)
	s.Ready = e.Ready
	own := c.priority(e.Ready)
	switch {
	case resigns:
		s.Holder, s.Down = false, e.Now.Add(c.patience(own, 0))
		return s, Actions{Drop: true, Send: true, Priority: 0}
	case e.Stop:
		return s, Actions{}
	case s.Down.IsZero() && !s.Holder: // the beginning: listen first
		s.Down = e.Now.Add(c.patience(own, 0))
		return s, Actions{Drop: true}
	case s.Holder:
		return c.hold(s, e, own)
	}
	return c.wait(s, e, own)
}

func (c *Config) hold(s State, e Event, own uint8) (State, Actions) {
	a := Actions{Priority: own}
	if h := e.Heard; h != nil {
		switch {
		case h.Priority > own, h.Priority == own && c.Self.Less(h.From):
			s.Holder, s.Down = false, e.Now.Add(c.patience(own, h.Interval))
			return s, Actions{Drop: true}
		case h.Priority == 0:
			a.Send = true
		default: // it held the address, too: its neighbours must hear who has it
			a.Send, a.Greet = true, true
		}
	}
	if !e.Now.Before(s.Next) {
		a.Send = true
	}
	if !e.Now.Before(s.Greet) {
		a.Greet = true
	}
	if a.Send {
		s.Next = e.Now.Add(c.Interval)
	}
	if a.Greet {
		s.Greet = e.Now.Add(greetEvery)
	}
	return s, a
}

func (c *Config) wait(s State, e Event, own uint8) (State, Actions) {
	if h := e.Heard; h != nil {
		switch {
		case h.Priority == 0:
			s.Down = e.Now.Add(c.skew(own, c.Interval))
		case h.Priority >= own || c.NoPreempt && h.Priority > standBack:
			s.Down = e.Now.Add(c.patience(own, h.Interval))
		}
	}
	if e.Now.Before(s.Down) {
		return s, Actions{}
	}
	s.Holder, s.Next, s.Greet = true, e.Now.Add(c.Interval), e.Now.Add(greetEvery)
	return s, Actions{Take: true, Send: true, Greet: true, Priority: own}
}

// Wake is when time alone calls for the next decision.
func (s State) Wake() time.Time {
	if !s.Holder {
		return s.Down
	}
	if s.Greet.Before(s.Next) {
		return s.Greet
	}
	return s.Next
}

// admits says why an advert is none of this address's election, nil if it is one.
func (c *Config) admits(a Advert, from netip.Addr) error {
	switch {
	case a.Router != c.Router:
		return errOther
	case a.Version != c.Version:
		return fmt.Errorf("VRRP version %d, where this machine speaks %d", a.Version, c.Version)
	case a.Version == 2 && a.Password != c.Password:
		return fmt.Errorf("wrong password")
	case a.Version == 2 && a.Interval != c.Interval && a.Priority != 0:
		return fmt.Errorf("interval %s, where this machine has %s", a.Interval, c.Interval)
	case len(a.Addrs) != 1 || a.Addrs[0] != c.Address.Addr():
		return fmt.Errorf("addresses %v, where this machine has %s: another virtual address needs another router id", a.Addrs, c.Address.Addr())
	case from == c.Self:
		return fmt.Errorf("it has this machine's own address")
	}
	return nil
}
