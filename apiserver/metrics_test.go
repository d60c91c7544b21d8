package apiserver_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/sampan-dev/sampan/apiserver"
)

// The names and labels are upstream's, and strangers cannot make up labels.
func TestMetrics(t *testing.T) {
	c := client{t, newServer(t, apiserver.Config{Fairness: true}).Handler()}
	c.do("POST", base+"configmaps?dryRun=All", jsonType, configJSON("c", "v"))
	c.do("GET", base+"configmaps/none", "", "")
	c.do("GET", base+"pods", "", "")
	c.do("GET", "/apis/policy/v1beta1/poddisruptionbudgets", "", "")
	for i := range 20 {
		c.do("GET", fmt.Sprintf("/apis/strange%d.example.com/v1/things%d/x/sub%d", i, i, i), "", "")
		c.do("GET", fmt.Sprintf(base+"pods/p/sub%d", i), "", "")
		c.do("GET", fmt.Sprintf("/path%d", i), "", "")
	}
	c.do("GET", "/readyz", "", "")
	frames(t, c.h, base+"configmaps?watch=1&resourceVersion=0", 1, func() { c.do("POST", base+"configmaps", jsonType, configJSON("seen", "v")) })
	r, w := request("GET", "/metrics", ""), recorder()
	c.h.ServeHTTP(w, r)
	text := w.Body.String()
	for _, want := range []string{
		`apiserver_request_total{code="201",component="apiserver",dry_run="All",group="",resource="configmaps",scope="resource",subresource="",verb="POST",version="v1"} 1`,
		`apiserver_request_total{code="404",component="apiserver",dry_run="",group="",resource="configmaps",scope="resource",subresource="",verb="GET",version="v1"} 1`,
		`apiserver_request_duration_seconds_count{component="apiserver",dry_run="",group="",resource="pods",scope="namespace",subresource="",verb="LIST",version="v1"} 1`,
		`apiserver_request_sli_duration_seconds_count{component="apiserver",group="",resource="pods",scope="namespace",subresource="",verb="LIST",version="v1"} 1`,
		`apiserver_response_sizes_count{component="apiserver",group="",resource="pods",scope="namespace",subresource="",verb="LIST",version="v1"} 1`,
		`apiserver_requested_deprecated_apis{group="policy",removed_release="1.25",resource="poddisruptionbudgets",subresource="",version="v1beta1"} 1`,
		`apiserver_flowcontrol_dispatched_requests_total{flow_schema="global-default",priority_level="global-default"}`,
		`apiserver_current_inflight_requests{request_kind="mutating"} 0`,
		`apiserver_tls_handshake_errors_total 0`,
		`apiserver_watch_events_total{group="",resource="configmaps",version="v1"} 1`,
		`apiserver_watch_events_sizes_count{group="",resource="configmaps",version="v1"} 1`,
		`apiserver_flowcontrol_read_vs_write_current_requests_bucket{phase="executing",request_kind="readOnly",le="0"}`,
		`apiserver_flowcontrol_read_vs_write_current_requests_bucket{phase="waiting",request_kind="mutating",le="1"}`,
		`kubernetes_healthcheck{name="ping",type="readyz"} 1`,
		`kubernetes_healthchecks_total{name="etcd",status="success",type="readyz"} 1`,
	} {
		if !strings.Contains(text, want) {
			t.Errorf("no %s", want)
		}
	}
	for _, made := range []string{"strange1", "things1", "sub1", "path1"} {
		if strings.Contains(text, made) {
			t.Errorf("a stranger's %q became a label", made)
		}
	}
}
