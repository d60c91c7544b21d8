package encrypt

import (
	"encoding/base64"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"sigs.k8s.io/yaml"
)

// Configuration is an EncryptionConfiguration.
type Configuration struct {
	metav1.TypeMeta `json:",inline"`
	Resources       []Rule `json:"resources"`
}

// Rule says how some resources are encrypted: "secrets", "deployments.apps",
// "*.apps", "*." for the core group, "*.*".
type Rule struct {
	Resources []string   `json:"resources"`
	Providers []Provider `json:"providers"`
}

// Provider is one way to encrypt.
type Provider struct {
	AESGCM    *Keys     `json:"aesgcm,omitempty"`
	AESCBC    *Keys     `json:"aescbc,omitempty"`
	Secretbox *Keys     `json:"secretbox,omitempty"`
	Identity  *struct{} `json:"identity,omitempty"`
	KMS       *KMS      `json:"kms,omitempty"`
}

// Keys are a provider's keys; the first writes.
type Keys struct {
	Keys []Key `json:"keys"`
}

// Key is one key, in base64.
type Key struct {
	Name   string `json:"name"`
	Secret string `json:"secret"`
}

// KMS is a key management service at a unix socket.
type KMS struct {
	APIVersion string           `json:"apiVersion,omitempty"`
	Name       string           `json:"name"`
	CacheSize  *int32           `json:"cachesize,omitempty"`
	Endpoint   string           `json:"endpoint"`
	Timeout    *metav1.Duration `json:"timeout,omitempty"`
}

// Parse reads and checks a configuration.
func Parse(text []byte) (*Configuration, error) {
	c := &Configuration{}
	if err := yaml.UnmarshalStrict(text, c); err != nil {
		return nil, fmt.Errorf("error decoding encryption provider configuration: %w", err)
	}
	if c.Kind != "EncryptionConfiguration" || c.APIVersion != "apiserver.config.k8s.io/v1" && !(c.APIVersion == "v1" && c.Kind == "EncryptionConfig") {
		return nil, fmt.Errorf("got unexpected config type: %s, Kind=%s", c.APIVersion, c.Kind)
	}
	for i := range c.Resources {
		for k := range c.Resources[i].Providers {
			if kms := c.Resources[i].Providers[k].KMS; kms != nil {
				kms.fill()
			}
		}
	}
	if errs := validate(c); len(errs) > 0 {
		return nil, errs.ToAggregate()
	}
	return c, nil
}

func (k *KMS) fill() {
	if k.Timeout == nil {
		k.Timeout = &metav1.Duration{Duration: 3 * time.Second}
	}
	if k.APIVersion == "" {
		k.APIVersion = "v1"
	}
}

func required(path *field.Path, what any) *field.Error {
	return field.Required(path, fmt.Sprintf("at least one %s is required", what))
}

func validate(c *Configuration) field.ErrorList {
	root := field.NewPath("resources")
	if len(c.Resources) == 0 {
		return field.ErrorList{required(root, root)}
	}
	var errs field.ErrorList
	names := map[string]bool{}
	for i, rule := range c.Resources {
		resources, providers := root.Index(i).Child("resources"), root.Index(i).Child("providers")
		if len(rule.Resources) == 0 {
			errs = append(errs, required(resources, resources))
		}
		errs = append(errs, validateOverlap(rule.Resources, resources)...)
		for k, r := range rule.Resources {
			if text := badResource(r); text != "" {
				errs = append(errs, field.Invalid(resources.Index(k), r, text))
			}
		}
		if len(rule.Providers) == 0 {
			errs = append(errs, required(providers, providers))
		}
		for k, p := range rule.Providers {
			errs = append(errs, validateProvider(p, providers.Index(k), names)...)
		}
	}
	return append(errs, validateMasks(c, root)...)
}

func validateProvider(p Provider, path *field.Path, names map[string]bool) field.ErrorList {
	n := 0
	for _, set := range []bool{p.AESGCM != nil, p.AESCBC != nil, p.Secretbox != nil, p.Identity != nil, p.KMS != nil} {
		if set {
			n++
		}
	}
	switch {
	case n == 0:
		return field.ErrorList{field.Invalid(path, p.names(), "provider does not contain any of the expected providers: KMS, AESGCM, AESCBC, Secretbox, Identity")}
	case n > 1:
		return field.ErrorList{field.Invalid(path, p.names(), "more than one provider specified in a single element, should split into different list elements")}
	case p.AESGCM != nil:
		return validateKeys(p.AESGCM.Keys, path.Child("aesgcm", "keys"), 16, 24, 32)
	case p.AESCBC != nil:
		return validateKeys(p.AESCBC.Keys, path.Child("aescbc", "keys"), 16, 24, 32)
	case p.Secretbox != nil:
		return validateKeys(p.Secretbox.Keys, path.Child("secretbox", "keys"), 32)
	case p.KMS != nil:
		return validateKMS(p.KMS, path.Child("kms"), names)
	}
	return nil
}

// names tells which providers are set, without their secrets.
func (p Provider) names() []string {
	out := []string{}
	for name, set := range map[string]bool{"aesgcm": p.AESGCM != nil, "aescbc": p.AESCBC != nil, "secretbox": p.Secretbox != nil, "identity": p.Identity != nil, "kms": p.KMS != nil} {
		if set {
			out = append(out, name)
		}
	}
	slices.Sort(out)
	return out
}

func validateKeys(keys []Key, path *field.Path, sizes ...int) field.ErrorList {
	if len(keys) == 0 {
		return field.ErrorList{required(path, "keys")}
	}
	var errs field.ErrorList
	for i, k := range keys {
		name, secret := path.Index(i).Child("name"), path.Index(i).Child("secret")
		if k.Name == "" {
			errs = append(errs, field.Required(name, "name is a mandatory field for a key"))
		}
		if k.Secret == "" {
			errs = append(errs, field.Required(secret, "secret is a mandatory field for a key"))
			continue
		}
		raw, err := base64.StdEncoding.DecodeString(k.Secret)
		if err != nil {
			errs = append(errs, field.Invalid(secret, "REDACTED", "secrets must be base64 encoded"))
		} else if !slices.Contains(sizes, len(raw)) {
			errs = append(errs, field.Invalid(secret, "REDACTED", fmt.Sprintf("secret is not of the expected length, got %d, expected one of %v", len(raw), sizes)))
		}
	}
	return errs
}

func validateKMS(k *KMS, path *field.Path, names map[string]bool) field.ErrorList {
	var errs field.ErrorList
	switch {
	case k.Name == "":
		errs = append(errs, field.Required(path.Child("name"), "name is a mandatory field for a provider"))
	case k.APIVersion == "v2" && strings.Contains(k.Name, ":"):
		errs = append(errs, field.Invalid(path.Child("name"), k.Name, fmt.Sprintf("invalid KMS provider name %s, must not contain ':'", k.Name)))
	case names[k.Name]:
		errs = append(errs, field.Invalid(path.Child("name"), k.Name, fmt.Sprintf("duplicate KMS provider name %s, names must be unique", k.Name)))
	}
	names[k.Name] = true
	if k.Timeout.Duration <= 0 {
		errs = append(errs, field.Invalid(path.Child("timeout"), k.Timeout, "timeout should be a positive value"))
	}
	if k.Endpoint == "" {
		errs = append(errs, field.Invalid(path.Child("endpoint"), "", "endpoint is a mandatory field for a kms"))
	} else if u, err := url.Parse(k.Endpoint); err != nil {
		errs = append(errs, field.Invalid(path.Child("endpoint"), k.Endpoint, fmt.Sprintf("invalid endpoint for kms provider, error: %v", err)))
	} else if u.Scheme != "unix" {
		errs = append(errs, field.Invalid(path.Child("endpoint"), k.Endpoint, fmt.Sprintf("unsupported scheme %q for KMS provider, only unix is supported", u.Scheme)))
	}
	switch k.APIVersion {
	case "v2":
		if k.CacheSize != nil {
			errs = append(errs, field.Invalid(path.Child("cachesize"), *k.CacheSize, "cachesize is not supported in v2"))
		}
	case "v1":
		errs = append(errs, field.Invalid(path.Child("apiVersion"), k.APIVersion, "KMSv1 is deprecated and will only receive security updates going forward. It is not supported here; use KMSv2 instead: it encrypts with one remote call per key instead of one per object"))
	default:
		errs = append(errs, field.Invalid(path.Child("apiVersion"), k.APIVersion, fmt.Sprintf("unsupported apiVersion %s for KMS provider, only v1 and v2 are supported", "apiVersion")))
	}
	return errs
}

// badResource says what is wrong with a name in a rule.
func badResource(r string) string {
	gr := schema.ParseGroupResource(r)
	switch {
	case strings.ToLower(r) != r:
		return "resource name should not contain capital letters"
	case r == "*":
		return "use '*.' to encrypt all the resources from core API group or *.* to encrypt all resources"
	case r == "apiserveripinfo" || r == "serviceipallocations" || r == "servicenodeportallocations":
		return "resources which do not have REST API/s cannot be encrypted"
	case gr.Group == "events.k8s.io":
		return "'*.events.k8s.io' objects are stored using the 'events' API group in etcd. Use 'events' instead in the config file"
	case gr.Group == "extensions":
		return "'extensions' group has been removed and cannot be used for encryption"
	case gr.Group == "*" && gr.Resource != "*":
		return "encrypting the same resource across groups is not supported"
	}
	return ""
}

// covers says whether a also stands for b.
func covers(a, b schema.GroupResource) bool {
	switch {
	case a.Group == "*" && a.Resource == "*":
		return true
	case a.Group != b.Group:
		return false
	}
	return a.Resource == "*" || a.Resource == b.Resource
}

func validateOverlap(list []string, path *field.Path) field.ErrorList {
	twice, overlap := false, false
	for i, a := range list {
		for k, b := range list {
			switch {
			case i == k:
			case a == b:
				twice = true
			case covers(schema.ParseGroupResource(a), schema.ParseGroupResource(b)):
				overlap = true
			}
		}
	}
	var errs field.ErrorList
	if twice {
		errs = append(errs, field.Invalid(path, list, "the same resource cannot be specified multiple times"))
	}
	if overlap {
		errs = append(errs, field.Invalid(path, list, "using overlapping resources such as 'secrets' and '*.' in the same resource list is not allowed as they will be masked"))
	}
	return errs
}

// validateMasks refuses rules that an earlier one leaves nothing to do.
func validateMasks(c *Configuration, root *field.Path) field.ErrorList {
	var earlier []schema.GroupResource
	var errs field.ErrorList
	for i, rule := range c.Resources {
		for _, r := range rule.Resources {
			gr := schema.ParseGroupResource(r)
			for _, e := range earlier {
				if e != gr && covers(e, gr) {
					errs = append(errs, field.Invalid(root.Index(i).Child("resources"), r, fmt.Sprintf("resource %q is masked by earlier rule %q", r, spell(e))))
				}
			}
		}
		for _, r := range rule.Resources {
			earlier = append(earlier, schema.ParseGroupResource(r))
		}
	}
	return errs
}

// spell writes a resource as rules do.
func spell(gr schema.GroupResource) string {
	if gr.Group == "" && gr.Resource == "*" {
		return "*."
	}
	return gr.String()
}
