package proxy

import "maps"

// change is the difference between two states of the maps.
type change struct {
	put  Rules              // to add, or to replace where old has a value
	del  map[Element]string // to remove, with the value that was there
	sets map[string]bool    // maps that must exist
}

func (c *change) empty() bool { return len(c.put) == 0 && len(c.del) == 0 }

// state is what the maps hold: every service's rules, and how many services
// need an entry (two services may share an endpoint's hairpin entry).
type state struct {
	rules map[string]Rules
	uses  map[Element]int
	vals  map[Element]string
}

func newState() *state {
	return &state{rules: map[string]Rules{}, uses: map[Element]int{}, vals: map[Element]string{}}
}

// set replaces a service's rules (nil: it is gone) and collects what changes in
// the maps into c.
func (s *state) set(service string, next Rules, c *change) {
	prev := s.rules[service]
	for e, v := range prev {
		if _, stays := next[e]; stays {
			continue
		}
		if s.uses[e]--; s.uses[e] == 0 {
			delete(s.uses, e)
			delete(s.vals, e)
			c.remove(e, v)
		}
	}
	for e, v := range next {
		if _, had := prev[e]; !had {
			s.uses[e]++
		}
		old, known := s.vals[e]
		if known && old == v {
			continue
		}
		if known {
			c.remove(e, old)
		}
		s.vals[e] = v
		c.add(e, v)
	}
	if len(next) == 0 {
		delete(s.rules, service)
	} else {
		s.rules[service] = maps.Clone(next)
	}
}

func newChange() *change {
	return &change{put: Rules{}, del: map[Element]string{}, sets: map[string]bool{}}
}

func (c *change) add(e Element, v string) {
	if old, removed := c.del[e]; removed && old == v {
		delete(c.del, e) // taken away and put back within one change
		return
	}
	c.put[e] = v
	c.sets[e.Set] = true
}

func (c *change) remove(e Element, v string) {
	if _, added := c.put[e]; added {
		delete(c.put, e)
		return
	}
	c.del[e] = v
}
