package api

import (
	"bytes"
	"encoding/binary"
)

// An exponent of four digits below zero means nothing, and the library that reads
// quantities takes time and memory without bound for one of ten digits. So a
// document with such a number is first read with all of them spoilt: who refuses
// that wants a quantity there and would have gone on for ever.

// Immense says whether data holds a number of such an exponent: then nothing but
// Decode may read quantities of it.
func Immense(data []byte) bool { return spoilt(FormatJSON, data) != nil }

// spoilt returns data with each number of such an exponent made a text of the same
// length that is no number; nil when there is none, which is nearly always.
func spoilt(f Format, data []byte) []byte {
	var out []byte
	for at := 0; ; {
		n := bytes.IndexByte(data[at:], '-')
		if n < 0 {
			return out
		}
		minus := at + n
		end := minus + 1
		for end < len(data) && isDigit(data[end]) {
			end++
		}
		if end-minus > 4 && minus >= 2 && data[minus-1]|0x20 == 'e' && (isDigit(data[minus-2]) || data[minus-2] == '.') && (f != FormatProtobuf || isText(data, minus)) {
			if out == nil {
				out = bytes.Clone(data)
			}
			out[minus+1] = '?' // not its end: in protobuf what looks like another digit may be the next field's tag
		}
		at = end
	}
}

// isText says whether the number in protobuf whose exponent's sign is at minus is
// a quantity's, which is a text of its own as field 1: what else looks like one,
// half of a UID with the tag after it, must stay as it is.
func isText(data []byte, minus int) bool {
	for s := minus - 2; s >= 2 && (isDigit(data[s]) || data[s] == '.' || data[s] == '+' || data[s] == '-'); s-- {
		for width := 1; width <= 3 && s-width >= 1; width++ {
			length, n := binary.Uvarint(data[s-width : s])
			if n == width && data[s-width-1] == 1<<3|2 && uint64(s)+length > uint64(minus+1) && length <= uint64(len(data)-s) {
				return true
			}
		}
		if s < minus-2 && data[s] == '-' {
			break
		}
	}
	return false
}

func isDigit(c byte) bool { return c >= '0' && c <= '9' }
