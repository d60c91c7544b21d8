package encrypt

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	kmsapi "k8s.io/kms/apis/v2"

	"github.com/sampan-dev/sampan/kit/run"
	"github.com/sampan-dev/sampan/storage"
	"github.com/sampan-dev/sampan/storage/mem"
	"github.com/sampan-dev/sampan/storage/storagetest"
)

func secret(fill byte, n int) string {
	return base64.StdEncoding.EncodeToString(bytes.Repeat([]byte{fill}, n))
}

// conf writes a configuration with one rule.
func conf(resources, providers string) string {
	return "kind: EncryptionConfiguration\napiVersion: apiserver.config.k8s.io/v1\nresources:\n- resources: [" + resources + "]\n  providers: [" + providers + "]\n"
}

func cbcKey(name string, fill byte) string {
	return fmt.Sprintf("{aescbc: {keys: [{name: %s, secret: %s}]}}", name, secret(fill, 32))
}

// things says that keys are of their second part.
func things(key string) (string, string) {
	parts := strings.Split(key, "/")
	if len(parts) > 4 && strings.Contains(parts[2], ".") {
		return parts[2], parts[3]
	}
	return "", parts[2]
}

func newStore(t *testing.T, inner storage.Store, text string) *Store {
	t.Helper()
	file := filepath.Join(t.TempDir(), "encryption.yaml")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	s, err := New(inner, Config{File: file, Resource: things, Reload: true})
	if err != nil {
		t.Fatal(err)
	}
	g := run.New(context.Background())
	g.Go("encrypt", s.Run)
	t.Cleanup(func() { g.Stop(); g.Wait() })
	return s
}

func providers(t *testing.T) map[string]string {
	return map[string]string{
		"aescbc":    cbcKey("one", 1),
		"aesgcm":    fmt.Sprintf("{aesgcm: {keys: [{name: one, secret: %s}]}}", secret(2, 16)),
		"secretbox": fmt.Sprintf("{secretbox: {keys: [{name: one, secret: %s}]}}", secret(3, 32)),
		"identity":  "{identity: {}}",
		"kms":       fmt.Sprintf("{kms: {apiVersion: v2, name: vault, endpoint: %s}}", newVault(t).endpoint),
	}
}

// The contract of stores holds with every provider.
func TestContract(t *testing.T) {
	for name, p := range providers(t) {
		t.Run(name, func(t *testing.T) {
			storagetest.Run(t, func(t *testing.T) storage.Store { return newStore(t, mem.New(), conf("'*.*'", p)) })
		})
	}
}

// What is stored begins as upstream's does, hides the value, and is read back
// only under its own key where the provider can tell.
func TestFormat(t *testing.T) {
	for name, p := range providers(t) {
		t.Run(name, func(t *testing.T) {
			inner := mem.New()
			s := newStore(t, inner, conf("secrets", p))
			const key, plain = "/registry/secrets/default/s", "a value nobody may read"
			if _, err := s.Create(t.Context(), key, []byte(plain), 0); err != nil {
				t.Fatal(err)
			}
			raw, err := inner.Get(t.Context(), key, 0)
			if err != nil {
				t.Fatal(err)
			}
			want := map[string]string{"aescbc": "k8s:enc:aescbc:v1:one:", "aesgcm": "k8s:enc:aesgcm:v1:one:", "secretbox": "k8s:enc:secretbox:v1:one:",
				"kms": "k8s:enc:kms:v2:vault:", "identity": plain}[name]
			if !bytes.HasPrefix(raw.Value, []byte(want)) || name != "identity" && bytes.Contains(raw.Value, []byte("nobody")) {
				t.Errorf("stored %q", raw.Value)
			}
			if got, err := s.Get(t.Context(), key, 0); err != nil || string(got.Value) != plain || got.Stale {
				t.Errorf("read back %+v %v", got, err)
			}
			if other, err := s.Create(t.Context(), "/registry/pods/default/p", []byte(plain), 0); err != nil || string(other.Value) != plain {
				t.Errorf("what no rule names: %v %v", other, err)
			}
			if raw, _ := inner.Get(t.Context(), "/registry/pods/default/p", 0); string(raw.Value) != plain {
				t.Errorf("what no rule names is stored as %q", raw.Value)
			}
			if name == "aesgcm" || name == "kms" {
				inner.Create(t.Context(), "/registry/secrets/default/moved", raw.Value, 0)
				if _, err := s.Get(t.Context(), "/registry/secrets/default/moved", 0); err == nil {
					t.Error("a value was read under another key")
				}
			}
		})
	}
}

// A new key writes, the old one still reads and what it wrote is stale; without
// the old one it is an error that names the key.
func TestRotation(t *testing.T) {
	inner := mem.New()
	const key = "/registry/secrets/default/s"
	old := newStore(t, inner, conf("secrets", cbcKey("old", 1)))
	if _, err := old.Create(t.Context(), key, []byte("value"), 0); err != nil {
		t.Fatal(err)
	}
	both := newStore(t, inner, conf("secrets", cbcKey("new", 2)+", "+cbcKey("old", 1)))
	r, err := both.Get(t.Context(), key, 0)
	if err != nil || !r.Stale || string(r.Value) != "value" {
		t.Fatalf("%+v %v", r, err)
	}
	if r, err = both.Update(t.Context(), key, r.Value, r.Rev, 0); err != nil || r.Stale {
		t.Fatalf("%+v %v", r, err)
	}
	if raw, _ := inner.Get(t.Context(), key, 0); !bytes.HasPrefix(raw.Value, []byte("k8s:enc:aescbc:v1:new:")) {
		t.Errorf("rewritten as %q", raw.Value)
	}
	_, err = old.Get(t.Context(), key, 0)
	if want := `unable to transform key "/registry/secrets/default/s": no matching key was found for the provided AES transformer`; err == nil || err.Error() != want {
		t.Errorf("%v, want %s", err, want)
	}
	plain := newStore(t, inner, conf("secrets", "{identity: {}}, "+cbcKey("new", 2)))
	if r, err := plain.Get(t.Context(), key, 0); err != nil || !r.Stale {
		t.Errorf("on the way back to plain text: %+v %v", r, err)
	}
}

// A changed file is taken over; one that is wrong is not.
func TestReload(t *testing.T) {
	inner := mem.New()
	s := newStore(t, inner, conf("secrets", "{identity: {}}"))
	stored := func(name string) string {
		t.Helper()
		key := "/registry/secrets/default/" + name
		if _, err := s.Create(t.Context(), key, []byte("value"), 0); err != nil {
			t.Fatal(err)
		}
		raw, err := inner.Get(t.Context(), key, 0)
		if err != nil {
			t.Fatal(err)
		}
		return string(raw.Value)
	}
	if got := stored("a"); got != "value" {
		t.Fatal(got)
	}
	write := func(text string) {
		tmp := s.c.File + ".new"
		os.WriteFile(tmp, []byte(text), 0o600)
		os.Rename(tmp, s.c.File)
	}
	before := s.rules.Load()
	for deadline := time.Now().Add(20 * time.Second); s.rules.Load() == before && time.Now().Before(deadline); {
		write(conf("secrets", cbcKey("one", 1)+", {identity: {}}"))
		time.Sleep(150 * time.Millisecond)
	}
	if got := stored("b"); !strings.HasPrefix(got, "k8s:enc:aescbc:v1:one:") {
		t.Fatalf("not taken over: %q", got)
	}
	if r, err := s.Get(t.Context(), "/registry/secrets/default/a", 0); err != nil || !r.Stale {
		t.Errorf("%v %v", r, err)
	}
	after := s.rules.Load()
	write("kind: EncryptionConfiguration\n")
	s.reload(t.Context())
	if s.rules.Load() != after {
		t.Error("a bad file was taken over")
	}
}

func TestConfiguration(t *testing.T) {
	for text, want := range map[string]string{
		conf("secrets", cbcKey("a", 1)):                                                           "",
		conf("secrets, '*.apps', '*.'", cbcKey("a", 1)):                                           "using overlapping resources such as 'secrets' and '*.' in the same resource list is not allowed as they will be masked",
		conf("secrets, secrets", cbcKey("a", 1)):                                                  "the same resource cannot be specified multiple times",
		conf("'*'", cbcKey("a", 1)):                                                               "use '*.' to encrypt all the resources from core API group or *.* to encrypt all resources",
		conf("Secrets", cbcKey("a", 1)):                                                           "resource name should not contain capital letters",
		conf("events.events.k8s.io", cbcKey("a", 1)):                                              "Use 'events' instead in the config file",
		conf("deployments.extensions", cbcKey("a", 1)):                                            "'extensions' group has been removed and cannot be used for encryption",
		conf("'pods.*'", cbcKey("a", 1)):                                                          "encrypting the same resource across groups is not supported",
		conf("secrets", "{}"):                                                                     "provider does not contain any of the expected providers",
		conf("secrets", "{identity: {}, aescbc: {keys: []}}"):                                     "more than one provider specified in a single element, should split into different list elements",
		conf("secrets", "{aescbc: {keys: []}}"):                                                   "resources[0].providers[0].aescbc.keys: Required value: at least one keys is required",
		conf("secrets", "{aescbc: {keys: [{name: a, secret: "+secret(1, 20)+"}]}}"):               `resources[0].providers[0].aescbc.keys[0].secret: Invalid value: "REDACTED": secret is not of the expected length, got 20, expected one of [16 24 32]`,
		conf("secrets", "{secretbox: {keys: [{name: a, secret: '%'}]}}"):                          "secrets must be base64 encoded",
		conf("secrets", "{kms: {name: k, endpoint: 'unix:///k', apiVersion: v1}}"):                "KMSv1 is deprecated",
		conf("secrets", "{kms: {name: k, endpoint: 'http://k', apiVersion: v2}}"):                 `unsupported scheme "http" for KMS provider, only unix is supported`,
		"kind: Secret\napiVersion: v1\n":                                                          "got unexpected config type: v1, Kind=Secret",
		"kind: EncryptionConfiguration\napiVersion: apiserver.config.k8s.io/v1\nresources: []":    "resources: Required value: at least one resources is required",
		conf("'*.*'", cbcKey("a", 1)) + "- resources: [secrets]\n  providers: [{identity: {}}]\n": `resource "secrets" is masked by earlier rule "*.*"`,
	} {
		_, err := Parse([]byte(text))
		if want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("%s\n%v, want %q", text, err, want)
		}
		if err != nil && strings.Contains(err.Error(), secret(1, 32)) {
			t.Errorf("the error shows a secret: %v", err)
		}
	}
}

// vault is a key management service.
type vault struct {
	kmsapi.UnimplementedKeyManagementServiceServer
	endpoint string

	mu       sync.Mutex
	key      string
	ill      bool
	encrypts int
	decrypts int
}

func newVault(t *testing.T) *vault {
	t.Helper()
	dir, err := os.MkdirTemp("", "kms") // a socket's path must be short
	if err != nil {
		t.Fatal(err)
	}
	v := &vault{endpoint: "unix://" + dir + "/s", key: "key-1"}
	l, err := net.Listen("unix", dir+"/s")
	if err != nil {
		t.Fatal(err)
	}
	srv := grpc.NewServer()
	kmsapi.RegisterKeyManagementServiceServer(srv, v)
	g := run.New(context.Background())
	g.Go("vault", func(context.Context) error { return srv.Serve(l) })
	t.Cleanup(func() { srv.Stop(); g.Stop(); g.Wait(); os.RemoveAll(dir) })
	return v
}

func (v *vault) Status(context.Context, *kmsapi.StatusRequest) (*kmsapi.StatusResponse, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.ill {
		return nil, errors.New("out of order")
	}
	return &kmsapi.StatusResponse{Version: "v2", Healthz: "ok", KeyId: v.key}, nil
}

func (v *vault) Encrypt(_ context.Context, r *kmsapi.EncryptRequest) (*kmsapi.EncryptResponse, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.encrypts++
	return &kmsapi.EncryptResponse{Ciphertext: flip(r.Plaintext, v.key), KeyId: v.key, Annotations: map[string][]byte{"version.vault.example": []byte("1")}}, nil
}

func (v *vault) Decrypt(_ context.Context, r *kmsapi.DecryptRequest) (*kmsapi.DecryptResponse, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.decrypts++
	if string(r.Annotations["version.vault.example"]) != "1" {
		return nil, errors.New("annotations are lost")
	}
	return &kmsapi.DecryptResponse{Plaintext: flip(r.Ciphertext, r.KeyId)}, nil
}

func flip(b []byte, key string) []byte {
	out := bytes.Clone(b)
	for i := range out {
		out[i] ^= key[i%len(key)]
	}
	return out
}

// The service is asked once per key, not once per object; a new key makes old
// values stale; a service that is gone stops no reader of what was read before.
func TestKMS(t *testing.T) {
	v := newVault(t)
	inner := mem.New()
	text := conf("secrets", fmt.Sprintf("{kms: {apiVersion: v2, name: vault, endpoint: %s}}", v.endpoint))
	s := newStore(t, inner, text)
	for i := range 100 {
		if _, err := s.Create(t.Context(), fmt.Sprint("/registry/secrets/default/s", i), []byte("value"), 0); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := s.List(t.Context(), "/registry/secrets/", storage.ListOptions{}); err != nil {
		t.Fatal(err)
	}
	if v.encrypts != 1 || v.decrypts != 0 {
		t.Errorf("asked %d times to encrypt, %d to decrypt", v.encrypts, v.decrypts)
	}
	if err := s.Healthy(t.Context()); err != nil {
		t.Error(err)
	}
	other := newStore(t, inner, text) // another server, or this one after a restart
	if _, err := other.List(t.Context(), "/registry/secrets/", storage.ListOptions{}); err != nil || v.decrypts != 1 {
		t.Errorf("%v, asked %d times to decrypt", err, v.decrypts)
	}
	v.mu.Lock()
	v.key = "key-2"
	v.mu.Unlock()
	if err := s.rules.Load().kms[0].probe(t.Context()); err != nil {
		t.Fatal(err)
	}
	r, err := s.Get(t.Context(), "/registry/secrets/default/s1", 0)
	if err != nil || !r.Stale {
		t.Errorf("after the key changed: %+v %v", r, err)
	}
	v.mu.Lock()
	v.ill = true
	v.mu.Unlock()
	k := s.rules.Load().kms[0]
	if err := k.probe(t.Context()); err == nil || !strings.Contains(err.Error(), "failed to perform status section of the healthz check for KMS Provider vault") {
		t.Errorf("health of an ill service: %v", err)
	}
	if err := s.Healthy(t.Context()); err == nil || !strings.HasPrefix(err.Error(), "kms-provider-0: ") {
		t.Errorf("health: %v", err)
	}
	if _, err := s.Get(t.Context(), "/registry/secrets/default/s1", 0); err != nil {
		t.Errorf("reading what was read before: %v", err)
	}
	stale := *k.state.Load()
	stale.expires = time.Now().Add(-time.Second)
	k.state.Store(&stale)
	if _, err := s.Create(t.Context(), "/registry/secrets/default/late", []byte("v"), 0); err == nil || !strings.Contains(err.Error(), "expired at") {
		t.Errorf("writing long after: %v", err)
	}
}

func FuzzDecrypt(f *testing.F) {
	for _, text := range []string{conf("secrets", cbcKey("a", 1)), conf("secrets", fmt.Sprintf("{aesgcm: {keys: [{name: a, secret: %s}]}}", secret(2, 32))),
		conf("secrets", fmt.Sprintf("{secretbox: {keys: [{name: a, secret: %s}]}}", secret(3, 32)))} {
		f.Add([]byte(text), []byte("k8s:enc:aescbc:v1:a:0123456789abcdef0123456789abcdef"))
	}
	f.Add([]byte("x"), (&envelope{data: []byte("d"), source: []byte("s"), keyID: "k", annotations: map[string][]byte{"a.b": {1}}, sourceType: 1}).encode())
	f.Fuzz(func(t *testing.T, text, value []byte) {
		if e, err := decodeEnvelope(value); err == nil {
			_ = e.check()
			if back, err := decodeEnvelope(e.encode()); err != nil || back.id() != e.id() {
				t.Errorf("%+v came back as %+v, %v", e, back, err)
			}
		}
		c, err := Parse(text)
		if err != nil {
			return
		}
		r, err := newRules(c, text, newMetrics(nil))
		if err != nil {
			return
		}
		for _, rule := range r.list {
			if len(r.kms) == 0 {
				rule.decrypt(t.Context(), value, []byte("key"))
			}
		}
	})
}
