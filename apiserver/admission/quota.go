package admission

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"

	"github.com/sampan-dev/sampan/api"
	"github.com/sampan-dev/sampan/apiserver/request"
	"github.com/sampan-dev/sampan/kit/clock"
	"github.com/sampan-dev/sampan/semantics/quota"
)

// resourceQuota charges objects to the quotas of their namespace. The charge is
// the compare-and-swap of the quota's own status, so that no two requests, of
// whatever API server, use the same rest. A charge whose request failed is
// given back.
type resourceQuota struct {
	back    request.Backend
	limited []limitedResource // what needs a quota that covers it

	mu      sync.Mutex
	charged map[*request.Attributes][]charge
}

type charge struct {
	quota string
	delta corev1.ResourceList
}

func (*resourceQuota) Name() string { return "ResourceQuota" }

func (*resourceQuota) Handles(op request.Operation) bool { return onCreateUpdate{}.Handles(op) }

// errNoRoom ends the change of a quota that would be exceeded.
type errNoRoom struct{ text string }

func (e errNoRoom) Error() string { return e.text }

func (p *resourceQuota) Validate(ctx context.Context, a *request.Attributes) error {
	_, claim := a.Object.(*corev1.PersistentVolumeClaim) // whose status says what it was granted
	if a.Namespace == "" || a.Object == nil || a.Subresource != "" && a.Subresource != "resize" && !(claim && a.Subresource == "status") {
		return nil
	}
	list, err := p.back.List(ctx, core("resourcequotas"), a.Namespace)
	if err != nil || len(list) == 0 && len(p.limited) == 0 {
		return err
	}
	usage := quota.Usage(a.Resource.GroupResource(), a.Object, clock.Now())
	var before corev1.ResourceList
	if a.Operation == request.Update && a.Old != nil {
		before = quota.Usage(a.Resource.GroupResource(), a.Old, clock.Now())
	}
	delta := difference(usage, before)
	if len(usage) == 0 {
		return nil
	}
	slices.SortFunc(list, func(x, y api.Object) int { return strings.Compare(x.GetName(), y.GetName()) })
	var quotas, matching []*corev1.ResourceQuota
	for _, obj := range list {
		q, ok := obj.(*corev1.ResourceQuota)
		if !ok {
			continue
		}
		quotas = append(quotas, q)
		if !quota.Counts(q, a.Object) {
			continue
		}
		if err := mustSpecify(q, a); err != nil {
			return forbidf(a, "failed quota: %s: %w", q.Name, err)
		}
		if err := counted(q, usage); err != nil && len(delta) > 0 {
			return forbid(a, err)
		}
		matching = append(matching, q)
	}
	if err := p.covered(a, usage, delta, quotas, matching); err != nil {
		return err
	}
	var done []charge
	for _, q := range matching {
		mine := delta
		if a.Old != nil && !quota.Counts(q, a.Old) { // it came into the quota's scope
			mine = usage
		}
		if mine = restrict(mine, q.Status.Hard); len(mine) == 0 {
			continue
		}
		if err := p.charge(ctx, a, q.Name, mine); err != nil {
			p.giveBack(ctx, a.Namespace, done)
			if full := (errNoRoom{}); errors.As(err, &full) {
				return forbid(a, full)
			}
			return err
		}
		done = append(done, charge{q.Name, mine})
	}
	if len(done) > 0 && !a.DryRun {
		p.mu.Lock()
		defer p.mu.Unlock()
		if p.charged == nil {
			p.charged = map[*request.Attributes][]charge{}
		}
		p.charged[a] = done
	}
	return nil
}

// charge adds delta to a quota's used amounts, or says why it does not fit.
func (p *resourceQuota) charge(ctx context.Context, a *request.Attributes, name string, delta corev1.ResourceList) error {
	fit := func(q *corev1.ResourceQuota) (corev1.ResourceList, error) {
		next := q.Status.Used.DeepCopy()
		if next == nil {
			next = corev1.ResourceList{}
		}
		var over []corev1.ResourceName
		for n, d := range delta {
			sum := next[n].DeepCopy()
			sum.Add(d)
			if hard, ok := q.Status.Hard[n]; ok && d.Sign() > 0 && sum.Cmp(hard) > 0 {
				over = append(over, n)
			}
			if sum.Sign() < 0 {
				sum = resource.Quantity{Format: sum.Format}
			}
			next[n] = sum
		}
		if len(over) > 0 {
			return nil, errNoRoom{fmt.Sprintf("exceeded quota: %s, requested: %s, used: %s, limited: %s", name,
				amounts(delta, over), amounts(q.Status.Used, over), amounts(q.Status.Hard, over))}
		}
		return next, nil
	}
	if a.DryRun {
		obj, err := p.back.Get(ctx, core("resourcequotas"), a.Namespace, name)
		if err != nil {
			return err
		}
		_, err = fit(obj.(*corev1.ResourceQuota))
		return err
	}
	var refusal error
	_, err := p.back.Modify(asServer(ctx), core("resourcequotas"), a.Namespace, name, "status", func(obj api.Object) error {
		q, ok := obj.(*corev1.ResourceQuota)
		if !ok {
			return fmt.Errorf("unexpected type %T", obj)
		}
		var used corev1.ResourceList
		if used, refusal = fit(q); refusal != nil {
			return refusal
		}
		q.Status.Used = used
		return nil
	})
	if refusal != nil {
		return refusal
	}
	return err
}

// asServer lets the server keep its own books, whoever asked.
func asServer(ctx context.Context) context.Context {
	return request.WithUser(ctx, &request.User{Name: request.LoopbackUser, Groups: []string{request.Masters}})
}

// Settle gives a charge back when its object was not stored.
func (p *resourceQuota) Settle(ctx context.Context, a *request.Attributes, stored bool) {
	p.mu.Lock()
	done := p.charged[a]
	delete(p.charged, a)
	p.mu.Unlock()
	if !stored && len(done) > 0 {
		p.giveBack(context.WithoutCancel(ctx), a.Namespace, done)
	}
}

// giveBack undoes charges. What cannot be undone now the quota controller's
// next full count puts right.
func (p *resourceQuota) giveBack(ctx context.Context, namespace string, done []charge) {
	for _, c := range done {
		_, _ = p.back.Modify(asServer(ctx), core("resourcequotas"), namespace, c.quota, "status", func(obj api.Object) error {
			q, ok := obj.(*corev1.ResourceQuota)
			if !ok {
				return nil
			}
			next := q.Status.Used.DeepCopy()
			for n, d := range c.delta {
				v := next[n].DeepCopy()
				v.Sub(d)
				if v.Sign() >= 0 {
					next[n] = v
				}
			}
			q.Status.Used = next
			return nil
		})
	}
}

// difference is now − before without what did not change.
func difference(now, before corev1.ResourceList) corev1.ResourceList {
	out := corev1.ResourceList{}
	for n, q := range now {
		d := q.DeepCopy()
		d.Sub(before[n])
		if !d.IsZero() {
			out[n] = d
		}
	}
	for n, q := range before {
		if _, still := now[n]; !still && !q.IsZero() {
			d := q.DeepCopy()
			d.Neg()
			out[n] = d
		}
	}
	return out
}

func restrict(delta, hard corev1.ResourceList) corev1.ResourceList {
	out := corev1.ResourceList{}
	for n, q := range delta {
		if _, ok := hard[n]; ok {
			out[n] = q
		}
	}
	return out
}

// amounts writes the named resources as upstream's refusals do.
func amounts(list corev1.ResourceList, names []corev1.ResourceName) string {
	var out []string
	for _, n := range slices.Sorted(slices.Values(names)) {
		q := list[n]
		out = append(out, string(n)+"="+q.String())
	}
	return strings.Join(out, ",")
}

// mustSpecify refuses pods whose containers leave out what the quota counts.
func mustSpecify(q *corev1.ResourceQuota, a *request.Attributes) error {
	pod, ok := a.Object.(*corev1.Pod)
	if !ok || a.Operation != request.Create {
		return nil
	}
	missing := map[string][]string{}
	for n := range q.Status.Hard {
		list, res := "requests", n
		if after, ok := strings.CutPrefix(string(n), "limits."); ok {
			list, res = "limits", corev1.ResourceName(after)
		} else if after, ok := strings.CutPrefix(string(n), "requests."); ok {
			res = corev1.ResourceName(after)
		}
		if res != corev1.ResourceCPU && res != corev1.ResourceMemory {
			continue
		}
		for _, c := range slices.Concat(pod.Spec.Containers, pod.Spec.InitContainers) {
			have := c.Resources.Requests
			if list == "limits" {
				have = c.Resources.Limits
			}
			if _, ok := have[res]; !ok {
				missing[string(n)] = append(missing[string(n)], c.Name)
			}
		}
	}
	if len(missing) == 0 {
		return nil
	}
	var parts []string
	for _, n := range slices.Sorted(maps.Keys(missing)) {
		parts = append(parts, n+" for: "+strings.Join(missing[n], ","))
	}
	return fmt.Errorf("must specify %s", strings.Join(parts, "; "))
}
