package config

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	utilyaml "k8s.io/apimachinery/pkg/util/yaml"
	"sigs.k8s.io/yaml"
)

// versions are all there were, oldest first. A document of one becomes a
// document of the next by the step of its index.
var versions = []string{"v1alpha1", "v1alpha2", "v1alpha3", "v1beta1", "v1beta2", "v1beta3", "v1beta4"}

// Load reads a file of one or more documents.
func Load(path string) (*File, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("unable to read config from %q: %w", path, err)
	}
	f, err := Read(text)
	if err != nil {
		return nil, fmt.Errorf("config %s: %w", path, err)
	}
	return f, nil
}

// Read reads the documents of text.
func Read(text []byte) (*File, error) {
	f := &File{Others: map[string]map[string]any{}}
	docs := utilyaml.NewDocumentDecoder(io.NopCloser(bytes.NewReader(text)))
	defer docs.Close()
	buf := make([]byte, 0, 1<<20)
	for {
		doc, err := next(docs, buf)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, err
		}
		var m map[string]any
		if err := yaml.UnmarshalStrict(doc, &m); err != nil {
			return nil, fmt.Errorf("bad YAML: %w", err)
		}
		if len(m) == 0 {
			continue
		}
		if err := f.add(m); err != nil {
			return nil, err
		}
	}
	if f.Init == nil && f.Cluster == nil && f.Join == nil && f.Reset == nil && f.Upgrade == nil && len(f.Others) == 0 {
		return nil, errors.New("no InitConfiguration, ClusterConfiguration, JoinConfiguration, ResetConfiguration or UpgradeConfiguration kind was found in the YAML file")
	}
	return f, nil
}

// next reads one document whole.
func next(r io.Reader, buf []byte) ([]byte, error) {
	buf = buf[:cap(buf)]
	n, err := r.Read(buf)
	if errors.Is(err, io.ErrShortBuffer) {
		return nil, fmt.Errorf("a document is longer than %d bytes", len(buf))
	}
	if err != nil {
		return nil, err
	}
	return buf[:n], nil
}

// add takes one document, brought to today's version.
func (f *File) add(m map[string]any) error {
	kind, _ := m["kind"].(string)
	apiVersion, _ := m["apiVersion"].(string)
	if kind == "" || apiVersion == "" {
		return errors.New("invalid configuration: kind and apiVersion is mandatory information that must be specified")
	}
	group, version, _ := strings.Cut(apiVersion, "/")
	if group != Group {
		switch kind {
		case "KubeletConfiguration", "KubeProxyConfiguration":
			f.Others[kind] = m
			return nil
		}
		f.warn("ignored configuration document with GroupVersionKind %s, Kind=%s", apiVersion, kind)
		return nil
	}
	at := slices.Index(versions, version)
	if at < 0 {
		return fmt.Errorf("no kind %q is registered for version %q; known versions are %s", kind, apiVersion, strings.Join(versions, ", "))
	}
	docs := []map[string]any{m}
	if at < len(versions)-1 {
		f.warn("your configuration file uses a deprecated API spec: %q (kind: %q). Please use 'kubeadm config migrate --old-config old-config-file --new-config new-config-file', "+
			"which will write the new, similar spec using a newer API version.", apiVersion, kind)
	}
	for ; at < len(versions)-1; at++ {
		var after []map[string]any
		for _, d := range docs {
			more, err := f.step(versions[at], d)
			if err != nil {
				return fmt.Errorf("%s of %s: %w", kind, apiVersion, err)
			}
			after = append(after, more...)
		}
		docs = after
	}
	for _, d := range docs {
		if err := f.take(d); err != nil {
			return err
		}
	}
	return nil
}

// take types one document of today's version.
func (f *File) take(m map[string]any) error {
	kind, _ := m["kind"].(string)
	m["apiVersion"] = Version
	var into any
	switch kind {
	case "InitConfiguration":
		f.Init = &Init{}
		into = f.Init
	case "ClusterConfiguration":
		f.Cluster = &Cluster{}
		into = f.Cluster
	case "JoinConfiguration":
		f.Join = &Join{}
		into = f.Join
	case "ResetConfiguration":
		f.Reset = &Reset{}
		into = f.Reset
	case "UpgradeConfiguration":
		f.Upgrade = &Upgrade{}
		into = f.Upgrade
	case "ClusterStatus":
		return nil
	case "KubeletConfiguration", "KubeProxyConfiguration":
		f.Others[kind] = m
		return nil
	default:
		return fmt.Errorf("no kind %q is registered for version %q", kind, Version)
	}
	js, err := json.Marshal(m)
	if err != nil {
		return err
	}
	d := json.NewDecoder(bytes.NewReader(js))
	d.DisallowUnknownFields()
	if err := d.Decode(into); err != nil {
		return fmt.Errorf("strict decoding error: %s: %w", kind, err)
	}
	return nil
}

func (f *File) warn(format string, args ...any) {
	f.Warnings = append(f.Warnings, fmt.Sprintf(format, args...))
}

// Write puts objects (Init, Cluster, Join, Reset, Upgrade) into one file, apiVersion and
// kind first.
func Write(objects ...any) ([]byte, error) {
	var out bytes.Buffer
	for i, o := range objects {
		if i > 0 {
			out.WriteString("---\n")
		}
		switch o := o.(type) {
		case *Init:
			o.APIVersion, o.Kind = Version, "InitConfiguration"
		case *Cluster:
			o.APIVersion, o.Kind = Version, "ClusterConfiguration"
		case *Join:
			o.APIVersion, o.Kind = Version, "JoinConfiguration"
		case *Reset:
			o.APIVersion, o.Kind = Version, "ResetConfiguration"
		case *Upgrade:
			o.APIVersion, o.Kind = Version, "UpgradeConfiguration"
		}
		text, err := yaml.Marshal(o)
		if err != nil {
			return nil, err
		}
		out.Write(text)
	}
	return out.Bytes(), nil
}
