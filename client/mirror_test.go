package client_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/sampan-dev/sampan/api"
	"github.com/sampan-dev/sampan/client"
	"github.com/sampan-dev/sampan/client/fake"
	"github.com/sampan-dev/sampan/kit/clock"
	"github.com/sampan-dev/sampan/kit/run"
)

func configMap(name string, data string) *corev1.ConfigMap {
	return &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: "default", Labels: map[string]string{"v": data}}, Data: map[string]string{"k": data}}
}

// TestMirrorFollows checks contents, indexes and the order of changes, across a
// break of the watch.
func TestMirrorFollows(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		srv := fake.New(configMap("a", "1"), configMap("b", "1"))
		ms := client.NewMirrors(srv)
		m := client.MirrorOf[corev1.ConfigMap](ms, client.MirrorOptions{})
		m.Index("value", func(c *corev1.ConfigMap) []string { return []string{c.Data["k"]} })
		var seen []string
		m.OnChange(func(old, now *corev1.ConfigMap) {
			switch {
			case old == nil:
				seen = append(seen, "+"+now.Name)
			case now == nil:
				seen = append(seen, "-"+old.Name)
			default:
				seen = append(seen, fmt.Sprintf("%s %s>%s", now.Name, old.Data["k"], now.Data["k"]))
			}
		})
		g := run.New(t.Context())
		g.Go("mirrors", ms.Run)
		if err := m.WaitSynced(t.Context()); err != nil {
			t.Fatal(err)
		}
		slices.Sort(seen)
		cms := client.Of[corev1.ConfigMap](srv, "default")
		out, err := cms.Update(t.Context(), configMap("a", "2"))
		if err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if !m.Seen(out.ResourceVersion) {
			t.Error("the mirror has not seen an update that it was given time to see")
		}
		srv.Expire() // the history is gone: the mirror must list again
		if err := cms.Delete(t.Context(), "b", nil); err != nil {
			t.Fatal(err)
		}
		if _, err := cms.Create(t.Context(), configMap("c", "2")); err != nil {
			t.Fatal(err)
		}
		clock.Sleep(t.Context(), time.Minute)
		synctest.Wait()
		late := 0
		m.OnChange(func(old, now *corev1.ConfigMap) {
			if old == nil {
				late++
			}
		})
		slices.Sort(seen[3:])
		if want := []string{"+a", "+b", "a 1>2", "+c", "-b"}; !slices.Equal(seen, want) {
			t.Errorf("changes %v, want %v", seen, want)
		}
		if got := len(m.By("value", "2")); got != 2 || len(m.By("value", "1")) != 0 || m.Len() != 2 || late != 2 {
			t.Errorf("2 under index value=2, none under 1, 2 in all and 2 told late: got %d, %d, %d, %d", got, len(m.By("value", "1")), m.Len(), late)
		}
		if again := client.MirrorOf[corev1.ConfigMap](ms, client.MirrorOptions{}); again.Len() != 2 {
			t.Error("a second mirror of the kind is not the same one")
		}
		g.Stop()
		g.Wait()
	})
}

// TestMirrorSelects checks that objects leaving a selector leave the mirror.
func TestMirrorSelects(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		srv := fake.New(configMap("a", "1"))
		ms := client.NewMirrors(srv)
		g := run.New(t.Context())
		g.Go("mirrors", ms.Run)
		synctest.Wait()
		m := client.MirrorOf[corev1.ConfigMap](ms, client.MirrorOptions{Labels: "v=1"}) // asked for while running
		m.WaitSynced(t.Context())
		before := m.Len()
		if _, err := client.Of[corev1.ConfigMap](srv, "default").Update(t.Context(), configMap("a", "2")); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if before != 1 || m.Len() != 0 {
			t.Errorf("objects before and after: %d, %d, want 1, 0", before, m.Len())
		}
		g.Stop()
		g.Wait()
	})
}

// TestMirrorOfAbsentKind: a kind that is not served counts as empty, one whose
// list fails for a moment does not.
func TestMirrorOfAbsentKind(t *testing.T) {
	for name, tc := range map[string]struct {
		serve  []schema.GroupVersionResource
		synced bool
	}{
		"not served":   {[]schema.GroupVersionResource{client.Resource[corev1.Pod]()}, true},
		"but served":   {[]schema.GroupVersionResource{client.Resource[corev1.ConfigMap]()}, false},
		"no discovery": {nil, false},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				srv := fake.New()
				if tc.serve != nil {
					srv.Serve(tc.serve)
				} else {
					srv.SetRaw("/api/v1", []byte("broken"))
				}
				ms := client.NewMirrors(notFound{srv})
				m := client.MirrorOf[corev1.ConfigMap](ms, client.MirrorOptions{})
				g := run.New(t.Context())
				g.Go("mirrors", ms.Run)
				clock.Sleep(t.Context(), time.Minute)
				if m.Synced() != tc.synced {
					t.Errorf("synced %v, want %v", m.Synced(), tc.synced)
				}
				g.Stop()
				g.Wait()
			})
		})
	}
}

// notFound is a server whose lists fail.
type notFound struct{ *fake.Server }

func (notFound) List(context.Context, schema.GroupVersionResource, string, *metav1.ListOptions) (*api.Listed, error) {
	return nil, apierrors.NewNotFound(schema.GroupResource{Resource: "configmaps"}, "")
}

// TestElectOneLeader runs three candidates; the first to lead is cut off.
func TestElectOneLeader(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		srv := fake.New()
		var mu sync.Mutex
		var leaders []string
		leading, most, dead := 0, 0, false
		srv.Hook = func(c fake.Call) error {
			mu.Lock()
			defer mu.Unlock()
			if holder := holderOf(c); dead && c.Resource.Resource == "leases" && (holder == leaders[0] || holder == "") {
				return errors.New("unreachable") // the first leader's writes no longer arrive
			}
			return nil
		}
		g := run.New(t.Context())
		for i := range 3 {
			id := fmt.Sprint("candidate-", i)
			g.Go(id, func(ctx context.Context) error {
				return client.Elect(ctx, srv, client.ElectionConfig{Name: "lock", Identity: id}, func(ctx context.Context) error {
					mu.Lock()
					leaders = append(leaders, id)
					leading++
					most = max(most, leading)
					mu.Unlock()
					<-ctx.Done()
					mu.Lock()
					defer mu.Unlock()
					leading--
					return ctx.Err()
				})
			})
		}
		clock.Sleep(t.Context(), time.Minute)
		mu.Lock()
		if len(leaders) != 1 {
			t.Errorf("leaders in the first minute: %v, want one", leaders)
		}
		dead = true
		mu.Unlock()
		clock.Sleep(t.Context(), time.Minute)
		mu.Lock()
		if len(leaders) < 2 || leaders[1] == leaders[0] || most != 1 || leading != 1 {
			t.Errorf("leaders %v, at most %d at once, %d now: want another one, and never two", leaders, most, leading)
		}
		mu.Unlock()
		g.Stop()
		g.Wait()
	})
}

// TestRecorderCounts checks that noise becomes counts.
func TestRecorderCounts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		srv := fake.New()
		r := client.Recorder(srv, "test", "host")
		cm := configMap("a", "1")
		for range 5 {
			r.Event(cm, corev1.EventTypeNormal, "Same", "it happened")
		}
		for i := range 15 {
			r.Event(cm, corev1.EventTypeWarning, "Alike", "failed %d", i)
		}
		for range 50 { // more than the object's allowance
			r.Event(cm, corev1.EventTypeNormal, "Spam", "again")
		}
		synctest.Wait()
		events, err := client.Of[corev1.Event](srv, "default").List(t.Context(), nil)
		if err != nil {
			t.Fatal(err)
		}
		count := map[string]int32{}
		for _, e := range events {
			count[e.Reason] += e.Count
			if e.Reason == "Same" && (e.Count != 5 || e.Message != "it happened" || e.InvolvedObject.Kind != "ConfigMap" || e.Source.Component != "test") {
				t.Errorf("event %+v, want the same one counted 5 times", e)
			}
		}
		if count["Same"] != 5 || count["Alike"] != 15 || count["Spam"] != 5 || len(events) != 1+10+1+1 {
			t.Errorf("%d events, counts %v; want 13 events, Same 5, Alike 15, Spam 5", len(events), count)
		}
	})
}
