package controlplane

import (
	"github.com/sampan-dev/sampan/apiserver/request"
	"github.com/sampan-dev/sampan/apiserver/stream"
	"github.com/sampan-dev/sampan/apiserver/virtual"
)

// virtuals are all kinds that are computed.
func virtuals(d virtual.Deps, s *stream.Streams) map[string]request.Virtual {
	out := map[string]request.Virtual{"bindings": s.Bindings()}
	for gr, v := range virtual.Kinds(d) {
		out[gr] = v
	}
	return out
}
