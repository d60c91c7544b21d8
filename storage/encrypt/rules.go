package encrypt

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"

	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/sampan-dev/sampan/kit/run"
)

// rules are a configuration in force.
type rules struct {
	list []rule
	kms  []*kms
	hash string
}

// rule is what some resources are encrypted with.
type rule struct {
	gr schema.GroupResource
	*chain
}

// newRules makes the transformers of a configuration. KMS providers do nothing
// until run.
func newRules(c *Configuration, text []byte, m *metrics) (*rules, error) {
	sum := sha256.Sum256(text)
	r := &rules{hash: hex.EncodeToString(sum[:])}
	for _, conf := range c.Resources {
		ch := &chain{none: errors.New("no matching prefix found")}
		for _, p := range conf.Providers {
			t, err := r.provider(p, m)
			if err != nil {
				return nil, err
			}
			ch.of = append(ch.of, t)
		}
		for _, name := range conf.Resources {
			r.list = append(r.list, rule{schema.ParseGroupResource(name), ch})
		}
	}
	return r, nil
}

func (r *rules) provider(p Provider, m *metrics) (prefixed, error) {
	var t transformer
	var err error
	prefix := marker
	switch {
	case p.AESGCM != nil:
		prefix += "aesgcm:v1:"
		t, err = keyed(p.AESGCM.Keys, "AES", aesGCM)
	case p.AESCBC != nil:
		prefix += "aescbc:v1:"
		t, err = keyed(p.AESCBC.Keys, "AES", aesCBC)
	case p.Secretbox != nil:
		prefix += "secretbox:v1:"
		t, err = keyed(p.Secretbox.Keys, "Secretbox", secretBox)
	case p.KMS != nil:
		k := newKMS(p.KMS, m)
		r.kms = append(r.kms, k)
		return prefixed{prefix + "kms:v2:" + p.KMS.Name + ":", k}, nil
	default:
		return prefixed{"", identity{}}, nil
	}
	return prefixed{prefix, t}, err
}

// of finds the first rule about a resource; nil when it is stored as it is.
func (r *rules) of(gr schema.GroupResource) *chain {
	for _, x := range r.list {
		if covers(x.gr, gr) {
			return x.chain
		}
	}
	return nil
}

// run keeps the KMS providers ready until ctx ends.
func (r *rules) run(ctx context.Context) error {
	g := run.New(ctx)
	for _, k := range r.kms {
		g.Go("kms "+k.c.Name, k.run)
	}
	if len(r.kms) == 0 {
		<-ctx.Done()
		return ctx.Err()
	}
	return g.Wait()
}

// healthy says what is wrong with the KMS providers.
func (r *rules) healthy(ctx context.Context) error {
	var errs []error
	for i, k := range r.kms {
		if err := k.healthy(ctx); err != nil {
			errs = append(errs, fmt.Errorf("kms-provider-%d: %w", i, err))
		}
	}
	return errors.Join(errs...)
}
