package rest

import "testing"

func TestWhereARevisionBelongs(t *testing.T) {
	for _, c := range []struct{ doc, want string }{
		{`{"a":{"uid":"x"},"metadata":{"annotations":{"uid":"y"},"name":"n","uid":"z"},"spec":{"uid":"w"}}`, `"uid":"z"},"spec":{"uid":"w"}}`},
		{`{"kind":"metadata","metadata":{"labels":{"a":"\"uid\":"},"uid":"z"}}`, `"uid":"z"}}`},
		{`{"metadata":{"name":"n"},"spec":{"metadata":{"uid":"x"}}}`, ""},
		{`{"spec":[{"metadata":{"uid":"x"}}]}`, ""},
		{`"`, ""},
	} {
		got := ""
		if at := uidAt([]byte(c.doc)); at >= 0 {
			got = c.doc[at:]
		}
		if got != c.want {
			t.Errorf("%s: %q, want %q", c.doc, got, c.want)
		}
	}
}
