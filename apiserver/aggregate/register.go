package aggregate

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"sync"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	apiregistrationv1 "k8s.io/kube-aggregator/pkg/apis/apiregistration/v1"

	"github.com/sampan-dev/sampan/api"
	"github.com/sampan-dev/sampan/apiserver/request"
	"github.com/sampan-dev/sampan/kit/clock"
	"github.com/sampan-dev/sampan/kit/run"
)

func apiServices() schema.GroupResource {
	return schema.GroupResource{Group: apiregistrationv1.GroupName, Resource: "apiservices"}
}

// bootWriters is how many APIServices are written at once when a cluster begins.
const bootWriters = 16

// Register makes an APIService for everything built in that is served here, and
// removes those of what no longer is. It is done once, before the server is ready.
func (a *Aggregator) Register(ctx context.Context, back request.Backend) error {
	served, _ := a.d.Served()
	want := map[string]*apiregistrationv1.APIService{}
	for _, s := range served {
		if !s.Custom && s.Group != apiregistrationv1.GroupName {
			want[nameOf(s)] = registration(s)
		}
	}
	return a.align(ctx, back, want, onStart)
}

// follow keeps the APIServices of custom groups until ctx ends.
func (a *Aggregator) follow(ctx context.Context) error {
	for {
		served, changed := a.d.Served()
		want := map[string]*apiregistrationv1.APIService{}
		for _, s := range served {
			if s.Custom {
				want[nameOf(s)] = registration(s)
			}
		}
		if err := a.align(ctx, a.d.Back, want, always); err != nil && ctx.Err() == nil {
			a.log.Warn("register custom groups", "err", err)
			if clock.Sleep(ctx, retryRegister) != nil {
				return nil
			}
			continue
		}
		select {
		case <-changed:
		case <-a.touched:
		case <-ctx.Done():
			return nil
		}
	}
}

const retryRegister = 1e9

// align makes the APIServices managed in one way be those wanted. What somebody
// made without the label is theirs.
func (a *Aggregator) align(ctx context.Context, back request.Backend, want map[string]*apiregistrationv1.APIService, managed string) error {
	list, err := back.List(ctx, apiServices(), "")
	if err != nil {
		return fmt.Errorf("apiservices: list: %w", err)
	}
	have := map[string]*apiregistrationv1.APIService{}
	names := slices.Collect(maps.Keys(want))
	for _, o := range list {
		s, ok := o.(*apiregistrationv1.APIService)
		if !ok {
			continue
		}
		have[s.Name] = s
		if want[s.Name] == nil && s.Labels[managedLabel] == managed {
			names = append(names, s.Name)
		}
	}
	var mu sync.Mutex
	var errs []error
	g, next := run.New(ctx), make(chan string)
	for range min(bootWriters, len(names)) {
		g.Go("register apiservices", func(ctx context.Context) error {
			for name := range next {
				if err := alignOne(ctx, back, want[name], have[name]); err != nil {
					mu.Lock()
					errs = append(errs, fmt.Errorf("apiservice: %s: %w", name, err))
					mu.Unlock()
				}
			}
			return nil
		})
	}
	for _, name := range names {
		next <- name
	}
	close(next)
	return errors.Join(append(errs, g.Wait())...)
}

// alignOne creates, corrects or deletes one; want or have may be nil.
func alignOne(ctx context.Context, back request.Backend, want, have *apiregistrationv1.APIService) error {
	gr := apiServices()
	switch {
	case have == nil && want == nil:
		return nil
	case have == nil:
		if _, err := back.Create(ctx, gr, want, nil); err != nil && !apierrors.IsAlreadyExists(err) {
			return err
		}
		return nil
	case have.Labels[managedLabel] == "":
		return nil
	case want == nil:
		uid := have.UID
		err := back.Delete(ctx, gr, "", have.Name, &metav1.DeleteOptions{Preconditions: &metav1.Preconditions{UID: &uid}})
		if apierrors.IsNotFound(err) || apierrors.IsConflict(err) {
			return nil
		}
		return err
	case reflect.DeepEqual(have.Spec, want.Spec):
		return nil
	}
	_, err := back.Modify(ctx, gr, "", want.Name, "", func(o api.Object) error {
		o.(*apiregistrationv1.APIService).Spec = *want.Spec.DeepCopy()
		return nil
	})
	if apierrors.IsNotFound(err) {
		return nil
	}
	return err
}
