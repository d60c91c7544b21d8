package storage_test

import (
	"errors"
	"testing"

	"github.com/sampan-dev/sampan/storage"
	"github.com/sampan-dev/sampan/storage/mem"
	"github.com/sampan-dev/sampan/storage/storagetest"
)

func TestUnderIsAStore(t *testing.T) {
	storagetest.Run(t, func(*testing.T) storage.Store { return storage.Under(mem.New(), "/tenants/a/") })
}

func TestUnderKeepsApart(t *testing.T) {
	below := mem.New()
	a, b := storage.Under(below, "a"), storage.Under(below, "/b")
	if storage.Under(below, "/registry") != storage.Store(below) || storage.Under(below, "") != storage.Store(below) {
		t.Error("the usual prefix is not the store itself")
	}
	if _, err := a.Create(t.Context(), "/registry/pods/x", []byte("of a"), 0); err != nil {
		t.Fatal(err)
	}
	if r, err := below.Get(t.Context(), "/a/pods/x", 0); err != nil || string(r.Value) != "of a" {
		t.Errorf("below: %v %v", r, err)
	}
	if _, err := b.Get(t.Context(), "/registry/pods/x", 0); !errors.Is(err, storage.ErrNotFound) {
		t.Errorf("of the other prefix: %v", err)
	}
	p, err := a.List(t.Context(), "/registry/pods/", storage.ListOptions{})
	if err != nil || len(p.Records) != 1 || p.Records[0].Key != "/registry/pods/x" {
		t.Errorf("listed: %v %v", p, err)
	}
}
