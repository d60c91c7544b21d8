package cron_test

import (
	"strings"
	"testing"
	"time"

	"github.com/sampan-dev/sampan/semantics/cron"
)

// FuzzParse: a line that is taken has its next time later than now, or none.
func FuzzParse(f *testing.F) {
	for _, line := range []string{"*/5 0-23/2 1,15 * mon-fri", "@every 1h", "@hourly", "0 0 30 2 *", "0 0 31 2-4/99999999999 ?", "*/0 * * * *", "60 * * * *", "59-0 * * * *", "TZ=UTC * * * * *", "", "     ",
		"١ * * * *", "-1 * * * *", "* * * * 7", "* * * jan-\xff *", strings.Repeat("1,", 50_000) + "1 * * * *", "1/1/1 * * * *", "@every 9999999h", "@every -1s"} {
		f.Add(line, int64(1_700_000_000))
		f.Add(line, int64(-62_135_596_800))
	}
	f.Fuzz(func(t *testing.T, line string, unix int64) {
		s, err := cron.Parse(line)
		if err != nil {
			return
		}
		now := time.Unix(unix%200_000_000_000, 0).UTC()
		if next := s.Next(now); !next.IsZero() && !next.After(now) {
			t.Errorf("%q: after %v comes %v", line, now, next)
		}
	})
}
