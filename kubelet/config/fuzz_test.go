package config

import (
	"bytes"
	"strings"
	"testing"

	"github.com/sampan-dev/sampan/kit/monster"
)

// FuzzRead: a file is laid over the defaults or refused.
func FuzzRead(f *testing.F) {
	const head = "apiVersion: kubelet.config.k8s.io/v1beta1\nkind: KubeletConfiguration\n"
	for _, text := range []string{"maxPods: 7\nsyncFrequency: 1s", "maxPods: 99999999999999999999", "evictionHard: {memory.available: 5%}", "registerWithTaints: [null]", "syncFrequency: -1e99s", "port: {}"} {
		f.Add([]byte(head + text))
	}
	for _, text := range monster.YAML() {
		f.Add(text)
		f.Add(append([]byte(head), text...))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		monster.Bounded(t, len(text), func() {
			c := Default()
			if Read(bytes.NewReader(text), &c) == nil && c.MaxPods == 0 {
				t.Error("without a limit of pods")
			}
		})
	})
}

// FuzzArguments: a command line is understood or refused.
func FuzzArguments(f *testing.F) {
	for _, line := range []string{"--max-pods=7", "--max-pods\n-1", "--node-labels=a=b,=,c", "--register-with-taints=a=b:NoSchedule,:,x", "--eviction-hard=memory.available<5%,<", "--v", "-", "--", "--=", "--feature-gates=A=maybe", "x"} {
		f.Add(line)
	}
	f.Fuzz(func(t *testing.T, line string) {
		if strings.Contains(line, "config") {
			return // files of any name
		}
		if o, err := Parse(strings.Split(line, "\n")); err == nil && o == nil {
			t.Error("neither options nor an error")
		}
	})
}
