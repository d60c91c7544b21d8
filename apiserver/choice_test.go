package apiserver_test

import (
	"log/slog"
	"testing"

	"github.com/sampan-dev/sampan/apiserver"
	"github.com/sampan-dev/sampan/apiserver/apply"
	"github.com/sampan-dev/sampan/apiserver/openapi"
	"github.com/sampan-dev/sampan/apiserver/rest"
	"github.com/sampan-dev/sampan/resource"
	"github.com/sampan-dev/sampan/resource/all"
)

// What --runtime-config switches off is not found and not discovered; the rest
// of the kind works, also where the stored version is what is off.
func TestVersionsSwitchedOff(t *testing.T) {
	kinds, err := resource.Choice{"api/retired": false, "batch/v1": false, "batch/v1beta1": true, "events.k8s.io/v1": false}.Of(all.Kinds())
	if err != nil {
		t.Fatal(err)
	}
	registry := rest.NewRegistry(kinds)
	e := rest.New(rest.Deps{Store: cached(t, registry), Registry: registry, Fields: apply.New(openapi.NewMerger()), Log: slog.New(slog.DiscardHandler)})
	s, err := apiserver.New(apiserver.Config{}, apiserver.Deps{Engine: e, OpenAPI: openapi.New(registry.Kinds)})
	if err != nil {
		t.Fatal(err)
	}
	c := client{t, s.Handler()}
	for path, want := range map[string]int{
		"/apis/extensions/v1beta1": 404, "/apis/extensions": 404, "/apis/apps/v1beta1/deployments": 404, "/apis/apps/v1/deployments": 200,
		"/apis/batch/v1/cronjobs": 404, "/apis/batch/v1beta1/cronjobs": 200, "/apis/events.k8s.io/v1/events": 404, "/api/v1/events": 200,
		"/openapi/v3/apis/apps/v1": 200, "/openapi/v3/apis/extensions/v1beta1": 404,
	} {
		if code, out, _ := c.do("GET", path, "", ""); code != want {
			t.Errorf("%s: %d, want %d: %v", path, code, want, out)
		}
	}
	job := `{"apiVersion":"batch/v1beta1","kind":"CronJob","metadata":{"name":"c"},"spec":{"schedule":"* * * * *","jobTemplate":{"spec":{"template":{"spec":{"restartPolicy":"Never","containers":[{"name":"c","image":"i"}]}}}}}}`
	if code, out, _ := c.do("POST", "/apis/batch/v1beta1/namespaces/default/cronjobs", "application/json", job); code != 201 {
		t.Errorf("create: %d %v", code, out)
	}
}
