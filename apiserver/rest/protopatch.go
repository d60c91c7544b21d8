package rest

import (
	"bytes"
	"encoding/binary"
	"strconv"
)

// Field numbers of the envelope (runtime.Unknown), of any object and of its
// metadata, as generated.proto gives them.
const (
	unknownRaw          = 2
	objectMetadata      = 1
	metaResourceVersion = 6
)

// patchRevision returns a stored protobuf value with its resourceVersion set:
// what a client gets. ok is false when the value has not the expected shape.
func patchRevision(value []byte, rev int64) (_ []byte, ok bool) {
	body, isProto := bytes.CutPrefix(value, protoMagic)
	if !isProto {
		return nil, false
	}
	raw, at, ok := findField(body, unknownRaw)
	if !ok {
		return nil, false
	}
	meta, metaAt, ok := findField(raw, objectMetadata)
	if !ok || metaAt.start != 0 {
		return nil, false
	}
	newMeta, ok := setRevision(meta, rev)
	if !ok {
		return nil, false
	}
	rest := raw[metaAt.end:]
	rawLen := 1 + uvarintLen(uint64(len(newMeta))) + len(newMeta) + len(rest)
	out := make([]byte, 0, len(value)+len(newMeta)-len(meta)+8)
	out = append(out, protoMagic...)
	out = append(out, body[:at.start]...)
	out = append(out, unknownRaw<<3|2)
	out = binary.AppendUvarint(out, uint64(rawLen))
	out = append(out, objectMetadata<<3|2)
	out = binary.AppendUvarint(out, uint64(len(newMeta)))
	out = append(out, newMeta...)
	out = append(out, rest...)
	return append(out, body[at.end:]...), true
}

// setRevision returns an encoded ObjectMeta with field 6 replaced, or inserted
// where it belongs.
func setRevision(meta []byte, rev int64) ([]byte, bool) {
	start, end := len(meta), len(meta)
	for p := 0; p < len(meta); {
		num, next, ok := skipField(meta, p)
		if !ok {
			return nil, false
		}
		if num >= metaResourceVersion {
			start, end = p, p
			if num == metaResourceVersion {
				end = next
			}
			break
		}
		p = next
	}
	text := strconv.FormatInt(rev, 10)
	out := make([]byte, 0, len(meta)+len(text)+2)
	out = append(out, meta[:start]...)
	out = append(out, metaResourceVersion<<3|2, byte(len(text)))
	out = append(out, text...)
	return append(out, meta[end:]...), true
}

type span struct{ start, end int }

// findField returns the contents and the place of the first length-delimited
// field of that number.
func findField(b []byte, want int) ([]byte, span, bool) {
	for p := 0; p < len(b); {
		num, next, ok := skipField(b, p)
		if !ok {
			return nil, span{}, false
		}
		if num == want {
			_, k := binary.Uvarint(b[p:])
			_, l := binary.Uvarint(b[p+k:])
			return b[p+k+l : next], span{p, next}, true
		}
		p = next
	}
	return nil, span{}, false
}

// skipField returns the number of the field at p and where the next begins.
func skipField(b []byte, p int) (num, next int, ok bool) {
	tag, n := binary.Uvarint(b[p:])
	if n <= 0 {
		return 0, 0, false
	}
	q := p + n
	switch tag & 7 {
	case 0:
		_, n := binary.Uvarint(b[q:])
		if n <= 0 {
			return 0, 0, false
		}
		q += n
	case 1:
		q += 8
	case 2:
		l, n := binary.Uvarint(b[q:])
		if n <= 0 || l > uint64(len(b)) {
			return 0, 0, false
		}
		q += n + int(l)
	case 5:
		q += 4
	default:
		return 0, 0, false
	}
	return int(tag >> 3), q, q <= len(b)
}

func uvarintLen(v uint64) int {
	n := 1
	for ; v >= 0x80; v >>= 7 {
		n++
	}
	return n
}
