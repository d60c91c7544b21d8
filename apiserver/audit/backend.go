package audit

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	lumberjack "gopkg.in/natefinch/lumberjack.v2"
	auditv1 "k8s.io/apiserver/pkg/apis/audit/v1"

	"github.com/sampan-dev/sampan/kit/clock"
)

// backend stores events for good.
type backend interface {
	name() string
	store(ctx context.Context, events []*auditv1.Event) error
}

// logFile writes a line per event.
type logFile struct {
	mu     sync.Mutex
	out    io.Writer
	legacy bool
}

func newLog(c Log) (*logFile, error) {
	l := &logFile{legacy: c.Format == "legacy", out: os.Stdout}
	if c.Path == "-" {
		return l, nil
	}
	// Found out now rather than at the first event.
	f, err := os.OpenFile(c.Path, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, fmt.Errorf("ensureLogFile: %w", err)
	}
	f.Close()
	l.out = &lumberjack.Logger{Filename: c.Path, MaxAge: c.MaxAge, MaxBackups: c.MaxFiles, MaxSize: sizeOf(c.MaxSize), Compress: c.Compress}
	return l, nil
}

// sizeOf reads 0 as never, which lumberjack reads as its own default.
func sizeOf(megabytes int) int {
	if megabytes == 0 {
		return 1 << 30
	}
	return megabytes
}

func (*logFile) name() string { return "log" }

func (l *logFile) store(_ context.Context, events []*auditv1.Event) error {
	var errs []error
	for _, e := range events {
		line := []byte(legacyLine(e))
		if !l.legacy {
			var err error
			if line, err = json.Marshal(e); err != nil {
				errs = append(errs, err)
				continue
			}
		}
		l.mu.Lock()
		_, err := l.out.Write(append(line, '\n'))
		l.mu.Unlock()
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// legacyLine is an event in the form of before there were events.
func legacyLine(e *auditv1.Event) string {
	user, groups, as, asGroups := "<none>", "<none>", "<self>", "<lookup>"
	if e.User.Username != "" {
		user = e.User.Username
		if len(e.User.Groups) > 0 {
			groups = quoted(e.User.Groups)
		}
	}
	if e.ImpersonatedUser != nil {
		as = e.ImpersonatedUser.Username
		if e.ImpersonatedUser.Groups != nil {
			asGroups = quoted(e.ImpersonatedUser.Groups)
		}
	}
	namespace, response, ip := "<none>", "<deferred>", "<unknown>"
	if e.ObjectRef != nil && e.ObjectRef.Namespace != "" {
		namespace = e.ObjectRef.Namespace
	}
	if e.ResponseStatus != nil {
		response = strconv.Itoa(int(e.ResponseStatus.Code))
	}
	if len(e.SourceIPs) > 0 {
		ip = e.SourceIPs[0]
	}
	return fmt.Sprintf("%s AUDIT: id=%q stage=%q ip=%q method=%q user=%q groups=%q as=%q asgroups=%q user-agent=%q namespace=%q uri=%q response=\"%s\"",
		e.RequestReceivedTimestamp.Format(time.RFC3339Nano), e.AuditID, e.Stage, ip, e.Verb, user, groups, as, asGroups, e.UserAgent, namespace, e.RequestURI, response)
}

func quoted(list []string) string {
	q := make([]string, len(list))
	for i, s := range list {
		q[i] = strconv.Quote(s)
	}
	return strings.Join(q, ",")
}

// direct stores events while the request waits.
type direct struct {
	backend
	isStrict bool
}

func (d *direct) put(events []*auditv1.Event) error { return d.store(context.Background(), events) }
func (d *direct) strict() bool                      { return d.isStrict }
func (d *direct) run(context.Context) error         { return nil }

// truncating cuts events down to a size.
type truncating struct {
	backend
	d    Delivery
	lost func(int, error)
}

const truncatedKey, truncatedValue = "audit.k8s.io/truncated", "true"

func (t *truncating) store(ctx context.Context, events []*auditv1.Event) error {
	var errs []error
	var batch []*auditv1.Event
	size := int64(0)
	send := func() {
		if len(batch) > 0 {
			errs = append(errs, t.backend.store(ctx, batch))
		}
		batch, size = nil, 0
	}
	for _, e := range events {
		e, n, err := t.cut(e)
		if err != nil {
			t.lost(1, err)
			continue
		}
		if size+n > t.d.MaxBatch {
			send()
		}
		batch, size = append(batch, e), size+n
	}
	send()
	return errors.Join(errs...)
}

// cut leaves the bodies out of an event that is too large.
func (t *truncating) cut(e *auditv1.Event) (*auditv1.Event, int64, error) {
	size := func(e *auditv1.Event) int64 {
		data, err := json.Marshal(e)
		if err != nil {
			return 1 << 62
		}
		return int64(len(data))
	}
	n := size(e)
	if n <= t.d.MaxEvent {
		return e, n, nil
	}
	small := e.DeepCopy()
	small.RequestObject, small.ResponseObject = nil, nil
	if small.Annotations == nil {
		small.Annotations = map[string]string{}
	}
	small.Annotations[truncatedKey] = truncatedValue
	if n = size(small); n > t.d.MaxEvent {
		return nil, 0, fmt.Errorf("event is too large even after truncating: %d bytes", n)
	}
	return small, n, nil
}

// batches collects events and stores them together, on its own time.
type batches struct {
	backend
	d    Delivery
	in   chan *auditv1.Event
	lost func(int, error)
}

func newBatches(b backend, d Delivery, lost func(int, error)) *batches {
	return &batches{backend: b, d: d, in: make(chan *auditv1.Event, d.Buffer), lost: lost}
}

var errFull = errors.New("audit buffer queue blocked")

func (b *batches) strict() bool { return false }

func (b *batches) put(events []*auditv1.Event) error {
	for _, e := range events {
		select {
		case b.in <- e:
		default:
			return errFull
		}
	}
	return nil
}

// run stores batches until ctx ends, and then what is left.
func (b *batches) run(ctx context.Context) error {
	limit := bucket{rate: float64(b.d.QPS), burst: float64(b.d.Burst), tokens: float64(b.d.Burst), at: clock.Now()}
	for ctx.Err() == nil {
		batch := b.collect(ctx)
		if len(batch) == 0 {
			continue
		}
		if b.d.Throttle {
			clock.Sleep(ctx, limit.take(clock.Now()))
		}
		b.give(ctx, batch)
	}
	for {
		select {
		case e := <-b.in:
			b.give(ctx, []*auditv1.Event{e})
		default:
			return ctx.Err()
		}
	}
}

// finalTime bounds the storing of what is left at the end.
const finalTime = 5 * time.Second

func (b *batches) give(ctx context.Context, batch []*auditv1.Event) {
	if ctx.Err() != nil {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(context.WithoutCancel(ctx), finalTime)
		defer cancel()
	}
	if err := b.store(ctx, batch); err != nil {
		b.lost(len(batch), err)
	}
}

// collect waits for a batch to be full or old. It waits for the first event
// without a timer: nothing happens while nothing happens.
func (b *batches) collect(ctx context.Context) []*auditv1.Event {
	var batch []*auditv1.Event
	select {
	case e := <-b.in:
		batch = append(batch, e)
	case <-ctx.Done():
		return nil
	}
	if b.d.Batch == 1 {
		return batch
	}
	timer := clock.NewTimer(b.d.Wait)
	defer timer.Stop()
	for len(batch) < b.d.Batch {
		select {
		case e := <-b.in:
			batch = append(batch, e)
		case <-timer.C:
			return batch
		case <-ctx.Done():
			return batch
		}
	}
	return batch
}

// bucket limits a rate.
type bucket struct {
	rate, burst, tokens float64
	at                  time.Time
}

// take takes one token and says how long to wait for it.
func (b *bucket) take(now time.Time) time.Duration {
	b.tokens = min(b.burst, b.tokens+now.Sub(b.at).Seconds()*b.rate)
	b.at = now
	b.tokens--
	if b.tokens >= 0 {
		return 0
	}
	return time.Duration(-b.tokens / b.rate * float64(time.Second))
}
