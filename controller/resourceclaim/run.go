// Package resourceclaim makes pods' claims for devices, and takes devices back.
//
// Job: create the claims that pods' templates describe, reserve allocated ones
// for pods that are bound, drop reservations of pods that are done, and give
// back what nobody needs.
//
// Not its job: choosing devices (scheduler), preparing them (kubelet).
//
// Invariants: an entry of a pod gets one claim, however often this loop starts
// over; a device is given back only when no pod can be using it.
package resourceclaim

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/prometheus/client_golang/prometheus"
	corev1 "k8s.io/api/core/v1"
	devicev1 "k8s.io/api/resource/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/sampan-dev/sampan/client"
	"github.com/sampan-dev/sampan/controller"
)

// Claims' keys are told from pods' by a prefix that no name has.
const ofClaims = "claim:"

// byTemplate files pods under the templates they name, byClaim under the claims.
const (
	byTemplate = "claim template"
	byClaim    = "resource claim"
)

type loop struct {
	*controller.Loop
	pods      *client.Mirror[corev1.Pod]
	claims    *client.Mirror[claim]
	templates *client.Mirror[devicev1.ResourceClaimTemplate]
	made      *prometheus.CounterVec
}

// New returns the resourceclaim loop.
func New(d controller.Deps) controller.Controller {
	l := &loop{made: d.Metrics.Counters(prometheus.CounterOpts{Name: "resourceclaim_controller_creates_total", Help: "Number of ResourceClaims creation requests, categorized by creation status and admin access"}, "status", "admin_access")}
	l.Loop = controller.NewLoop(d, "resource-claim", 10, l.reconcile)
	l.Events = client.Recorder(l.Client, "resource_claim", "")
	l.pods = controller.Input(l.Loop, ofPod)
	l.claims = controller.Input(l.Loop, l.ofClaim)
	l.templates = controller.Input(l.Loop, func(_, new *devicev1.ResourceClaimTemplate) []controller.Key {
		if new == nil {
			return nil
		}
		return keysOf(l.pods.By(byTemplate, new.Namespace+"/"+new.Name))
	})
	controller.IndexByOwner(l.claims)
	l.pods.Index(byTemplate, func(p *corev1.Pod) []string {
		var out []string
		for _, c := range p.Spec.ResourceClaims {
			if c.ResourceClaimTemplateName != nil {
				out = append(out, p.Namespace+"/"+*c.ResourceClaimTemplateName)
			}
		}
		return out
	})
	l.pods.Index(byClaim, func(p *corev1.Pod) []string {
		var out []string
		for i := range p.Spec.ResourceClaims {
			if name, _, _, err := named(p, &p.Spec.ResourceClaims[i]); err == nil && name != "" {
				out = append(out, p.Namespace+"/"+name)
			}
		}
		return out
	})
	return l
}

func keysOf(pods []*corev1.Pod) []controller.Key {
	var out []controller.Key
	for _, p := range pods {
		out = append(out, client.KeyOf(p))
	}
	return out
}

// ofPod looks at a pod with claims, and at its claims when it is done.
func ofPod(old, new *corev1.Pod) []controller.Key {
	p := new
	if p == nil {
		p = old
	}
	if len(p.Spec.ResourceClaims) == 0 {
		return nil
	}
	var keys []controller.Key
	if new != nil && !done(p) {
		return append(keys, client.KeyOf(p))
	}
	for i := range p.Spec.ResourceClaims {
		if name, _, _, err := named(p, &p.Spec.ResourceClaims[i]); err == nil && name != "" {
			keys = append(keys, controller.Key{Namespace: p.Namespace, Name: ofClaims + name})
		}
	}
	return keys
}

// ofClaim looks at a claim and at the pods that use it.
func (l *loop) ofClaim(old, new *claim) []controller.Key {
	k := controller.Self(old, new)[0]
	return append(keysOf(l.pods.By(byClaim, k.Namespace+"/"+k.Name)), controller.Key{Namespace: k.Namespace, Name: ofClaims + k.Name})
}

func (l *loop) reconcile(ctx context.Context, k controller.Key) error {
	if name, ok := strings.CutPrefix(k.Name, ofClaims); ok {
		if c, ok := l.claims.Get(k.Namespace, name); ok {
			return l.oneClaim(ctx, k, c)
		}
		return nil
	}
	p, ok := l.pods.Get(k.Namespace, k.Name)
	if !ok || p.DeletionTimestamp != nil {
		return nil
	}
	return l.onePod(ctx, k, p)
}

func (l *loop) onePod(ctx context.Context, k controller.Key, p *corev1.Pod) error {
	fresh := map[string]string{}
	for i := range p.Spec.ResourceClaims {
		entry := &p.Spec.ResourceClaims[i]
		name, err := l.provide(ctx, k, p, entry)
		if err != nil {
			l.Events.Event(p, corev1.EventTypeWarning, "FailedResourceClaimCreation", "PodResourceClaim %s: %v", entry.Name, err)
			return fmt.Errorf("pod %s, PodResourceClaim %s: %w", k, entry.Name, err)
		}
		if name != "" {
			fresh[entry.Name] = name
		}
	}
	if len(fresh) > 0 {
		if err := l.tell(ctx, k, p, fresh); err != nil {
			return err
		}
	}
	if p.Spec.NodeName == "" {
		return nil
	}
	// A pod that was bound by others than the scheduler has reserved nothing.
	for i := range p.Spec.ResourceClaims {
		if err := l.reserve(ctx, p, &p.Spec.ResourceClaims[i]); err != nil {
			return err
		}
	}
	return nil
}

// provide sees that an entry's claim is there, and returns its name if the pod
// does not know it yet.
func (l *loop) provide(ctx context.Context, k controller.Key, p *corev1.Pod, entry *corev1.PodResourceClaim) (string, error) {
	name, made, none, err := named(p, entry)
	if err != nil || none || !made {
		return "", err
	}
	if name != "" {
		if c, ok := l.claims.Get(p.Namespace, name); ok && isFor(p, c) == nil {
			return "", nil
		}
	}
	for _, c := range l.claims.By(controller.ByOwner, string(p.UID)) {
		if c.Annotations[devicev1.PodResourceClaimAnnotation] == entry.Name && c.DeletionTimestamp == nil {
			return c.Name, nil
		}
	}
	t, ok := l.templates.Get(p.Namespace, *entry.ResourceClaimTemplateName)
	if !ok {
		return "", fmt.Errorf("resource claim template %q: resourceclaimtemplate.resource.k8s.io %q not found", *entry.ResourceClaimTemplateName, *entry.ResourceClaimTemplateName)
	}
	next := from(t, p, entry.Name)
	admin := fmt.Sprint(slices.ContainsFunc(next.Spec.Devices.Requests, func(r devicev1.DeviceRequest) bool {
		return r.Exactly != nil && r.Exactly.AdminAccess != nil && *r.Exactly.AdminAccess
	}))
	c, err := client.Of[claim](l.Client, p.Namespace).Create(ctx, next)
	if err != nil {
		l.made.WithLabelValues("failure", admin).Inc()
		return "", fmt.Errorf("create ResourceClaim %s: %w", next.GenerateName, err)
	}
	l.made.WithLabelValues("success", admin).Inc()
	controller.Wrote(&l.Unseen, k, l.claims, c)
	return c.Name, nil
}

// tell notes the names of claims in the pod's status.
func (l *loop) tell(ctx context.Context, k controller.Key, p *corev1.Pod, fresh map[string]string) error {
	var list []corev1.PodResourceClaimStatus
	for _, c := range p.Spec.ResourceClaims {
		if name, ok := fresh[c.Name]; ok {
			list = append(list, corev1.PodResourceClaimStatus{Name: c.Name, ResourceClaimName: &name})
		}
	}
	patch, err := json.Marshal(map[string]any{"metadata": map[string]any{"uid": p.UID}, "status": map[string]any{"resourceClaimStatuses": list}})
	if err != nil {
		return err
	}
	wrote, err := client.Of[corev1.Pod](l.Client, p.Namespace).Patch(ctx, p.Name, "status", types.StrategicMergePatchType, patch)
	if err == nil {
		controller.Wrote(&l.Unseen, k, l.pods, wrote)
		return nil
	}
	if apierrors.IsNotFound(err) {
		return nil
	}
	return fmt.Errorf("update pod %s ResourceClaimStatuses: %w", k, err)
}

func (l *loop) reserve(ctx context.Context, p *corev1.Pod, entry *corev1.PodResourceClaim) error {
	name, made, none, err := named(p, entry)
	if err != nil || none || name == "" {
		return err
	}
	c, ok := l.claims.Get(p.Namespace, name)
	if !ok {
		return nil // its coming brings us back
	}
	if made {
		if err := isFor(p, c); err != nil {
			return err
		}
	}
	if c.Status.Allocation == nil || reservedFor(p, c) || len(c.Status.ReservedFor) >= devicev1.ResourceClaimReservedForMaxSize {
		return nil
	}
	c = c.DeepCopy()
	c.Status.ReservedFor = append(c.Status.ReservedFor, devicev1.ResourceClaimConsumerReference{Resource: "pods", Name: p.Name, UID: p.UID})
	_, err = client.Of[claim](l.Client, c.Namespace).UpdateStatus(ctx, c)
	return controller.Ignore(err, apierrors.IsNotFound)
}

// oneClaim drops reservations of pods that are done, gives back what nobody
// reserves, and deletes claims that were made for such pods.
func (l *loop) oneClaim(ctx context.Context, k controller.Key, c *claim) error {
	var left []devicev1.ResourceClaimConsumerReference
	for _, r := range c.Status.ReservedFor {
		keep, err := l.stillUsing(ctx, c.Namespace, r)
		if err != nil {
			return err
		}
		if keep {
			left = append(left, r)
		}
	}
	held := slices.Contains(c.Finalizers, devicev1.Finalizer)
	if len(left) < len(c.Status.ReservedFor) || held && c.DeletionTimestamp != nil && len(left) == 0 {
		var err error
		if c, err = l.giveBack(ctx, k, c, left, held); err != nil {
			return controller.Ignore(err, apierrors.IsNotFound)
		}
	}
	ref, owned := owner(c)
	if len(left) > 0 || !owned || c.DeletionTimestamp != nil {
		return nil
	}
	p, ok := l.pods.Get(c.Namespace, ref.Name)
	if !ok || p.UID == ref.UID && !done(p) {
		return nil // the garbage collector's, or still to be used
	}
	err := client.Of[claim](l.Client, c.Namespace).Delete(ctx, c.Name, &metav1.DeleteOptions{Preconditions: metav1.NewUIDPreconditions(string(c.UID))})
	return controller.Ignore(err, apierrors.IsNotFound)
}

// stillUsing says whether a consumer may use its claim. That a pod has gone is
// only believed when the server says so.
func (l *loop) stillUsing(ctx context.Context, ns string, r devicev1.ResourceClaimConsumerReference) (bool, error) {
	if r.APIGroup != "" || r.Resource != "pods" {
		return true, nil
	}
	p, ok := l.pods.Get(ns, r.Name)
	if !ok {
		var err error
		if p, err = client.Of[corev1.Pod](l.Client, ns).Get(ctx, r.Name); apierrors.IsNotFound(err) {
			return false, nil
		} else if err != nil {
			return true, err
		}
	}
	return p.UID == r.UID && !done(p), nil
}

func (l *loop) giveBack(ctx context.Context, k controller.Key, c *claim, left []devicev1.ResourceClaimConsumerReference, held bool) (*claim, error) {
	claims := client.Of[claim](l.Client, c.Namespace)
	next := c.DeepCopy()
	next.Status.ReservedFor = left
	if len(left) == 0 && held {
		next.Status.Allocation, next.Status.Devices = nil, nil
	}
	if len(left) < len(c.Status.ReservedFor) || c.Status.Allocation != nil && next.Status.Allocation == nil {
		wrote, err := claims.UpdateStatus(ctx, next)
		if err != nil {
			return nil, err
		}
		controller.Wrote(&l.Unseen, k, l.claims, wrote)
		next = wrote
	}
	if !held || next.Status.Allocation != nil {
		return next, nil
	}
	next = next.DeepCopy()
	next.Finalizers = slices.DeleteFunc(next.Finalizers, func(f string) bool { return f == devicev1.Finalizer })
	wrote, err := claims.Update(ctx, next)
	if err != nil {
		return nil, err
	}
	controller.Wrote(&l.Unseen, k, l.claims, wrote)
	return wrote, nil
}
