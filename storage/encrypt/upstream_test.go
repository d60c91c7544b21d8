package encrypt

import (
	"bytes"
	"crypto/aes"
	"testing"

	"k8s.io/apiserver/pkg/storage/value"
	upstreamaes "k8s.io/apiserver/pkg/storage/value/encrypt/aes"
	upstreambox "k8s.io/apiserver/pkg/storage/value/encrypt/secretbox"
)

// What one side writes the other reads: upstream's own transformers are the judge.
func TestUpstreamReadsAndWrites(t *testing.T) {
	key, bound, plain := bytes.Repeat([]byte{7}, 32), []byte("/registry/secrets/a/b"), []byte("some text, 21 bytes..")
	block, err := aes.NewCipher(key)
	if err != nil {
		t.Fatal(err)
	}
	must := func(tr value.Transformer, err error) value.Transformer {
		if err != nil {
			t.Fatal(err)
		}
		return tr
	}
	ours := func(tr transformer, err error) transformer {
		if err != nil {
			t.Fatal(err)
		}
		return tr
	}
	for name, c := range map[string]struct {
		theirs value.Transformer
		ours   transformer
	}{
		"aescbc":    {upstreamaes.NewCBCTransformer(block), ours(aesCBC(key))},
		"aesgcm":    {must(upstreamaes.NewGCMTransformer(block)), ours(aesGCM(key))},
		"secretbox": {upstreambox.NewSecretboxTransformer([32]byte(key)), ours(secretBox(key))},
		"kms":       {must(upstreamaes.NewHKDFExtendedNonceGCMTransformer(key)), seeded{key}},
	} {
		sealed, err := c.ours.encrypt(t.Context(), plain, bound)
		if err != nil {
			t.Fatal(err)
		}
		if got, _, err := c.theirs.TransformFromStorage(t.Context(), sealed, value.DefaultContext(bound)); err != nil || !bytes.Equal(got, plain) {
			t.Errorf("%s: upstream reads %q, %v", name, got, err)
		}
		if sealed, err = c.theirs.TransformToStorage(t.Context(), plain, value.DefaultContext(bound)); err != nil {
			t.Fatal(err)
		}
		if got, _, err := c.ours.decrypt(t.Context(), sealed, bound); err != nil || !bytes.Equal(got, plain) {
			t.Errorf("%s: of upstream's we read %q, %v", name, got, err)
		}
	}
}
