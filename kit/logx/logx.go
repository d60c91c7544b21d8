// Package logx sets up structured logging once per process.
//
// Job: one slog handler, one level, one format for all rooms, and the bridge
// for libraries that log through the standard library.
//
// Not its job: what is logged. A room takes slog.Default().With("room", …) or a
// *slog.Logger in its deps.
package logx

import (
	"context"
	"io"
	"log"
	"log/slog"
	"strings"
)

// Options choose what is logged and how.
type Options struct {
	Level     slog.Level // records below it are dropped
	JSON      bool       // one JSON object a line instead of key=value text
	Component string     // the program's name, on every line when not empty
}

// Setup makes w the destination of slog's default logger and of package log.
func Setup(w io.Writer, o Options) *slog.Logger {
	var h slog.Handler
	ho := &slog.HandlerOptions{Level: o.Level}
	if o.JSON {
		h = slog.NewJSONHandler(w, ho)
	} else {
		h = slog.NewTextHandler(w, ho)
	}
	l := slog.New(h)
	if o.Component != "" {
		l = l.With("component", o.Component)
	}
	slog.SetDefault(l)
	log.SetFlags(0)
	return l
}

// ForVerbosity maps Kubernetes' --v number to a level: 0–2 informational, 3 and
// above debugging.
func ForVerbosity(v int) slog.Level {
	if v >= 3 {
		return slog.LevelDebug
	}
	return slog.LevelInfo
}

// Lines returns a writer that logs each line written to it; it is for child
// processes and libraries that want an io.Writer.
func Lines(l *slog.Logger, level slog.Level) io.Writer { return lineWriter{l, level} }

type lineWriter struct {
	log   *slog.Logger
	level slog.Level
}

func (w lineWriter) Write(p []byte) (int, error) {
	for line := range strings.Lines(string(p)) {
		if line = strings.TrimRight(line, "\r\n"); line != "" {
			w.log.Log(context.Background(), w.level, line)
		}
	}
	return len(p), nil
}
