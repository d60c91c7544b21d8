package csistoragecapacity

import (
	"testing"

	quantity "k8s.io/apimachinery/pkg/api/resource"
)

func TestRules(t *testing.T) {
	good := &capacity{StorageClassName: "c", Capacity: new(quantity.MustParse("1Gi"))}
	if errs := Kind().Validate(good, nil); len(errs) > 0 {
		t.Error(errs)
	}
	bad := &capacity{StorageClassName: "c", Capacity: new(quantity.MustParse("-1"))}
	if got, want := Kind().Validate(bad, nil).ToAggregate().Error(), `capacity: Invalid value: "-1": must be greater than or equal to 0`; got != want {
		t.Errorf("got %s", got)
	}
	if got, want := Kind().Validate(&capacity{StorageClassName: "d"}, good).ToAggregate().Error(), `storageClassName: Invalid value: "d": field is immutable`; got != want {
		t.Errorf("got %s", got)
	}
}
