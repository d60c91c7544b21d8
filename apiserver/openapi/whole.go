package openapi

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"io"
	"slices"

	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/sampan-dev/sampan/resource"
)

// base is the part of the OpenAPI v2 document that is of built-in kinds: the
// members of its paths and definitions. It is by far the larger part, and stays
// while custom resources come and go.
type base struct {
	kinds              []resource.Kind
	paths, definitions []byte // compressed
}

// documentV2 is the OpenAPI v2 document of everything.
func (h *Handler) documentV2(kinds []resource.Kind) ([]byte, error) {
	var builtin, custom []resource.Kind
	for _, k := range kinds {
		if _, ok := k.(resource.Custom); ok {
			custom = append(custom, k)
		} else {
			builtin = append(builtin, k)
		}
	}
	if h.base == nil || !slices.Equal(h.base.kinds, builtin) {
		p, d, err := membersV2(builtin, nil)
		if err != nil {
			return nil, err
		}
		h.base = &base{builtin, zip(p), zip(d)}
	}
	p, d, err := membersV2(custom, builtin)
	if err != nil {
		return nil, err
	}
	about, err := json.Marshal(info())
	if err != nil {
		return nil, err
	}
	secure, err := json.Marshal(bearer())
	if err != nil {
		return nil, err
	}
	var b bytes.Buffer
	b.WriteString(`{"swagger":"2.0","info":`)
	b.Write(about)
	for _, part := range []struct {
		name      string
		base, own []byte
	}{{"paths", h.base.paths, p}, {"definitions", h.base.definitions, d}} {
		b.WriteString(`,"` + part.name + `":{`)
		if err := unzipTo(&b, part.base); err != nil {
			return nil, err
		}
		if len(part.own) > 0 {
			b.WriteByte(',')
			b.Write(part.own)
		}
		b.WriteByte('}')
	}
	b.WriteString(`,"securityDefinitions":`)
	b.Write(secure)
	b.WriteString(`,"security":[{"BearerToken":[]}]}`)
	return b.Bytes(), nil
}

// membersV2 makes the members of the paths and definitions of some kinds; what
// comes with those that are there already is left out.
func membersV2(kinds, there []resource.Kind) (paths, definitions []byte, err error) {
	b := newBuild(false)
	all := object{}
	known := map[schema.GroupVersion]bool{}
	for _, gv := range versions(there) {
		known[gv] = true
	}
	for _, gv := range versions(kinds) {
		b.addPaths(all, kinds, gv)
		if known[gv] {
			delete(all, baseURL(gv)+"/")
		}
	}
	old := roots(there)
	for _, r := range roots(kinds) {
		if there == nil || !slices.Contains(old, r) {
			b.addRoot(all, r)
		}
	}
	if paths, err = members(all); err != nil {
		return nil, nil, err
	}
	var defs map[string]json.RawMessage = b.own
	if there == nil {
		if defs, err = b.components(); err != nil {
			return nil, nil, err
		}
	}
	definitions, err = members(defs)
	return paths, definitions, err
}

// members is an object's JSON without the braces.
func members(v any) ([]byte, error) {
	data, err := json.Marshal(v)
	if err != nil {
		return nil, err
	}
	return data[1 : len(data)-1], nil
}

func zip(data []byte) []byte {
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	z.Write(data)
	z.Close()
	return bytes.Clone(b.Bytes())
}

func unzipTo(w io.Writer, data []byte) error {
	z, err := gzip.NewReader(bytes.NewReader(data))
	if err != nil {
		return err
	}
	_, err = io.Copy(w, z)
	return err
}
