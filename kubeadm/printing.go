package kubeadm

import (
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"sigs.k8s.io/yaml"
)

// outputVersion is the API of what --output=json and yaml print.
const outputVersion = "output.kubeadm.k8s.io/v1alpha3"

// output is --output of a command that prints for people and for programs.
type output struct {
	format  string
	formats []string
}

// flags adds --output, whose formats beside the people's are these.
func (o *output) flags(c *cobra.Command, formats ...string) {
	o.formats = formats
	c.Flags().StringVarP(&o.format, "output", "o", "", "Output format. One of: "+strings.Join(formats, "|")+".")
	before := c.PreRunE
	c.PreRunE = func(c *cobra.Command, args []string) error {
		if o.format == "text" {
			o.format = ""
		}
		if o.format != "" && !slices.Contains(o.formats, o.format) {
			return fmt.Errorf("invalid output format: %s; want one of %s", o.format, strings.Join(o.formats, ", "))
		}
		if before != nil {
			return before(c, args)
		}
		return nil
	}
}

// templates adds what upstream's printers have for templates, which change
// nothing in JSON and YAML.
func (o *output) templates(c *cobra.Command) {
	var ignored bool
	c.Flags().BoolVar(&ignored, "allow-missing-template-keys", true, "If true, ignore any errors in templates when a field or map key is missing in the template; there are no templates here.")
	c.Flags().BoolVar(&ignored, "show-managed-fields", false, "If true, keep the managedFields when printing objects; these have none.")
	o.flags(c, "text", "json", "yaml")
}

// write prints v for programs.
func (o *output) write(w io.Writer, v any) error {
	if o.format == "yaml" {
		text, err := yaml.Marshal(v)
		if err != nil {
			return err
		}
		_, err = w.Write(text)
		return err
	}
	e := json.NewEncoder(w)
	e.SetIndent("", "    ")
	return e.Encode(v)
}
