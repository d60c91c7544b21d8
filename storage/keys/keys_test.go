package keys

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"math/rand"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/server/v3/embed"
	"go.etcd.io/etcd/server/v3/etcdserver/api/v2error"
	"go.etcd.io/etcd/server/v3/etcdserver/api/v2store"
	"go.etcd.io/etcd/server/v3/etcdserver/api/v3client"
	"go.uber.org/zap"

	"github.com/sampan-dev/sampan/kit/run"
)

// start runs an etcd for one test and returns a store on it.
func start(t *testing.T) (*Store, *clientv3.Client) {
	t.Helper()
	dir, err := os.MkdirTemp("", "keys") // short: the names of sockets are bounded
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	cfg := embed.NewConfig()
	cfg.Dir, cfg.UnsafeNoFsync = filepath.Join(dir, "d"), true
	at := func(name string) []url.URL { return []url.URL{{Scheme: "unix", Path: filepath.Join(dir, name)}} }
	cfg.ListenClientUrls, cfg.AdvertiseClientUrls = at("c"), at("c")
	cfg.ListenPeerUrls, cfg.AdvertisePeerUrls = at("p"), at("p")
	cfg.InitialCluster = cfg.InitialClusterFromName(cfg.Name)
	cfg.TickMs, cfg.ElectionMs = 10, 100
	cfg.ZapLoggerBuilder = embed.NewZapLoggerBuilder(zap.NewNop())
	e, err := embed.StartEtcd(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(e.Close)
	select {
	case <-e.Server.ReadyNotify():
	case <-time.After(60 * time.Second):
		t.Fatal("etcd does not become ready")
	}
	c := v3client.New(e.Server)
	t.Cleanup(func() { c.Close() })
	return NewStore(func() (*clientv3.Client, error) { return c, nil }), c
}

// mux serves a store as etcd does.
func mux(s *Store) http.Handler {
	m := http.NewServeMux()
	for p, h := range s.Handlers() {
		m.Handle(p, h)
	}
	return m
}

// ask sends "METHOD PATH [FORM]".
func ask(h http.Handler, line string) *httptest.ResponseRecorder {
	parts := strings.SplitN(line, " ", 3)
	var r *http.Request
	if len(parts) == 3 {
		r = httptest.NewRequest(parts[0], parts[1], strings.NewReader(parts[2]))
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	} else {
		r = httptest.NewRequest(parts[0], parts[1], nil)
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w
}

// The documents' commands give the documents' answers, number for number.
func TestConversation(t *testing.T) {
	s, _ := start(t)
	h := mux(s)
	for i, c := range []struct {
		line   string
		status int
		want   string
	}{
		{"GET /v2/keys/", 200, `{"action":"get","node":{"dir":true}}`},
		{"PUT /v2/keys/name value=lambert", 201, `{"action":"set","node":{"key":"/name","value":"lambert","modifiedIndex":5,"createdIndex":5}}`},
		{"GET /v2/keys/name", 200, `{"action":"get","node":{"key":"/name","value":"lambert","modifiedIndex":5,"createdIndex":5}}`},
		{"POST /v2/keys/favorite value=panda", 201, `{"action":"create","node":{"key":"/favorite/00000000000000000006","value":"panda","modifiedIndex":6,"createdIndex":6}}`},
		{"GET /v2/keys/favorite", 200, `{"action":"get","node":{"key":"/favorite","dir":true,"nodes":[{"key":"/favorite/00000000000000000006","value":"panda","modifiedIndex":6,"createdIndex":6}],"modifiedIndex":6,"createdIndex":6}}`},
		{"DELETE /v2/keys/favorite?recursive=true", 200, `{"action":"delete","node":{"key":"/favorite","dir":true,"modifiedIndex":7,"createdIndex":6},"prevNode":{"key":"/favorite","dir":true,"modifiedIndex":6,"createdIndex":6}}`},
		{"GET /v2/keys/favorite", 404, `{"errorCode":100,"message":"Key not found","cause":"/favorite","index":7}`},
		{"PUT /v2/keys/name value=panda&prevExist=false", 412, `{"errorCode":105,"message":"Key already exists","cause":"/name","index":7}`},
		{"PUT /v2/keys/name value=panda&prevValue=x", 412, `{"errorCode":101,"message":"Compare failed","cause":"[x != lambert]","index":7}`},
		{"PUT /v2/keys/name value=panda&prevIndex=5", 200, `{"action":"compareAndSwap","node":{"key":"/name","value":"panda","modifiedIndex":8,"createdIndex":5},"prevNode":{"key":"/name","value":"lambert","modifiedIndex":5,"createdIndex":5}}`},
		{"PUT /v2/keys/name/below value=x", 400, `{"errorCode":104,"message":"Not a directory","cause":"/name","index":8}`},
		{"PUT /v2/keys/d dir=true", 201, `{"action":"set","node":{"key":"/d","dir":true,"modifiedIndex":9,"createdIndex":9}}`},
		{"PUT /v2/keys/d value=x", 403, `{"errorCode":102,"message":"Not a file","cause":"/d","index":9}`},
		{"DELETE /v2/keys/d", 403, `{"errorCode":102,"message":"Not a file","cause":"/d","index":9}`},
		{"PUT /v2/keys/d/e value=x", 201, `{"action":"set","node":{"key":"/d/e","value":"x","modifiedIndex":10,"createdIndex":10}}`},
		{"PUT /v2/keys/d/_h value=x", 201, `{"action":"set","node":{"key":"/d/_h","value":"x","modifiedIndex":11,"createdIndex":11}}`},
		{"DELETE /v2/keys/d?dir=true", 403, `{"errorCode":108,"message":"Directory not empty","cause":"/d","index":11}`},
		{"GET /v2/keys/?recursive=true&sorted=true", 200, `{"action":"get","node":{"dir":true,"nodes":[{"key":"/d","dir":true,"nodes":[{"key":"/d/e","value":"x","modifiedIndex":10,"createdIndex":10}],"modifiedIndex":9,"createdIndex":9},{"key":"/name","value":"panda","modifiedIndex":8,"createdIndex":5}]}}`},
		{"PUT /v2/keys/ value=x", 400, `{"errorCode":107,"message":"Root is read only","cause":"/","index":11}`},
		{"PUT /v2/keys/a value=x&ttl=soon", 400, `{"errorCode":202,"message":"The given TTL in POST form is not a number","cause":"invalid value for \"ttl\"","index":0}`},
		{"PUT /v2/keys/a value=x&prevExist=perhaps", 400, `{"errorCode":209,"message":"Invalid field","cause":"invalid value for prevExist","index":0}`},
		{"PUT /v2/keys/a prevValue=", 400, `{"errorCode":201,"message":"PrevValue is Required in POST form","cause":"\"prevValue\" cannot be empty","index":0}`},
		{"PUT /v2/keys/a refresh=true", 400, `{"errorCode":212,"message":"A TTL must be provided on refresh","cause":"No TTL value set","index":0}`},
		{"GET /v2/keys/a?waitIndex=x", 400, `{"errorCode":203,"message":"The given index in POST form is not a number","cause":"invalid value for \"waitIndex\"","index":0}`},
		{"DELETE /v2/keys/name?prevValue=panda", 200, `{"action":"compareAndDelete","node":{"key":"/name","modifiedIndex":12,"createdIndex":5},"prevNode":{"key":"/name","value":"panda","modifiedIndex":8,"createdIndex":5}}`},
		{"PUT /v2/keys/a value=x&noValueOnSuccess=true", 201, `{"action":"set"}`},
		{"GET /v2/keys/d?wait=true&waitIndex=10&recursive=true", 200, `{"action":"set","node":{"key":"/d/e","value":"x","modifiedIndex":10,"createdIndex":10}}`},
	} {
		w := ask(h, c.line)
		if got := strings.TrimSpace(w.Body.String()); w.Code != c.status || got != c.want {
			t.Errorf("%d %s: %d %s\nwant %d %s", i, c.line, w.Code, got, c.status, c.want)
		}
		if w.Header().Get("X-Etcd-Index") == "" || w.Header().Get("Content-Type") != "application/json" {
			t.Errorf("%s: headers %v", c.line, w.Header())
		}
	}
	if w := ask(h, "PATCH /v2/keys/a"); w.Code != 405 || w.Header().Get("Allow") != "HEAD,GET,PUT,POST,DELETE" {
		t.Errorf("PATCH: %d %v", w.Code, w.Header())
	}
	if w := ask(h, "GET /v2/members"); w.Code != 200 || !strings.Contains(w.Body.String(), `"name":"default"`) {
		t.Errorf("members: %d %s", w.Code, w.Body)
	}
	if w := ask(h, "GET /v2/stats/self"); w.Code != 200 || !strings.Contains(w.Body.String(), `"state":"StateLeader"`) {
		t.Errorf("self: %d %s", w.Code, w.Body)
	}
	if w := ask(h, "GET /v2/stats/store"); !strings.Contains(w.Body.String(), `"compareAndDeleteSuccess":1`) {
		t.Errorf("store: %s", w.Body)
	}
	if w := ask(h, "DELETE /v2/members/1234"); w.Code != 404 || !strings.Contains(w.Body.String(), "No such member: 1234") {
		t.Errorf("no member: %d %s", w.Code, w.Body)
	}
}

// upstream answers a line with etcd's own store of the second version.
func upstream(s v2store.Store, line string) (string, uint64) {
	parts := strings.SplitN(line, " ", 3)
	u, _ := url.Parse(parts[1])
	q := u.Query()
	if len(parts) == 3 {
		q, _ = url.ParseQuery(parts[2])
	}
	p := "/1" + strings.TrimPrefix(u.Path, "/v2/keys")
	prevIndex, _ := strconv.ParseUint(q.Get("prevIndex"), 10, 64)
	compare := prevIndex > 0 || q.Get("prevValue") != ""
	never := v2store.TTLOptionSet{ExpireTime: v2store.Permanent}
	value, dir := q.Get("value"), q.Get("dir") == "true"
	var e *v2store.Event
	var err error
	switch {
	case parts[0] == "GET":
		e, err = s.Get(p, q.Get("recursive") == "true", true)
	case parts[0] == "POST":
		e, err = s.Create(p, dir, value, true, never)
	case parts[0] == "DELETE" && compare:
		e, err = s.CompareAndDelete(p, q.Get("prevValue"), prevIndex)
	case parts[0] == "DELETE":
		e, err = s.Delete(p, dir, q.Get("recursive") == "true")
	case q.Get("prevExist") == "false":
		e, err = s.Create(p, dir, value, false, never)
	case compare:
		e, err = s.CompareAndSwap(p, q.Get("prevValue"), prevIndex, value, never)
	case q.Get("prevExist") == "true":
		e, err = s.Update(p, value, never)
	default:
		e, err = s.Set(p, dir, value, never)
	}
	var text []byte
	if ve, ok := err.(*v2error.Error); ok && err != nil {
		text, _ = json.Marshal(ve)
	} else {
		text, _ = json.Marshal(e)
	}
	return strings.ReplaceAll(strings.ReplaceAll(string(text), `"/1/`, `"/`), `"/1"`, `""`), s.Index()
}

// Whatever is asked, in whatever order, the answers are etcd's own.
func TestAnswersAreUpstreams(t *testing.T) {
	s, _ := start(t)
	h := mux(s)
	other := v2store.New("/0", "/1")
	for range firstIndex {
		if _, err := other.Set("/0/x", false, "", v2store.TTLOptionSet{ExpireTime: v2store.Permanent}); err != nil {
			t.Fatal(err)
		}
	}
	seed := int64(1)
	r := rand.New(rand.NewSource(seed))
	names := []string{"a", "b", "a-b", "_c"}
	var history []string
	for range 1500 {
		p := "/v2/keys"
		for range 1 + r.Intn(3) {
			p += "/" + names[r.Intn(len(names))]
		}
		v := strconv.Itoa(r.Intn(3))
		prev := []string{"prevValue=" + strconv.Itoa(r.Intn(3)), "prevIndex=" + strconv.FormatUint(other.Index()-uint64(r.Intn(4)), 10)}
		line := []string{
			"GET " + p, "GET " + p + "?recursive=true", "POST " + p + " value=" + v,
			"PUT " + p + " value=" + v, "PUT " + p + " value=" + v, "PUT " + p + " dir=true",
			"PUT " + p + " value=" + v + "&prevExist=false", "PUT " + p + " value=" + v + "&prevExist=true",
			"PUT " + p + " value=" + v + "&" + prev[0], "PUT " + p + " value=" + v + "&" + prev[1], "PUT " + p + " value=" + v + "&" + prev[0] + "&" + prev[1],
			"DELETE " + p, "DELETE " + p + "?dir=true", "DELETE " + p + "?recursive=true", "DELETE " + p + "?" + prev[0], "DELETE " + p + "?" + prev[1],
		}[r.Intn(16)]
		history = append(history, line)
		w := ask(h, line)
		want, index := upstream(other, line)
		if strings.HasPrefix(want, `null`) || strings.Contains(want, `"cause":""`) {
			t.Fatalf("%s: the other store says %s", line, want)
		}
		if got := strings.TrimSpace(w.Body.String()); got != want {
			t.Fatalf("seed %d, %s:\ngot  %s\nwant %s\nafter %s", seed, line, got, want, strings.Join(history[max(0, len(history)-30):], "\n"))
		}
		if got := w.Header().Get("X-Etcd-Index"); got != strconv.FormatUint(index, 10) {
			t.Fatalf("%s: index %s, want %d", line, got, index)
		}
	}
}

// What has a time to live goes when that is over, and those who wait hear of it.
func TestExpiry(t *testing.T) {
	s, c := start(t)
	h := mux(s)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	run.Detach(ctx, "expiry", func(ctx context.Context) {
		defer close(done)
		s.Expire(ctx, c, slog.New(slog.DiscardHandler))
	})
	t.Cleanup(func() { cancel(); <-done })
	var e Event
	if err := json.Unmarshal(ask(h, "PUT /v2/keys/long value=x&ttl=1000").Body.Bytes(), &e); err != nil || e.Node.TTL != 1000 || e.Node.Expiration == nil {
		t.Fatalf("%v: %+v", err, e.Node)
	}
	ask(h, "PUT /v2/keys/dir dir=true")
	ask(h, "PUT /v2/keys/dir/below value=x")
	ask(h, "PUT /v2/keys/dir dir=true&ttl=1&prevExist=true")
	w := ask(h, "GET /v2/keys/dir?wait=true&waitIndex=9&recursive=true") // returns when it has gone
	if err := json.Unmarshal(w.Body.Bytes(), &e); err != nil || e.Action != "expire" || e.Node.Key != "/dir" {
		t.Fatalf("%v: %s", err, w.Body)
	}
	if w := ask(h, "GET /v2/keys/dir/below"); w.Code != 404 {
		t.Errorf("what was below: %d %s", w.Code, w.Body)
	}
	ask(h, "PUT /v2/keys/lease value=x&ttl=900")
	if w := ask(h, "PUT /v2/keys/lease refresh=true&ttl=1000&prevExist=true"); !strings.Contains(w.Body.String(), `"value":"x"`) {
		t.Errorf("refresh: %s", w.Body)
	}
	ask(h, "PUT /v2/keys/last value=x&ttl=2")
	w = ask(h, "GET /v2/keys/?wait=true&waitIndex=13&recursive=true")
	if err := json.Unmarshal(w.Body.Bytes(), &e); err != nil || e.Node.Key != "/last" || e.Action != "expire" {
		t.Errorf("%v: %s: the lease was renewed and the other was not", err, w.Body)
	}
	if got, err := c.Get(t.Context(), timePrefix, clientv3.WithPrefix(), clientv3.WithCountOnly()); err != nil || got.Count != 2 {
		t.Errorf("%d times are left, %v, want two", got.Count, err)
	}
}

// A wait is answered by the first change from its index on, also from the past.
func TestWait(t *testing.T) {
	s, c := start(t)
	server := httptest.NewServer(mux(s))
	defer server.Close()
	get := func(path string) (chan string, *http.Response) {
		resp, err := http.Get(server.URL + path) // returns when the waiting has begun
		if err != nil {
			t.Fatal(err)
		}
		out := make(chan string, 1)
		run.Detach(t.Context(), "wait", func(context.Context) {
			defer resp.Body.Close()
			var e Event
			if json.NewDecoder(resp.Body).Decode(&e) == nil {
				out <- e.Action + " " + e.Node.Key
			}
		})
		return out, resp
	}
	took := func(c chan string, want string) {
		t.Helper()
		select {
		case got := <-c:
			if got != want {
				t.Errorf("waited for %q, got %q", want, got)
			}
		case <-time.After(60 * time.Second):
			t.Fatalf("waited in vain for %q", want)
		}
	}
	h := mux(s)
	next, _ := get("/v2/keys/a?wait=true")
	tree, resp := get("/v2/keys/?wait=true&recursive=true")
	if resp.Header.Get("X-Etcd-Index") != "4" {
		t.Errorf("headers %v", resp.Header)
	}
	ask(h, "PUT /v2/keys/b/c value=1")
	took(tree, "set /b/c")
	ask(h, "PUT /v2/keys/a/_hidden value=1")
	ask(h, "DELETE /v2/keys/a?recursive=true")
	took(next, "delete /a")
	old, _ := get("/v2/keys/b?wait=true&recursive=true&waitIndex=1")
	took(old, "set /b/c")
	below, _ := get("/v2/keys/b/c/d?wait=true")
	ask(h, "DELETE /v2/keys/b?recursive=true")
	took(below, "delete /b")
	for i := range history {
		if w := ask(h, fmt.Sprintf("PUT /v2/keys/many value=%d", i)); w.Code >= 300 {
			t.Fatal(w.Body)
		}
	}
	w := ask(h, "GET /v2/keys/many?wait=true&waitIndex=6")
	if want := `{"errorCode":401,"message":"The event in requested index is outdated and cleared","cause":"the requested history has been cleared [9/6]","index":1008}`; w.Code != 400 || strings.TrimSpace(w.Body.String()) != want {
		t.Errorf("%d %s\nwant %s", w.Code, w.Body, want)
	}
	if got, err := c.Get(t.Context(), eventPrefix, clientv3.WithPrefix(), clientv3.WithCountOnly()); err != nil || got.Count != history {
		t.Errorf("%d changes are kept, %v, want %d", got.Count, err, history)
	}
}

// With users in the third version, the second does not go round them.
func TestUsersAreNotGoneRound(t *testing.T) {
	s, c := start(t)
	h := mux(s)
	ctx := t.Context()
	for _, step := range []func() error{
		func() error { _, err := c.UserAdd(ctx, "root", "secret"); return err },
		func() error { _, err := c.UserGrantRole(ctx, "root", "root"); return err },
		func() error { _, err := c.AuthEnable(ctx); return err },
	} {
		if err := step(); err != nil {
			t.Fatal(err)
		}
	}
	for _, line := range []string{"GET /v2/keys/", "PUT /v2/keys/a value=1", "GET /v2/keys/?quorum=true", "DELETE /v2/keys/a"} {
		w := ask(h, line)
		if w.Code != 401 || strings.TrimSpace(w.Body.String()) != `{"errorCode":110,"message":"The request requires user authentication","cause":"Insufficient credentials","index":0}` {
			t.Errorf("%s: %d %s", line, w.Code, w.Body)
		}
	}
}
