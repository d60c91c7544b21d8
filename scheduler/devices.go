package scheduler

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	corev1 "k8s.io/api/core/v1"
	devicev1 "k8s.io/api/resource/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/component-helpers/scheduling/corev1/nodeaffinity"

	"github.com/sampan-dev/sampan/client"
	"github.com/sampan-dev/sampan/kit/clock"
	"github.com/sampan-dev/sampan/semantics/device"
	"github.com/sampan-dev/sampan/semantics/expression"
)

// grant is a claim that a pod is about to use, with what is allocated for it;
// nil when it has its devices already.
type grant struct {
	claim  *devicev1.ResourceClaim
	result *devicev1.AllocationResult
}

// selector is a compiled expression, or why there is none.
type selector struct {
	*expression.Selector
	err error
}

// selectorsMost bounds the memory of compiled expressions.
const selectorsMost = 1024

// devices returns what p's claims for devices ask of its node, or why no node can do.
func (v *views) devices(p *corev1.Pod) ([]need, string) {
	claims, why := v.claimsFor(p)
	if why != "" || len(claims) == 0 {
		return nil, why
	}
	var out []need
	var open []*devicev1.ResourceClaim
	for _, c := range claims {
		switch {
		case c.Status.Allocation == nil:
			open = append(open, c)
			continue
		case c.Status.Allocation.NodeSelector == nil:
			continue
		}
		sel, err := nodeaffinity.NewNodeSelector(c.Status.Allocation.NodeSelector)
		if err != nil {
			return nil, fmt.Sprintf("resourceclaim %q: %v", c.Name, err)
		}
		out = append(out, need{match: sel.Match, why: whyClaimNode})
	}
	if len(open) == 0 {
		return out, ""
	}
	a := v.allocator()
	for _, c := range open {
		if err := a.Classes(c); err != nil {
			return nil, err.Error()
		}
	}
	known := map[string]string{} // a search can be long, and is asked for twice
	out = append(out, need{judge: func(n *corev1.Node) string {
		reason, ok := known[n.Name]
		if !ok {
			_, reason = choose(a, n, open)
			known[n.Name] = reason
		}
		return reason
	}})
	return out, ""
}

// claimsFor returns p's claims for devices, or why it has to wait for them.
func (v *views) claimsFor(p *corev1.Pod) ([]*devicev1.ResourceClaim, string) {
	var out []*devicev1.ResourceClaim
	for i := range p.Spec.ResourceClaims {
		entry := &p.Spec.ResourceClaims[i]
		name, none := claimNamed(p, entry)
		if none {
			continue
		}
		if name == "" {
			return nil, fmt.Sprintf("pod \"%s/%s\": ResourceClaim not created yet", p.Namespace, p.Name)
		}
		c, ok := v.devicesOf.Get(p.Namespace, name)
		switch {
		case !ok:
			return nil, fmt.Sprintf("could not find ResourceClaim \"%s/%s\"", p.Namespace, name)
		case entry.ResourceClaimName == nil && !metav1.IsControlledBy(c, p):
			return nil, fmt.Sprintf("ResourceClaim %s/%s was not created for Pod %s/%s (Pod is not owner)", c.Namespace, c.Name, p.Namespace, p.Name)
		case c.DeletionTimestamp != nil:
			return nil, fmt.Sprintf("resourceclaim %q is being deleted", name)
		case c.Status.Allocation == nil && v.allocating[c.UID] != nil:
			return nil, fmt.Sprintf("resource claim %s/%s is in the process of being allocated", c.Namespace, c.Name)
		case c.Status.Allocation != nil && !reserved(c, p) && len(c.Status.ReservedFor) >= devicev1.ResourceClaimReservedForMaxSize:
			return nil, "resourceclaim in use"
		}
		if !slices.Contains(out, c) {
			out = append(out, c)
		}
	}
	return out, ""
}

func reserved(c *devicev1.ResourceClaim, p *corev1.Pod) bool {
	return slices.ContainsFunc(c.Status.ReservedFor, func(r devicev1.ResourceClaimConsumerReference) bool { return r.UID == p.UID })
}

// allocator is the question of which devices are free, as things are now.
func (v *views) allocator() *device.Allocator {
	if v.inventory == nil {
		v.inventory = device.Take(v.slices.List(""))
	}
	a := &device.Allocator{Inventory: v.inventory, Match: v.selects, Taken: map[device.ID]bool{}}
	a.Class = func(name string) *devicev1.DeviceClass { c, _ := v.deviceClasses.Get("", name); return c }
	take := func(r *devicev1.AllocationResult) {
		for _, d := range r.Devices.Results {
			if d.AdminAccess == nil || !*d.AdminAccess {
				a.Taken[device.ID{Driver: d.Driver, Pool: d.Pool, Device: d.Device}] = true
			}
		}
	}
	for _, c := range v.devicesOf.List("") {
		if c.Status.Allocation != nil {
			take(c.Status.Allocation)
		}
	}
	for _, r := range v.allocating {
		take(r)
	}
	return a
}

// selects evaluates an expression on a device.
func (v *views) selects(text string, d *device.Device) (bool, error) {
	s, ok := v.selectors[text]
	if !ok {
		if len(v.selectors) >= selectorsMost {
			clear(v.selectors)
		}
		s.Selector, s.err = expression.CompileSelector(text)
		v.selectors[text] = s
	}
	if s.err != nil {
		return false, s.err
	}
	return s.Matches(context.Background(), d.Driver, d.Device)
}

// choose finds devices on a node for all of the claims, or says why there are none.
func choose(a *device.Allocator, n *corev1.Node, claims []*devicev1.ResourceClaim) ([]*devicev1.AllocationResult, string) {
	out, err := a.Allocate(n, claims)
	switch {
	case err != nil:
		return nil, err.Error()
	case out == nil:
		return nil, whyDevices
	}
	return out, ""
}

// grants chooses devices on n for p's claims. ok is false when there are none,
// or the claims, as they are now, do not let p go there.
func (v *views) grants(p *corev1.Pod, n *corev1.Node) (out []grant, ok bool) {
	claims, why := v.claimsFor(p)
	if why != "" {
		return nil, false
	}
	var open []*devicev1.ResourceClaim
	for _, c := range claims {
		switch {
		case c.Status.Allocation == nil:
			open = append(open, c)
		case !reserved(c, p):
			out = append(out, grant{claim: c})
		}
	}
	if len(open) == 0 {
		return out, true
	}
	results, why := choose(v.allocator(), n, open)
	for i, r := range results {
		out = append(out, grant{open[i], r})
	}
	return out, why == ""
}

// stranded returns a claim of p's whose devices could be given back for others
// elsewhere: nobody uses them.
func (v *views) stranded(p *corev1.Pod) *devicev1.ResourceClaim {
	claims, _ := v.claimsFor(p)
	for _, c := range claims {
		r := c.Status.ReservedFor
		if a := c.Status.Allocation; a != nil && a.NodeSelector != nil && (len(r) == 0 || len(r) == 1 && r[0].UID == p.UID) {
			return c
		}
	}
	return nil
}

// giveBack takes the devices of a stranded claim away from it.
func (s *Scheduler) giveBack(ctx context.Context, c *devicev1.ResourceClaim) {
	c = c.DeepCopy()
	c.Status.ReservedFor, c.Status.Allocation, c.Status.Devices = nil, nil, nil
	if _, err := client.Of[devicev1.ResourceClaim](s.c, c.Namespace).UpdateStatus(ctx, c); err != nil && ctx.Err() == nil {
		s.log.Warn("could not give devices back", "claim", c.Namespace+"/"+c.Name, "err", err)
	}
}

// claimSeen forgets an allocation under way that the mirror shows, or whose claim is gone.
func (s *Scheduler) claimSeen(old, now *devicev1.ResourceClaim) {
	if now == nil {
		delete(s.v.allocating, old.UID)
	} else if now.Status.Allocation != nil {
		delete(s.v.allocating, now.UID)
	}
}

// reserve writes into the claims what is allocated for them, and that p uses
// them. When it fails, the claims that got nothing are free again.
func (s *Scheduler) reserve(ctx context.Context, p *corev1.Pod, grants []grant) error {
	for i, g := range grants {
		err := s.reserveOne(ctx, p, g)
		if err == nil {
			continue
		}
		if c, gerr := client.Of[devicev1.ResourceClaim](s.c, g.claim.Namespace).Get(ctx, g.claim.Name); gerr == nil && c.UID == g.claim.UID && c.Status.Allocation != nil {
			i++ // it was written all the same, and the mirror will show it
		}
		s.release(nil, grants[i:])
		s.unreserve(ctx, p, grants)
		return fmt.Errorf("claim %s/%s: %w", g.claim.Namespace, g.claim.Name, err)
	}
	return nil
}

// reserveTries bounds how often one claim is written when others write it, too.
const reserveTries = 5

func (s *Scheduler) reserveOne(ctx context.Context, p *corev1.Pod, g grant) error {
	claims := client.Of[devicev1.ResourceClaim](s.c, g.claim.Namespace)
	c := g.claim
	for try := 0; ; try++ {
		err := s.writeGrant(ctx, p, c, g.result)
		if !apierrors.IsConflict(err) || try == reserveTries {
			return err
		}
		if c, err = claims.Get(ctx, g.claim.Name); err != nil {
			return err
		}
	}
}

func (s *Scheduler) writeGrant(ctx context.Context, p *corev1.Pod, c *devicev1.ResourceClaim, result *devicev1.AllocationResult) error {
	claims := client.Of[devicev1.ResourceClaim](s.c, c.Namespace)
	switch {
	case c.DeletionTimestamp != nil:
		return errors.New("claim got deleted in the meantime")
	case result != nil && c.Status.Allocation != nil:
		return errors.New("claim got allocated elsewhere in the meantime")
	case result == nil && c.Status.Allocation == nil:
		return errors.New("claim got deallocated in the meantime")
	}
	c = c.DeepCopy()
	if result != nil && !slices.Contains(c.Finalizers, devicev1.Finalizer) {
		c.Finalizers = append(c.Finalizers, devicev1.Finalizer)
		next, err := claims.Update(ctx, c)
		if err != nil {
			return fmt.Errorf("add finalizer: %w", err)
		}
		c = next.DeepCopy()
	}
	if result != nil {
		c.Status.Allocation = result.DeepCopy()
		now := metav1.NewTime(clock.Now())
		c.Status.Allocation.AllocationTimestamp = &now
	}
	if !reserved(c, p) {
		c.Status.ReservedFor = append(c.Status.ReservedFor, devicev1.ResourceClaimConsumerReference{Resource: "pods", Name: p.Name, UID: p.UID})
	}
	if _, err := claims.UpdateStatus(ctx, c); err != nil {
		return fmt.Errorf("add reservation: %w", err)
	}
	return nil
}

// unreserve takes back that p uses the claims, which keep their devices.
func (s *Scheduler) unreserve(ctx context.Context, p *corev1.Pod, grants []grant) {
	for _, g := range grants {
		patch, err := json.Marshal(map[string]any{
			"metadata": map[string]any{"uid": g.claim.UID},
			"status":   map[string]any{"reservedFor": []any{map[string]any{"$patch": "delete", "uid": p.UID}}},
		})
		if err == nil {
			_, err = client.Of[devicev1.ResourceClaim](s.c, g.claim.Namespace).Patch(ctx, g.claim.Name, "status", types.StrategicMergePatchType, patch)
		}
		if err != nil && !apierrors.IsNotFound(err) && ctx.Err() == nil {
			s.log.Warn("could not take a reservation back", "claim", g.claim.Namespace+"/"+g.claim.Name, "err", err)
		}
	}
}

// claimNamed returns the name of the claim behind a pod's entry, "" while there
// is none; none says that the entry needs no claim.
func claimNamed(p *corev1.Pod, entry *corev1.PodResourceClaim) (name string, none bool) {
	if entry.ResourceClaimName != nil {
		return *entry.ResourceClaimName, false
	}
	for _, s := range p.Status.ResourceClaimStatuses {
		if s.Name == entry.Name {
			if s.ResourceClaimName == nil {
				return "", true
			}
			return *s.ResourceClaimName, false
		}
	}
	return "", false
}
