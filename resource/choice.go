package resource

import (
	"cmp"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/sampan-dev/sampan/api"
)

// Choice says which versions are served, as the API server's --runtime-config
// does: api/all, api/ga, api/beta and api/alpha, then api/retired (versions that
// upstream has removed), then GROUP/VERSION ("v1" is the core's), then
// GROUP/VERSION/RESOURCE; what comes later overrides. Nothing said is served.
type Choice map[string]bool

// Words of a Choice that name many versions.
const (
	allVersions     = "api/all"
	retiredVersions = "api/retired"
)

var (
	stability = regexp.MustCompile(`^v\d+(alpha|beta)?\d*$`)
	versions  = regexp.MustCompile(`^([a-z0-9.-]+/)?v\d+((alpha|beta)\d+)?(/[a-z]+)?$`)
)

// ReadChoice reads KEY=true and KEY=false; a key alone is true.
func ReadChoice(pairs map[string]string) (Choice, error) {
	c := Choice{}
	for k, v := range pairs {
		on, err := strconv.ParseBool(cmp.Or(v, "true"))
		if err != nil {
			return nil, fmt.Errorf("invalid value of %s: %q: must be true or false", k, v)
		}
		if k == "api/v1" || strings.HasPrefix(k, "api/v1/") { // the core's, as it was spelt once
			k = strings.TrimPrefix(k, "api/")
		}
		if !slices.Contains([]string{allVersions, "api/ga", "api/beta", "api/alpha", retiredVersions, "api/legacy"}, k) && !versions.MatchString(k) {
			return nil, fmt.Errorf("invalid key %q: must be api/all, api/ga, api/beta, api/alpha, api/retired, VERSION, GROUP/VERSION or GROUP/VERSION/RESOURCE", k)
		}
		c[k] = on
	}
	return c, nil
}

// serves says whether a resource is served in a version.
func (c Choice) serves(gv schema.GroupVersion, plural string, retired bool) bool {
	level := "api/ga"
	if m := stability.FindStringSubmatch(gv.Version); m != nil && m[1] != "" {
		level = "api/" + m[1]
	}
	keys := []string{allVersions, level}
	if retired {
		keys = append(keys, retiredVersions)
	}
	on := true
	for _, k := range append(keys, gv.String(), gv.String()+"/"+plural) {
		if v, said := c[k]; said {
			on = v
		}
	}
	return on
}

// Of returns kinds with the versions that are served. A kind of which the
// stored version is not is still stored.
func (c Choice) Of(kinds []Kind) ([]Kind, error) {
	if err := c.known(kinds); err != nil {
		return nil, err
	}
	out := slices.Clone(kinds)
	for i, k := range kinds {
		info := *k.Info()
		info.Hidden = info.Hidden || !c.serves(info.GroupVersionKind.GroupVersion(), info.Plural, info.Warning != "")
		info.Also = slices.DeleteFunc(slices.Clone(info.Also), func(v Version) bool {
			return !c.serves(schema.GroupVersion{Group: v.Group, Version: v.Version}, cmp.Or(v.Plural, info.Plural), v.Retired)
		})
		if info.Hidden != k.Info().Hidden || len(info.Also) != len(k.Info().Also) {
			out[i] = chosen{k, &info}
		}
	}
	return out, nil
}

// known refuses versions that no kind has, which are misspelt.
func (c Choice) known(kinds []Kind) error {
	have := map[string]bool{}
	for _, k := range kinds {
		i := k.Info()
		have[i.GroupVersionKind.GroupVersion().String()] = true
		for _, v := range i.Also {
			have[schema.GroupVersion{Group: v.Group, Version: v.Version}.String()] = true
		}
	}
	for key, on := range c {
		gv := key
		if parts := strings.SplitN(key, "/", 3); len(parts) == 3 {
			gv = parts[0] + "/" + parts[1]
		}
		// What is to be off and is not there is off: clusters of every age say so.
		if on && !strings.HasPrefix(key, "api/") && !have[gv] {
			return fmt.Errorf("unknown API version %s", gv)
		}
	}
	return nil
}

// chosen is a kind with fewer versions.
type chosen struct {
	Kind
	info *Info
}

func (c chosen) Info() *Info { return c.info }

// Lasting is kinds with another lifetime, in seconds, of the objects of one kind.
func Lasting(kinds []Kind, gk schema.GroupKind, seconds int64) []Kind {
	out := slices.Clone(kinds)
	for i, k := range out {
		if k.Info().GroupKind() == gk {
			out[i] = lasting{k, seconds}
		}
	}
	return out
}

type lasting struct {
	Kind
	seconds int64
}

func (l lasting) TTL(api.Object) int64 { return l.seconds }
