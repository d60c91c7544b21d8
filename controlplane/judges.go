package controlplane

import (
	"context"

	"github.com/sampan-dev/sampan/apiserver/dynamic"
	"github.com/sampan-dev/sampan/apiserver/request"
	"github.com/sampan-dev/sampan/apiserver/rest"
	"github.com/sampan-dev/sampan/apiserver/webhook"
)

// judges are the parts of admission that users configure.
type judges struct {
	webhooks *webhook.Webhooks
}

func (g *gate) newJudges(registry *rest.Registry, deps Deps) error {
	to := dynamic.Deps{Back: g.back, Catalog: registry, Authorizer: g.authz}
	w, err := webhook.New(webhook.Config{}, to, deps.Metrics)
	g.judges = &judges{webhooks: w}
	return err
}

// plugins are the judges by the names of their plugins.
func (j *judges) plugins() map[string]request.Plugin {
	return map[string]request.Plugin{
		webhook.MutatingName:   webhook.Mutating{Webhooks: j.webhooks},
		webhook.ValidatingName: webhook.Validating{Webhooks: j.webhooks},
	}
}

// fill reads what is configured before the first request is served.
func (j *judges) fill(ctx context.Context) error { return j.webhooks.Fill(ctx) }

// run follows the configurations.
func (j *judges) run(ctx context.Context) error { return j.webhooks.Run(ctx) }
