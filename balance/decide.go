package balance

import (
	"cmp"
	"slices"
)

// State is what is known of a server. A greater one is better.
type State int

// The states.
const (
	Down    State = iota // does not answer
	Unready              // answers that it cannot serve all requests
	Unknown              // was not asked yet
	Ready
)

// String names a state in metrics and logs.
func (s State) String() string { return [...]string{"down", "unready", "unknown", "ready"}[s] }

// View is what choosing goes by.
type View struct {
	Addr        string
	State       State
	Connections int
}

// Order returns the servers in the order in which to try them: by state, then
// the preferred one, then those with the fewest connections.
func Order(list []View, prefer string) []string {
	list = slices.Clone(list)
	slices.SortFunc(list, func(a, b View) int {
		first := 0
		if a.Addr == prefer {
			first = -1
		} else if b.Addr == prefer {
			first = 1
		}
		return cmp.Or(cmp.Compare(b.State, a.State), first, cmp.Compare(a.Connections, b.Connections), cmp.Compare(a.Addr, b.Addr))
	})
	out := make([]string, len(list))
	for i, v := range list {
		out[i] = v.Addr
	}
	return out
}

// Abandoned returns the servers whose connections are better closed: those that
// do not answer while another does, and those that are not ready while another is.
func Abandoned(list []View) []string {
	best := Down
	for _, v := range list {
		if v.State != Unknown {
			best = max(best, v.State)
		}
	}
	var out []string
	for _, v := range list {
		if v.State != Unknown && v.State < best {
			out = append(out, v.Addr)
		}
	}
	return out
}
