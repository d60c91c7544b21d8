package kubeadm

import (
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// durationFlag is a duration that may be "0" and knows whether it was given.
type durationFlag struct {
	d   time.Duration
	set bool
}

// Set implements pflag.Value.
func (f *durationFlag) Set(s string) (err error) {
	f.set = true
	f.d, err = time.ParseDuration(s)
	return err
}

// String implements pflag.Value.
func (f *durationFlag) String() string {
	if !f.set {
		return ""
	}
	return f.d.String()
}

// Type implements pflag.Value.
func (f *durationFlag) Type() string { return "duration" }

func (f *durationFlag) value() *metav1.Duration { return &metav1.Duration{Duration: f.d} }
