package authz

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/apimachinery/pkg/util/sets"
	apiserverconfig "k8s.io/apiserver/pkg/apis/apiserver"
	"k8s.io/apiserver/pkg/apis/apiserver/install"
	"k8s.io/apiserver/pkg/apis/apiserver/validation"
	authzcel "k8s.io/apiserver/pkg/authorization/cel"

	"github.com/sampan-dev/sampan/apiserver/request"
	"github.com/sampan-dev/sampan/kit/watchfile"
)

// Parts are what configurations are made of.
type Parts struct {
	RBAC *RBAC
	Node *Node
	ABAC ABAC // nil without a policy file
	// Connect returns how a webhook is reached; kubeconfig "" is this cluster.
	Connect func(kubeconfig string) (url string, client *http.Client, err error)
	Metrics *Metrics
	Log     *slog.Logger
}

// Live is a Chain that may be replaced while in use.
type Live struct {
	parts Parts
	chain atomic.Pointer[Chain]
}

// NewLive puts the authorizers of a configuration in order.
func NewLive(c *apiserverconfig.AuthorizationConfiguration, p Parts) (*Live, error) {
	if p.Log == nil {
		p.Log = slog.New(slog.DiscardHandler)
	}
	l := &Live{parts: p}
	return l, l.Replace(c)
}

// ReadConfiguration reads an AuthorizationConfiguration of any version, strictly.
func ReadConfiguration(data []byte) (*apiserverconfig.AuthorizationConfiguration, error) {
	s := runtime.NewScheme()
	install.Install(s)
	obj, err := runtime.Decode(serializer.NewCodecFactory(s, serializer.EnableStrict).UniversalDecoder(), data)
	if err != nil {
		return nil, err
	}
	c, ok := obj.(*apiserverconfig.AuthorizationConfiguration)
	if !ok {
		return nil, fmt.Errorf("expected AuthorizationConfiguration, got %T", obj)
	}
	return c, nil
}

// FromModes is the configuration that --authorization-mode stands for; webhook is
// what the webhook's flags say.
func FromModes(modes []string, webhook *apiserverconfig.WebhookConfiguration) *apiserverconfig.AuthorizationConfiguration {
	c := &apiserverconfig.AuthorizationConfiguration{}
	for _, m := range modes {
		a := apiserverconfig.AuthorizerConfiguration{Type: apiserverconfig.AuthorizerType(m), Name: strings.ToLower(m)}
		if m == ModeWebhook {
			a.Name, a.Webhook = "default", webhook
		}
		c.Authorizers = append(c.Authorizers, a)
	}
	return c
}

func modes() []string {
	return []string{ModeAlwaysAllow, ModeAlwaysDeny, ModeABAC, ModeWebhook, ModeRBAC, ModeNode}
}

// Replace takes another configuration, or says what is wrong with it.
func (l *Live) Replace(c *apiserverconfig.AuthorizationConfiguration) error {
	for i, a := range c.Authorizers { // as --authorization-mode's users know it
		if slices.ContainsFunc(c.Authorizers[:i], func(b apiserverconfig.AuthorizerConfiguration) bool { return a.Type == b.Type && a.Type != ModeWebhook }) {
			return fmt.Errorf("authorization-mode: %q has mode specified more than once", a.Type)
		}
		if !slices.Contains(modes(), string(a.Type)) {
			return fmt.Errorf("authorization-mode: %q is not a valid mode", a.Type)
		}
	}
	compiler := authzcel.NewDefaultCompiler()
	if err := validation.ValidateAuthorizationConfiguration(compiler, nil, c, sets.New(modes()...), sets.New(ModeWebhook)).ToAggregate(); err != nil {
		return err
	}
	m := l.parts.Metrics
	chain := Chain{privileged{}}
	for i := range c.Authorizers {
		a, err := l.member(compiler, &c.Authorizers[i])
		if err != nil {
			return err
		}
		chain = append(chain, m.count(string(c.Authorizers[i].Type), c.Authorizers[i].Name, a))
	}
	l.chain.Store(&chain)
	return nil
}

func (l *Live) member(compiler authzcel.Compiler, a *apiserverconfig.AuthorizerConfiguration) (request.Authorizer, error) {
	switch string(a.Type) {
	case ModeRBAC:
		return l.parts.RBAC, nil
	case ModeNode:
		return l.parts.Node, nil
	case ModeAlwaysAllow:
		return always{request.Allow}, nil
	case ModeAlwaysDeny:
		return always{request.NoOpinion}, nil
	case ModeABAC:
		if l.parts.ABAC == nil {
			return nil, errors.New("authorization-mode ABAC's authorization policy file not passed")
		}
		return l.parts.ABAC, nil
	}
	w := a.Webhook
	kubeconfig := ""
	if w.ConnectionInfo.KubeConfigFile != nil {
		kubeconfig = *w.ConnectionInfo.KubeConfigFile
	}
	url, client, err := l.parts.Connect(kubeconfig)
	if err != nil {
		return nil, fmt.Errorf("authorizer %s: %w", a.Name, err)
	}
	match, errs := validation.ValidateAndCompileMatchConditions(compiler, w.MatchConditions)
	if err := errs.ToAggregate(); err != nil {
		return nil, err
	}
	kept := func(ttl time.Duration, on bool) time.Duration {
		if !on {
			return 0
		}
		return ttl
	}
	return NewWebhook(WebhookConfig{
		Name: a.Name, URL: url, Client: client, Version: w.SubjectAccessReviewVersion, Timeout: w.Timeout.Duration,
		AuthorizedTTL: kept(w.AuthorizedTTL.Duration, w.CacheAuthorizedRequests), UnauthorizedTTL: kept(w.UnauthorizedTTL.Duration, w.CacheUnauthorizedRequests),
		Match: match, DenyOnError: w.FailurePolicy == apiserverconfig.FailurePolicyDeny,
	}, l.parts.Metrics), nil
}

// Follow replaces the configuration whenever the file's content changes, until
// ctx ends. What is wrong is logged, and the old one stays.
func (l *Live) Follow(ctx context.Context, path string, have []byte) error {
	return watchfile.Run(ctx, func() {
		content, err := os.ReadFile(path)
		if err != nil || bytes.Equal(content, have) {
			return // gone for a moment, or touched
		}
		have = content
		c, err := ReadConfiguration(content)
		if err == nil {
			err = l.Replace(c)
		}
		l.parts.Metrics.reloaded(err)
		if err != nil {
			l.parts.Log.Error("authorization configuration not taken", "file", path, "err", err)
			return
		}
		l.parts.Log.Info("authorization configuration taken", "file", path)
	}, path)
}

// Authorize asks the members in turn.
func (l *Live) Authorize(ctx context.Context, u *request.User, i *request.Info) (request.Decision, string, error) {
	return l.chain.Load().Authorize(ctx, u, i)
}

// Rules lists what the members allow; incomplete when one cannot say.
func (l *Live) Rules(ctx context.Context, u *request.User, namespace string) (resource []request.ResourceRule, other []request.NonResourceRule, incomplete bool, err error) {
	return l.chain.Load().Rules(ctx, u, namespace)
}
