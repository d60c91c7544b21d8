package rest

import (
	"fmt"

	autoscalingv1 "k8s.io/api/autoscaling/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/sampan-dev/sampan/api"
	"github.com/sampan-dev/sampan/apiserver/request"
)

var _ request.Catalog = (*Registry)(nil)

// Spellings implements request.Catalog.
func (r *Registry) Spellings(stored schema.GroupResource, sub string) []request.Spelling {
	s, ok := r.Stored(stored)
	if !ok {
		return nil
	}
	all := serve(s.Kind)
	out := make([]request.Spelling, 0, len(all))
	for _, one := range all {
		if sub == "scale" && one.Version != nil && one.Version.NoScale {
			continue
		}
		out = append(out, one.spelling(sub))
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
