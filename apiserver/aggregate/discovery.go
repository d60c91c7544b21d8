package aggregate

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"mime"
	"net/http"
	"slices"
	"strings"

	v2 "k8s.io/api/apidiscovery/v2"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/version"
)

const acceptAggregated = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,application/json"

// discover reads what the server serves of the group and version.
func (r *remote) discover(ctx context.Context) error {
	r.mu.Lock()
	tag := r.tag
	r.mu.Unlock()
	h := http.Header{"Accept": {acceptAggregated}}
	if tag != "" {
		h.Set("If-None-Match", tag)
	}
	resp, body, err := r.ask(ctx, "/apis", h)
	if err != nil {
		return err
	}
	if resp.StatusCode == http.StatusNotModified {
		return nil
	}
	if resp.StatusCode == http.StatusOK && isAggregated(resp.Header.Get("Content-Type")) {
		var list v2.APIGroupDiscoveryList
		if err := json.Unmarshal(body, &list); err != nil {
			return fmt.Errorf("aggregated discovery: %w", err)
		}
		r.learn(pick(&list, r.gv), resp.Header.Get("Etag"))
		return nil
	}
	if resp, body, err = r.ask(ctx, r.base(), http.Header{"Accept": {"application/json"}}); err != nil {
		return err
	}
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("discovery: %s: status %d", r.base(), resp.StatusCode)
	}
	var list metav1.APIResourceList
	if err := json.Unmarshal(body, &list); err != nil {
		return fmt.Errorf("discovery: %w", err)
	}
	r.learn(&v2.APIVersionDiscovery{Version: r.gv.Version, Resources: fromLegacy(r.gv, list.APIResources)}, "")
	return nil
}

// learn takes what was read, and tells the makers of documents if it is new.
func (r *remote) learn(d *v2.APIVersionDiscovery, tag string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.tag = tag
	before, _ := json.Marshal(r.serves)
	if after, _ := json.Marshal(d); r.serves == nil || !bytes.Equal(before, after) {
		r.serves = d
		r.state++
	}
}

func isAggregated(contentType string) bool {
	media, params, err := mime.ParseMediaType(contentType)
	return err == nil && media == "application/json" && params["as"] == "APIGroupDiscoveryList" && params["g"] == "apidiscovery.k8s.io"
}

// pick takes one version out of an aggregated document; one that is missing
// serves nothing.
func pick(list *v2.APIGroupDiscoveryList, gv schema.GroupVersion) *v2.APIVersionDiscovery {
	for _, g := range list.Items {
		for i := range g.Versions {
			if g.Name == gv.Group && g.Versions[i].Version == gv.Version {
				d := g.Versions[i].DeepCopy()
				for j := range d.Resources {
					named(&d.Resources[j].ResponseKind)
					for k := range d.Resources[j].Subresources {
						named(&d.Resources[j].Subresources[k].ResponseKind)
					}
				}
				return d
			}
		}
	}
	return &v2.APIVersionDiscovery{Version: gv.Version}
}

// named fills in what some clients take for granted.
func named(k **metav1.GroupVersionKind) {
	if *k == nil {
		*k = &metav1.GroupVersionKind{}
	}
}

// fromLegacy puts a plain list of resources into the aggregated form, where
// subresources are below their resource.
func fromLegacy(gv schema.GroupVersion, list []metav1.APIResource) []v2.APIResourceDiscovery {
	var out []v2.APIResourceDiscovery
	kind := func(r *metav1.APIResource) *metav1.GroupVersionKind {
		return &metav1.GroupVersionKind{Group: cmp.Or(r.Group, gv.Group), Version: cmp.Or(r.Version, gv.Version), Kind: r.Kind}
	}
	for i := range list {
		r := &list[i]
		if strings.Contains(r.Name, "/") {
			continue
		}
		d := v2.APIResourceDiscovery{
			Resource: r.Name, ResponseKind: kind(r), Scope: v2.ScopeCluster, SingularResource: r.SingularName,
			Verbs: r.Verbs, ShortNames: r.ShortNames, Categories: r.Categories,
		}
		if r.Namespaced {
			d.Scope = v2.ScopeNamespace
		}
		for j := range list {
			if sub, ok := strings.CutPrefix(list[j].Name, r.Name+"/"); ok {
				d.Subresources = append(d.Subresources, v2.APISubresourceDiscovery{Subresource: sub, ResponseKind: kind(&list[j]), Verbs: list[j].Verbs})
			}
		}
		out = append(out, d)
	}
	return out
}

// entry is what the aggregated document says of the server: stale when it does
// not answer.
func (r *remote) entry() v2.APIVersionDiscovery {
	r.mu.Lock()
	defer r.mu.Unlock()
	out := v2.APIVersionDiscovery{Version: r.gv.Version}
	if r.serves != nil {
		out = *r.serves
	}
	out.Freshness = v2.DiscoveryFreshnessCurrent
	if !r.available.Load() || r.serves == nil {
		out.Freshness = v2.DiscoveryFreshnessStale
	}
	return out
}

// Discovery adds what other servers serve to the answers of next: /apis in all
// forms, and /apis/GROUP.
func (a *Aggregator) Discovery(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		t := a.table.Load()
		path := strings.TrimSuffix(r.URL.Path, "/")
		group, below := strings.CutPrefix(path, "/apis/")
		if len(t.remotes) == 0 || path != "/apis" && !(below && t.groups[group]) {
			next.ServeHTTP(w, r)
			return
		}
		own := capture(next, r)
		if own.code != http.StatusOK && !below {
			own.send(w)
			return
		}
		contentType := own.header.Get("Content-Type")
		body, err := a.merged.get(t.key(path+" "+contentType, own.body), func() ([]byte, error) {
			switch {
			case below:
				return t.mergeGroup(group, own)
			case isAggregated(contentType):
				return t.mergeAggregated(own.body)
			}
			return t.mergeGroups(own.body)
		})
		if err != nil {
			a.log.Warn("discovery of other servers left out", "err", err)
			own.send(w)
			return
		}
		own.code, own.body = http.StatusOK, body
		if below {
			own.header.Set("Content-Type", "application/json")
		}
		own.header.Del("Content-Length")
		if own.header.Get("Etag") != "" && tagged(w, r, own, body) {
			return
		}
		own.send(w)
	})
}

// order puts versions in the order of their priorities; those of which nothing
// is said are last.
func (t *table) order(group string) func(a, b string) int {
	return func(a, b string) int {
		pa, pb := t.version[schema.GroupVersion{Group: group, Version: a}], t.version[schema.GroupVersion{Group: group, Version: b}]
		return cmp.Or(cmp.Compare(pb, pa), -version.CompareKubeAwareVersionStrings(a, b))
	}
}

// listed are the versions of a group that other servers have; the plain form
// leaves out those in quarantine.
func (t *table) listed(group string, plain bool) (out []*remote) {
	for gv, r := range t.remotes {
		if gv.Group == group && !(plain && r.quarantined()) {
			out = append(out, r)
		}
	}
	return out
}

// insert puts what other servers have among the groups served here, by priority.
func insert[G any](t *table, own []G, name func(*G) string, add func(g *G, group string) bool) []G {
	var out []G
	seen := map[string]bool{}
	for i := range own {
		g := own[i]
		seen[name(&g)] = true
		if t.groups[name(&g)] {
			add(&g, name(&g))
		}
		out = append(out, g)
	}
	var more []string
	for g := range t.groups {
		if !seen[g] {
			more = append(more, g)
		}
	}
	slices.Sort(more)
	for _, group := range more {
		var g G
		if !add(&g, group) {
			continue
		}
		at := slices.IndexFunc(out, func(o G) bool { return t.priority[name(&o)] < t.priority[group] })
		if at < 0 {
			at = len(out)
		}
		out = slices.Insert(out, at, g)
	}
	return out
}

func (t *table) mergeAggregated(body []byte) ([]byte, error) {
	var doc v2.APIGroupDiscoveryList
	if err := json.Unmarshal(body, &doc); err != nil {
		return nil, err
	}
	doc.Items = insert(t, doc.Items, func(g *v2.APIGroupDiscovery) string { return g.Name }, func(g *v2.APIGroupDiscovery, group string) bool {
		g.Name = group
		for _, r := range t.listed(group, false) {
			g.Versions = slices.DeleteFunc(g.Versions, func(v v2.APIVersionDiscovery) bool { return v.Version == r.gv.Version })
			g.Versions = append(g.Versions, r.entry())
		}
		less := t.order(group)
		slices.SortStableFunc(g.Versions, func(a, b v2.APIVersionDiscovery) int { return less(a.Version, b.Version) })
		return len(g.Versions) > 0
	})
	return marshal(doc)
}

func (t *table) mergeGroups(body []byte) ([]byte, error) {
	var doc metav1.APIGroupList
	if err := json.Unmarshal(body, &doc); err != nil {
		return nil, err
	}
	doc.Groups = insert(t, doc.Groups, func(g *metav1.APIGroup) string { return g.Name }, t.addVersions)
	return marshal(doc)
}

// addVersions completes the plain form of a group.
func (t *table) addVersions(g *metav1.APIGroup, group string) bool {
	g.Name = group
	for _, r := range t.listed(group, true) {
		v := metav1.GroupVersionForDiscovery{GroupVersion: r.gv.String(), Version: r.gv.Version}
		if !slices.Contains(g.Versions, v) {
			g.Versions = append(g.Versions, v)
		}
	}
	if len(g.Versions) == 0 {
		return false
	}
	less := t.order(group)
	slices.SortStableFunc(g.Versions, func(a, b metav1.GroupVersionForDiscovery) int { return less(a.Version, b.Version) })
	g.PreferredVersion = g.Versions[0]
	return true
}

func (t *table) mergeGroup(group string, own *answer) ([]byte, error) {
	doc := metav1.APIGroup{TypeMeta: metav1.TypeMeta{Kind: "APIGroup", APIVersion: "v1"}}
	if own.code == http.StatusOK {
		if err := json.Unmarshal(own.body, &doc); err != nil {
			return nil, err
		}
	}
	t.addVersions(&doc, group)
	return marshal(doc)
}

func marshal(doc any) ([]byte, error) {
	b, err := json.Marshal(doc)
	return append(b, '\n'), err
}
