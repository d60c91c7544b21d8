package openapi

import (
	"encoding/json"
	"maps"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/sampan-dev/sampan/api"
	"github.com/sampan-dev/sampan/resource"
)

type object = map[string]any

// build gathers what documents are made of.
type build struct {
	names  map[string]bool // definitions referred to
	v3     bool
	custom map[schema.GroupVersionKind]string // names of custom kinds and their lists
	own    definitions                        // the schemas of those
}

func newBuild(v3 bool) *build {
	return &build{names: map[string]bool{}, v3: v3, custom: map[schema.GroupVersionKind]string{}, own: definitions{}}
}

// learn takes in a custom kind's schemas.
func (b *build) learn(k resource.Custom) {
	i := k.Info()
	name, schemas := k.Definition(b.v3)
	gv := i.GroupVersionKind.GroupVersion()
	for n, s := range schemas {
		b.own[n] = s
		kind := i.Kind
		if n != name {
			kind = i.ListName()
		}
		b.custom[gv.WithKind(kind)] = n
		for _, r := range refs(s) {
			if schemas[r] == nil {
				b.names[r] = true
			}
		}
	}
}

func (b *build) def(gvk schema.GroupVersionKind) string {
	if name := b.custom[gvk]; name != "" {
		return name
	}
	name := definitionOf(gvk)
	if name != "" {
		b.names[name] = true
	}
	return name
}

func (b *build) ref(name string) object {
	if name == "" {
		return object{"type": "string"}
	}
	if b.own[name] == nil {
		b.names[name] = true
	}
	if b.v3 {
		return object{"$ref": "#/components/schemas/" + name}
	}
	return object{"$ref": "#/definitions/" + name}
}

func (b *build) params(list []param) []any {
	out := make([]any, 0, len(list))
	for _, p := range list {
		o := object{"name": p.name, "in": p.in, "description": p.text}
		if p.in == "path" {
			o["required"] = true
		}
		if b.v3 {
			o["schema"] = object{"type": p.kind, "uniqueItems": true}
		} else {
			o["type"], o["uniqueItems"] = p.kind, true
		}
		out = append(out, o)
	}
	return out
}

func (b *build) operation(o *operation, tag string, plain bool) object {
	out := object{
		"operationId": o.id, "description": o.text, "tags": []string{tag},
		"x-kubernetes-action":             o.action,
		"x-kubernetes-group-version-kind": object{"group": o.gvk.Group, "version": o.gvk.Version, "kind": o.gvk.Kind},
	}
	params := b.params(o.params)
	gives := []string{api.JSON, api.YAML, api.Protobuf}
	if o.action == "list" {
		gives = append(gives, api.JSON+";stream=watch", api.Protobuf+";stream=watch")
	}
	if plain { // custom resources speak no protobuf
		gives = []string{api.JSON, api.YAML}
	}
	if o.takes != "" {
		takes := o.takesMedia
		if takes == nil {
			takes = []string{"*/*"}
			if plain {
				takes = []string{api.JSON, api.YAML}
			}
		}
		if b.v3 {
			out["requestBody"] = object{"content": b.content(takes, o.takes), "required": o.takes != deleteName}
		} else {
			body := object{"name": "body", "in": "body", "schema": b.ref(o.takes)}
			if o.takes != deleteName {
				body["required"] = true
			}
			params = append([]any{body}, params...)
			out["consumes"] = takes
		}
	}
	if len(params) > 0 {
		out["parameters"] = params
	}
	answers := object{"401": object{"description": "Unauthorized"}}
	for _, c := range o.codes {
		a := object{"description": map[string]string{"200": "OK", "201": "Created", "202": "Accepted"}[c]}
		if b.v3 {
			a["content"] = b.content(gives, o.gives)
		} else {
			a["schema"] = b.ref(o.gives)
		}
		answers[c] = a
	}
	out["responses"] = answers
	if !b.v3 {
		out["schemes"], out["produces"] = []string{"https"}, gives
	}
	return out
}

func (b *build) content(media []string, name string) object {
	out := object{}
	for _, m := range media {
		out[m] = object{"schema": b.ref(name)}
	}
	return out
}

// addPaths writes the paths of a group and version.
func (b *build) addPaths(into object, kinds []resource.Kind, gv schema.GroupVersion) {
	tag := strings.ToLower(idPart(gv)[:1]) + idPart(gv)[1:]
	b.addRoot(into, root{url: baseURL(gv) + "/", tag: tag, id: "get" + idPart(gv) + "APIResources", text: "get available resources", gives: resourceList})
	for _, e := range entries(kinds, gv) {
		if e.custom != nil {
			b.learn(e.custom)
		}
		for _, p := range e.paths(b.def) {
			item := object{"parameters": b.params(p.params)}
			for n := range p.ops {
				item[p.ops[n].method] = b.operation(&p.ops[n], tag, e.custom != nil)
			}
			into[p.url] = item
		}
	}
}

// kindsByName lists the kinds that definitions are of.
func kindsByName(want definitions) map[string][]schema.GroupVersionKind {
	out := map[string][]schema.GroupVersionKind{}
	s := api.Scheme()
	for gvk := range s.AllKnownTypes() {
		if gvk.Version == "__internal" {
			continue
		}
		if name := definitionOf(gvk); want[name] != nil {
			out[name] = append(out[name], gvk)
		}
	}
	for _, list := range out {
		slices.SortFunc(list, func(a, b schema.GroupVersionKind) int { return strings.Compare(a.String(), b.String()) })
	}
	return out
}

// components returns the schemas referred to, with their kinds, spelled for the
// version of OpenAPI.
func (b *build) components() (map[string]json.RawMessage, error) {
	defs, err := closure(slices.Sorted(maps.Keys(b.names)))
	if err != nil {
		return nil, err
	}
	kinds := kindsByName(defs)
	out := make(map[string]json.RawMessage, len(defs))
	for name, raw := range defs {
		if list := kinds[name]; len(list) > 0 {
			mark := []byte(`{"x-kubernetes-group-version-kind":`)
			var gvks []object
			for _, k := range list {
				gvks = append(gvks, object{"group": k.Group, "version": k.Version, "kind": k.Kind})
			}
			data, err := json.Marshal(gvks)
			if err != nil {
				return nil, err
			}
			mark = append(append(mark, data...), ',')
			raw = append(mark, raw[1:]...)
		}
		spell := spellV2
		if b.v3 {
			spell = spellV3
		}
		var doc object
		if err := json.Unmarshal(raw, &doc); err != nil {
			return nil, err
		}
		if types := oneOf(name); b.v3 && types != nil {
			delete(doc, "type")
			doc["oneOf"] = types
		}
		spell(doc)
		if raw, err = json.Marshal(doc); err != nil {
			return nil, err
		}
		out[name] = raw
	}
	maps.Copy(out, b.own)
	return out, nil
}

// oneOf is what only OpenAPI v3 can say of types that are written in two ways.
func oneOf(name string) []any {
	switch name {
	case "io.k8s.apimachinery.pkg.util.intstr.IntOrString":
		return []any{object{"type": "integer"}, object{"type": "string"}}
	case "io.k8s.apimachinery.pkg.api.resource.Quantity":
		return []any{object{"type": "string"}, object{"type": "number"}}
	}
	return nil
}

// subschemas calls f with every schema directly within s.
func subschemas(s object, f func(object)) {
	if props, ok := s["properties"].(object); ok {
		for _, p := range props {
			if p, ok := p.(object); ok {
				f(p)
			}
		}
	}
	for _, key := range []string{"items", "additionalProperties"} {
		if p, ok := s[key].(object); ok {
			f(p)
		}
	}
}

// spellV2 drops default values: clients of OpenAPI v2 never saw them.
func spellV2(s object) {
	delete(s, "default")
	subschemas(s, spellV2)
}

// spellV3 makes references stand alone, as OpenAPI v3 wants them.
func spellV3(s object) {
	subschemas(s, spellV3)
	ref, ok := s["$ref"].(string)
	if !ok {
		return
	}
	ref = "#/components/schemas/" + strings.TrimPrefix(ref, "#/definitions/")
	if len(s) == 1 {
		s["$ref"] = ref
		return
	}
	delete(s, "$ref")
	s["allOf"] = []any{object{"$ref": ref}}
}

func info() object {
	return object{"title": "Kubernetes", "version": api.Version().GitVersion}
}

// security is how clients may prove who they are.
func bearer() object {
	return object{"BearerToken": object{"type": "apiKey", "in": "header", "name": "authorization", "description": "Bearer Token authentication"}}
}

// documentV3 is the OpenAPI v3 document of one group and version, or of one of
// the URLs above them.
func documentV3(kinds []resource.Kind, key string) ([]byte, error) {
	b := newBuild(true)
	paths := object{}
	if gv, ok := parse(key); ok {
		b.addPaths(paths, kinds, gv)
	}
	for _, r := range roots(kinds) {
		if r.key() == key {
			b.addRoot(paths, r)
		}
	}
	schemas, err := b.components()
	if err != nil {
		return nil, err
	}
	return json.Marshal(object{
		"openapi": "3.0.0", "info": info(), "paths": paths,
		"components": object{"schemas": schemas, "securitySchemes": bearer()},
	})
}

// versions lists every served group and version.
func versions(kinds []resource.Kind) []schema.GroupVersion {
	seen := map[schema.GroupVersion]bool{}
	for _, k := range kinds {
		i := k.Info()
		if !i.Hidden {
			seen[i.GroupVersionKind.GroupVersion()] = true
		}
		for n := range i.Also {
			if !i.Also[n].Apart {
				seen[schema.GroupVersion{Group: i.Also[n].Group, Version: i.Also[n].Version}] = true
			}
		}
	}
	return slices.SortedFunc(maps.Keys(seen), func(a, b schema.GroupVersion) int { return strings.Compare(a.String(), b.String()) })
}
