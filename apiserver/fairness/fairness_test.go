package fairness

import (
	"context"
	"fmt"
	"math"
	"net/http"
	"net/http/httptest"
	"regexp"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	flowv1 "k8s.io/api/flowcontrol/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"github.com/sampan-dev/sampan/apiserver/request"
	"github.com/sampan-dev/sampan/kit/run"
	"github.com/sampan-dev/sampan/semantics/flow"
)

func newController(t testing.TB, c Config, d Deps) *Controller {
	t.Helper()
	c.Seed = 1
	f, err := New(c, d)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func TestClassify(t *testing.T) {
	c := newController(t, Config{}, Deps{})
	user := func(name string, groups ...string) *request.User {
		return &request.User{Name: name, Groups: append(groups, request.Authenticated)}
	}
	pods := &request.Info{IsResource: true, Verb: "list", Version: "v1", Resource: "pods", Namespace: "default"}
	lease := &request.Info{IsResource: true, Verb: "update", Group: "coordination.k8s.io", Version: "v1", Resource: "leases", Namespace: "kube-node-lease", Name: "n"}
	status := &request.Info{IsResource: true, Verb: "patch", Version: "v1", Resource: "nodes", Name: "n", Subresource: "status"}
	for _, x := range []struct {
		u    *request.User
		i    *request.Info
		want string
	}{
		{user("root", request.Masters), pods, "exempt"},
		{&request.User{Name: request.Anonymous, Groups: []string{request.Unauthenticated}}, &request.Info{Path: "/readyz", Verb: "get"}, "probes"},
		{&request.User{Name: request.Anonymous, Groups: []string{request.Unauthenticated}}, &request.Info{Path: "/readyz/etcd", Verb: "get"}, "probes"},
		{&request.User{Name: request.Anonymous, Groups: []string{request.Unauthenticated}}, &request.Info{Path: "/readyzz", Verb: "get"}, "global-default"},
		{user("system:kube-scheduler"), lease, "system-leader-election"},
		{user("system:kube-scheduler"), pods, "kube-scheduler"},
		{user("system:kube-controller-manager"), pods, "kube-controller-manager"},
		{user("system:node:n", request.Nodes), lease, "system-node-high"},
		{user("system:node:n", request.Nodes), status, "system-node-high"},
		{user("system:node:n", request.Nodes), pods, "system-nodes"},
		{user("system:serviceaccount:kube-system:coredns", request.ServiceAccounts), pods, "kube-system-service-accounts"},
		{user("system:serviceaccount:kube-systems:x", request.ServiceAccounts), pods, "service-accounts"},
		{user("ann"), pods, "global-default"},
		{&request.User{Name: "nobody"}, pods, "catch-all"},
	} {
		if got := c.classify(x.u, x.i).name; got != x.want {
			t.Errorf("%s %s: %s, want %s", x.u.Name, x.i.Resource+x.i.Path, got, x.want)
		}
	}
}

// Every hand has different cards, and hands of different flows rarely agree.
func TestDeal(t *testing.T) {
	seen := map[string]int{}
	for i := range 1000 {
		hand := make([]int, 6)
		deal(hash(7, "schema", fmt.Sprint("user", i)), 64, hand)
		if !slices.IsSorted(hand) || len(slices.Compact(slices.Clone(hand))) != 6 || hand[0] < 0 || hand[5] >= 64 {
			t.Fatalf("hand %v", hand)
		}
		seen[fmt.Sprint(hand)]++
	}
	if len(seen) < 999 {
		t.Errorf("only %d different hands of 1000", len(seen))
	}
	whole := make([]int, 8)
	deal(12345, 8, whole)
	if !slices.Equal(whole, []int{0, 1, 2, 3, 4, 5, 6, 7}) {
		t.Errorf("a hand of the whole deck is %v", whole)
	}
}

// What kube-apiserver gives the levels out of its 600 seats.
func TestSeatsOfTheSuggestedLevels(t *testing.T) {
	c := newController(t, Config{}, Deps{})
	for name, want := range map[string]bounds{
		"system": {74, 50, 674}, "node-high": {98, 73, 698}, "leader-election": {25, 25, 625}, "workload-high": {98, 49, 698},
		"workload-low": {245, 24, 845}, "global-default": {49, 24, 649}, "catch-all": {13, 13, 613}, "exempt": {0, 0, 600},
	} {
		if got := c.levels[name].bounds; got != want {
			t.Errorf("%s: %+v, want %+v", name, got, want)
		}
	}
}

func TestAllocate(t *testing.T) {
	for _, c := range []struct {
		total  int
		claims []claim
		want   []float64
	}{
		{100, []claim{{0, 100, 10}, {0, 100, 30}}, []float64{25, 75}},
		{100, []claim{{40, 100, 40}, {0, 100, 60}}, []float64{40, 60}},
		{100, []claim{{50, 100, 10}, {0, 100, 30}, {0, 20, 60}}, []float64{50, 30, 20}},
		{60, []claim{{0, 20, 10}, {0, 20, 10}}, []float64{20, 20}},
	} {
		got, _ := allocate(c.total, c.claims)
		for i := range got {
			if math.Abs(got[i]-c.want[i]) > 1e-6 {
				t.Errorf("%v: %v, want %v", c.claims, got, c.want)
				break
			}
		}
	}
}

// objects is one level with one schema for everybody.
func objects(name string, shares, queues, hand, length int32) flow.Objects {
	l := &flowv1.PriorityLevelConfiguration{ObjectMeta: metav1.ObjectMeta{Name: name, UID: "level-uid"},
		Spec: flowv1.PriorityLevelConfigurationSpec{Type: flowv1.PriorityLevelEnablementLimited, Limited: &flowv1.LimitedPriorityLevelConfiguration{
			NominalConcurrencyShares: ptr.To(shares), LimitResponse: flowv1.LimitResponse{Type: flowv1.LimitResponseTypeReject}}}}
	if queues > 0 {
		l.Spec.Limited.LimitResponse = flowv1.LimitResponse{Type: flowv1.LimitResponseTypeQueue,
			Queuing: &flowv1.QueuingConfiguration{Queues: queues, HandSize: hand, QueueLengthLimit: length}}
	}
	s := &flowv1.FlowSchema{ObjectMeta: metav1.ObjectMeta{Name: name, UID: "schema-uid"}, Spec: flowv1.FlowSchemaSpec{
		MatchingPrecedence: 5, PriorityLevelConfiguration: flowv1.PriorityLevelConfigurationReference{Name: name},
		DistinguisherMethod: &flowv1.FlowDistinguisherMethod{Type: flowv1.FlowDistinguisherMethodByUserType},
		Rules: []flowv1.PolicyRulesWithSubjects{{
			Subjects:      []flowv1.Subject{{Kind: flowv1.SubjectKindUser, User: &flowv1.UserSubject{Name: "*"}}},
			ResourceRules: []flowv1.ResourcePolicyRule{{Verbs: []string{"*"}, APIGroups: []string{"*"}, Resources: []string{"*"}, Namespaces: []string{"*"}, ClusterScope: true}},
		}},
	}}
	return flow.Objects{Levels: []*flowv1.PriorityLevelConfiguration{l}, Schemas: []*flowv1.FlowSchema{s}}
}

// ask sends one request as user through the filter.
func ask(h http.Handler, ctx context.Context, user, verb string) *httptest.ResponseRecorder {
	i := &request.Info{IsResource: true, Verb: verb, Version: "v1", Resource: "pods", Namespace: "default"}
	ctx = request.WithInfo(request.WithUser(ctx, &request.User{Name: user}), i)
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequestWithContext(ctx, "GET", "/api/v1/namespaces/default/pods", nil))
	return w
}

// now is what a level does at this moment.
type now struct{ seats, executing, waiting, active, lining, limit, late, cancelled int }

func (l *level) now() now {
	l.mu.Lock()
	defer l.mu.Unlock()
	return now{l.seats, l.executing, l.waiting, l.active, len(l.lining), l.limit, l.late, l.cancelled}
}

func never(*http.Request, *request.Info) bool { return false }

// A level of two seats without queues refuses the third, with upstream's words.
func TestRefusal(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newController(t, Config{Seats: 2}, Deps{})
		o := objects("small", 1000, 0, 0, 0)
		c.configure(o.Levels, o.Schemas)
		end := make(chan struct{})
		h := c.Filter(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { <-end }), never)
		for range 2 {
			run.Detach(t.Context(), "held", func(ctx context.Context) { ask(h, ctx, "ann", "get") })
		}
		synctest.Wait()
		w := ask(h, t.Context(), "ann", "get")
		if w.Code != 429 || w.Body.String() != "Too many requests, please try again later.\n" || w.Header().Get("Retry-After") != "1" {
			t.Errorf("%d %q %v", w.Code, w.Body, w.Header())
		}
		if w.Header().Get("X-Kubernetes-PF-FlowSchema-UID") != "schema-uid" || w.Header().Get("X-Kubernetes-PF-PriorityLevel-UID") != "level-uid" {
			t.Errorf("headers %v", w.Header())
		}
		close(end)
		synctest.Wait()
		if w := ask(h, t.Context(), "ann", "get"); w.Code != 200 {
			t.Errorf("after the others: %d", w.Code)
		}
		if l := c.levels["small"].now(); l.seats != 0 || l.executing != 0 {
			t.Errorf("seats left: %d", l.seats)
		}
	})
}

// liveness and fairness: one user floods, another asks now and then and is not
// kept waiting behind the flood.
func TestFloodDoesNotStarveOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newController(t, Config{Seats: 4}, Deps{})
		o := objects("shared", 1000, 64, 4, 50)
		c.configure(o.Levels, o.Schemas)
		h := c.Filter(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { time.Sleep(10 * time.Millisecond) }), never)
		stop := make(chan struct{})
		var flood, refused atomic.Int64
		for range 200 {
			run.Detach(t.Context(), "flood", func(ctx context.Context) {
				for {
					select {
					case <-stop:
						return
					default:
					}
					if ask(h, ctx, "flooder", "get").Code == 200 {
						flood.Add(1)
					} else {
						refused.Add(1)
						time.Sleep(time.Millisecond)
					}
				}
			})
		}
		time.Sleep(time.Second)
		worst := time.Duration(0)
		for range 100 {
			began := time.Now()
			if w := ask(h, t.Context(), "quiet", "get"); w.Code != 200 {
				t.Fatalf("the quiet one was refused: %d", w.Code)
			}
			worst = max(worst, time.Since(began))
		}
		close(stop)
		synctest.Wait()
		if worst > 100*time.Millisecond {
			t.Errorf("the quiet one waited %v", worst)
		}
		if flood.Load() == 0 {
			t.Error("the flood was not served at all")
		}
		time.Sleep(time.Minute)
		synctest.Wait()
		if l := c.levels["shared"].now(); l.seats != 0 || l.waiting != 0 || l.active != 0 || l.lining != 0 {
			t.Errorf("not at rest: %d seats, %d waiting, %d active", l.seats, l.waiting, l.active)
		}
	})
}

// A request waits a quarter of its time and is then refused; one whose client
// goes away leaves its queue.
func TestWaiting(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newController(t, Config{Seats: 1}, Deps{})
		o := objects("one", 1000, 4, 1, 2)
		c.configure(o.Levels, o.Schemas)
		end := make(chan struct{})
		h := c.Filter(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { <-end }), never)
		run.Detach(t.Context(), "held", func(ctx context.Context) { ask(h, ctx, "ann", "get") })
		synctest.Wait()
		ctx, cancel := context.WithTimeout(t.Context(), 8*time.Second)
		defer cancel()
		began := time.Now()
		if w := ask(h, ctx, "ann", "get"); w.Code != 429 || time.Since(began) != 2*time.Second {
			t.Errorf("%d after %v", w.Code, time.Since(began))
		}
		gone, leave := context.WithCancel(t.Context())
		run.Detach(t.Context(), "leaver", func(context.Context) { ask(h, gone, "ann", "get") })
		synctest.Wait()
		l := c.levels["one"]
		if n := l.now(); n.waiting != 1 {
			t.Errorf("%d wait", n.waiting)
		}
		leave()
		synctest.Wait()
		if n := l.now(); n.waiting != 0 || n.cancelled != 1 || n.late != 1 {
			t.Errorf("%d wait, %d cancelled, %d late", n.waiting, n.cancelled, n.late)
		}
		close(end)
		synctest.Wait()
	})
}

// Idle seats of one level are lent to another that can use them, and come back.
func TestLending(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newController(t, Config{Seats: 100}, Deps{})
		busy, idle := objects("busy", 50, 8, 2, 50), objects("idle", 50, 8, 2, 50)
		idle.Levels[0].Spec.Limited.LendablePercent = ptr.To(int32(80))
		c.configure(append(busy.Levels, idle.Levels...), busy.Schemas)
		h := c.Filter(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { time.Sleep(30 * time.Second) }), never)
		before := c.levels["busy"].bounds.nominal
		for n := range 90 {
			run.Detach(t.Context(), "held", func(ctx context.Context) { ask(h, ctx, fmt.Sprint("user", n), "get") })
		}
		time.Sleep(time.Second)
		synctest.Wait()
		if got := c.levels["busy"].now().executing; got <= before+20 {
			t.Errorf("%d are served, %d were its own", got, before)
		}
		if got := c.levels["idle"].now().limit; got < c.levels["idle"].bounds.least {
			t.Errorf("the other keeps only %d", got)
		}
		time.Sleep(5 * time.Minute)
		synctest.Wait()
		if c.levels["busy"].now().limit != before || c.lending.Load() {
			t.Errorf("afterwards busy has %d of its %d, lending %v", c.levels["busy"].now().limit, before, c.lending.Load())
		}
	})
}

// A watch gives its seat back when it has begun, and writes to what many watch
// keep theirs a little longer.
func TestWatchesAndTheirWriters(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newController(t, Config{Seats: 100}, Deps{})
		o := objects("one", 1000, 8, 2, 50)
		c.configure(o.Levels, o.Schemas)
		l := c.levels["one"]
		ctx, cancel := context.WithCancel(t.Context())
		watch := c.Filter(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			http.NewResponseController(w).Flush()
			http.NewResponseController(w).Flush()
			<-r.Context().Done()
		}), func(_ *http.Request, i *request.Info) bool { return i.Verb == "watch" })
		for range 25 {
			run.Detach(ctx, "watch", func(ctx context.Context) { ask(watch, ctx, "ann", "watch") })
		}
		synctest.Wait()
		if l.now().seats != 0 || l.now().executing != 0 {
			t.Errorf("%d seats for watches that have begun", l.now().seats)
		}
		write := c.Filter(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {}), never)
		ask(write, t.Context(), "ann", "create")
		if l.now().seats != 3 {
			t.Errorf("%d seats after a write that 25 watch", l.now().seats)
		}
		time.Sleep(6 * time.Millisecond)
		synctest.Wait()
		if l.now().seats != 0 {
			t.Errorf("%d seats for good", l.now().seats)
		}
		cancel()
		synctest.Wait()
		ask(write, t.Context(), "ann", "create")
		if l.now().seats != 0 || c.watches.count(&request.Info{Version: "v1", Resource: "pods", Namespace: "default"}) != 0 {
			t.Errorf("%d seats after a write that nobody watches", l.now().seats)
		}
	})
}

func TestListsPayByBytes(t *testing.T) {
	c := newController(t, Config{}, Deps{Size: func(_, r string) (int, int64, bool) { return 1000, 2_000_000, r == "pods" }})
	for _, x := range []struct {
		resource, name, query string
		most, want            int
	}{
		{"pods", "", "", 100, 10}, {"pods", "", "", 4, 4}, {"pods", "", "limit=100", 100, 2}, {"pods", "p", "", 100, 1},
		{"secrets", "", "", 100, 1},
	} {
		i := &request.Info{IsResource: true, Verb: "list", Resource: x.resource, Name: x.name}
		got := c.estimate(httptest.NewRequest("GET", "/api/v1/x?"+x.query, nil), i, x.most)
		if got.seats != x.want {
			t.Errorf("%s %s: %d, want %d", x.resource, x.query, got.seats, x.want)
		}
	}
	for query, want := range map[string]bool{
		"": true, "resourceVersion=0": true, "resourceVersion=&a=b": true, "resourceVersion=12": false, "resourceVersion=0&watch=1": true,
		"resourceVersion=102&watch=1": false, "sendInitialEvents=true&resourceVersion=12": true,
	} {
		if wantsState(query) != want {
			t.Errorf("%q wants the state: %v", query, !want)
		}
	}
}

func TestRetryAfter(t *testing.T) {
	var d drops
	at := time.Unix(1000, 0)
	for second := range 100 {
		for range 50 {
			d.count("l", at.Add(time.Duration(second)*time.Second))
		}
	}
	if got := d.count("l", at.Add(100*time.Second)); got != maxAfter {
		t.Errorf("under a flood: %d", got)
	}
	last := int64(0)
	for second := range 100 {
		last = d.count("l", at.Add(time.Duration(200+2*second)*time.Second))
	}
	if last != 1 {
		t.Errorf("long after: %d", last)
	}
}

func TestDumps(t *testing.T) {
	c := newController(t, Config{}, Deps{})
	dumps := c.Debug()
	for path, want := range map[string][]string{
		"dump_priority_levels": {"PriorityLevelName, ActiveQueues, IsIdle, IsQuiescing,", "workload-low, 0, true, false, 0, 0, 0, 0, 0, 0"},
		"dump_queues":          {"global-default, 127, 0,"},
		"dump_requests":        {"PriorityLevelName, FlowSchemaName,", "UserName"},
	} {
		w := httptest.NewRecorder()
		dumps["/debug/api_priority_and_fairness/"+path].ServeHTTP(w, httptest.NewRequest("GET", "/x?includeRequestDetails=1", nil))
		text := regexp.MustCompile(", +").ReplaceAllString(w.Body.String(), ", ")
		for _, s := range want {
			if !strings.Contains(text, s) {
				t.Errorf("%s lacks %q in %.300q", path, s, text)
			}
		}
	}
}

// An uncontended request must cost less than 2 µs here.
func BenchmarkUncontended(b *testing.B) {
	c := newController(b, Config{}, Deps{})
	h := c.Filter(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}), never)
	i := &request.Info{IsResource: true, Verb: "get", Version: "v1", Resource: "pods", Namespace: "default", Name: "p"}
	ctx := request.WithInfo(request.WithUser(b.Context(), &request.User{Name: "ann", Groups: []string{"dev", request.Authenticated}}), i)
	r := httptest.NewRequestWithContext(ctx, "GET", "/api/v1/namespaces/default/pods/p", nil)
	w := httptest.NewRecorder()
	b.ReportAllocs()
	for b.Loop() {
		h.ServeHTTP(w, r)
	}
}
