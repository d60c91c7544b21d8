package client

import (
	"strconv"
	"sync"

	"k8s.io/apimachinery/pkg/types"

	"github.com/sampan-dev/sampan/api"
)

// store holds a mirror's objects and its indexes, and tells handlers of changes.
//
// Two locks: telling orders changes and their handlers, data guards the maps
// and is never held while a handler runs, so that handlers may read.
type store struct {
	telling  sync.Mutex
	handlers []func(old, new api.Object)

	data    sync.RWMutex
	spaces  map[string]map[string]api.Object // by namespace, by name
	count   int
	indexes map[string]*index
	rev     uint64
	synced  bool
	ready   chan struct{} // closed when synced
}

type index struct {
	keys  func(api.Object) []string
	files map[string]map[types.NamespacedName]api.Object
}

func newStore() *store {
	return &store{spaces: map[string]map[string]api.Object{}, indexes: map[string]*index{}, ready: make(chan struct{})}
}

func nameOf(o api.Object) types.NamespacedName {
	return types.NamespacedName{Namespace: o.GetNamespace(), Name: o.GetName()}
}

func revision(rv string) uint64 {
	n, err := strconv.ParseUint(rv, 10, 64)
	if err != nil {
		return 0
	}
	return n
}

func (s *store) get(namespace, name string) api.Object {
	s.data.RLock()
	defer s.data.RUnlock()
	return s.spaces[namespace][name]
}

// each calls fn for the objects of a namespace, "" for all.
func (s *store) each(namespace string, size func(int), fn func(api.Object)) {
	s.data.RLock()
	defer s.data.RUnlock()
	if namespace != "" {
		size(len(s.spaces[namespace]))
		for _, o := range s.spaces[namespace] {
			fn(o)
		}
		return
	}
	size(s.count)
	for _, space := range s.spaces {
		for _, o := range space {
			fn(o)
		}
	}
}

func (s *store) by(name, value string, size func(int), fn func(api.Object)) {
	s.data.RLock()
	defer s.data.RUnlock()
	ix := s.indexes[name]
	if ix == nil {
		panic("client: mirror has no index " + strconv.Quote(name)) // a programming error
	}
	size(len(ix.files[value]))
	for _, o := range ix.files[value] {
		fn(o)
	}
}

func (s *store) addIndex(name string, keys func(api.Object) []string) {
	s.data.Lock()
	defer s.data.Unlock()
	if s.indexes[name] != nil {
		return
	}
	ix := &index{keys: keys, files: map[string]map[types.NamespacedName]api.Object{}}
	s.indexes[name] = ix
	for _, space := range s.spaces {
		for _, o := range space {
			ix.put(nil, o)
		}
	}
}

func (ix *index) put(old, new api.Object) {
	if old != nil {
		k := nameOf(old)
		for _, v := range ix.keys(old) {
			delete(ix.files[v], k)
			if len(ix.files[v]) == 0 {
				delete(ix.files, v)
			}
		}
	}
	if new == nil {
		return
	}
	k := nameOf(new)
	for _, v := range ix.keys(new) {
		f := ix.files[v]
		if f == nil {
			f = map[types.NamespacedName]api.Object{}
			ix.files[v] = f
		}
		f[k] = new
	}
}

// put makes o the object under its name and returns what was there.
func (s *store) put(o api.Object) api.Object {
	space := s.spaces[o.GetNamespace()]
	if space == nil {
		space = map[string]api.Object{}
		s.spaces[o.GetNamespace()] = space
	}
	old := space[o.GetName()]
	if old == nil {
		s.count++
	}
	space[o.GetName()] = o
	for _, ix := range s.indexes {
		ix.put(old, o)
	}
	s.advance(o.GetResourceVersion())
	return old
}

func (s *store) drop(n types.NamespacedName) api.Object {
	old := s.spaces[n.Namespace][n.Name]
	if old == nil {
		return nil
	}
	delete(s.spaces[n.Namespace], n.Name)
	if len(s.spaces[n.Namespace]) == 0 {
		delete(s.spaces, n.Namespace)
	}
	s.count--
	for _, ix := range s.indexes {
		ix.put(old, nil)
	}
	return old
}

func (s *store) advance(rv string) { s.rev = max(s.rev, revision(rv)) }

// apply takes in one change from a watch.
func (s *store) apply(o api.Object, gone bool) {
	s.telling.Lock()
	defer s.telling.Unlock()
	var old, now api.Object
	s.data.Lock()
	if gone {
		old = s.drop(nameOf(o))
		s.advance(o.GetResourceVersion())
	} else {
		old, now = s.put(o), o
	}
	s.data.Unlock()
	if old != nil || now != nil {
		s.tell(old, now)
	}
}

func (s *store) tell(old, now api.Object) {
	for _, fn := range s.handlers {
		fn(old, now)
	}
}

// bookmark notes that all changes up to rv were seen.
func (s *store) bookmark(rv string) {
	s.data.Lock()
	defer s.data.Unlock()
	s.advance(rv)
}

// replace takes in a whole list, as the changes that lead to it.
func (s *store) replace(items []api.Object, rv string) {
	s.telling.Lock()
	defer s.telling.Unlock()
	type change struct{ old, now api.Object }
	var changes []change
	listed := make(map[types.NamespacedName]bool, len(items))
	s.data.Lock()
	for _, o := range items {
		listed[nameOf(o)] = true
		if was := s.spaces[o.GetNamespace()][o.GetName()]; was != nil && was.GetResourceVersion() == o.GetResourceVersion() && was.GetUID() == o.GetUID() {
			continue
		}
		changes = append(changes, change{s.put(o), o})
	}
	for ns, space := range s.spaces {
		for name := range space {
			if n := (types.NamespacedName{Namespace: ns, Name: name}); !listed[n] {
				changes = append(changes, change{s.drop(n), nil})
			}
		}
	}
	s.advance(rv)
	s.data.Unlock()
	for _, c := range changes {
		s.tell(c.old, c.now)
	}
	s.data.Lock()
	defer s.data.Unlock()
	if !s.synced {
		s.synced = true
		close(s.ready)
	}
}

func (s *store) onChange(fn func(old, new api.Object)) {
	s.telling.Lock()
	defer s.telling.Unlock()
	s.handlers = append(s.handlers, fn)
	var all []api.Object
	s.each("", func(int) {}, func(o api.Object) { all = append(all, o) })
	for _, o := range all {
		fn(nil, o)
	}
}
