package api

import "bytes"

// An exponent of four digits below zero means nothing, and the library that reads
// quantities takes time and memory without bound for one of ten digits. So a
// document with such a number is first read with all of them spoilt: who refuses
// that wants a quantity there and would have gone on for ever.

// Immense says whether data holds a number of such an exponent: then nothing but
// Decode may read quantities of it.
func Immense(data []byte) bool { return spoilt(data) != nil }

// spoilt returns data with each number of such an exponent made a text of the same
// length that is no number; nil when there is none, which is nearly always.
func spoilt(data []byte) []byte {
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
		if end-minus > 4 && minus >= 2 && data[minus-1]|0x20 == 'e' && (isDigit(data[minus-2]) || data[minus-2] == '.') {
			if out == nil {
				out = bytes.Clone(data)
			}
			out[end-1] = '?'
		}
		at = end
	}
}

func isDigit(c byte) bool { return c >= '0' && c <= '9' }
