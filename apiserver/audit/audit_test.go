package audit

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"k8s.io/apimachinery/pkg/types"
	auditv1 "k8s.io/apiserver/pkg/apis/audit/v1"

	"github.com/sampan-dev/sampan/apiserver/request"
	"github.com/sampan-dev/sampan/kit/run"
)

const policyText = `
apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
rules:
- level: None
  users: ["system:kube-proxy"]
- level: None
  nonResourceURLs: ["/healthz*", "/version"]
- level: Metadata
  resources: [{group: "", resources: [secrets, "pods/*"]}]
- level: RequestResponse
  omitManagedFields: true
  resources: [{group: "", resources: [configmaps], resourceNames: [seen]}]
  namespaces: [a]
- level: Request
  verbs: [create]
  resources: [{group: apps}, {group: "", resources: ["*/status"]}]
- level: Metadata
  userGroups: [auditors]
  omitStages: [ResponseComplete]
`

func TestPolicy(t *testing.T) {
	p, warning, err := parsePolicy([]byte(policyText))
	if err != nil || warning != "" {
		t.Fatal(err, warning)
	}
	res := func(verb, group, resource, sub, ns, name string) *request.Info {
		return &request.Info{IsResource: true, Verb: verb, Group: group, Version: "v1", Resource: resource, Subresource: sub, Namespace: ns, Name: name}
	}
	for _, c := range []struct {
		user, group string
		i           *request.Info
		want        auditv1.Level
	}{
		{"system:kube-proxy", "", res("get", "", "secrets", "", "a", "s"), auditv1.LevelNone},
		{"ann", "", &request.Info{Path: "/healthz/etcd", Verb: "get"}, auditv1.LevelNone},
		{"ann", "auditors", &request.Info{Path: "/versions", Verb: "get"}, auditv1.LevelMetadata},
		{"ann", "", res("get", "", "secrets", "", "a", "s"), auditv1.LevelMetadata},
		{"ann", "", res("get", "", "pods", "log", "a", "p"), auditv1.LevelMetadata},
		{"ann", "", res("get", "", "configmaps", "", "a", "seen"), auditv1.LevelRequestResponse},
		{"ann", "", res("get", "", "configmaps", "", "b", "seen"), auditv1.LevelNone},
		{"ann", "", res("get", "", "configmaps", "", "a", "other"), auditv1.LevelNone},
		{"ann", "", res("create", "apps", "deployments", "", "a", ""), auditv1.LevelRequest},
		{"ann", "", res("create", "", "nodes", "status", "", "n"), auditv1.LevelRequest},
		{"ann", "", res("list", "apps", "deployments", "", "a", ""), auditv1.LevelNone},
	} {
		v := judge(p, &request.User{Name: c.user, Groups: []string{c.group}}, c.i)
		if v.level != c.want {
			t.Errorf("%s %+v: %s, want %s", c.user, c.i, v.level, c.want)
		}
	}
	for text, want := range map[string]string{
		"kind: Policy\napiVersion: audit.k8s.io/v1beta1\nrules: [{level: None}]":                       "unknown group version field audit.k8s.io/v1beta1, Kind=Policy in policy",
		"kind: Policy\napiVersion: audit.k8s.io/v1":                                                    "loaded illegal policy with 0 rules",
		"kind: Policy\napiVersion: audit.k8s.io/v1\nrules: [{level: Some}]":                            `rules[0].level: Unsupported value: "Some"`,
		"kind: Policy\napiVersion: audit.k8s.io/v1\nrules: [{level: None, nonResourceURLs: [a]}]":      "non-resource URL rules must begin with a '/' character",
		"kind: Policy\napiVersion: audit.k8s.io/v1\nomitStages: [Late]\nrules: [{level: None}]":        "allowed stages are RequestReceived,ResponseStarted,ResponseComplete,Panic",
		"kind: Policy\napiVersion: audit.k8s.io/v1\nrules: [{level: None, resources: [{group: a/b}]}]": "rules[0].resources.group: Invalid value",
	} {
		if _, _, err := parsePolicy([]byte(text)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %q", text, err, want)
		}
	}
	if _, warning, err = parsePolicy([]byte("kind: Policy\napiVersion: audit.k8s.io/v1\nrules: [{level: None, colour: red}]")); err != nil || warning == "" {
		t.Errorf("an unknown field: %v %q", err, warning)
	}
}

// kept keeps events.
type kept struct {
	mu     sync.Mutex
	events []*auditv1.Event
	fail   bool
}

func (*kept) name() string { return "kept" }

func (k *kept) store(_ context.Context, events []*auditv1.Event) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.fail {
		return errors.New("disk full")
	}
	k.events = append(k.events, events...)
	return nil
}

func newTestAuditor(t *testing.T, policy string, b backend, d Delivery) *Auditor {
	t.Helper()
	p, _, err := parsePolicy([]byte("apiVersion: audit.k8s.io/v1\nkind: Policy\n" + policy))
	if err != nil {
		t.Fatal(err)
	}
	a := newAuditor(p, Deps{Log: discard()})
	a.add(b, d)
	return a
}

// send sends a request through a's filter to h.
func send(a *Auditor, h http.HandlerFunc, verb, path, body string) *httptest.ResponseRecorder {
	i := &request.Info{IsResource: true, Verb: verb, Path: path, Prefix: "api", Version: "v1", Resource: "configmaps", Namespace: "a"}
	ctx := request.WithInfo(request.WithUser(context.Background(), &request.User{Name: "ann", Groups: []string{"dev"}}), i)
	r := httptest.NewRequestWithContext(ctx, "POST", path, strings.NewReader(body))
	r.Header.Set("Content-Type", "application/json")
	r.Header.Set("User-Agent", "test/1")
	r.RemoteAddr = "192.0.2.7:1234"
	w := httptest.NewRecorder()
	w.Header().Set("Audit-Id", "id-1")
	long := func(_ *http.Request, i *request.Info) bool { return i.Verb == "watch" }
	refuse := func(w http.ResponseWriter, _ *http.Request, err error) { http.Error(w, err.Error(), 500) }
	a.Filter(h, long, refuse).ServeHTTP(w, r)
	return w
}

func answer(code int, body string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		io.Copy(io.Discard, r.Body)
		request.Annotate(r.Context(), "authorization.k8s.io/decision", "allow")
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(code)
		io.WriteString(w, body)
	}
}

func TestLevels(t *testing.T) {
	object := `{"kind":"ConfigMap","apiVersion":"v1","metadata":{"name":"c","managedFields":[{"manager":"m"}]},"data":{"k":"v"}}`
	for level, want := range map[string]struct{ asked, answered string }{
		"Metadata": {}, "Request": {asked: "has"}, "RequestResponse": {asked: "has", answered: "has"},
	} {
		k := &kept{}
		a := newTestAuditor(t, "rules: [{level: "+level+", omitManagedFields: true}]", k, Delivery{Mode: ModeBlocking})
		send(a, answer(201, object), "create", "/api/v1/namespaces/a/configmaps?dryRun=All", object)
		if len(k.events) != 2 || k.events[0].Stage != auditv1.StageRequestReceived || k.events[1].Stage != auditv1.StageResponseComplete {
			t.Fatalf("%s: %+v", level, k.events)
		}
		ev := k.events[1]
		if ev.AuditID != "id-1" || ev.User.Username != "ann" || ev.SourceIPs[0] != "192.0.2.7" || ev.ResponseStatus.Code != 201 ||
			ev.ObjectRef.Name != "c" || ev.RequestURI != "/api/v1/namespaces/a/configmaps?dryRun=All" || ev.UserAgent != "test/1" ||
			ev.Annotations["authorization.k8s.io/decision"] != "allow" || string(ev.Level) != level {
			t.Errorf("%s: %+v", level, ev)
		}
		if (ev.RequestObject != nil) != (want.asked != "") || (ev.ResponseObject != nil) != (want.answered != "") {
			t.Errorf("%s: request object %v, response object %v", level, ev.RequestObject, ev.ResponseObject)
		}
		if ev.RequestObject != nil && (!bytes.Contains(ev.RequestObject.Raw, []byte(`"data":{"k":"v"}`)) || bytes.Contains(ev.RequestObject.Raw, []byte("managedFields"))) {
			t.Errorf("%s: request object %s", level, ev.RequestObject.Raw)
		}
	}
}

func TestFailuresPanicsAndWatches(t *testing.T) {
	k := &kept{}
	a := newTestAuditor(t, "omitStages: [RequestReceived]\nrules: [{level: Metadata}]", k, Delivery{Mode: ModeBlocking})
	send(a, answer(409, `{"kind":"Status","apiVersion":"v1","status":"Failure","message":"no","reason":"Conflict","code":409}`), "update", "/x", "{}")
	if s := k.events[0].ResponseStatus; s.Message != "no" || s.Reason != "Conflict" || s.Code != 409 || k.events[0].ResponseObject != nil {
		t.Errorf("status %+v", s)
	}
	func() {
		defer func() { recover() }()
		send(a, func(http.ResponseWriter, *http.Request) { panic("oh") }, "get", "/x", "")
	}()
	if ev := k.events[1]; ev.Stage != auditv1.StagePanic || ev.ResponseStatus.Message != "APIServer panic'd: oh" || ev.ResponseStatus.Code != 500 {
		t.Errorf("panic: %+v", ev)
	}
	send(a, answer(200, "{}"), "watch", "/x", "")
	if ev := k.events[2]; ev.Stage != auditv1.StageResponseStarted || k.events[3].Stage != auditv1.StageResponseComplete {
		t.Errorf("watch: %+v", ev)
	}
	send(a, func(http.ResponseWriter, *http.Request) {}, "get", "/x", "")
	if s := k.events[4].ResponseStatus; s.Message != "Connection closed early" {
		t.Errorf("nothing sent: %+v", s)
	}
}

// In strict mode nothing is done that could not be put on record.
func TestStrict(t *testing.T) {
	k := &kept{fail: true}
	a := newTestAuditor(t, "rules: [{level: Metadata}]", k, Delivery{Mode: ModeBlockingStrict})
	done := false
	if w := send(a, func(http.ResponseWriter, *http.Request) { done = true }, "delete", "/x", ""); w.Code != 500 || done {
		t.Errorf("%d, done %v", w.Code, done)
	}
	a = newTestAuditor(t, "rules: [{level: Metadata}]", k, Delivery{Mode: ModeBlocking})
	if send(a, func(http.ResponseWriter, *http.Request) { done = true }, "delete", "/x", ""); !done {
		t.Error("a blocking log that fails stops the request")
	}
}

func TestBodies(t *testing.T) {
	var z bytes.Buffer
	g := gzip.NewWriter(&z)
	g.Write([]byte(`{"a":1}`))
	g.Close()
	for _, c := range []struct {
		media, encoding, data, want string
	}{
		{"application/json", "", ` {"a":1} `, `{"a":1}`}, {"application/json", "gzip", z.String(), `{"a":1}`},
		{"application/apply-patch+yaml", "", "a: 1\n", `{"a":1}`}, {"application/json-patch+json", "", `[{"op":"test"}]`, `[{"op":"test"}]`},
		{"application/json", "", "{", ""}, {"text/plain", "", "hello", ""}, {"application/vnd.kubernetes.protobuf", "", "k8s\x00x", ""},
	} {
		got := ""
		if u := body(c.media, c.encoding, []byte(c.data), true); u != nil {
			got = string(u.Raw)
		}
		if got != c.want {
			t.Errorf("%s: %q, want %q", c.media, got, c.want)
		}
	}
}

func TestLogFile(t *testing.T) {
	dir := t.TempDir()
	policy, path := filepath.Join(dir, "policy.yaml"), filepath.Join(dir, "audit.log")
	os.WriteFile(policy, []byte("apiVersion: audit.k8s.io/v1\nkind: Policy\nrules: [{level: Metadata}]\nomitStages: [RequestReceived]"), 0o600)
	for format, want := range map[string]string{
		"json":   `"kind":"Event","apiVersion":"audit.k8s.io/v1","level":"Metadata","auditID":"id-1","stage":"ResponseComplete"`,
		"legacy": `AUDIT: id="id-1" stage="ResponseComplete" ip="192.0.2.7" method="get" user="ann" groups="\"dev\"" as="<self>" asgroups="<lookup>" user-agent="test/1" namespace="a" uri="/x" response="200"`,
	} {
		c := Config{PolicyFile: policy, Log: DefaultLog()}
		c.Log.Path, c.Log.Format = path, format
		a, err := New(c, Deps{})
		if err != nil {
			t.Fatal(err)
		}
		send(a, answer(200, "{}"), "get", "/x", "")
		text, _ := os.ReadFile(path)
		lines := strings.Split(strings.TrimSpace(string(text)), "\n")
		if last := lines[len(lines)-1]; !strings.Contains(last, want) {
			t.Errorf("%s: %s", format, last)
		}
	}
	if st, err := os.Stat(path); err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("mode %v %v", st, err)
	}
}

// A log that is full is put aside, and of those only so many are kept.
func TestRotation(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "audit.log")
	l, err := newLog(Log{Path: path, MaxSize: 1, MaxFiles: 2})
	if err != nil {
		t.Fatal(err)
	}
	const lines = 48 // of 100 kB each
	for i := range lines {
		ev := &auditv1.Event{AuditID: types.UID(fmt.Sprint("id-", i)), UserAgent: strings.Repeat("x", 100_000)}
		if err := l.store(t.Context(), []*auditv1.Event{ev}); err != nil {
			t.Fatal(err)
		}
	}
	text, err := os.ReadFile(path)
	if err != nil || len(text) > 1<<20 || !bytes.Contains(text, []byte(fmt.Sprintf("id-%d", lines-1))) {
		t.Errorf("the log has %d bytes, %v", len(text), err)
	}
	var names []string
	for deadline := time.Now().Add(time.Minute); time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
		names, _ = filepath.Glob(filepath.Join(dir, "audit-*.log"))
		if len(names) == 2 {
			return // the older ones are removed a moment later
		}
	}
	t.Errorf("put aside: %v", names)
}

// A webhook gets lists of events, again if it was not well.
func TestWebhook(t *testing.T) {
	var got []auditv1.EventList
	calls := 0
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if calls++; calls == 1 {
			w.WriteHeader(503)
			return
		}
		var l auditv1.EventList
		json.NewDecoder(r.Body).Decode(&l)
		got = append(got, l)
	}))
	defer srv.Close()
	hook := Webhook{Client: srv.Client(), URL: srv.URL, Backoff: time.Millisecond}
	a := newTestAuditor(t, "rules: [{level: Metadata}]", newWebhook(hook), Delivery{Mode: ModeBlocking})
	send(a, answer(200, "{}"), "get", "/x", "")
	if len(got) != 2 || got[0].Kind != "EventList" || len(got[0].Items) != 1 || got[1].Items[0].Stage != auditv1.StageResponseComplete {
		t.Errorf("%d calls, %+v", calls, got)
	}
}

func TestBatches(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var sizes []int
		k := &counting{sizes: &sizes}
		d := delivery(ModeBatch)
		d.Batch, d.Buffer, d.Wait = 10, 25, time.Second
		a := newTestAuditor(t, "omitStages: [RequestReceived]\nrules: [{level: Metadata}]", k, d)
		ctx, cancel := context.WithCancel(t.Context())
		g := run.New(ctx)
		g.Go("audit", a.Run)
		for range 23 {
			send(a, answer(200, "{}"), "get", "/x", "")
		}
		time.Sleep(10 * time.Second)
		synctest.Wait()
		if !slices.Equal(sizes, []int{10, 10, 3}) {
			t.Errorf("batches %v", sizes)
		}
		k.hold = make(chan struct{})
		for range 100 { // more than the buffer holds: requests go on, events are lost and counted
			send(a, answer(200, "{}"), "get", "/x", "")
		}
		close(k.hold)
		cancel()
		g.Wait()
		total := 0
		for _, n := range sizes[3:] {
			total += n
		}
		if total < 25 || total > 36 {
			t.Errorf("%d of 100 were stored", total)
		}
	})
}

type counting struct {
	sizes *[]int
	hold  chan struct{}
}

func (*counting) name() string { return "counting" }

func (c *counting) store(_ context.Context, events []*auditv1.Event) error {
	if c.hold != nil {
		<-c.hold
	}
	*c.sizes = append(*c.sizes, len(events))
	return nil
}

func TestTruncation(t *testing.T) {
	k := &kept{}
	d := delivery(ModeBlocking)
	d.Truncate, d.MaxEvent = true, 2000
	a := newTestAuditor(t, "omitStages: [RequestReceived]\nrules: [{level: Request}]", k, d)
	send(a, answer(200, "{}"), "update", "/x", `{"data":"`+strings.Repeat("x", 5000)+`"}`)
	if len(k.events) != 1 || k.events[0].RequestObject != nil || k.events[0].Annotations[truncatedKey] != "true" {
		t.Errorf("%+v", k.events)
	}
}

func discard() *slog.Logger { return slog.New(slog.DiscardHandler) }
