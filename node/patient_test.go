package node

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/sampan-dev/sampan/kubelet/cri"
)

// shelf is a runtime's images; what is not there is pulled, which is counted.
type shelf struct {
	cri.Images
	there map[string]bool
	pulls int
}

func (s *shelf) ImageStatus(_ context.Context, spec *runtimeapi.ImageSpec, _ bool) (*runtimeapi.ImageStatusResponse, error) {
	if !s.there[spec.Image] {
		return &runtimeapi.ImageStatusResponse{}, nil
	}
	return &runtimeapi.ImageStatusResponse{Image: &runtimeapi.Image{Id: spec.Image}}, nil
}

func (s *shelf) PullImage(_ context.Context, spec *runtimeapi.ImageSpec, _ *runtimeapi.AuthConfig, _ *runtimeapi.PodSandboxConfig) (string, error) {
	s.pulls++
	return spec.Image, nil
}

func TestImagesOnTheirWayAreWaitedFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &shelf{there: map[string]bool{"pause": true}}
		p := patient{s, newArrivals()}
		answers := map[string]chan bool{}
		for _, name := range []string{"pause", "coredns", "absent"} {
			answers[name] = make(chan bool, 1)
			go func() {
				resp, err := p.ImageStatus(t.Context(), &runtimeapi.ImageSpec{Image: name}, false)
				if err != nil {
					t.Error(name, err)
				}
				answers[name] <- resp.GetImage() != nil
			}()
		}
		pulled := make(chan error, 1)
		go func() {
			_, err := p.PullImage(t.Context(), &runtimeapi.ImageSpec{Image: "nginx"}, nil, nil)
			pulled <- err
		}()
		answered := func(name string) bool { synctest.Wait(); return len(answers[name]) == 1 }

		if !answered("pause") || answered("coredns") {
			t.Error("what is there is told at once, what may come is not told absent")
		}
		s.there["coredns"] = true
		p.arriving.more()
		if !answered("coredns") || !<-answers["coredns"] {
			t.Error("coredns arrived and was not told of")
		}
		if answered("absent") || s.pulls != 0 {
			t.Errorf("absent answered or %d pulls while images still come in", s.pulls)
		}
		p.arriving.end()
		if !answered("absent") || <-answers["absent"] {
			t.Error("an image that never came was not told absent")
		}
		if err := <-pulled; err != nil || s.pulls != 1 {
			t.Errorf("pull = %v, %d pulls; want one", err, s.pulls)
		}
	})
}

func TestWaitingEndsWithItsCaller(t *testing.T) {
	p := patient{&shelf{}, newArrivals()}
	ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
	defer cancel()
	if _, err := p.ImageStatus(ctx, &runtimeapi.ImageSpec{Image: "x"}, false); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("ImageStatus = %v", err)
	}
	if _, err := p.PullImage(ctx, &runtimeapi.ImageSpec{Image: "x"}, nil, nil); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("PullImage = %v", err)
	}
}
