package main

import (
	"bytes"
	"compress/gzip"
	"encoding/gob"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"sort"
	"strings"

	"k8s.io/kube-openapi/pkg/common"
	"k8s.io/kube-openapi/pkg/schemaconv"
	"k8s.io/kube-openapi/pkg/util"
	"k8s.io/kube-openapi/pkg/validation/spec"
	"sigs.k8s.io/structured-merge-diff/v6/schema"

	"github.com/sampan-dev/sampan/tools/openapi/generated"
)

func main() {
	if err := pack(os.Args[1]); err != nil {
		fmt.Fprintln(os.Stderr, "openapi:", err)
		os.Exit(1)
	}
}

// friendly is the name of a definition: io.k8s.api.core.v1.Pod.
func friendly(name string) string {
	if !strings.Contains(name, "/") {
		return name
	}
	return util.ToRESTFriendlyName(name)
}

// packageOf is a definition's name without the type.
func packageOf(name string) string { return name[:strings.LastIndexByte(name, '.')] }

func pack(dir string) error {
	defs := generated.GetOpenAPIDefinitions(func(path string) spec.Ref {
		return spec.MustCreateRef("#/definitions/" + common.EscapeJsonPointer(friendly(path)))
	})
	all := map[string]*spec.Schema{}
	for name, d := range defs {
		s := d.Schema
		if v2, ok := s.Extensions[common.ExtensionV2Schema]; ok {
			s = v2.(spec.Schema)
		}
		// Through JSON: default values then have plain types.
		data, err := json.Marshal(s)
		if err != nil {
			return err
		}
		plain := &spec.Schema{}
		if err := json.Unmarshal(data, plain); err != nil {
			return err
		}
		all[friendly(name)] = plain
	}
	merge, err := schemaconv.ToSchemaFromOpenAPI(all, false)
	if err != nil {
		return err
	}
	if err := os.RemoveAll(dir); err != nil {
		return err
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	if err := writeDefinitions(dir, all); err != nil {
		return err
	}
	return writeMerge(dir, merge)
}

func writeDefinitions(dir string, all map[string]*spec.Schema) error {
	byPackage := map[string]map[string]*spec.Schema{}
	for name, s := range all {
		p := packageOf(name)
		if byPackage[p] == nil {
			byPackage[p] = map[string]*spec.Schema{}
		}
		byPackage[p][name] = s
	}
	for p, defs := range byPackage {
		data, err := json.Marshal(defs)
		if err != nil {
			return err
		}
		if err := writeFile(filepath.Join(dir, p+".json.gz"), data); err != nil {
			return err
		}
	}
	return nil
}

// writeMerge writes the types that server-side apply merges by. Default values
// are of these dynamic types.
func writeMerge(dir string, merge *schema.Schema) error {
	gob.Register(map[string]any{})
	gob.Register([]any{})
	byPackage := map[string][]schema.TypeDef{}
	for _, t := range merge.Types {
		p := "common"
		if strings.Contains(t.Name, ".") {
			p = packageOf(t.Name)
		}
		byPackage[p] = append(byPackage[p], t)
	}
	for p, types := range byPackage {
		sort.Slice(types, func(i, j int) bool { return types[i].Name < types[j].Name })
		for i := range types {
			sortFields(&types[i].Atom)
		}
		var b bytes.Buffer
		if err := gob.NewEncoder(&b).Encode(types); err != nil {
			return err
		}
		if err := writeFile(filepath.Join(dir, p+".smd.gz"), b.Bytes()); err != nil {
			return err
		}
	}
	return nil
}

// sortFields puts struct fields in order, so that the same types make the same files.
func sortFields(a *schema.Atom) {
	if a.List != nil {
		sortFields(&a.List.ElementType.Inlined)
	}
	if a.Map == nil {
		return
	}
	f := a.Map.Fields
	sort.Slice(f, func(i, j int) bool { return f[i].Name < f[j].Name })
	for i := range f {
		sortFields(&f[i].Type.Inlined)
	}
	sortFields(&a.Map.ElementType.Inlined)
}

func writeFile(name string, data []byte) error {
	var b bytes.Buffer
	z, err := gzip.NewWriterLevel(&b, gzip.BestCompression)
	if err != nil {
		return err
	}
	if _, err := z.Write(data); err != nil {
		return err
	}
	if err := z.Close(); err != nil {
		return err
	}
	return os.WriteFile(name, b.Bytes(), 0o644)
}
