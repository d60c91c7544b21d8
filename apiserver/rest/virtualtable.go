package rest

import (
	"io"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/sampan-dev/sampan/api"
)

// sendVirtual answers with what a virtual kind computed: as it is, or as a
// table of the kind's columns.
func (x *exchange) sendVirtual(code int, out runtime.Object) error {
	if x.ans.as.Kind != "Table" {
		return x.sendObject(code, out)
	}
	objs := []runtime.Object{out}
	if meta.IsListType(out) {
		var err error
		if objs, err = meta.ExtractList(out); err != nil {
			return err
		}
	}
	t := newTable(x.op.Served, x.ans.as.GroupVersion().String(), x.includeObject())
	x.w.Header().Set("Content-Type", api.JSON)
	return x.stream(0, func(w io.Writer) error {
		t.begin(w, metav1.ListMeta{}, true)
		for _, o := range objs {
			obj, ok := o.(api.Object)
			if !ok {
				continue
			}
			data, err := encode(api.FormatJSON, obj)
			if err != nil {
				return err
			}
			if err := t.row(w, obj, data); err != nil {
				return err
			}
		}
		t.end(w)
		return nil
	})
}
