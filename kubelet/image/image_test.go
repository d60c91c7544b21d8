package image

import (
	"encoding/base64"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"

	fakecri "github.com/sampan-dev/sampan/kubelet/cri/fake"
)

func TestEnsure(t *testing.T) {
	for _, tt := range []struct {
		name, image string
		policy      corev1.PullPolicy
		present     bool
		pull        error
		reason      string
		events      string
	}{
		{"pulled when missing", "a/b:1", corev1.PullIfNotPresent, false, nil, "", "Pulling Pulled"},
		{"not pulled when there", "a/b:1", corev1.PullIfNotPresent, true, nil, "", "Pulled"},
		{"always pulled", "a/b:1", corev1.PullAlways, true, nil, "", "Pulling Pulled"},
		{"never pulled", "a/b:1", corev1.PullNever, false, nil, ErrImageNeverPull, "ErrImageNeverPull"},
		{"never pulled but there", "a/b:1", corev1.PullNever, true, nil, "", "Pulled"},
		{"cannot be pulled", "a/b:1", corev1.PullIfNotPresent, false, errors.New("no"), ErrImagePull, "Pulling Failed Failed"},
		{"no name", "A//b", corev1.PullIfNotPresent, false, nil, InvalidImageName, "InspectFailed"},
		{"a digest", "r.example:5000/a@sha256:" + strings.Repeat("a", 64), corev1.PullIfNotPresent, false, nil, "", "Pulling Pulled"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			rt := fakecri.New()
			p := New(rt, 1)
			var events []string
			w := Want{Image: tt.image, Policy: tt.policy, Pod: "u", Event: func(_, reason, _ string) { events = append(events, reason) }}
			if tt.present {
				if _, err := p.Ensure(t.Context(), Want{Image: tt.image, Policy: corev1.PullAlways, Event: func(_, _, _ string) {}}); err != nil {
					t.Fatal(err)
				}
			}
			rt.OnPull(func(string) error { return tt.pull })
			_, err := p.Ensure(t.Context(), w)
			var e *Error
			if errors.As(err, &e); (e == nil) != (tt.reason == "") || e != nil && e.Reason != tt.reason {
				t.Errorf("error %v, want reason %q", err, tt.reason)
			}
			if got := strings.Join(events, " "); got != tt.events {
				t.Errorf("events %s, want %s", got, tt.events)
			}
		})
	}
}

func TestTheNodesOwnImageStandsInForAnyTag(t *testing.T) {
	rt := fakecri.New()
	p := New(rt, 1)
	var said string
	w := Want{Policy: corev1.PullAlways, Event: func(_, reason, message string) { said = reason + ": " + message }}
	w.Image = "ghcr.io/flannel-io/flannel:v0.28.0"
	own, err := p.Ensure(t.Context(), w)
	if err != nil {
		t.Fatal(err)
	}
	rt.OnPull(func(string) error { return errors.New("no registry") })
	w.Image, w.Pod = "ghcr.io/flannel-io/flannel:v0.9.1", "a"
	if _, err := p.Ensure(t.Context(), w); err == nil {
		t.Error("somebody's image stands in for another tag")
	}
	own.Pinned = true // as the system's images are
	w.Pod = "b"
	if got, err := p.Ensure(t.Context(), w); err != nil || got.Id != own.Id || !strings.Contains(said, `"ghcr.io/flannel-io/flannel:v0.28.0"`) {
		t.Errorf("%v, %v, and said %s", got, err, said)
	}
	w.Image, w.Pod = "ghcr.io/flannel-io/flannel-cni-plugin:v1", "c"
	if _, err := p.Ensure(t.Context(), w); err == nil {
		t.Error("it stands in for another name")
	}
}

func TestPullBackOffGrows(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rt := fakecri.New()
		rt.OnPull(func(string) error { return errors.New("no") })
		p := New(rt, 0)
		w := Want{Image: "a", Policy: corev1.PullIfNotPresent, Pod: "u", Event: func(_, _, _ string) {}}
		for _, wait := range []time.Duration{10, 20, 40, 80, 160, 300, 300} {
			var e *Error
			if _, err := p.Ensure(t.Context(), w); !errors.As(err, &e) || e.Reason != ErrImagePull {
				t.Fatalf("a pull that may happen: %v", err)
			}
			if _, err := p.Ensure(t.Context(), w); !errors.As(err, &e) || e.Reason != ImagePullBackOff || e.Message != `Back-off pulling image "a": ErrImagePull: no` {
				t.Errorf("right after: %v", err)
			}
			if left := p.Wait("u", "a"); left != wait*time.Second {
				t.Errorf("waits %s, want %ds", left, wait)
			}
			time.Sleep(wait * time.Second)
		}
	})
}

func TestCredentials(t *testing.T) {
	auth := base64.StdEncoding.EncodeToString([]byte("me:secret"))
	s := &corev1.Secret{Data: map[string][]byte{corev1.DockerConfigJsonKey: []byte(`{"auths":{"https://index.docker.io/v1/":{"auth":"` + auth + `"},"*.example.com":{"username":"wild"},"r.example.com/team":{"username":"team"}}}`)}}
	for image, want := range map[string]string{
		"nginx": "me", "library/nginx": "me", "docker.io/library/nginx:1": "me", "r.example.com/a": "wild", "r.example.com/team/a": "team wild", "example.com/a": "", "a.b.example.com/x": "",
	} {
		var got []string
		for _, a := range credentials([]*corev1.Secret{s}, image) {
			got = append(got, a.Username)
		}
		if strings.Join(got, " ") != want {
			t.Errorf("%s: %v, want %q", image, got, want)
		}
	}
}

func TestChooseTakesTheLongestUnused(t *testing.T) {
	now := time.Unix(10000, 0)
	at := func(ago time.Duration) time.Time { return now.Add(-ago) }
	all := []Candidate{
		{"new", 10, at(0), at(time.Second)}, {"old", 10, at(time.Hour), at(2 * time.Hour)}, {"older", 10, at(2 * time.Hour), at(3 * time.Hour)}, {"oldest but fresh", 10, time.Time{}, at(time.Second)},
	}
	for free, want := range map[int64]string{0: "", 5: "older", 15: "older old", 100: "older old"} {
		var got []string
		for _, c := range Choose(append([]Candidate(nil), all...), free, now, time.Minute) {
			got = append(got, c.ID)
		}
		if strings.Join(got, " ") != want {
			t.Errorf("to free %d: %v, want %q", free, got, want)
		}
	}
}
