package apiserver_test

import (
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"

	"github.com/sampan-dev/sampan/api"
	"github.com/sampan-dev/sampan/apiserver"
	"github.com/sampan-dev/sampan/apiserver/apply"
	"github.com/sampan-dev/sampan/apiserver/openapi"
	req "github.com/sampan-dev/sampan/apiserver/request"
	"github.com/sampan-dev/sampan/apiserver/rest"
	"github.com/sampan-dev/sampan/resource/all"
)

// recordingPlug answers with the object that a connection is for.
type recordingPlug struct{}

func (recordingPlug) Connect(w http.ResponseWriter, _ *http.Request, i *req.Info, obj api.Object) {
	p, ok := obj.(*corev1.Pod)
	if !ok {
		http.Error(w, fmt.Sprintf("no pod but %T", obj), http.StatusInternalServerError)
		return
	}
	fmt.Fprintf(w, `{"pod":%q,"asked":%q}`, p.Name, i.Name)
}

func TestProxyIsGivenItsObject(t *testing.T) {
	registry := rest.NewRegistry(all.Kinds())
	e := rest.New(rest.Deps{Store: cached(t, registry), Registry: registry, Fields: apply.New(openapi.NewMerger()), Log: slog.New(slog.DiscardHandler)})
	e.Connectors = map[string]req.Connector{"pods/proxy": recordingPlug{}}
	s, err := apiserver.New(apiserver.Config{}, apiserver.Deps{Engine: e, OpenAPI: openapi.New(registry.Kinds)})
	if err != nil {
		t.Fatal(err)
	}
	c := client{t, s.Handler()}
	pod := `{"apiVersion":"v1","kind":"Pod","metadata":{"name":"web"},"spec":{"containers":[{"name":"c","image":"i"}]}}`
	if code, out, _ := c.do("POST", "/api/v1/namespaces/default/pods", "application/json", pod); code != 201 {
		t.Fatal(code, out)
	}
	for _, name := range []string{"web", "web:8080", "https:web:443", "http:web:"} {
		code, out, _ := c.do("GET", "/api/v1/namespaces/default/pods/"+name+"/proxy/index.html", "", "")
		if code != 200 || out["pod"] != "web" || out["asked"] != name {
			t.Errorf("%s: %d %v", name, code, out)
		}
	}
	for _, method := range []string{"DELETE", "OPTIONS", "PATCH", "POST", "PUT"} {
		if code, out, _ := c.do(method, "/api/v1/namespaces/default/pods/web/proxy", "", ""); code != 200 {
			t.Errorf("%s: %d %v", method, code, out)
		}
	}
	code, out, _ := c.do("GET", "/api/v1/namespaces/default/pods/ftp:web:21/proxy/", "", "")
	if message, _ := out["message"].(string); code != 400 || !strings.Contains(message, `invalid pod request "ftp:web:21"`) {
		t.Errorf("unknown scheme: %d %v", code, out)
	}
	if code, out, _ := c.do("GET", "/api/v1/namespaces/default/pods/none:80/proxy/", "", ""); code != 404 {
		t.Errorf("no such pod: %d %v", code, out)
	}
}
