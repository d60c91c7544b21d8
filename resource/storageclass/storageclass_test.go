package storageclass

import (
	"fmt"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func TestRules(t *testing.T) {
	for want, c := range map[string]*class{
		"":                            {Provisioner: "example.com/p"},
		"provisioner: Required value": {},
		`reclaimPolicy: Unsupported value: "Recycle": supported values: "Delete", "Retain"`:                {Provisioner: "p", ReclaimPolicy: new(corev1.PersistentVolumeReclaimRecycle)},
		`volumeBindingMode: Unsupported value: "X": supported values: "Immediate", "WaitForFirstConsumer"`: {Provisioner: "p", VolumeBindingMode: new(storagev1.VolumeBindingMode("X"))},
	} {
		Kind().Default(c)
		got := ""
		if err := Kind().Validate(c, nil).ToAggregate(); err != nil {
			got = err.Error()
		}
		if got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
	prev := &class{Provisioner: "p", Parameters: map[string]string{"a": "1"}}
	next := &class{Provisioner: "q"}
	Kind().Default(prev)
	Kind().Default(next)
	if got, want := Kind().Validate(next, prev).ToAggregate().Error(), "[parameters: Forbidden: updates to parameters are forbidden., provisioner: Forbidden: updates to provisioner are forbidden.]"; got != want {
		t.Errorf("got %s", got)
	}
}

func TestColumns(t *testing.T) {
	c := &class{ObjectMeta: metav1.ObjectMeta{Name: "c", Annotations: map[string]string{isDefault: "true"}}, Provisioner: "p"}
	if got := strings.Trim(fmt.Sprint(Kind().Cells(c, time.Unix(0, 0))), "[]"); got != "c (default) p Delete Immediate false <unknown>" {
		t.Errorf("got %q", got)
	}
}
