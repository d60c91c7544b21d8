package ledger

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/big"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sampan-dev/sampan/api"
	"github.com/sampan-dev/sampan/kit/clock"
	"github.com/sampan-dev/sampan/storage"
)

// The ports' bitmap is upstream's: bit i is port FirstPort+i, the bytes are
// those of a big-endian number.

func (l *Ledger) portRange() string { return fmt.Sprintf("%d-%d", l.c.FirstPort, l.c.LastPort) }

func (l *Ledger) portCount() int { return int(l.c.LastPort-l.c.FirstPort) + 1 }

// changePorts applies change to the bitmap until nobody interferes. change
// returns false to leave it as it is.
func (l *Ledger) changePorts(ctx context.Context, change func(bits *big.Int) (bool, error)) error {
	r, err := l.store.Get(ctx, portsKey, 0)
	for {
		bits := new(big.Int)
		switch {
		case errors.Is(err, storage.ErrNotFound):
			r = nil
		case err != nil:
			return fmt.Errorf("ledger: node ports: %w", err)
		default:
			var ra corev1.RangeAllocation
			if err := api.DecodeInto(api.FormatProtobuf, r.Value, &ra); err != nil {
				return fmt.Errorf("ledger: node ports: %w", err)
			}
			if ra.Range == l.portRange() { // a changed range starts afresh; Repair fills it
				bits.SetBytes(ra.Data)
			}
		}
		write, err2 := change(bits)
		if err2 != nil || !write {
			return err2
		}
		value, err2 := l.encodePorts(bits)
		if err2 != nil {
			return err2
		}
		if r == nil {
			_, err = l.store.Create(ctx, portsKey, value, 0)
		} else {
			_, err = l.store.Update(ctx, portsKey, value, r.Rev, 0)
		}
		conflict := (*storage.ConflictError)(nil)
		switch {
		case err == nil:
			return nil
		case errors.As(err, &conflict):
			r, err = conflict.Current, nil
		case errors.Is(err, storage.ErrExists), errors.Is(err, storage.ErrNotFound):
			r, err = l.store.Get(ctx, portsKey, 0)
		default:
			return fmt.Errorf("ledger: node ports: %w", err)
		}
	}
}

func (l *Ledger) encodePorts(bits *big.Int) ([]byte, error) {
	obj := &corev1.RangeAllocation{
		TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "RangeAllocation"},
		Range:    l.portRange(),
		Data:     bits.Bytes(),
	}
	var buf bytes.Buffer
	if err := api.Encode(api.FormatProtobuf, obj, &buf); err != nil {
		return nil, fmt.Errorf("ledger: node ports: %w", err)
	}
	return buf.Bytes(), nil
}

// takePort sets one free bit: want's, or any above the static band while there are some.
func (l *Ledger) takePort(ctx context.Context, want int32) (int32, error) {
	if want != 0 && (want < l.c.FirstPort || want > l.c.LastPort) {
		return 0, fmt.Errorf("provided port is not in the valid range. The range of valid ports is %s", l.portRange())
	}
	var got int32
	err := l.changePorts(ctx, func(bits *big.Int) (bool, error) {
		i := int(want - l.c.FirstPort)
		if want == 0 {
			if i = l.freeBit(bits); i < 0 {
				return false, ErrFull
			}
		} else if bits.Bit(i) == 1 {
			return false, ErrPortTaken
		}
		bits.SetBit(bits, i, 1)
		got = l.c.FirstPort + int32(i)
		return true, nil
	})
	return got, err
}

func (l *Ledger) freeBit(bits *big.Int) int {
	n := l.portCount()
	static := int(band(uint64(n), 16, 128, 32))
	r := clock.Rand(clock.Seed())
	for _, part := range [][2]int{{static, n}, {0, static}} {
		size := part[1] - part[0]
		if size == 0 {
			continue
		}
		start := r.IntN(size)
		for i := range size {
			if b := part[0] + (start+i)%size; bits.Bit(b) == 0 {
				return b
			}
		}
	}
	return -1
}

func (l *Ledger) freePort(ctx context.Context, port int32) error {
	if port < l.c.FirstPort || port > l.c.LastPort {
		return nil
	}
	return l.changePorts(ctx, func(bits *big.Int) (bool, error) {
		i := int(port - l.c.FirstPort)
		if bits.Bit(i) == 0 {
			return false, nil
		}
		bits.SetBit(bits, i, 0)
		return true, nil
	})
}
