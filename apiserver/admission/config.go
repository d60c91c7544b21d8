package admission

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"

	"k8s.io/apimachinery/pkg/util/validation/field"
	"sigs.k8s.io/yaml"
)

// Configuration is what plugins are configured with, by their names, as YAML or JSON.
type Configuration map[string][]byte

// ReadConfiguration reads an AdmissionConfiguration file and the files it names.
func ReadConfiguration(file string) (Configuration, error) {
	data, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("failed to read plugin config: unable to read admission control configuration from %q [%w]", file, err)
	}
	var c struct {
		Kind    string `json:"kind"`
		Plugins []struct {
			Name          string          `json:"name"`
			Path          string          `json:"path"`
			Configuration json.RawMessage `json:"configuration"`
		} `json:"plugins"`
	}
	if err := yaml.Unmarshal(data, &c); err != nil {
		return nil, fmt.Errorf("failed to read plugin config: %s: %w", file, err)
	}
	if c.Kind != "AdmissionConfiguration" {
		// The oldest form: one document with a key per plugin, read by each for itself.
		return Configuration{"PodNodeSelector": data, "ImagePolicyWebhook": data}, nil
	}
	out := Configuration{}
	for _, p := range c.Plugins {
		switch {
		case len(p.Configuration) > 0 && string(p.Configuration) != "null":
			out[p.Name] = p.Configuration
		case p.Path != "":
			path := p.Path
			if !filepath.IsAbs(path) {
				path = filepath.Join(filepath.Dir(file), path)
			}
			if out[p.Name], err = os.ReadFile(path); err != nil {
				return nil, fmt.Errorf("failed to read plugin config: %s: %w", p.Name, err)
			}
		}
	}
	return out, nil
}

// read puts a plugin's configuration, if there is one, into the given struct.
func (c Configuration) read(name string, into any) error {
	data, ok := c[name]
	if !ok {
		return nil
	}
	if err := yaml.Unmarshal(data, into); err != nil {
		return fmt.Errorf("couldn't init admission plugin %q: %w", name, err)
	}
	return nil
}

// HookUsers is the kubeconfig whose users the plugin shows to webhooks; "" is none.
func (c Configuration) HookUsers(name string) (string, error) {
	var w struct {
		Kind           string `json:"kind"`
		KubeConfigFile string `json:"kubeConfigFile"`
	}
	if err := c.read(name, &w); err != nil {
		return "", err
	}
	switch {
	case w.Kind != "" && w.Kind != "WebhookAdmission" && w.Kind != "WebhookAdmissionConfiguration":
		return "", fmt.Errorf("couldn't init admission plugin %q: unexpected kind %q, want WebhookAdmissionConfiguration", name, w.Kind)
	case w.KubeConfigFile != "" && !filepath.IsAbs(w.KubeConfigFile):
		return "", fmt.Errorf("couldn't init admission plugin %q: %w", name,
			field.Invalid(field.NewPath("kubeConfigFile"), w.KubeConfigFile, "must be an absolute file path"))
	}
	return w.KubeConfigFile, nil
}
