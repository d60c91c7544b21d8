package controlplane

import (
	"context"

	"github.com/sampan-dev/sampan/apiserver/admission"
	"github.com/sampan-dev/sampan/apiserver/apply"
	"github.com/sampan-dev/sampan/apiserver/dynamic"
	"github.com/sampan-dev/sampan/apiserver/openapi"
	"github.com/sampan-dev/sampan/apiserver/policy"
	"github.com/sampan-dev/sampan/apiserver/request"
	"github.com/sampan-dev/sampan/apiserver/rest"
	"github.com/sampan-dev/sampan/apiserver/webhook"
	"github.com/sampan-dev/sampan/client"
	"github.com/sampan-dev/sampan/kit/run"
)

// judges are the parts of admission that users configure.
type judges struct {
	webhooks *webhook.Webhooks
	policies *policy.Policies
	config   admission.Configuration
}

func (g *gate) newJudges(cfg *Config, fields *apply.Fields, registry *rest.Registry, deps Deps) (err error) {
	var config admission.Configuration
	if cfg.AdmissionConfig != "" {
		if config, err = admission.ReadConfiguration(cfg.AdmissionConfig); err != nil {
			return err
		}
	}
	var hooks webhook.Config
	for name, shown := range map[string]*webhook.Shown{webhook.MutatingName: &hooks.ShownToMutating, webhook.ValidatingName: &hooks.ShownToValidating} {
		file, err := config.HookUsers(name)
		if err == nil && file != "" {
			*shown, err = client.HookUsers(file)
		}
		if err != nil {
			return err
		}
	}
	to := dynamic.Deps{Back: g.back, Catalog: registry, Authorizer: g.authz}
	w, err := webhook.New(hooks, to, deps.Metrics)
	types := policy.Types{Schema: openapi.Schemas(registry.Kinds), Merge: fields.Merging(registry.Kinds)}
	g.judges = &judges{webhooks: w, policies: policy.New(to, types, deps.Metrics), config: config}
	return err
}

// plugins are the judges by the names of their plugins.
func (j *judges) plugins() map[string]request.Plugin {
	return map[string]request.Plugin{
		webhook.MutatingName:   webhook.Mutating{Webhooks: j.webhooks},
		webhook.ValidatingName: webhook.Validating{Webhooks: j.webhooks},
		policy.MutatingName:    policy.Mutating{Policies: j.policies},
		policy.ValidatingName:  policy.Validating{Policies: j.policies},
	}
}

// choose returns the row of plugins that the configuration wants, and warnings
// about names in it.
func (g *gate) choose(cfg *Config, registry *rest.Registry) (plugins []request.Plugin, warnings []string, err error) {
	d := admission.Deps{Back: g.back, Authorizer: g.authz, Catalog: registry, More: g.judges.plugins(), NotReady: cfg.Offer.NotReady, Unreachable: cfg.Offer.Unreachable, Config: g.judges.config, NoPrivileged: cfg.NoPrivileged}
	return admission.Choose(d, cfg.EnableAdmission, cfg.DisableAdmission)
}

// fill reads what is configured before the first request is served.
func (j *judges) fill(ctx context.Context) error {
	if err := j.webhooks.Fill(ctx); err != nil {
		return err
	}
	return j.policies.Fill(ctx)
}

// run follows the configurations.
func (j *judges) run(ctx context.Context) error {
	g := run.New(ctx)
	g.Go("webhooks", j.webhooks.Run)
	g.Go("policies", j.policies.Run)
	return g.Wait()
}
