package api

import (
	"encoding/json"
	"fmt"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"sync"
	"unicode/utf8"
)

// Objects of kinds that no Go type describes are maps of maps. What reads and
// writes them here knows nothing but the seven types such a map may hold, which
// makes it several times as fast as reflection.

// maxLooseDepth bounds what ReadLoose follows; deeper documents are not plain.
const maxLooseDepth = 128

// ReadLoose reads a JSON object as apimachinery reads unstructured ones: whole
// numbers are int64, all others float64. It takes plain documents only and says
// false to all that is wrong or odd: syntax errors, keys that come twice, text
// that is not UTF-8, great depth. Those are for a decoder that has words for it.
//
// The strings share one copy of data.
func ReadLoose(data []byte) (map[string]any, bool) {
	r := looseReader{text: string(data)}
	r.space()
	if r.at >= len(r.text) || r.text[r.at] != '{' {
		return nil, false
	}
	m, ok := r.object(0)
	r.space()
	if !ok || r.at != len(r.text) {
		return nil, false
	}
	// A document that is mostly air would stay in memory for the little it says.
	if len(data) > 4096+4*r.kept {
		return nil, false
	}
	return m, true
}

type looseReader struct {
	text string
	at   int
	kept int // bytes of strings
}

func (r *looseReader) space() {
	for r.at < len(r.text) {
		switch r.text[r.at] {
		case ' ', '\t', '\n', '\r':
			r.at++
		default:
			return
		}
	}
}

// next skips spaces and returns the byte that follows, 0 at the end.
func (r *looseReader) next() byte {
	r.space()
	if r.at >= len(r.text) {
		return 0
	}
	return r.text[r.at]
}

func (r *looseReader) object(depth int) (map[string]any, bool) {
	m := map[string]any{}
	r.at++
	if r.next() == '}' {
		r.at++
		return m, true
	}
	for n := 1; ; n++ {
		if r.next() != '"' {
			return nil, false
		}
		key, ok := r.string()
		if !ok || r.next() != ':' {
			return nil, false
		}
		r.at++
		v, ok := r.value(depth)
		if !ok {
			return nil, false
		}
		if m[key] = v; len(m) != n {
			return nil, false
		}
		switch r.next() {
		case ',':
			r.at++
		case '}':
			r.at++
			return m, true
		default:
			return nil, false
		}
	}
}

func (r *looseReader) list(depth int) ([]any, bool) {
	list := []any{}
	r.at++
	if r.next() == ']' {
		r.at++
		return list, true
	}
	for {
		v, ok := r.value(depth)
		if !ok {
			return nil, false
		}
		list = append(list, v)
		switch r.next() {
		case ',':
			r.at++
		case ']':
			r.at++
			return list, true
		default:
			return nil, false
		}
	}
}

func (r *looseReader) value(depth int) (any, bool) {
	if depth++; depth > maxLooseDepth {
		return nil, false
	}
	switch c := r.next(); {
	case c == '{':
		m, ok := r.object(depth)
		return m, ok
	case c == '[':
		l, ok := r.list(depth)
		return l, ok
	case c == '"':
		s, ok := r.string()
		return s, ok
	case c == '-' || c >= '0' && c <= '9':
		return r.number()
	case c == 't':
		return true, r.word("true")
	case c == 'f':
		return false, r.word("false")
	case c == 'n':
		return nil, r.word("null")
	}
	return nil, false
}

func (r *looseReader) word(w string) bool {
	if !strings.HasPrefix(r.text[r.at:], w) {
		return false
	}
	r.at += len(w)
	return true
}

// digits passes over digits and says how many there were.
func (r *looseReader) digits() int {
	from := r.at
	for r.at < len(r.text) && r.text[r.at] >= '0' && r.text[r.at] <= '9' {
		r.at++
	}
	return r.at - from
}

func (r *looseReader) peek(chars string) bool {
	return r.at < len(r.text) && strings.IndexByte(chars, r.text[r.at]) >= 0
}

func (r *looseReader) number() (any, bool) {
	from := r.at
	if r.peek("-") {
		r.at++
	}
	zero := r.peek("0")
	if n := r.digits(); n == 0 || zero && n > 1 {
		return nil, false
	}
	whole := true
	if r.peek(".") {
		whole = false
		r.at++
		if r.digits() == 0 {
			return nil, false
		}
	}
	if r.peek("eE") {
		whole = false
		r.at++
		if r.peek("+-") {
			r.at++
		}
		if r.digits() == 0 {
			return nil, false
		}
	}
	if whole {
		if n, err := strconv.ParseInt(r.text[from:r.at], 10, 64); err == nil {
			return n, true
		}
	}
	f, err := strconv.ParseFloat(r.text[from:r.at], 64)
	return f, err == nil
}

func (r *looseReader) string() (string, bool) {
	r.at++
	from, ascii := r.at, true
	for r.at < len(r.text) {
		switch c := r.text[r.at]; {
		case c == '"':
			s := r.text[from:r.at]
			r.at++
			r.kept += len(s)
			return s, ascii || utf8.ValidString(s)
		case c == '\\':
			return r.escaped(from)
		case c < ' ':
			return "", false
		case c >= utf8.RuneSelf:
			ascii = false
		}
		r.at++
	}
	return "", false
}

// escaped reads a string in which something is escaped.
func (r *looseReader) escaped(from int) (string, bool) {
	for ; r.at < len(r.text); r.at++ {
		switch r.text[r.at] {
		case '"':
			r.at++
			var s string
			raw := r.text[from-1 : r.at]
			if !utf8.ValidString(raw) || json.Unmarshal([]byte(raw), &s) != nil {
				return "", false
			}
			r.kept += len(s)
			return s, true
		case '\\':
			r.at++
		}
	}
	return "", false
}

// AppendLoose appends the JSON of what an unstructured object holds, byte for
// byte what encoding/json makes of it.
func AppendLoose(to []byte, v any) ([]byte, error) {
	w := looseWriters.Get().(*looseWriter)
	w.to, w.keys = to, w.keys[:0]
	err := w.value(v)
	to, w.to = w.to, nil
	clear(w.keys[:cap(w.keys)])
	looseWriters.Put(w)
	return to, err
}

// looseWriters are kept for the room in which they sort keys.
var looseWriters = sync.Pool{New: func() any { return &looseWriter{} }}

type looseWriter struct {
	to   []byte
	keys []string // a stack: the keys of the maps that are being written
}

func (w *looseWriter) value(v any) error {
	switch v := v.(type) {
	case map[string]any:
		return w.object(v)
	case []any:
		return w.list(v)
	case string:
		return w.string(v)
	case int64:
		w.to = strconv.AppendInt(w.to, v, 10)
	case bool:
		w.to = strconv.AppendBool(w.to, v)
	case nil:
		w.to = append(w.to, "null"...)
	default:
		return w.other(v)
	}
	return nil
}

// other writes what is rare.
func (w *looseWriter) other(v any) error {
	data, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("encode %T: %w", v, err)
	}
	w.to = append(w.to, data...)
	return nil
}

func (w *looseWriter) object(m map[string]any) error {
	if m == nil {
		w.to = append(w.to, "null"...)
		return nil
	}
	base := len(w.keys)
	for key := range m {
		w.keys = append(w.keys, key)
	}
	end := len(w.keys)
	slices.Sort(w.keys[base:end])
	w.to = append(w.to, '{')
	for i := base; i < end; i++ {
		if i > base {
			w.to = append(w.to, ',')
		}
		key := w.keys[i] // the stack may move while the value is written
		if err := w.string(key); err != nil {
			return err
		}
		w.to = append(w.to, ':')
		if err := w.value(m[key]); err != nil {
			return err
		}
	}
	w.to = append(w.to, '}')
	w.keys = w.keys[:base]
	return nil
}

func (w *looseWriter) list(list []any) error {
	if list == nil {
		w.to = append(w.to, "null"...)
		return nil
	}
	w.to = append(w.to, '[')
	for i, v := range list {
		if i > 0 {
			w.to = append(w.to, ',')
		}
		if err := w.value(v); err != nil {
			return err
		}
	}
	w.to = append(w.to, ']')
	return nil
}

func (w *looseWriter) string(s string) error {
	for i := 0; i < len(s); i++ {
		if c := s[i]; c < ' ' || c >= utf8.RuneSelf || c == '"' || c == '\\' || c == '<' || c == '>' || c == '&' {
			return w.other(s)
		}
	}
	w.to = append(w.to, '"')
	w.to = append(w.to, s...)
	w.to = append(w.to, '"')
	return nil
}

// SameLoose compares what unstructured objects hold, as reflect.DeepEqual does.
func SameLoose(a, b any) bool {
	switch a := a.(type) {
	case map[string]any:
		b, ok := b.(map[string]any)
		if !ok || len(a) != len(b) || (a == nil) != (b == nil) {
			return false
		}
		if reflect.ValueOf(a).UnsafePointer() == reflect.ValueOf(b).UnsafePointer() {
			return true
		}
		for key, v := range a {
			if w, ok := b[key]; !ok || !SameLoose(v, w) {
				return false
			}
		}
		return true
	case []any:
		b, ok := b.([]any)
		if !ok || len(a) != len(b) || (a == nil) != (b == nil) {
			return false
		}
		for i := range a {
			if !SameLoose(a[i], b[i]) {
				return false
			}
		}
		return true
	case string, int64, float64, bool, nil:
		return a == b
	}
	return reflect.DeepEqual(a, b)
}
