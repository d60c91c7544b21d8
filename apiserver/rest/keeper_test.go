package rest

import (
	"fmt"
	"testing"

	"github.com/sampan-dev/sampan/storage"
)

func TestFormsStayWithinTheBudget(t *testing.T) {
	k := &keeper{budget: 100}
	recs := make([]*storage.Record, 5000)
	for i := range recs {
		recs[i] = &storage.Record{Key: fmt.Sprint(i)}
		recs[i].SetForm(slotJSON, []byte("0123456789"))
		k.add(recs[i], slotJSON, 10)
	}
	held := 0
	for i, r := range recs {
		v, _ := r.Form(slotJSON, func(*storage.Record) (any, error) { return nil, nil })
		if v != nil {
			held++
			if i < len(recs)-10 {
				t.Fatalf("record %d still has its form", i)
			}
		}
	}
	if held != 10 || k.used != 100 || len(k.queue) > 3000 {
		t.Errorf("%d forms held, %d bytes counted, queue of %d", held, k.used, len(k.queue))
	}
}
