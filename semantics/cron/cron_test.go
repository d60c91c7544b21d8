package cron

import (
	"testing"
	"time"
)

func TestNext(t *testing.T) {
	berlin, err := time.LoadLocation("Europe/Berlin")
	if err != nil {
		berlin = time.FixedZone("CET", 3600)
	}
	at := func(s string) time.Time {
		v, err := time.Parse("2006-01-02T15:04:05", s)
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
	for _, c := range []struct{ line, from, want string }{
		{"*/5 * * * *", "2026-01-01T00:00:00", "2026-01-01T00:05:00"},
		{"*/5 * * * *", "2026-01-01T00:04:59", "2026-01-01T00:05:00"},
		{"0 0 * * *", "2026-12-31T23:59:00", "2027-01-01T00:00:00"},
		{"30 4 1,15 * 5", "2026-01-02T05:00:00", "2026-01-09T04:30:00"},
		{"0 0 29 feb *", "2026-01-01T00:00:00", "2028-02-29T00:00:00"},
		{"0 9-17/4 * * mon-fri", "2026-01-02T10:00:00", "2026-01-02T13:00:00"},
		{"@hourly", "2026-01-01T10:10:10", "2026-01-01T11:00:00"},
		{"@every 90s", "2026-01-01T00:00:00", "2026-01-01T00:01:30"},
	} {
		s, err := Parse(c.line)
		if err != nil {
			t.Fatalf("%s: %v", c.line, err)
		}
		if got := s.Next(at(c.from)); !got.Equal(at(c.want)) {
			t.Errorf("%s after %s: %s, want %s", c.line, c.from, got, c.want)
		}
	}
	s, _ := Parse("30 2 * * *")
	if got := s.Next(time.Date(2026, 3, 28, 12, 0, 0, 0, berlin)); got.IsZero() {
		t.Error("a skipped hour ends the schedule")
	}
	if s, _ := Parse("0 0 31 2 *"); !s.Next(at("2026-01-01T00:00:00")).IsZero() {
		t.Error("the 31st of February came")
	}
}

func TestParseErrors(t *testing.T) {
	for line, want := range map[string]string{
		"":              "empty spec string",
		"* * * *":       "expected exactly 5 fields, found 4: [* * * *]",
		"61 * * * *":    "end of range (61) above maximum (59): 61",
		"* * 0 * *":     "beginning of range (0) below minimum (1): 0",
		"x * * * *":     `failed to parse int from x: strconv.Atoi: parsing "x": invalid syntax`,
		"5-1 * * * *":   "beginning of range (5) beyond end of range (1): 5-1",
		"*/0 * * * *":   "step of range should be a positive number: */0",
		"@reboot":       "unrecognized descriptor: @reboot",
		"1-2-3 * * * *": "too many hyphens: 1-2-3",
	} {
		if _, err := Parse(line); err == nil || err.Error() != want {
			t.Errorf("%q: %v, want %s", line, err, want)
		}
	}
}
