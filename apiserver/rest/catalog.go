package rest

import (
	"fmt"

	autoscalingv1 "k8s.io/api/autoscaling/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/sampan-dev/sampan/api"
	"github.com/sampan-dev/sampan/apiserver/request"
	"github.com/sampan-dev/sampan/resource"
)

var _ request.Catalog = (*Registry)(nil)

// Spellings implements request.Catalog.
func (r *Registry) Spellings(of schema.GroupVersionResource, sub string) []request.Spelling {
	s, ok := r.Find(of)
	if !ok {
		return nil
	}
	out := []request.Spelling{}
	for _, one := range append(serve(s.Kind), apart(s.Kind)...) {
		if sub == "scale" && one.Version != nil && one.Version.NoScale {
			continue
		}
		w := one.spelling(sub)
		if one.Version != nil && one.Version.Apart {
			other, served := r.Find(w.Resource)
			if !served {
				continue
			}
			one.custom = other.custom
		} else {
			one.custom = s.custom
		}
		if c := one.custom; c != nil && w.Kind == one.GVK {
			w.Decode = func(data []byte, strict bool) (api.Object, error) {
				obj, _, err := c.Decode(api.FormatJSON, data, strict)
				if err == nil {
					c.Default(obj)
				}
				return obj, err
			}
		}
		out = append(out, w)
	}
	return out
}

// apart lists the versions of a custom resource that are kinds of their own.
func apart(k resource.Kind) []*Served {
	i := k.Info()
	var out []*Served
	for n := range i.Also {
		if v := &i.Also[n]; v.Apart {
			out = append(out, &Served{Kind: k, Info: i, Version: v, Plural: i.Plural,
				GVK: schema.GroupVersionKind{Group: v.Group, Version: v.Version, Kind: v.Kind}})
		}
	}
	return out
}

// Resource implements request.Catalog.
func (r *Registry) Resource(kind schema.GroupVersionKind) (request.Spelling, schema.GroupResource, bool, bool) {
	for _, s := range r.view.Load().byGVR {
		if s.GVK == kind && !s.Info.Virtual {
			return s.spelling(""), s.StoredGVR().GroupResource(), !s.Info.ClusterScoped, true
		}
	}
	return request.Spelling{}, schema.GroupResource{}, false, false
}

// spoken is the kind of the objects that the kind's users, or those of a
// subresource, send.
func (s *Served) spoken(sub string) schema.GroupVersionKind {
	switch sub {
	case "", "status":
		return s.GVK
	case "scale":
		if s.Info.HasScale {
			return scaleKind()
		}
	}
	for i := range s.Info.Connects {
		if s.Info.Connects[i].Name == sub {
			return s.Info.Connects[i].Kind
		}
	}
	return s.GVK
}

func (s *Served) spelling(sub string) request.Spelling {
	out := request.Spelling{
		Kind: s.spoken(sub), Resource: s.GVR(), Show: s.showObject,
		Store: func(shown, _ api.Object) (api.Object, error) { return s.toStored(shown) },
	}
	switch out.Kind {
	case s.GVK:
	case scaleKind():
		o := &Op{Served: s}
		out.Show = func(obj api.Object) (api.Object, error) { return o.scaleOf(obj), nil }
		out.Store = func(shown, cur api.Object) (api.Object, error) {
			scale, ok := shown.(*autoscalingv1.Scale)
			if !ok {
				return nil, fmt.Errorf("%T is no scale", shown)
			}
			return o.rescale(cur, scale)
		}
	default: // an object of its own, of one version
		out.Show = func(obj api.Object) (api.Object, error) { return obj, nil }
		out.Store = func(shown, _ api.Object) (api.Object, error) { return shown, nil }
	}
	return out
}
