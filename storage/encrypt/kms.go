package encrypt

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/encoding/protowire"
	"k8s.io/apimachinery/pkg/util/uuid"
	fieldvalidation "k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
	kmsapi "k8s.io/kms/apis/v2"

	"github.com/sampan-dev/sampan/kit/clock"
)

// Upstream's limits and times.
const (
	maxAnnotations = 32 << 10
	maxKeyID       = 1 << 10
	maxSource      = 1 << 10
	cacheTime      = 24 * time.Hour
	probeWell      = time.Minute
	probeIll       = 10 * time.Second
	writeTime      = 3 * time.Minute // a seed may be used so long after the service last confirmed its key
	cacheWell      = 20 * time.Second
	cacheIll       = 3 * time.Second
)

// How the key is made of what the service encrypted.
const (
	sourceKey  = 0 // it is the key
	sourceSeed = 1 // it is the seed of keys
)

// kms encrypts with seeds that a key management service keeps for us.
type kms struct {
	c    *KMS
	met  *metrics
	conn func() (kmsapi.KeyManagementServiceClient, error)

	state  atomic.Pointer[kmsState]
	health atomic.Pointer[kmsHealth]
	probes sync.Mutex // one at a time

	mu    sync.Mutex
	known map[string]*knownSource
	close func() error
}

// kmsState is the seed to write with.
type kmsState struct {
	seeded
	object  envelope // without data
	expires time.Time
}

// kmsHealth is how the service was last found.
type kmsHealth struct {
	err error
	at  time.Time
}

// knownSource is a key or seed that the service decrypted.
type knownSource struct {
	transformer
	used time.Time
}

// envelope is upstream's EncryptedObject: data, and what decrypts it.
type envelope struct {
	data, source []byte
	keyID        string
	annotations  map[string][]byte
	sourceType   uint64
}

func newKMS(c *KMS, m *metrics) *kms {
	k := &kms{c: c, met: m, known: map[string]*knownSource{}}
	k.conn = sync.OnceValues(func() (kmsapi.KeyManagementServiceClient, error) {
		conn, err := grpc.NewClient("passthrough:///"+target(c.Endpoint),
			grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithContextDialer(dialUnix))
		if err != nil {
			return nil, fmt.Errorf("failed to create connection to %s, error: %w", c.Endpoint, err)
		}
		k.close = conn.Close
		return kmsapi.NewKeyManagementServiceClient(conn), nil
	})
	return k
}

// target is the path of a unix endpoint; unix:///@name is an abstract one.
func target(endpoint string) string {
	path := strings.TrimPrefix(strings.TrimPrefix(endpoint, "unix:"), "//")
	return strings.Replace(path, "/@", "@", 1)
}

// run asks the service now and then whether its key has changed.
func (k *kms) run(ctx context.Context) error {
	defer func() {
		if k.close != nil {
			k.close()
		}
	}()
	for {
		wait := probeWell
		if k.probe(ctx) != nil {
			wait = probeIll
		}
		if err := clock.Sleep(ctx, wait); err != nil {
			return err
		}
	}
}

// healthy says how the service is, asking it if it was not asked of late.
func (k *kms) healthy(ctx context.Context) error {
	if h := k.health.Load(); h != nil {
		fresh := cacheWell
		if h.err != nil {
			fresh = cacheIll
		}
		if clock.Since(h.at) < fresh {
			return h.err
		}
	}
	return k.probe(ctx)
}

// probe asks the service for its state and gets a new seed when its key is new.
func (k *kms) probe(ctx context.Context) error {
	k.probes.Lock()
	defer k.probes.Unlock()
	err := k.ask(ctx)
	if ctx.Err() == nil {
		k.health.Store(&kmsHealth{err: err, at: clock.Now()})
	}
	return err
}

func (k *kms) ask(ctx context.Context) error {
	client, err := k.conn()
	if err != nil {
		return err
	}
	tctx, cancel := context.WithTimeout(ctx, k.c.Timeout.Duration)
	defer cancel()
	began := clock.Now()
	st, err := client.Status(tctx, &kmsapi.StatusRequest{})
	if err != nil {
		return fmt.Errorf("failed to perform status section of the healthz check for KMS Provider %s, error: %w", k.c.Name, err)
	}
	var errs []error
	if st.Healthz != "ok" {
		errs = append(errs, fmt.Errorf("got unexpected healthz status: %s", st.Healthz))
	}
	if st.Version != "v2" && st.Version != "v2beta1" {
		errs = append(errs, fmt.Errorf("expected KMSv2 API version %s, got %s", "v2", st.Version))
	}
	if err := validKeyID(st.KeyId); err != nil {
		errs = append(errs, fmt.Errorf("got invalid KMSv2 KeyID: %w", err))
	} else {
		errs = append(errs, k.renew(ctx, client, st.KeyId, began))
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("kmsv2 Provider %s is not healthy, error: %w", k.c.Name, err)
	}
	return nil
}

// renew extends the seed's time, or gets a new one when the key has changed.
func (k *kms) renew(ctx context.Context, client kmsapi.KeyManagementServiceClient, keyID string, began time.Time) error {
	if s := k.state.Load(); s != nil && s.object.keyID == keyID {
		next := *s
		next.expires = began.Add(writeTime)
		k.state.Store(&next)
		return nil
	}
	seed := make([]byte, seedSize)
	rand.Read(seed)
	ctx, cancel := context.WithTimeout(ctx, k.c.Timeout.Duration)
	defer cancel()
	resp, err := client.Encrypt(ctx, &kmsapi.EncryptRequest{Uid: string(uuid.NewUUID()), Plaintext: seed})
	if err != nil {
		return fmt.Errorf("failed to rotate DEK uid=%s, error: failed to encrypt DEK, error: %w", k.c.Name, err)
	}
	s := &kmsState{seeded: seeded{seed}, expires: began.Add(writeTime), object: envelope{
		data: []byte{0}, source: resp.Ciphertext, keyID: resp.KeyId, annotations: resp.Annotations, sourceType: sourceSeed,
	}}
	if err := s.object.check(); err != nil {
		return err
	}
	k.remember(&s.object, s.seeded)
	k.state.Store(s)
	return nil
}

func (k *kms) encrypt(ctx context.Context, plain, bound []byte) ([]byte, error) {
	s := k.state.Load()
	if s == nil {
		if err := k.probe(ctx); err != nil {
			return nil, err
		}
		s = k.state.Load()
	}
	if now := clock.Now(); now.After(s.expires) {
		return nil, fmt.Errorf("encryptedDEKSource with keyID expired at %s (current time is %s)", s.expires.Format(time.RFC3339), now.Format(time.RFC3339))
	}
	data, err := s.seeded.encrypt(ctx, plain, bound)
	if err != nil {
		return nil, err
	}
	e := s.object
	e.data = data
	return e.encode(), nil
}

func (k *kms) decrypt(ctx context.Context, data, bound []byte) ([]byte, bool, error) {
	e, err := decodeEnvelope(data)
	if err != nil {
		return nil, false, err
	}
	if err := e.check(); err != nil {
		return nil, false, err
	}
	t := k.recall(e)
	if t == nil {
		if t, err = k.fetch(ctx, e); err != nil {
			return nil, false, err
		}
	}
	out, stale, err := t.decrypt(ctx, e.data, bound)
	if err != nil {
		return nil, false, err
	}
	if s := k.state.Load(); s != nil {
		stale = stale || e.keyID != s.object.keyID || e.sourceType != s.object.sourceType
	}
	return out, stale, nil
}

// fetch has the service decrypt a key or seed.
func (k *kms) fetch(ctx context.Context, e *envelope) (transformer, error) {
	k.met.misses.Inc()
	client, err := k.conn()
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, k.c.Timeout.Duration)
	defer cancel()
	resp, err := client.Decrypt(ctx, &kmsapi.DecryptRequest{
		Ciphertext: e.source, Uid: string(uuid.NewUUID()), KeyId: e.keyID, Annotations: e.annotations,
	})
	if err != nil {
		return nil, fmt.Errorf("failed to decrypt DEK, error: %w", err)
	}
	var t transformer
	if e.sourceType == sourceSeed {
		t, err = newSeeded(resp.Plaintext)
	} else {
		t, err = newGCM(resp.Plaintext)
	}
	if err != nil {
		return nil, err
	}
	k.remember(e, t)
	return t, nil
}

// id tells sources apart.
func (e *envelope) id() string {
	h := sha256.New()
	part := func(b []byte) { fmt.Fprintf(h, "%d:", len(b)); h.Write(b) }
	fmt.Fprint(h, e.sourceType, " ")
	part(e.source)
	part([]byte(e.keyID))
	for _, key := range slices.Sorted(maps.Keys(e.annotations)) {
		part([]byte(key))
		part(e.annotations[key])
	}
	return string(h.Sum(nil))
}

func (k *kms) recall(e *envelope) transformer {
	k.mu.Lock()
	defer k.mu.Unlock()
	if s := k.known[e.id()]; s != nil {
		s.used = clock.Now()
		return s.transformer
	}
	return nil
}

// remember keeps a source, and forgets those not used for a day.
func (k *kms) remember(e *envelope, t transformer) {
	k.mu.Lock()
	defer k.mu.Unlock()
	now := clock.Now()
	maps.DeleteFunc(k.known, func(_ string, s *knownSource) bool { return now.Sub(s.used) > cacheTime })
	k.known[e.id()] = &knownSource{t, now}
}

func validKeyID(id string) error {
	switch {
	case id == "":
		return errors.New("keyID is empty")
	case len(id) > maxKeyID:
		return fmt.Errorf("keyID is %d bytes, which exceeds the max size of %d", len(id), maxKeyID)
	}
	return nil
}

// check says what is wrong with an envelope.
func (e *envelope) check() error {
	switch {
	case e.sourceType > sourceSeed:
		return fmt.Errorf("unknown encryptedDEKSourceType: %d", e.sourceType)
	case len(e.data) == 0:
		return errors.New("encrypted data is empty")
	case len(e.source) == 0:
		return errors.New("failed to validate encrypted DEK source: encrypted DEK source is empty")
	case len(e.source) > maxSource:
		return fmt.Errorf("failed to validate encrypted DEK source: encrypted DEK source is %d bytes, which exceeds the max size of %d", len(e.source), maxSource)
	}
	if err := validKeyID(e.keyID); err != nil {
		return fmt.Errorf("failed to validate key id: %w", err)
	}
	total := 0
	for key, v := range e.annotations {
		if errs := fieldvalidation.IsFullyQualifiedDomainName(field.NewPath("annotations"), key); len(errs) > 0 {
			return fmt.Errorf("failed to validate annotations: %w", errs.ToAggregate())
		}
		total += len(key) + len(v)
	}
	if total > maxAnnotations {
		return fmt.Errorf("failed to validate annotations: total size of annotations is %d, which exceeds the max size of %d", total, maxAnnotations)
	}
	return nil
}

// encode writes the envelope as upstream's protobuf message.
func (e *envelope) encode() []byte {
	var b []byte
	put := func(n protowire.Number, v []byte) {
		b = protowire.AppendTag(b, n, protowire.BytesType)
		b = protowire.AppendBytes(b, v)
	}
	put(1, e.data)
	put(2, []byte(e.keyID))
	put(3, e.source)
	for _, key := range slices.Sorted(maps.Keys(e.annotations)) {
		var entry []byte
		entry = protowire.AppendTag(entry, 1, protowire.BytesType)
		entry = protowire.AppendString(entry, key)
		entry = protowire.AppendTag(entry, 2, protowire.BytesType)
		entry = protowire.AppendBytes(entry, e.annotations[key])
		put(4, entry)
	}
	if e.sourceType != 0 {
		b = protowire.AppendTag(b, 5, protowire.VarintType)
		b = protowire.AppendVarint(b, e.sourceType)
	}
	return b
}

// fields calls fn for each field of a message.
func fields(b []byte, fn func(n protowire.Number, v []byte, u uint64)) error {
	for len(b) > 0 {
		n, t, size := protowire.ConsumeTag(b)
		if size < 0 {
			return protowire.ParseError(size)
		}
		b = b[size:]
		switch t {
		case protowire.BytesType:
			v, size := protowire.ConsumeBytes(b)
			if size < 0 {
				return protowire.ParseError(size)
			}
			fn(n, v, 0)
			b = b[size:]
		case protowire.VarintType:
			u, size := protowire.ConsumeVarint(b)
			if size < 0 {
				return protowire.ParseError(size)
			}
			fn(n, nil, u)
			b = b[size:]
		default:
			size := protowire.ConsumeFieldValue(n, t, b)
			if size < 0 {
				return protowire.ParseError(size)
			}
			b = b[size:]
		}
	}
	return nil
}

func decodeEnvelope(data []byte) (*envelope, error) {
	e := &envelope{}
	var bad error
	err := fields(data, func(n protowire.Number, v []byte, u uint64) {
		switch n {
		case 1:
			e.data = v
		case 2:
			e.keyID = string(v)
		case 3:
			e.source = v
		case 4:
			key, value := "", []byte(nil)
			if err := fields(v, func(n protowire.Number, v []byte, _ uint64) {
				switch n {
				case 1:
					key = string(v)
				case 2:
					value = v
				}
			}); err != nil {
				bad = err
			}
			if e.annotations == nil {
				e.annotations = map[string][]byte{}
			}
			e.annotations[key] = value
		case 5:
			e.sourceType = u
		}
	})
	return e, errors.Join(err, bad)
}
