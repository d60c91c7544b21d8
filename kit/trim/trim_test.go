package trim

import "testing"

// table is read-only data of the program, large enough to be pages of its own.
const table = "the pages that hold this are forgotten and read again"

func TestTheProgramGoesOnAfterItsPagesAreForgotten(t *testing.T) {
	ranges, err := programPages()
	if err != nil || len(ranges) == 0 {
		t.Fatalf("mappings of the program = %v, %v; want its code at least", ranges, err)
	}
	if err := Now(); err != nil {
		t.Fatal(err)
	}
	if got := len([]byte(table)); got != 53 {
		t.Errorf("read %d bytes", got)
	}
}

func TestOnlyWhatCannotBeWrittenIsForgotten(t *testing.T) {
	for line, want := range map[string]bool{
		"00400000-01bd1000 r-xp 00000000 fe:00 1234                       /bin/sampan": true,
		"01bd1000-03000000 r--p 017d1000 fe:00 1234                       /bin/sampan": true,
		"03000000-03100000 rw-p 02c00000 fe:00 1234                       /bin/sampan": false,
		"7f0000000000-7f0000001000 r--p 00000000 fe:00 99                 /lib/other":  false,
		"c000000000-c000400000 rw-p 00000000 00:00 0":                                  false,
		"": false,
	} {
		if _, ok := readOnly(line, "/bin/sampan"); ok != want {
			t.Errorf("%q: forgotten = %v, want %v", line, ok, want)
		}
	}
}
