package etcd

import (
	"context"
	"log/slog"
	"runtime"
	"slices"
	"strings"
	"sync/atomic"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
)

// guard is how a Server hears of its member's troubles.
type guard struct {
	failed func(msg string) // the member cannot go on
	ending atomic.Bool      // it is being stopped: complaints are expected
}

// bridge returns a zap logger that writes warnings and worse to log, and that
// reports what etcd takes for fatal to g instead of ending the process: only
// the goroutine in trouble ends.
func bridge(log *slog.Logger, g *guard) *zap.Logger {
	end := endGoroutine(g.failed)
	return zap.New(core{log: log, g: g}, zap.WithFatalHook(end), zap.WithPanicHook(end))
}

// advice is what etcd says at every start of a member like ours.
var advice = []string{
	"Running http and grpc server on single port",
	"it isn't recommended to use default name",
	"simple token is not cryptographically signed",
}

type endGoroutine func(msg string)

// OnWrite implements zapcore.CheckWriteHook.
func (e endGoroutine) OnWrite(ce *zapcore.CheckedEntry, fields []zapcore.Field) {
	msg := ce.Message
	for _, f := range fields {
		if err, ok := f.Interface.(error); ok && f.Type == zapcore.ErrorType {
			msg += ": " + err.Error()
		}
	}
	e(msg)
	runtime.Goexit()
}

// core is a zapcore.Core over slog.
type core struct {
	log *slog.Logger
	g   *guard
}

func (c core) Enabled(l zapcore.Level) bool { return l >= zapcore.WarnLevel }

func (c core) With(fields []zapcore.Field) zapcore.Core {
	return core{log: slog.New(c.log.Handler().WithAttrs(attrs(fields))), g: c.g}
}

func (c core) Check(e zapcore.Entry, ce *zapcore.CheckedEntry) *zapcore.CheckedEntry {
	if c.Enabled(e.Level) {
		return ce.AddCore(e, c)
	}
	return ce
}

func (c core) Write(e zapcore.Entry, fields []zapcore.Field) error {
	level := slog.LevelError
	said := func(a string) bool { return strings.HasPrefix(e.Message, a) }
	switch {
	case c.g.ending.Load() || slices.ContainsFunc(advice, said):
		level = slog.LevelDebug
	case e.Level == zapcore.WarnLevel:
		level = slog.LevelWarn
	}
	c.log.LogAttrs(context.Background(), level, e.Message, attrs(fields)...)
	return nil
}

func (c core) Sync() error { return nil }

func attrs(fields []zapcore.Field) []slog.Attr {
	enc := zapcore.NewMapObjectEncoder()
	for _, f := range fields {
		f.AddTo(enc)
	}
	out := make([]slog.Attr, 0, len(fields))
	for _, f := range fields {
		if v, ok := enc.Fields[f.Key]; ok {
			out = append(out, slog.Any(f.Key, v))
		}
	}
	return out
}
