package published

import (
	"context"
	"errors"
	"log/slog"
	"maps"
	"slices"
	"strconv"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/api/apitesting"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/apiserver/pkg/apis/example"
	examplev1 "k8s.io/apiserver/pkg/apis/example/v1"
	upstream "k8s.io/apiserver/pkg/storage"
	suite "k8s.io/apiserver/pkg/storage/testing"

	"github.com/sampan-dev/sampan/kit/run"
	"github.com/sampan-dev/sampan/storage"
	"github.com/sampan-dev/sampan/storage/cache"
	"github.com/sampan-dev/sampan/storage/etcd"
	"github.com/sampan-dev/sampan/storage/mem"
)

// stores are all that keep objects.
var stores = map[string]func(*testing.T) storage.Store{
	"mem":           func(*testing.T) storage.Store { return mem.New() },
	"etcd":          func(t *testing.T) storage.Store { return member(t) },
	"cache on mem":  func(t *testing.T) storage.Store { return cached(t, mem.New()) },
	"cache on etcd": func(t *testing.T) storage.Store { return cached(t, member(t)) },
}

func member(t *testing.T) storage.Store {
	t.Helper()
	s, err := etcd.NewServer(etcd.Config{Name: "test", DataDir: t.TempDir(), NoFsync: true, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	g := run.New(context.Background())
	g.Go("etcd", s.Run)
	t.Cleanup(func() { g.Stop(); g.Wait() })
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if err := s.Ready(ctx); err != nil {
		t.Fatal(err)
	}
	return etcd.NewLocal(s)
}

func cached(t *testing.T, under storage.Store) storage.Store {
	t.Helper()
	c, err := cache.New(under, cache.Config{Prefix: root + "/", Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	c.Register(root+"/pods/", nil)
	g := run.New(context.Background())
	g.Go("cache", c.Run)
	t.Cleanup(func() { g.Stop(); g.Wait() })
	if err := c.Synced(t.Context()); err != nil {
		t.Fatal(err)
	}
	return c
}

func codec(t *testing.T) runtime.Codec {
	t.Helper()
	scheme := runtime.NewScheme()
	metav1.AddToGroupVersion(scheme, metav1.SchemeGroupVersion)
	for _, err := range []error{example.AddToScheme(scheme), examplev1.AddToScheme(scheme)} {
		if err != nil {
			t.Fatal(err)
		}
	}
	return apitesting.TestCodec(serializer.NewCodecFactory(scheme), examplev1.SchemeGroupVersion)
}

// under is what a case of the suite is given.
type under struct {
	*adapter
	t *testing.T
}

// stored checks the bytes: nothing in them may say where or when they are kept.
func (u under) stored(ctx context.Context, t *testing.T, k string) {
	rec, err := u.store.Get(ctx, root+k, 0)
	if err != nil {
		t.Fatal(err)
	}
	obj, err := runtime.Decode(u.codec, rec.Value)
	if err != nil {
		t.Fatal(err)
	}
	if pod := obj.(*example.Pod); pod.ResourceVersion != "" || pod.SelfLink != "" {
		t.Errorf("stored with version %q and link %q", pod.ResourceVersion, pod.SelfLink)
	}
}

// compact makes the store forget what was before a version.
func (u under) compact(ctx context.Context, t *testing.T, version string) {
	rev, err := strconv.ParseInt(version, 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	if err := u.store.(storage.Compactor).Compact(ctx, rev); err != nil {
		t.Fatal(err)
	}
}

// grow makes a revision that changes nothing anybody looks at.
func (u under) grow(ctx context.Context, t *testing.T) int64 {
	rec, err := u.store.Create(ctx, root+"/other/"+strconv.FormatInt(time.Now().UnixNano(), 36), []byte("x"), 0)
	if err != nil {
		t.Fatal(err)
	}
	return rec.Rev
}

// level is a store whose reads of any state find the newest: a cache may lag
// behind the writes that a case has just made, and some cases do not allow that.
type level struct{ under }

func (l level) GetList(ctx context.Context, k string, opts upstream.ListOptions, into runtime.Object) error {
	if _, err := l.store.Get(ctx, root+"/pods/none/none", 0); err != nil && !errors.Is(err, storage.ErrNotFound) {
		return err
	}
	return l.under.GetList(ctx, k, opts, into)
}

func uncounted(*testing.T, uint64, uint64) {}

// cases are the suite's, but for those about encryption at rest and fairness,
// which are not this contract's, and about upstream's own requests to etcd.
var cases = map[string]func(ctx context.Context, t *testing.T, u under){
	"Create":             func(ctx context.Context, t *testing.T, u under) { suite.RunTestCreate(ctx, t, u, u.stored) },
	"CreateWithTTL":      plain(suite.RunTestCreateWithTTL),
	"CreateWithKeyExist": plain(suite.RunTestCreateWithKeyExist),
	"Get":                plain(suite.RunTestGet),

	"UnconditionalDelete":                     plain(suite.RunTestUnconditionalDelete),
	"ConditionalDelete":                       plain(suite.RunTestConditionalDelete),
	"DeleteWithSuggestion":                    plain(suite.RunTestDeleteWithSuggestion),
	"DeleteWithSuggestionAndConflict":         plain(suite.RunTestDeleteWithSuggestionAndConflict),
	"DeleteWithConflict":                      plain(suite.RunTestDeleteWithConflict),
	"DeleteWithSuggestionOfDeletedObject":     plain(suite.RunTestDeleteWithSuggestionOfDeletedObject),
	"ValidateDeletionWithSuggestion":          plain(suite.RunTestValidateDeletionWithSuggestion),
	"ValidateDeletionWithOnlySuggestionValid": plain(suite.RunTestValidateDeletionWithOnlySuggestionValid),
	"PreconditionalDeleteWithSuggestion":      plain(suite.RunTestPreconditionalDeleteWithSuggestion),
	"PreconditionalDeleteWithSuggestionPass":  plain(suite.RunTestPreconditionalDeleteWithOnlySuggestionPass),

	"GuaranteedUpdateWithTTL":                   plain(suite.RunTestGuaranteedUpdateWithTTL),
	"GuaranteedUpdateWithConflict":              plain(suite.RunTestGuaranteedUpdateWithConflict),
	"GuaranteedUpdateWithSuggestionAndConflict": plain(suite.RunTestGuaranteedUpdateWithSuggestionAndConflict),

	"ListPaging":             plain(suite.RunTestListPaging),
	"NamespaceScopedList":    plain(suite.RunTestNamespaceScopedList),
	"GetListRecursivePrefix": plain(suite.RunTestGetListRecursivePrefix),
	"GetListNonRecursive":    func(ctx context.Context, t *testing.T, u under) { suite.RunTestGetListNonRecursive(ctx, t, u.grow, u) },
	"ListContinuation":       func(ctx context.Context, t *testing.T, u under) { suite.RunTestListContinuation(ctx, t, u, uncounted) },
	"ListPaginationRareObject": func(ctx context.Context, t *testing.T, u under) {
		suite.RunTestListPaginationRareObject(ctx, t, u, uncounted)
	},
	"ListContinuationWithFilter": func(ctx context.Context, t *testing.T, u under) {
		suite.RunTestListContinuationWithFilter(ctx, t, u, uncounted)
	},
	"ListInconsistentContinuation": func(ctx context.Context, t *testing.T, u under) {
		suite.RunTestListInconsistentContinuation(ctx, t, level{u}, u.compact)
	},
	"ConsistentList": func(ctx context.Context, t *testing.T, u under) {
		suite.RunTestConsistentList(ctx, t, level{u}, u.grow, false, true, false)
	},
	"KeySchema": plain(suite.RunTestKeySchema),

	"Watch":                              plain(suite.RunTestWatch),
	"WatchFromZero":                      func(ctx context.Context, t *testing.T, u under) { suite.RunTestWatchFromZero(ctx, t, u, u.compact) },
	"DeleteTriggerWatch":                 plain(suite.RunTestDeleteTriggerWatch),
	"WatchFromNonZero":                   plain(suite.RunTestWatchFromNonZero),
	"DelayedWatchDelivery":               plain(suite.RunTestDelayedWatchDelivery),
	"WatchContextCancel":                 plain(suite.RunTestWatchContextCancel),
	"WatcherTimeout":                     plain(suite.RunTestWatcherTimeout),
	"WatchDeleteEventObjectHaveLatestRV": plain(suite.RunTestWatchDeleteEventObjectHaveLatestRV),
	"ClusterScopedWatch":                 plain(suite.RunTestClusterScopedWatch),
	"NamespaceScopedWatch":               plain(suite.RunTestNamespaceScopedWatch),
	"SendInitialEventsCompatibility":     plain(suite.RunSendInitialEventsBackwardCompatibility),
	"WatchSemantics":                     plain(suite.RunWatchSemantics),
	"WatchSemanticInitialEventsExtended": plain(suite.RunWatchSemanticInitialEventsExtended),
	"WatchListMatchSingle":               plain(suite.RunWatchListMatchSingle),
}

func plain(fn func(context.Context, *testing.T, upstream.Interface)) func(context.Context, *testing.T, under) {
	return func(ctx context.Context, t *testing.T, u under) { fn(ctx, t, u) }
}

func TestPublishedSuite(t *testing.T) {
	for name, made := range stores {
		t.Run(name, func(t *testing.T) {
			for _, what := range slices.Sorted(maps.Keys(cases)) {
				t.Run(what, func(t *testing.T) {
					cases[what](t.Context(), t, under{&adapter{store: made(t), codec: codec(t)}, t})
				})
			}
		})
	}
}
