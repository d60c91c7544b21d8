package keys

import (
	"fmt"
	"path"
	"strings"
	"time"
)

// request is one call of the API, read and checked.
type request struct {
	method    string
	path      string // "/" is the root
	value     string
	dir       bool
	recursive bool
	sorted    bool
	quorum    bool
	wait      bool
	stream    bool
	since     uint64 // the index to wait from; 0 is the next
	prevValue string
	prevIndex uint64
	prevExist *bool
	refresh   bool
	expires   int64 // 0 is never
	quiet     bool  // noValueOnSuccess
}

// view is what a change is decided upon, all of one revision.
type view struct {
	index     uint64
	self      *record            // nil: there is none
	ancestors map[string]*record // without the root
	children  bool               // a directory that is not empty
}

// change is what is to be written, with the event that tells of it.
type change struct {
	event *Event
	puts  map[string]*record
	// drop is a path to be removed with all below it; "" is none.
	drop string
	// past is the time of expiry that self had; it has it no more.
	past int64
}

// parents are the directories above a path, from the top, without the root.
func parents(p string) []string {
	var out []string
	for i := 1; i < len(p); i++ {
		if p[i] == '/' {
			out = append(out, p[:i])
		}
	}
	return out
}

// find says why the path is not there, if it is not.
func (v *view) find(p string) *Error {
	for _, a := range parents(p) {
		switch r := v.ancestors[a]; {
		case r == nil:
			return fail(codeNotFound, a, v.index)
		case !r.Dir:
			return fail(codeNotDir, a, v.index)
		}
	}
	if p != "/" && v.self == nil {
		return fail(codeNotFound, p, v.index)
	}
	return nil
}

// decide says what a request changes, or why it cannot.
func decide(r *request, v *view, now time.Time) (*change, *Error) {
	compare := r.prevIndex > 0 || r.prevValue != ""
	switch {
	case r.method == "POST":
		p := path.Join(r.path, fmt.Sprintf("%020d", v.index+1))
		return create(r, p, v, "create", now)
	case r.method == "DELETE" && compare:
		return compareAndDelete(r, v, now)
	case r.method == "DELETE":
		return remove(r, v, now)
	case r.prevExist != nil && !*r.prevExist:
		return create(r, r.path, v, "create", now)
	case compare:
		return write(r, v, "compareAndSwap", now)
	case r.prevExist != nil:
		return write(r, v, "update", now)
	}
	if r.refresh {
		if err := v.find(r.path); err != nil {
			return nil, err
		}
	}
	return create(r, r.path, v, "set", now)
}

// create makes a node and the directories above it. A set may replace a file.
func create(r *request, p string, v *view, action string, now time.Time) (*change, *Error) {
	if p == "/" {
		return nil, fail(codeRootReadOnly, "/", v.index)
	}
	next := v.index + 1
	c := &change{puts: map[string]*record{}}
	for _, a := range parents(p) {
		switch up := v.ancestors[a]; {
		case up == nil && a == r.path && v.self != nil: // the directory of a POST
			if !v.self.Dir {
				return nil, fail(codeNotDir, a, v.index)
			}
		case up == nil:
			c.puts[a] = &record{Dir: true, Created: next, Modified: next}
		case !up.Dir:
			return nil, fail(codeNotDir, a, v.index)
		}
	}
	made := &record{Value: r.value, Dir: r.dir, Created: next, Modified: next, Expires: r.expires}
	if made.Dir {
		made.Value = ""
	}
	c.event = &Event{Action: action, Refresh: r.refresh}
	if old := v.self; old != nil && p == r.path {
		if action != "set" {
			return nil, fail(codeExists, p, v.index)
		}
		if old.Dir {
			return nil, fail(codeNotFile, p, v.index)
		}
		if r.refresh {
			made.Value = old.Value
		}
		c.event.PrevNode, c.past = old.show(p, now), old.Expires
	}
	c.puts[p] = made
	c.event.Node = made.show(p, now)
	return c, nil
}

// write changes a node that is there.
func write(r *request, v *view, action string, now time.Time) (*change, *Error) {
	if r.path == "/" {
		return nil, fail(codeRootReadOnly, "/", v.index)
	}
	if err := v.find(r.path); err != nil {
		return nil, err
	}
	old := v.self
	if old.Dir && (action != "update" || r.value != "") {
		return nil, fail(codeNotFile, r.path, v.index)
	}
	if action == "compareAndSwap" {
		if err := compared(r, old, v.index); err != nil {
			return nil, err
		}
	}
	now2 := *old
	now2.Modified, now2.Expires = v.index+1, r.expires
	if !old.Dir && !r.refresh {
		now2.Value = r.value
	}
	return &change{
		event: &Event{Action: action, Node: now2.show(r.path, now), PrevNode: old.show(r.path, now), Refresh: r.refresh},
		puts:  map[string]*record{r.path: &now2},
		past:  old.Expires,
	}, nil
}

// compared says how a node differs from what was expected.
func compared(r *request, n *record, index uint64) *Error {
	indexOK := r.prevIndex == 0 || n.Modified == r.prevIndex
	valueOK := r.prevValue == "" || n.Value == r.prevValue
	ofValue := fmt.Sprintf("[%v != %v]", r.prevValue, n.Value)
	ofIndex := fmt.Sprintf("[%v != %v]", r.prevIndex, n.Modified)
	switch {
	case indexOK && valueOK:
		return nil
	case indexOK:
		return fail(codeTestFailed, ofValue, index)
	case valueOK:
		return fail(codeTestFailed, ofIndex, index)
	}
	return fail(codeTestFailed, ofValue+" "+ofIndex, index)
}

func compareAndDelete(r *request, v *view, now time.Time) (*change, *Error) {
	if err := v.find(r.path); err != nil {
		return nil, err
	}
	if r.path == "/" || v.self.Dir {
		return nil, fail(codeNotFile, r.path, v.index)
	}
	if err := compared(r, v.self, v.index); err != nil {
		return nil, err
	}
	return gone(r.path, v, "compareAndDelete", now), nil
}

func remove(r *request, v *view, now time.Time) (*change, *Error) {
	if r.path == "/" {
		return nil, fail(codeRootReadOnly, "/", v.index)
	}
	if err := v.find(r.path); err != nil {
		return nil, err
	}
	if v.self.Dir {
		if !r.dir && !r.recursive {
			return nil, fail(codeNotFile, r.path, v.index)
		}
		if v.children && !r.recursive {
			return nil, fail(codeNotEmpty, r.path, v.index)
		}
	}
	return gone(r.path, v, "delete", now), nil
}

// gone removes a node with all below it.
func gone(p string, v *view, action string, now time.Time) *change {
	old := v.self
	return &change{
		event: &Event{
			Action:   action,
			Node:     &Node{Key: p, Dir: old.Dir, ModifiedIndex: v.index + 1, CreatedIndex: old.Created},
			PrevNode: old.show(p, now),
		},
		drop: p, past: old.Expires,
	}
}

// tree is what is below a directory: all, or only the next level.
func tree(p string, below []entry, recursive bool, now time.Time) []*Node {
	top := &Node{}
	dirs := map[string]*Node{strings.TrimSuffix(p, "/"): top}
	for _, e := range below {
		i := strings.LastIndexByte(e.path, '/')
		dir := dirs[e.path[:i]]
		if dir == nil || strings.HasPrefix(e.path[i+1:], "_") {
			continue // deeper than is shown, or hidden
		}
		n := e.show(e.path, now)
		dir.Nodes = append(dir.Nodes, n)
		if e.Dir && recursive {
			dirs[e.path] = n
		}
	}
	return top.Nodes
}

// entry is a record with its path.
type entry struct {
	path string
	record
}

// concerns says whether an event is one that somebody who waits for key wants.
func (e *Event) concerns(key string, recursive bool) bool {
	at := e.Node.Key
	under := func(p, dir string) bool { return strings.HasPrefix(p, strings.TrimSuffix(dir, "/")+"/") }
	switch {
	case e.Refresh:
		return false
	case at == key:
		return true
	case under(at, key):
		return recursive && !strings.Contains("/"+strings.TrimPrefix(at[len(strings.TrimSuffix(key, "/")):], "/"), "/_")
	}
	removed := e.Action == "delete" || e.Action == "expire"
	return removed && e.PrevNode != nil && e.PrevNode.Dir && under(key, at)
}
