// Package monster holds hostile texts, the first that every fuzz target is fed
// with, and judges what reading them costs.
//
// Job: documents that are deep, long, self-multiplying or broken; a bound of the
// memory that a function allocates.
//
// Not its job: what a reader should answer. Tests alone import it.
package monster

import (
	"fmt"
	"iter"
	"runtime"
	"strings"
	"testing"
)

// Depth is deeper than any document that means something.
const Depth = 20_000

// JSON yields hostile documents of JSON, most of them broken.
func JSON() iter.Seq2[string, []byte] {
	deep := strings.Repeat(`{"a":`, Depth)
	return pairs(
		"nothing", "", "null", "null", "a number", "7", "a string", `"x"`, "an empty list", "[]", "a list of nothing", "[null,null]",
		"deep lists", strings.Repeat("[", Depth), "deep lists, closed", strings.Repeat("[", Depth)+strings.Repeat("]", Depth),
		"deep objects", deep, "deep objects, closed", deep+"1"+strings.Repeat("}", Depth),
		"a huge whole number", `{"a":1`+strings.Repeat("0", 5000)+`}`, "a huge exponent", `{"a":1e999999999}`, "a tiny exponent", `{"a":-1e-999999999}`,
		"a number beyond int64", `{"a":9223372036854775808,"b":-9223372036854775809}`,
		"a long list", `{"a":[`+strings.Repeat("0,", 20_000)+`0]}`, "many keys", `{`+strings.Repeat(`"a":1,`, 5000)+`"a":1}`,
		"no UTF-8", "{\"a\":\"\xff\xfe\xed\xa0\x80\",\"\xc3\x28\":1}", "half a surrogate", `{"a":"\ud800","b":"\udc00\ud800"}`, "a zero", "{\"a\":\"\x00\"}",
		"the same key thrice", `{"metadata":{},"metadata":7,"metadata":null}`, "more behind", `{} {}`, "cut off", `{"a":{"b":"c`,
		"wrong everywhere", `{"apiVersion":1,"kind":{},"metadata":[],"spec":"x","status":0,"items":{}}`,
	)
}

// YAML yields hostile documents of YAML, which JSON is a part of.
func YAML() iter.Seq2[string, []byte] {
	return pairs(
		"nothing", "", "documents of nothing", "---\n---\n", "an alias bomb", Bomb(9), "a bomb of merges", merges(12), "itself", "a: &a [*a]", "itself, merged", "a: &a {<<: *a}",
		"no such anchor", "a: *b", "deep flow", strings.Repeat("[", Depth), "deep block", strings.Repeat("- ", 10_000), "deep keys", strings.Repeat("? ", 10_000),
		"a tag", "!!binary a", "an unknown tag", "a: !x {}", "a key that is a map", "{a: 1}: b", "a key that is null", "~: 1", "a number as key", "1: 2\n0x1: 3", "tabs", "a:\n\t- b",
		"no UTF-8", "a: \xff\xfe", "another encoding", "\xff\xfea\x00:\x00", "an infinity", "a: .inf\nb: .nan", "a sexagesimal", "a: 190:20:30", "a day", "a: 2001-12-14",
		"a huge number", "a: 1"+strings.Repeat("0", 5000), "a long line", "a: "+strings.Repeat("x", 100_000), "many keys", strings.Repeat("a: 1\n", 3000),
	)
}

// Proto yields hostile values of protobuf in the envelope of stored objects.
func Proto() iter.Seq2[string, []byte] {
	const magic = "k8s\x00"
	return pairs(
		"no body", magic, "half the magic", "k8", "a field without end", magic+"\x0a\xff\xff\xff\xff\x7f", "a length beyond int", magic+"\x12\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01",
		"a number without end", magic+strings.Repeat("\xff", 100), "groups in groups", magic+strings.Repeat("\x0b", 1000), "fields in fields", magic+strings.Repeat("\x0a", 1000),
		"a pod of nothing", magic+"\n\x09\n\x02v1\x12\x03Pod\x12\x00", "an unknown kind", magic+"\n\x07\n\x02v1\x12\x01?\x12\x00", "metadata cut off", magic+"\n\x09\n\x02v1\x12\x03Pod\x12\x04\x0a\x08\x0a\x01",
		"field zero", magic+"\x00\x00\x00",
	)
}

// Bomb is YAML of a few hundred bytes that stands for 9 to the power of n strings.
func Bomb(n int) string {
	var b strings.Builder
	b.WriteString("kind: ConfigMap\napiVersion: v1\nmetadata: {name: b}\na0: &a0 [x,x,x,x,x,x,x,x,x]\n")
	for i := 1; i < n; i++ {
		fmt.Fprintf(&b, "a%d: &a%d [%s]\n", i, i, strings.TrimSuffix(strings.Repeat(fmt.Sprintf("*a%d,", i-1), 9), ","))
	}
	return b.String()
}

// merges is the same with maps that are merged into each other.
func merges(n int) string {
	var b strings.Builder
	b.WriteString("m0: &m0 {a: b}\n")
	for i := 1; i < n; i++ {
		fmt.Fprintf(&b, "m%d: &m%d {<<: [%s], k%d: *m%d}\n", i, i, strings.TrimSuffix(strings.Repeat(fmt.Sprintf("*m%d,", i-1), 9), ","), i, i-1)
	}
	return b.String()
}

func pairs(list ...string) iter.Seq2[string, []byte] {
	return func(yield func(string, []byte) bool) {
		for i := 0; i+1 < len(list); i += 2 {
			if !yield(list[i], []byte(list[i+1])) {
				return
			}
		}
	}
}

// Room is what reading a document may allocate in all, garbage included: so many
// times its size, and so much whatever its size.
const (
	Room   = 256 << 20
	Factor = 2000
)

// Bounded calls read and fails t when it allocates more than a document of size
// bytes may cost. What others allocate meanwhile counts too, so call it from one
// goroutine at a time.
func Bounded(t testing.TB, size int, read func()) {
	t.Helper()
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	read()
	runtime.ReadMemStats(&after)
	if took, most := after.TotalAlloc-before.TotalAlloc, uint64(Room+Factor*size); took > most {
		t.Errorf("%d bytes cost %d MiB of memory, more than %d MiB", size, took>>20, most>>20)
	}
}
