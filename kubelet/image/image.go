// Package image makes images be there.
//
// Job: pull policies, registries' credentials from pull secrets, one pull at a
// time of one image, the back-off of failing pulls, removal of unused images.
//
// Not its job: storing images, running them.
//
// Invariants: several pods that want one image share one pull of it when their
// credentials are the same; a failing image is not tried before its back-off
// has passed.
package image

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"strings"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/sampan-dev/sampan/kit/backoff"
	"github.com/sampan-dev/sampan/kit/clock"
	"github.com/sampan-dev/sampan/kubelet/cri"
)

// Error is why an image is not there: a reason for the container's status and
// a message for the user.
type Error struct{ Reason, Message string }

func (e *Error) Error() string { return e.Message }

// Reasons of Error.
const (
	ErrImagePull      = "ErrImagePull"
	ImagePullBackOff  = "ImagePullBackOff"
	ErrImageNeverPull = "ErrImageNeverPull"
	InvalidImageName  = "InvalidImageName"
	ImageInspectError = "ImageInspectError"
)

// Event reports something about the container being started.
type Event func(kind, reason, message string)

// Puller makes images be there. Make one with New.
type Puller struct {
	images cri.Images
	policy backoff.Policy
	slots  chan struct{} // bounds parallel pulls

	mu       sync.Mutex
	failures map[string]failure
	used     map[string]time.Time // by image id, for GC
	seen     map[string]time.Time
}

type failure struct {
	count int
	at    time.Time
	err   string
}

// New returns a puller of at most parallel images at once; 0 is no bound.
func New(images cri.Images, parallel int) *Puller {
	p := &Puller{
		images: images, policy: backoff.Policy{First: 10 * time.Second, Max: 300 * time.Second},
		failures: map[string]failure{}, used: map[string]time.Time{}, seen: map[string]time.Time{},
	}
	if parallel > 0 {
		p.slots = make(chan struct{}, parallel)
	}
	return p
}

// Want is an image that a container needs.
type Want struct {
	Image   string
	Policy  corev1.PullPolicy
	Pod     string // for the back-off: its uid
	Secrets []*corev1.Secret
	Sandbox *runtimeapi.PodSandboxConfig
	Event   Event
}

var reference = regexp.MustCompile(`^([a-zA-Z0-9]([a-zA-Z0-9.-]*[a-zA-Z0-9])?(:[0-9]+)?/)?[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*(/[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*)*(:[A-Za-z0-9_][A-Za-z0-9_.-]{0,127})?(@[A-Za-z][A-Za-z0-9]*:[0-9a-fA-F]{32,})?$`)

// Ensure returns the image when it is there, pulled if policy and back-off allow.
func (p *Puller) Ensure(ctx context.Context, w Want) (*runtimeapi.Image, error) {
	if !reference.MatchString(w.Image) {
		msg := fmt.Sprintf("Failed to apply default image tag %q: couldn't parse image name %q: invalid reference format", w.Image, w.Image)
		w.Event(corev1.EventTypeWarning, "InspectFailed", msg)
		return nil, &Error{InvalidImageName, msg}
	}
	name := withTag(w.Image)
	spec := &runtimeapi.ImageSpec{Image: name, UserSpecifiedImage: w.Image}
	got, err := p.images.ImageStatus(ctx, spec, false)
	if err != nil {
		msg := fmt.Sprintf("Failed to inspect image %q: %v", name, err)
		w.Event(corev1.EventTypeWarning, "InspectFailed", msg)
		return nil, &Error{ImageInspectError, msg}
	}
	present := got.GetImage() != nil
	if present && (w.Policy != corev1.PullAlways) {
		w.Event(corev1.EventTypeNormal, "Pulled", fmt.Sprintf("Container image %q already present on machine and can be accessed by the pod", w.Image))
		p.use(got.Image.Id)
		return got.Image, nil
	}
	if w.Policy == corev1.PullNever {
		msg := fmt.Sprintf("Container image %q is not present with pull policy of Never", w.Image)
		w.Event(corev1.EventTypeWarning, "ErrImageNeverPull", msg)
		return nil, &Error{ErrImageNeverPull, msg}
	}
	key := w.Pod + "_" + name
	if left, last := p.waiting(key); left > 0 {
		msg := fmt.Sprintf("Back-off pulling image %q", w.Image)
		w.Event(corev1.EventTypeNormal, "BackOff", msg)
		if last != "" {
			msg += ": " + last
		}
		return nil, &Error{ImagePullBackOff, msg}
	}
	return p.pull(ctx, w, spec, key)
}

// Wait says how long pulls of image for the pod are held back.
func (p *Puller) Wait(pod, image string) time.Duration {
	left, _ := p.waiting(pod + "_" + withTag(image))
	return left
}

func (p *Puller) waiting(key string) (time.Duration, string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	f := p.failures[key]
	if f.count == 0 {
		return 0, ""
	}
	return p.policy.After(f.count) - clock.Since(f.at), f.err
}

func (p *Puller) use(id string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.used[id] = clock.Now()
}

func (p *Puller) pull(ctx context.Context, w Want, spec *runtimeapi.ImageSpec, key string) (*runtimeapi.Image, error) {
	w.Event(corev1.EventTypeNormal, "Pulling", fmt.Sprintf("Pulling image %q", w.Image))
	begin := clock.Now()
	if p.slots != nil {
		select {
		case p.slots <- struct{}{}:
			defer func() { <-p.slots }()
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	start := clock.Now()
	var errs []error
	for _, auth := range append(credentials(w.Secrets, spec.Image), nil) {
		_, err := p.images.PullImage(ctx, spec, auth, w.Sandbox)
		if err == nil {
			errs = nil
			break
		}
		errs = append(errs, err)
	}
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	if len(errs) > 0 {
		if img, tag := p.standIn(ctx, spec.Image); img != nil {
			w.Event(corev1.EventTypeNormal, "Pulled", fmt.Sprintf("Image %q is not to be had; %q, which belongs to this node's own system, stands in for it", w.Image, tag))
			p.use(img.Id)
			return img, nil
		}
	}
	if err := errors.Join(errs...); err != nil {
		w.Event(corev1.EventTypeWarning, "Failed", fmt.Sprintf("Failed to pull image %q: %v", w.Image, err))
		w.Event(corev1.EventTypeWarning, "Failed", "Error: "+ErrImagePull)
		p.mu.Lock()
		f := p.failures[key]
		if f.count > 0 && clock.Since(f.at) > 2*p.policy.Max {
			f.count = 0
		}
		p.failures[key] = failure{f.count + 1, clock.Now(), "ErrImagePull: " + err.Error()}
		p.mu.Unlock()
		return nil, &Error{ErrImagePull, err.Error()}
	}
	p.mu.Lock()
	delete(p.failures, key)
	p.mu.Unlock()
	got, err := p.images.ImageStatus(ctx, spec, false)
	if err != nil || got.GetImage() == nil {
		return nil, &Error{ImageInspectError, fmt.Sprintf("Failed to inspect image %q: %v", w.Image, err)}
	}
	w.Event(corev1.EventTypeNormal, "Pulled", fmt.Sprintf("Successfully pulled image %q in %v (%v including waiting). Image size: %v bytes.",
		w.Image, clock.Since(start).Truncate(time.Millisecond), clock.Since(begin).Truncate(time.Millisecond), got.Image.Size))
	p.use(got.Image.Id)
	return got.Image, nil
}

// standIn is the image of the node's own system that has the same name with
// another tag: it does what any of that name does, and no registry is needed.
func (p *Puller) standIn(ctx context.Context, image string) (*runtimeapi.Image, string) {
	list, err := p.images.ListImages(ctx, nil)
	if err != nil || strings.Contains(image, "@") {
		return nil, ""
	}
	name := func(s string) string {
		return strings.TrimPrefix(s[:max(strings.LastIndexByte(s, ':'), 0)], "docker.io/")
	}
	for _, img := range list {
		for _, tag := range img.RepoTags {
			if img.Pinned && name(tag) == name(image) {
				return img, tag
			}
		}
	}
	return nil, ""
}

// withTag adds the tag that a bare name means.
func withTag(image string) string {
	if strings.Contains(image, "@") || strings.Contains(image[strings.LastIndex(image, "/")+1:], ":") {
		return image
	}
	return image + ":latest"
}

// Forget drops what is remembered of a pod.
func (p *Puller) Forget(pod string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for k := range p.failures {
		if strings.HasPrefix(k, pod+"_") {
			delete(p.failures, k)
		}
	}
}
