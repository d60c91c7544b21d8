package openapi

import (
	"bytes"
	"compress/gzip"
	"embed"
	"encoding/gob"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"sync"

	"sigs.k8s.io/structured-merge-diff/v6/schema"
	"sigs.k8s.io/structured-merge-diff/v6/typed"
)

// packed has, per Go package of types, NAME.json.gz with the OpenAPI v2
// definitions and NAME.smd.gz with the merge types.
//
//go:embed schemas
var packed embed.FS

func unpack(name string) ([]byte, error) {
	data, err := packed.ReadFile("schemas/" + name)
	if err != nil {
		return nil, err
	}
	z, err := gzip.NewReader(bytes.NewReader(data))
	if err != nil {
		return nil, err
	}
	return io.ReadAll(z)
}

// packageOf is a definition's name without the type.
func packageOf(name string) string {
	if i := strings.LastIndexByte(name, '.'); i >= 0 {
		return name[:i]
	}
	return "common"
}

// definitions are raw OpenAPI v2 schemas by name.
type definitions map[string]json.RawMessage

const (
	refPrefix   = `"#/definitions/`
	refPrefixV3 = `"#/components/schemas/`
)

// refs lists the names a schema refers to.
func refs(raw []byte) []string {
	var out []string
	for _, prefix := range []string{refPrefix, refPrefixV3} {
		for rest := raw; ; {
			i := bytes.Index(rest, []byte(prefix))
			if i < 0 {
				break
			}
			rest = rest[i+len(prefix):]
			out = append(out, string(rest[:bytes.IndexByte(rest, '"')]))
		}
	}
	return out
}

// Definitions returns the named schemas of built-in types, spelled for OpenAPI
// v3, and all that they refer to.
func Definitions(names ...string) (map[string]json.RawMessage, error) {
	b := newBuild(true)
	for _, n := range names {
		b.names[n] = true
	}
	return b.components()
}

// closure returns the named definitions and all that they refer to.
func closure(names []string) (definitions, error) {
	files := map[string]definitions{}
	out := definitions{}
	for pending := slices.Clone(names); len(pending) > 0; {
		name := pending[len(pending)-1]
		pending = pending[:len(pending)-1]
		if _, ok := out[name]; ok {
			continue
		}
		p := packageOf(name)
		if files[p] == nil {
			data, err := unpack(p + ".json.gz")
			if err != nil {
				return nil, fmt.Errorf("openapi: %s: %w", name, err)
			}
			d := definitions{}
			if err := json.Unmarshal(data, &d); err != nil {
				return nil, fmt.Errorf("openapi: %s: %w", p, err)
			}
			files[p] = d
		}
		raw, ok := files[p][name]
		if !ok {
			return nil, fmt.Errorf("openapi: no definition of %s", name)
		}
		out[name] = raw
		pending = append(pending, refs(raw)...)
	}
	return out, nil
}

// registerDefaults tells gob of the types that default values may have.
var registerDefaults = sync.OnceFunc(func() {
	gob.Register(map[string]any{})
	gob.Register([]any{})
})

// Merger hands out the types that server-side apply merges by. It keeps the
// packages that were asked for.
type Merger struct {
	mu      sync.Mutex
	types   map[string]*schema.TypeDef
	loaded  map[string]bool
	parsers map[string]*typed.Parser
}

// NewMerger returns a Merger that has read nothing.
func NewMerger() *Merger {
	return &Merger{types: map[string]*schema.TypeDef{}, loaded: map[string]bool{}, parsers: map[string]*typed.Parser{}}
}

// Type returns the merge type of a definition name, such as
// io.k8s.api.core.v1.Pod.
func (m *Merger) Type(name string) (typed.ParseableType, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	p := m.parsers[name]
	if p == nil {
		need := map[string]*schema.TypeDef{}
		if err := m.collect(name, need); err != nil {
			return typed.ParseableType{}, err
		}
		p = &typed.Parser{}
		for _, n := range slices.Sorted(maps.Keys(need)) {
			p.Schema.Types = append(p.Schema.Types, *need[n])
		}
		m.parsers[name] = p
	}
	return p.Type(name), nil
}

// collect adds a type and those it refers to.
func (m *Merger) collect(name string, into map[string]*schema.TypeDef) error {
	if into[name] != nil {
		return nil
	}
	t, err := m.lookup(name)
	if err != nil {
		return err
	}
	into[name] = t
	return m.collectAtom(&t.Atom, into)
}

func (m *Merger) collectAtom(a *schema.Atom, into map[string]*schema.TypeDef) error {
	if a.List != nil {
		if err := m.collectRef(&a.List.ElementType, into); err != nil {
			return err
		}
	}
	if a.Map == nil {
		return nil
	}
	for i := range a.Map.Fields {
		if err := m.collectRef(&a.Map.Fields[i].Type, into); err != nil {
			return err
		}
	}
	return m.collectRef(&a.Map.ElementType, into)
}

func (m *Merger) collectRef(r *schema.TypeRef, into map[string]*schema.TypeDef) error {
	if r.NamedType != nil {
		return m.collect(*r.NamedType, into)
	}
	return m.collectAtom(&r.Inlined, into)
}

func (m *Merger) lookup(name string) (*schema.TypeDef, error) {
	if p := packageOf(name); !m.loaded[p] {
		registerDefaults()
		data, err := unpack(p + ".smd.gz")
		if err != nil {
			return nil, fmt.Errorf("openapi: %s: %w", name, err)
		}
		var types []schema.TypeDef
		if err := gob.NewDecoder(bytes.NewReader(data)).Decode(&types); err != nil {
			return nil, fmt.Errorf("openapi: %s: %w", p, err)
		}
		for i := range types {
			m.types[types[i].Name] = &types[i]
		}
		m.loaded[p] = true
	}
	if t := m.types[name]; t != nil {
		return t, nil
	}
	return nil, fmt.Errorf("openapi: no merge type %s", name)
}
