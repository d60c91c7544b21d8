package apiserver_test

import (
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"strings"
	"testing"

	"github.com/sampan-dev/sampan/apiserver"
	"github.com/sampan-dev/sampan/apiserver/apply"
	"github.com/sampan-dev/sampan/apiserver/ledger"
	"github.com/sampan-dev/sampan/apiserver/openapi"
	req "github.com/sampan-dev/sampan/apiserver/request"
	"github.com/sampan-dev/sampan/apiserver/rest"
	"github.com/sampan-dev/sampan/kit/run"
	"github.com/sampan-dev/sampan/resource/all"
)

// newServerOfRanges hands out addresses and ports to services.
func newServerOfRanges(t *testing.T, cidr string) client {
	registry := rest.NewRegistry(all.Kinds())
	store := cached(t, registry)
	e := rest.New(rest.Deps{Store: store, Registry: registry, Fields: apply.New(openapi.NewMerger()), Log: slog.New(slog.DiscardHandler)})
	l, err := ledger.New(ledger.Config{CIDRs: []netip.Prefix{netip.MustParsePrefix(cidr)}, FirstPort: 30000, LastPort: 30031}, store, e.Backend())
	if err != nil {
		t.Fatal(err)
	}
	e.Begin = func() rest.Transaction { return l.Begin() }
	s, err := apiserver.New(apiserver.Config{Advertise: net.IPv4(127, 0, 0, 1)}, apiserver.Deps{Engine: e})
	if err != nil {
		t.Fatal(err)
	}
	ctx := req.WithUser(t.Context(), apiserver.Loopback())
	if err := l.Start(ctx); err != nil {
		t.Fatal(err)
	}
	g := run.New(ctx)
	g.Go("ledger", l.Run)
	t.Cleanup(func() { g.Stop(); g.Wait() })
	return client{t, s.Handler()}
}

const ranges = "/apis/networking.k8s.io/v1/servicecidrs"

// TestServicesFollowTheirRanges: a full range, a second one, its deletion, and
// the words when there is nothing left.
func TestServicesFollowTheirRanges(t *testing.T) {
	c := newServerOfRanges(t, "10.96.0.0/16")
	made := 0
	service := func(ip string) (int, map[string]any) {
		made++
		code, doc, _ := c.do("POST", base+"services", jsonType, fmt.Sprintf(`{"apiVersion":"v1","kind":"Service","metadata":{"name":"s%d"},"spec":{"clusterIP":%q,"ports":[{"port":80}]}}`, made, ip))
		return code, doc
	}
	define := func(name, cidr string) {
		t.Helper()
		if code, doc, _ := c.do("POST", ranges, jsonType, fmt.Sprintf(`{"apiVersion":"networking.k8s.io/v1","kind":"ServiceCIDR","metadata":{"name":%q,"finalizers":["networking.k8s.io/service-cidr-finalizer"]},"spec":{"cidrs":[%q]}}`, name, cidr)); code != 201 {
			t.Fatal(code, doc)
		}
	}
	define("kubernetes", "10.96.0.0/30")
	within(t, "the object's range is in force", func() bool {
		code, doc, _ := c.do("POST", base+"services?dryRun=All", jsonType, `{"apiVersion":"v1","kind":"Service","metadata":{"name":"probe"},"spec":{"clusterIP":"10.96.9.9","ports":[{"port":80}]}}`)
		return code == 422 && strings.Contains(fmt.Sprint(doc["message"]), "the provided network does not match the current range")
	})
	for range 2 {
		if code, doc := service(""); code != 201 || !strings.HasPrefix(at(doc, "spec.clusterIP").(string), "10.96.0.") {
			t.Fatal(code, doc)
		}
	}
	if code, doc := service(""); code != 500 || doc["message"] != "Internal error occurred: failed to allocate a serviceIP: range is full" {
		t.Errorf("a full range: %d %v", code, doc["message"])
	}
	define("second", "10.97.0.0/28")
	if code, doc := service("10.97.0.9"); code != 201 {
		t.Fatal(code, doc)
	} else if _, ip, _ := c.do("GET", "/apis/networking.k8s.io/v1/ipaddresses/10.97.0.9", "", ""); at(ip, "spec.parentRef.name") != at(doc, "metadata.name") {
		t.Errorf("of whom it is: %v", ip["spec"])
	}
	if code, doc := service(""); code != 201 || !strings.HasPrefix(at(doc, "spec.clusterIP").(string), "10.97.0.") {
		t.Fatal(code, doc)
	}
	if code, doc := service("10.98.0.1"); code != 422 || doc["message"] != `Service "`+fmt.Sprintf("s%d", made)+`" is invalid: spec.clusterIPs: Invalid value: ["10.98.0.1"]: failed to allocate IP 10.98.0.1: the provided network does not match the current range` {
		t.Errorf("outside: %d %v", code, doc["message"])
	}
	c.do("DELETE", ranges+"/second", "", "") // its finalizer holds it, nothing is taken from it any more
	within(t, "a range that is going gives nothing", func() bool {
		code, doc, _ := c.do("POST", base+"services?dryRun=All", jsonType, `{"apiVersion":"v1","kind":"Service","metadata":{"name":"probe"},"spec":{"clusterIP":"10.97.0.10","ports":[{"port":80}]}}`)
		return code == 422 && strings.Contains(fmt.Sprint(doc["message"]), "the provided network does not match the current range")
	})
	if code, _ := service(""); code != 500 {
		t.Errorf("from a range that is going: %d", code)
	}
	c.do("PATCH", ranges+"/second", "application/merge-patch+json", `{"metadata":{"finalizers":null}}`)
	if code, _, _ := c.do("GET", ranges+"/second", "", ""); code != 404 {
		t.Errorf("still there: %d", code)
	}
}
