package authn

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	apiserverconfig "k8s.io/apiserver/pkg/apis/apiserver"
	"k8s.io/apiserver/pkg/apis/apiserver/install"
	"k8s.io/apiserver/pkg/apis/apiserver/validation"
	authncel "k8s.io/apiserver/pkg/authentication/cel"

	"github.com/sampan-dev/sampan/apiserver/request"
	"github.com/sampan-dev/sampan/kit/clock"
	"github.com/sampan-dev/sampan/kit/run"
	"github.com/sampan-dev/sampan/kit/watchfile"
)

// ReadConfiguration reads an AuthenticationConfiguration of any version, strictly.
func ReadConfiguration(data []byte) (*apiserverconfig.AuthenticationConfiguration, error) {
	s := runtime.NewScheme()
	install.Install(s)
	obj, err := runtime.Decode(serializer.NewCodecFactory(s, serializer.EnableStrict).UniversalDecoder(), data)
	if err != nil {
		return nil, err
	}
	c, ok := obj.(*apiserverconfig.AuthenticationConfiguration)
	if !ok {
		return nil, fmt.Errorf("expected AuthenticationConfiguration, got %T", obj)
	}
	return c, nil
}

// Issuers are the issuers of OpenID Connect that are believed, and who may come
// without any credential. They may be replaced while in use.
type Issuers struct {
	o       JWTOptions
	metrics *Metrics
	set     atomic.Pointer[issuerSet]

	mu    sync.Mutex
	group *run.Group // of the issuers of set, once Run runs
	ctx   context.Context
}

type issuerSet struct {
	jwts      []*JWT
	anonymous *apiserverconfig.AnonymousAuthConfig
}

// NewIssuers checks a configuration. Run makes it work.
func NewIssuers(c *apiserverconfig.AuthenticationConfiguration, o JWTOptions, m *Metrics) (*Issuers, error) {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	i := &Issuers{o: o, metrics: m}
	s, err := i.build(c)
	if err != nil {
		return nil, err
	}
	i.set.Store(s)
	return i, nil
}

func (i *Issuers) build(c *apiserverconfig.AuthenticationConfiguration) (*issuerSet, error) {
	if err := validation.ValidateAuthenticationConfiguration(authncel.NewDefaultCompiler(), c, i.o.Disallowed).ToAggregate(); err != nil {
		return nil, err
	}
	s := &issuerSet{anonymous: c.Anonymous}
	for _, j := range c.JWT {
		a, err := NewJWT(j, i.o)
		if err != nil {
			return nil, err
		}
		s.jwts = append(s.jwts, a)
	}
	return s, nil
}

// Run reaches the issuers until ctx ends.
func (i *Issuers) Run(ctx context.Context) error {
	i.mu.Lock()
	i.ctx = ctx
	i.begin(i.set.Load())
	i.mu.Unlock()
	<-ctx.Done()
	i.mu.Lock()
	defer i.mu.Unlock()
	i.ctx = nil
	i.group.Stop()
	return i.group.Wait()
}

// begin runs a set's issuers in a group of their own; hold i.mu.
func (i *Issuers) begin(s *issuerSet) {
	i.group = run.New(i.ctx)
	for _, j := range s.jwts {
		i.group.Go("oidc "+j.c.Issuer.URL, j.Run)
	}
}

// Replace takes another configuration. The old issuers are believed until the new
// ones have answered, or a minute has passed.
func (i *Issuers) Replace(c *apiserverconfig.AuthenticationConfiguration) error {
	s, err := i.build(c)
	if err != nil {
		return err
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.ctx == nil {
		i.set.Store(s)
		return nil
	}
	old := i.group
	i.begin(s)
	for deadline := clock.Now().Add(replaceWait); clock.Now().Before(deadline) && i.ctx.Err() == nil; {
		if !slices.ContainsFunc(s.jwts, func(j *JWT) bool { return j.Healthy() != nil }) {
			break
		}
		if clock.Sleep(i.ctx, 50*time.Millisecond) != nil {
			break
		}
	}
	i.set.Store(s)
	old.Stop()
	return old.Wait()
}

const replaceWait = time.Minute

// Follow replaces the configuration whenever the file's content changes, until
// ctx ends. What is wrong is logged, and the old one stays.
func (i *Issuers) Follow(ctx context.Context, path string, have []byte) error {
	return watchfile.Run(ctx, func() {
		content, err := os.ReadFile(path)
		if err != nil || bytes.Equal(content, have) {
			return // gone for a moment, or touched
		}
		have = content
		c, err := ReadConfiguration(content)
		if err == nil {
			err = i.Replace(c)
		}
		i.metrics.reloaded(err)
		if err != nil {
			i.o.Log.Error("authentication configuration not taken", "file", path, "err", err)
			return
		}
		i.o.Log.Info("authentication configuration taken", "file", path)
	}, path)
}

// Token asks the issuer that a token names.
func (i *Issuers) Token(ctx context.Context, token string, audiences []string) (*request.User, []string, bool, error) {
	var errs []error
	for _, j := range i.set.Load().jwts {
		u, matched, ok, err := j.Token(ctx, token, audiences)
		if ok {
			return u, matched, true, nil
		}
		errs = append(errs, err)
	}
	return nil, nil, false, errors.Join(errs...)
}

func (i *Issuers) expires(token string) time.Time {
	for _, j := range i.set.Load().jwts {
		return j.expires(token)
	}
	return time.Time{}
}

// Anonymous says whether the configuration speaks of anonymous requests, and what.
func (i *Issuers) Anonymous() (says, enabled bool, paths []string) {
	a := i.set.Load().anonymous
	if a == nil {
		return false, false, nil
	}
	for _, c := range a.Conditions {
		paths = append(paths, c.Path)
	}
	return true, a.Enabled, paths
}

// Healthy says whether all issuers have been reached.
func (i *Issuers) Healthy() error {
	var errs []error
	for _, j := range i.set.Load().jwts {
		errs = append(errs, j.Healthy())
	}
	return errors.Join(errs...)
}
