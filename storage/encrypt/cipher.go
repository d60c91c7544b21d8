package encrypt

import (
	"bytes"
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"

	"golang.org/x/crypto/nacl/secretbox"
)

// transformer encrypts and decrypts values. bound is what a value belongs to.
type transformer interface {
	decrypt(ctx context.Context, data, bound []byte) (plain []byte, stale bool, err error)
	encrypt(ctx context.Context, plain, bound []byte) ([]byte, error)
}

var errShort = errors.New("the stored data was shorter than the required size")

// marker begins every encrypted value.
const marker = "k8s:enc:"

// identity stores values as they are.
type identity struct{}

func (identity) decrypt(_ context.Context, data, _ []byte) ([]byte, bool, error) {
	if bytes.HasPrefix(data, []byte(marker)) {
		return nil, false, errors.New("identity transformer tried to read encrypted data")
	}
	return data, false, nil
}

func (identity) encrypt(_ context.Context, plain, _ []byte) ([]byte, error) { return plain, nil }

// cbc is AES in CBC mode with padding; it does not notice changed data.
type cbc struct{ block cipher.Block }

func (c cbc) decrypt(_ context.Context, data, _ []byte) ([]byte, bool, error) {
	size := aes.BlockSize
	if len(data) < size {
		return nil, false, errShort
	}
	iv, data := data[:size], data[size:]
	if len(data)%size != 0 {
		return nil, false, errors.New("the stored data is not a multiple of the block size")
	}
	if len(data) == 0 {
		return nil, false, errors.New("the stored data is empty")
	}
	out := make([]byte, len(data))
	cipher.NewCBCDecrypter(c.block, iv).CryptBlocks(out, data)
	n := int(out[len(out)-1])
	if n == 0 || n > size || n > len(out) || !bytes.Equal(out[len(out)-n:], bytes.Repeat([]byte{byte(n)}, n)) {
		return nil, false, errors.New("invalid padding on input")
	}
	return out[:len(out)-n], false, nil
}

func (c cbc) encrypt(_ context.Context, plain, _ []byte) ([]byte, error) {
	size := aes.BlockSize
	pad := size - len(plain)%size
	out := make([]byte, size+len(plain)+pad)
	rand.Read(out[:size])
	copy(out[size:], plain)
	for i := len(out) - pad; i < len(out); i++ {
		out[i] = byte(pad)
	}
	cipher.NewCBCEncrypter(c.block, out[:size]).CryptBlocks(out[size:], out[size:])
	return out, nil
}

// gcm is AES in GCM mode.
type gcm struct{ aead cipher.AEAD }

func newGCM(key []byte) (gcm, error) {
	block, err := aes.NewCipher(key)
	if err != nil {
		return gcm{}, err
	}
	aead, err := cipher.NewGCM(block)
	return gcm{aead}, err
}

func (g gcm) decrypt(_ context.Context, data, bound []byte) ([]byte, bool, error) {
	n := g.aead.NonceSize()
	if len(data) < n {
		return nil, false, errShort
	}
	out, err := g.aead.Open(nil, data[:n], data[n:], bound)
	return out, false, err
}

func (g gcm) encrypt(_ context.Context, plain, bound []byte) ([]byte, error) {
	n := g.aead.NonceSize()
	out := make([]byte, n, n+len(plain)+g.aead.Overhead())
	rand.Read(out)
	return g.aead.Seal(out, out, plain, bound), nil
}

// box is NaCl's secretbox.
type box struct{ key [32]byte }

const boxNonce = 24

func (b *box) decrypt(_ context.Context, data, _ []byte) ([]byte, bool, error) {
	if len(data) < boxNonce {
		return nil, false, errShort
	}
	out, ok := secretbox.Open(nil, data[boxNonce:], (*[boxNonce]byte)(data[:boxNonce]), &b.key)
	if !ok {
		return nil, false, errors.New("output array was not large enough for encryption")
	}
	return out, false, nil
}

func (b *box) encrypt(_ context.Context, plain, _ []byte) ([]byte, error) {
	nonce := [boxNonce]byte{}
	rand.Read(nonce[:])
	return secretbox.Seal(nonce[:], plain, &nonce, &b.key), nil
}

// seeded derives a key of its own for every value from a seed, so that one seed
// serves any number of writes.
type seeded struct{ seed []byte }

// seedSize is the size of a seed, of what tells a derived key apart, and of keys.
const seedSize = 32

func newSeeded(seed []byte) (seeded, error) {
	if len(seed) < seedSize {
		return seeded{}, fmt.Errorf("invalid seed length %d used for key generation", len(seed))
	}
	return seeded{seed}, nil
}

func (s seeded) derive(info []byte) (gcm, error) {
	key, err := hkdf.Expand(sha256.New, s.seed, string(info), seedSize)
	if err != nil {
		return gcm{}, err
	}
	return newGCM(key)
}

func (s seeded) decrypt(ctx context.Context, data, bound []byte) ([]byte, bool, error) {
	if len(data) < seedSize {
		return nil, false, errShort
	}
	g, err := s.derive(data[:seedSize])
	if err != nil {
		return nil, false, fmt.Errorf("failed to derive read key from KDF: %w", err)
	}
	return g.decrypt(ctx, data[seedSize:], bound)
}

func (s seeded) encrypt(ctx context.Context, plain, bound []byte) ([]byte, error) {
	info := make([]byte, seedSize)
	rand.Read(info)
	g, err := s.derive(info)
	if err != nil {
		return nil, fmt.Errorf("failed to derive write key from KDF: %w", err)
	}
	sealed, err := g.encrypt(ctx, plain, bound)
	return append(info, sealed...), err
}

// prefixed is a transformer and how its values begin.
type prefixed struct {
	prefix string
	transformer
}

// chain writes with its first transformer and reads with whichever knows the
// value's beginning.
type chain struct {
	of   []prefixed
	none error // when none knows it
}

func (c *chain) decrypt(ctx context.Context, data, bound []byte) ([]byte, bool, error) {
	var errs []error
	for i, t := range c.of {
		rest, ok := bytes.CutPrefix(data, []byte(t.prefix))
		if !ok {
			continue
		}
		out, stale, err := t.transformer.decrypt(ctx, rest, bound)
		if err == nil {
			return out, stale || i > 0, nil
		}
		if t.prefix != "" { // identity may stand before those that can read it
			errs = append(errs, err)
		}
	}
	if err := errors.Join(errs...); err != nil {
		return nil, false, err
	}
	return nil, false, c.none
}

func (c *chain) encrypt(ctx context.Context, plain, bound []byte) ([]byte, error) {
	first := c.of[0]
	out, err := first.transformer.encrypt(ctx, plain, bound)
	if err != nil || first.prefix == "" {
		return out, err
	}
	return append([]byte(first.prefix), out...), nil
}

// keyed makes the chain of a provider's keys.
func keyed(keys []Key, what string, mk func(key []byte) (transformer, error)) (*chain, error) {
	c := &chain{none: fmt.Errorf("no matching key was found for the provided %s transformer", what)}
	for _, k := range keys {
		raw, err := base64.StdEncoding.DecodeString(k.Secret)
		if err != nil {
			return nil, fmt.Errorf("could not obtain secret for named key %s: %w", k.Name, err)
		}
		t, err := mk(raw)
		if err != nil {
			return nil, fmt.Errorf("error while creating cipher for named key %s: %w", k.Name, err)
		}
		c.of = append(c.of, prefixed{k.Name + ":", t})
	}
	return c, nil
}

func aesCBC(key []byte) (transformer, error) {
	b, err := aes.NewCipher(key)
	return cbc{b}, err
}

func aesGCM(key []byte) (transformer, error) { return newGCM(key) }

func secretBox(key []byte) (transformer, error) {
	if len(key) != 32 {
		return nil, fmt.Errorf("expected a key of 32 bytes, got %d", len(key))
	}
	return &box{key: [32]byte(key)}, nil
}
