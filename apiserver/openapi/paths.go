package openapi

import (
	"cmp"
	"encoding/json"
	"maps"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/sampan-dev/sampan/api"
	"github.com/sampan-dev/sampan/resource"
)

// operation is one verb on one path, in neither version of OpenAPI yet.
type operation struct {
	method, action, id, text string
	gvk                      schema.GroupVersionKind
	params                   []param
	takes                    string   // definition of the body, or ""
	takesMedia               []string // nil is the ordinary ones
	gives                    string   // definition of the answer, "" is a string
	codes                    []string
}

// param is a parameter in the query or the path.
type param struct {
	name, in, kind, text string
}

// path is what can be done at one URL.
type path struct {
	url    string
	params []param
	ops    []operation
}

const (
	metaPrefix   = "io.k8s.apimachinery.pkg.apis.meta.v1."
	statusName   = metaPrefix + "Status"
	patchName    = metaPrefix + "Patch"
	deleteName   = metaPrefix + "DeleteOptions"
	resourceList = metaPrefix + "APIResourceList"
)

func pretty() param {
	return param{"pretty", "query", "string", "If 'true', then the output is pretty printed."}
}

func writeParams(patch bool) []param {
	out := []param{
		{"dryRun", "query", "string", "When present, indicates that modifications should not be persisted. Valid values are: - All: all dry run stages will be processed"},
		{"fieldManager", "query", "string", "The name of the actor or entity that is making these changes."},
		{"fieldValidation", "query", "string", "How to handle objects containing unknown or duplicate fields: Ignore, Warn or Strict."},
	}
	if patch {
		out = append(out, param{"force", "query", "boolean", "Re-acquire conflicting fields owned by other people. Only for apply requests."})
	}
	return out
}

func listParams() []param {
	return []param{
		{"allowWatchBookmarks", "query", "boolean", "Requests watch events with type \"BOOKMARK\"."},
		{"continue", "query", "string", "The continue value of a previous, limited list with identical parameters."},
		{"fieldSelector", "query", "string", "A selector to restrict the list of returned objects by their fields."},
		{"labelSelector", "query", "string", "A selector to restrict the list of returned objects by their labels."},
		{"limit", "query", "integer", "The maximum number of responses to return for a list call."},
		{"resourceVersion", "query", "string", "The version the answer must not be older than, or be of; see resourceVersionMatch."},
		{"resourceVersionMatch", "query", "string", "How resourceVersion is applied to list calls: Exact or NotOlderThan."},
		{"sendInitialEvents", "query", "boolean", "Begin a watch with synthetic events for the objects there are, then a bookmark."},
		{"timeoutSeconds", "query", "integer", "Timeout for the list or watch call."},
		{"watch", "query", "boolean", "Watch for changes to the described resources and return them as a stream."},
	}
}

func deleteParams() []param {
	return []param{
		{"dryRun", "query", "string", "When present, indicates that modifications should not be persisted."},
		{"gracePeriodSeconds", "query", "integer", "The duration in seconds before the object should be deleted."},
		{"orphanDependents", "query", "boolean", "Deprecated: use propagationPolicy."},
		{"propagationPolicy", "query", "string", "Whether and how garbage collection will be performed: Orphan, Background or Foreground."},
	}
}

// entry is a kind in one served version.
type entry struct {
	info   *resource.Info
	also   *resource.Version
	gvk    schema.GroupVersionKind
	plural string
	custom resource.Custom // nil if built in
}

// listKind is the kind of a list of objects.
func (e *entry) listKind() string {
	if e.custom != nil {
		return e.info.ListName()
	}
	return e.gvk.Kind + "List"
}

// entries lists what is served in a group and version, by name.
func entries(kinds []resource.Kind, gv schema.GroupVersion) []entry {
	var out []entry
	for _, k := range kinds {
		i := k.Info()
		if i.GroupVersionKind.GroupVersion() == gv && !i.Hidden {
			custom, _ := k.(resource.Custom)
			out = append(out, entry{i, nil, i.GroupVersionKind, i.Plural, custom})
		}
		for n := range i.Also {
			v := &i.Also[n]
			if v.Group == gv.Group && v.Version == gv.Version && !v.Apart {
				out = append(out, entry{i, v, gv.WithKind(cmp.Or(v.Kind, i.Kind)), cmp.Or(v.Plural, i.Plural), nil})
			}
		}
	}
	slices.SortFunc(out, func(a, b entry) int { return strings.Compare(a.plural, b.plural) })
	return out
}

func baseURL(gv schema.GroupVersion) string {
	if gv.Group == "" {
		return "/api/" + gv.Version
	}
	return "/apis/" + gv.Group + "/" + gv.Version
}

// idPart is how operation ids spell a version: AppsV1, RbacAuthorizationV1.
func idPart(gv schema.GroupVersion) string {
	group := strings.TrimSuffix(cmp.Or(gv.Group, "core"), ".k8s.io")
	var b strings.Builder
	for p := range strings.SplitSeq(group, ".") {
		b.WriteString(title(p))
	}
	return b.String() + title(gv.Version)
}

func title(s string) string {
	if s == "" {
		return ""
	}
	return strings.ToUpper(s[:1]) + s[1:]
}

// paths are the URLs of a kind.
func (e *entry) paths(def func(schema.GroupVersionKind) string) []path {
	gv := e.gvk.GroupVersion()
	base, scope := baseURL(gv), ""
	var nsParam []param
	if !e.info.ClusterScoped {
		base += "/namespaces/{namespace}"
		scope = "Namespaced"
		nsParam = []param{{"namespace", "path", "string", "object name and auth scope, such as for teams and projects"}}
	}
	name := param{"name", "path", "string", "name of the " + e.gvk.Kind}
	own, id := def(e.gvk), idPart(gv)
	list := def(gv.WithKind(e.listKind()))
	all := path{url: base + "/" + e.plural, params: append(slices.Clone(nsParam), pretty())}
	one := path{url: base + "/" + e.plural + "/{name}", params: append([]param{name}, append(slices.Clone(nsParam), pretty())...)}
	op := func(method, action, verb, text string) operation {
		return operation{method: method, action: action, id: verb + id + scope + e.gvk.Kind, text: text, gvk: e.gvk, gives: own, codes: []string{"200"}}
	}
	for _, v := range slices.Sorted(slices.Values(e.info.Verbs)) {
		switch v {
		case "create":
			o := op("post", "post", "create", "create a "+e.gvk.Kind)
			o.params, o.takes, o.codes = writeParams(false), own, []string{"200", "201", "202"}
			all.ops = append(all.ops, o)
		case "list":
			o := op("get", "list", "list", "list or watch objects of kind "+e.gvk.Kind)
			o.params, o.gives = listParams(), list
			all.ops = append(all.ops, o)
		case "deletecollection":
			o := op("delete", "deletecollection", "deletecollection", "delete collection of "+e.gvk.Kind)
			o.id = "delete" + id + "Collection" + scope + e.gvk.Kind
			o.params, o.takes, o.gives = append(deleteParams(), listParams()[1:8]...), deleteName, statusName
			all.ops = append(all.ops, o)
		case "get":
			one.ops = append(one.ops, op("get", "get", "read", "read the specified "+e.gvk.Kind))
		case "update":
			o := op("put", "put", "replace", "replace the specified "+e.gvk.Kind)
			o.params, o.takes, o.codes = writeParams(false), own, []string{"200", "201"}
			one.ops = append(one.ops, o)
		case "patch":
			o := op("patch", "patch", "patch", "partially update the specified "+e.gvk.Kind)
			o.params, o.takes, o.takesMedia, o.codes = writeParams(true), patchName, e.patchTypes(), []string{"200", "201"}
			one.ops = append(one.ops, o)
		case "delete":
			o := op("delete", "delete", "delete", "delete a "+e.gvk.Kind)
			o.params, o.takes, o.gives, o.codes = deleteParams(), deleteName, statusName, []string{"200", "202"}
			one.ops = append(one.ops, o)
		}
	}
	out := []path{all, one}
	if scope != "" && slices.Contains(e.info.Verbs, "list") {
		o := op("get", "list", "list", "list or watch objects of kind "+e.gvk.Kind)
		o.id, o.gives = "list"+id+e.gvk.Kind+"ForAllNamespaces", list
		out = append(out, path{url: baseURL(gv) + "/" + e.plural, params: append(listParams(), pretty()), ops: []operation{o}})
	}
	return append(out, e.subPaths(one, def)...)
}

// patchTypes of custom resources lack the one that needs Go structs: clients
// look here to find out.
func (e *entry) patchTypes() []string {
	types := []string{"application/apply-patch+yaml", "application/json-patch+json", "application/merge-patch+json"}
	if e.custom == nil {
		types = append(types, "application/strategic-merge-patch+json")
	}
	return types
}

// subPaths are the URLs of subresources.
func (e *entry) subPaths(one path, def func(schema.GroupVersionKind) string) []path {
	var out []path
	id, scope := idPart(e.gvk.GroupVersion()), "Namespaced"
	if e.info.ClusterScoped {
		scope = ""
	}
	add := func(name string, kind schema.GroupVersionKind, verbs []string) {
		p := path{url: one.url + "/" + name, params: one.params}
		own := def(kind)
		for _, v := range verbs {
			o := operation{gvk: kind, gives: own, codes: []string{"200"}}
			suffix := id + scope + e.gvk.Kind + title(name)
			switch v {
			case "get":
				o.method, o.action, o.id, o.text = "get", "get", "read"+suffix, "read "+name+" of the specified "+e.gvk.Kind
			case "update":
				o.method, o.action, o.id, o.text = "put", "put", "replace"+suffix, "replace "+name+" of the specified "+e.gvk.Kind
				o.params, o.takes, o.codes = writeParams(false), own, []string{"200", "201"}
			case "patch":
				o.method, o.action, o.id, o.text = "patch", "patch", "patch"+suffix, "partially update "+name+" of the specified "+e.gvk.Kind
				o.params, o.takes, o.takesMedia, o.codes = writeParams(true), patchName, e.patchTypes(), []string{"200", "201"}
			case "create":
				o.method, o.action, o.id, o.text = "post", "post", "create"+suffix, "create "+name+" of a "+e.gvk.Kind
				o.params, o.takes, o.codes = writeParams(false), own, []string{"200", "201", "202"}
			default:
				continue
			}
			p.ops = append(p.ops, o)
		}
		if len(p.ops) > 0 {
			out = append(out, p)
		}
	}
	for _, s := range e.info.Subs {
		var verbs []string
		if !s.WriteOnly {
			verbs = append(verbs, "get")
		}
		if !s.ReadOnly {
			verbs = append(verbs, "update")
		}
		if !s.ReadOnly && !s.NoPatch {
			verbs = append(verbs, "patch")
		}
		add(s.Name, e.gvk, verbs)
	}
	if e.info.HasScale && (e.also == nil || !e.also.NoScale) {
		add("scale", schema.GroupVersionKind{Group: "autoscaling", Version: "v1", Kind: "Scale"}, []string{"get", "update", "patch"})
	}
	for _, c := range e.info.Connects {
		if slices.Contains(c.Verbs, "get") {
			out = append(out, e.streamPath(one, c))
			continue
		}
		add(c.Name, c.Kind, c.Verbs)
	}
	return out
}

// streamPath is the URL of a subresource whose answer is no object: a log, or a
// connection through to somewhere.
func (e *entry) streamPath(one path, c resource.Connect) path {
	p := path{url: one.url + "/" + c.Name, params: one.params}
	scope := "Namespaced"
	if e.info.ClusterScoped {
		scope = ""
	}
	suffix := idPart(e.gvk.GroupVersion()) + scope + e.gvk.Kind + strings.ReplaceAll(title(c.Name), "/", "")
	if c.Name == "log" { // discovery names the kind it is of, not its options
		params := optionParams(c.Kind.GroupVersion().WithKind(e.gvk.Kind + "LogOptions"))
		o := operation{method: "get", action: "get", id: "read" + suffix, text: "read log of the specified " + e.gvk.Kind, gvk: e.gvk, params: params, codes: []string{"200"}}
		p.ops = append(p.ops, o)
		return p
	}
	params := optionParams(c.Kind)
	methods := map[string]string{"get": "get", "create": "post", "update": "put", "patch": "patch", "delete": "delete"}
	for _, v := range c.Verbs {
		if m := methods[v]; m != "" {
			p.ops = append(p.ops, operation{method: m, action: "connect", id: "connect" + title(m) + suffix,
				text: "connect " + strings.ToUpper(m) + " requests to " + c.Name + " of " + e.gvk.Kind, gvk: c.Kind, params: params, codes: []string{"200"}})
		}
	}
	return p
}

// optionParams are the fields of an options kind as query parameters.
func optionParams(gvk schema.GroupVersionKind) []param {
	name := definitionOf(gvk)
	defs, err := closure([]string{name})
	if name == "" || err != nil {
		return nil
	}
	var s struct {
		Properties map[string]struct {
			Type        string `json:"type"`
			Description string `json:"description"`
		} `json:"properties"`
	}
	if json.Unmarshal(defs[name], &s) != nil {
		return nil
	}
	var out []param
	for _, n := range slices.Sorted(maps.Keys(s.Properties)) {
		p := s.Properties[n]
		switch {
		case n == "apiVersion" || n == "kind" || n == "metadata":
			continue
		case p.Type == "array": // repeated, as upstream spells it: a string
			p.Type = "string"
		case p.Type == "":
			p.Type = "string"
		}
		out = append(out, param{n, "query", p.Type, p.Description})
	}
	return out
}

// definitionOf returns the definition's name of a kind, or "" if it has none.
func definitionOf(gvk schema.GroupVersionKind) string {
	name, err := api.Scheme().ToOpenAPIDefinitionName(gvk)
	if err != nil {
		return ""
	}
	return name
}
